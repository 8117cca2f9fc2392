"""Masked in the forward pass only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from graphsparse.keep_rule import is_number
from graphsparse.params import masked
from graphsparse.params.joint import Joint, dense_gradient
from graphsparse.params.rules.rule import RULES, Rule, check_share, end, of_steps
from graphsparse.params.scores.evidence import momentary
from graphsparse.params.tensors import fast, flat
from graphsparse.registry import one_of

_DECAY_OF_FADE = 5.0  # exp(-5): less than a hundredth of a weight is left when fading ends


@RULES.register("straight-through")
@dataclass(frozen=True)
class StraightThrough(Rule):
    r"""All weights are trained; the layers see those of the mask only, which is chosen anew after every step.

    .. math:: \tilde w = w \odot (m + \beta_t (1 - m)), \qquad
        w \leftarrow w - \eta \big(\nabla_{\tilde w} + \lambda (1 - m) \odot w \big)

    Args:
        decay: :math:`\lambda`, which pulls the weights outside the mask to zero, so that the mask settles (SR-STE). It
            is added to the gradient: the learning rate and the momentum act on it.
        fade: how :math:`\beta_t` goes from 1 to 0: ``"linear"``, ``"exponential"`` (:math:`e^{-5 t / t_1}`), or None,
            at once.
        until: the share of the training at which :math:`\beta` is 0, with ``fade``.

    Raises:
        ValueError: for a decay or share out of range, or an unknown way to fade.

    Source: Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch", ICLR 2021,
    equation 9; Bambhaniya et al., 2024, for fading masks.
    """

    decay: float = 2e-4
    fade: str | None = None
    until: float = 0.75
    dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (is_number(self.decay) and self.decay >= 0):
            raise ValueError(f"decay must be a number from 0 on, got {self.decay!r:.50}")
        object.__setattr__(self, "fade", one_of(self.fade, "fade", ("linear", "exponential"), none=True))
        check_share(self.until, "until")

    def check(self, joint: Joint) -> None:
        """Refuse a fading of unknown length, and scores by gradients, which are not there after a step."""
        if self.fade is not None and of_steps(self.until, joint, "fading") < 1:
            raise ValueError(f"steps={joint.steps} is too short to fade in until={self.until} of it")
        if momentary(joint.score):
            raise ValueError("StraightThrough chooses after every step, by a score without gradients")

    def begin(self, joint: Joint) -> None:
        """Choose the first masks; the weights stay."""
        joint.install(joint.chosen(joint.keep_at(0)))

    def dress(self, joint: Joint) -> None:
        """Let the layers see their weights through the masks."""
        joint.installed = {name: masked.Masked(mask, self._left(joint)) for name, mask in joint.masks.items()}
        joint.orders = masked.install(joint.model, joint.parameters, joint.installed)

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Add the decay to the gradients."""
        if not self.decay:
            return
        for name, parameter in joint.parameters.items():
            if (gradient := dense_gradient(name, parameter)) is not None:
                scale = 1.0 if joint.scale is None else joint.scale.to(parameter.device)
                _add_outside(gradient, parameter, joint.masks[name], self.decay * scale)

    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Choose anew."""
        joint.install(joint.chosen(joint.keep_at(joint.step)))
        if self.fade is not None:
            for own in joint.installed.values():
                assert isinstance(own, masked.Masked)
                own.fade.fill_(self._left(joint))

    def ready(self, joint: Joint) -> bool:
        """The schedule has ended, and nothing outside the mask is seen any more."""
        return joint.settled and not self._left(joint)

    def finish(self, joint: Joint) -> None:
        """Write the masked weights into the parameters, and take the parametrizations away."""
        if not joint.settled:
            end(joint)
            joint.install(joint.chosen(joint.keep))
        joint.zero_outside()
        masked.remove(list(joint.installed.values()), joint.orders)
        joint.masks = {name: mask.clone() for name, mask in joint.masks.items()}
        joint.installed, joint.orders = {}, []

    def _left(self, joint: Joint) -> float:
        if self.fade is None:
            return 0.0
        over = of_steps(self.until, joint, "fading")
        if joint.step >= over:
            return 0.0
        share = joint.step / over
        return 1 - share if self.fade == "linear" else math.exp(-_DECAY_OF_FADE * share)


def _add_outside(gradient: Tensor, weight: Tensor, mask: Tensor, factor: float | Tensor) -> None:
    """Add to a gradient, in place, a factor times the weights that a mask does not keep."""
    if isinstance(factor, Tensor) or not fast(gradient, weight, mask):
        gradient.add_(weight.masked_fill(mask, 0) * factor)
        return
    from graphsparse.params import kernels

    kernels.add_outside(flat(gradient), flat(weight), flat(mask).view(np.uint8), np.float32(factor))
    increment_version(gradient)  # autograd does not see what numba writes
