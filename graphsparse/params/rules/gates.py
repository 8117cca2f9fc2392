"""Noisy gates: a unit stays if its gate carries more signal than noise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from graphsparse.keep_rule import is_number
from graphsparse.params import masked
from graphsparse.params.joint import Joint, check_finite, dense_gradient
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.rules.adam import Moments
from graphsparse.params.rules.late import Late
from graphsparse.params.rules.rule import RULES
from graphsparse.params.scores.magnitude import by_magnitude
from graphsparse.params.tensors import empty_mask

_FIRST = -6.0  # the gates' first log variance: noise of a twentieth of the signal


@RULES.register("gates")
@dataclass(frozen=True)
class Gates(Late):
    r"""Every unit's weights are multiplied by a random gate, whose noise the training can learn to suppress.

    .. math:: z_u = \mu_u + \sigma_u \epsilon, \quad \epsilon \sim N(0, 1), \qquad
        \text{loss} + \lambda \sum_u \tfrac12 \log\big(1 + \mu_u^2 / \sigma_u^2\big)

    Units of largest :math:`\mu_u^2 / \sigma_u^2` stay. When the others are cut, at ``until``, :math:`\mu_u` becomes
    part of the weights. Gates begin at 1 and are trained by an Adam of their own, from the gradients of the weights,
    which all processes of a distributed training share. A layer sees its gates in :math:`z_u w`: its bias, unless it
    is part of the unit, passes by. In evaluation there is no noise.

    For neurons the pattern is ``Rows()``, for the heads of ``MultiheadAttention`` of width d in E dimensions
    ``Blocks(E, d)`` with ``which=["*out_proj.weight"]``, for modules ``Modules(names)``.

    Args:
        strength: :math:`\lambda`, in the units of the loss.
        lr: learning rate of the gates.
        until: the share of the training after which units are cut for good.

    Raises:
        ValueError: for numbers out of range, N:M, a score, and what :class:`Shrink` raises.

    Source: Dai et al., "Compressing neural networks using the variational information bottleneck", ICML 2018; VTrans,
    2024, for heads and layers.
    """

    strength: float = 1e-3
    lr: float = 0.02
    until: float = 0.75

    def __post_init__(self) -> None:
        for name in ("strength", "lr"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise ValueError(f"{name} must be a number from 0 on, got {value!r:.50}")
        super().__post_init__()

    def check(self, joint: Joint) -> None:
        """Refuse what has no units, or another order of them."""
        if isinstance(joint.choice.pattern, NofM):
            raise ValueError("Gates are those of units, and N:M has none: use Rows(), Blocks() or Modules()")
        if joint.score is not by_magnitude:
            raise ValueError("Gates rank units by their own signal and noise: leave score= out")
        super().check(joint)

    def prepare(self, joint: Joint) -> None:
        """Open all gates."""
        device = next(iter(joint.parameters.values())).device
        for pool, count in joint.choice.units.items():
            joint.extra[f"{pool} mean"] = torch.ones(count, dtype=torch.float64, device=device)
            joint.extra[f"{pool} log variance"] = torch.full((count,), _FIRST, dtype=torch.float64, device=device)
            for part in ("mean", "log variance"):
                Moments.prepare(joint.extra, f"{pool} {part}", joint.extra[f"{pool} {part}"])

    def dress(self, joint: Joint) -> None:
        """Let the layers see their weights through gates."""
        for pool, names in joint.choice.pools.items():
            values, means = self._drawn(joint, pool), joint.extra[f"{pool} mean"].clone()
            for name in names:
                spread = partial(joint.choice.at_elements, name=name)
                joint.installed[name] = masked.Scaled(spread, values.clone(), means.clone())
        joint.orders = masked.install(joint.model, joint.parameters, joint.installed)

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """From the gradients of what the layers see: those of the gates, and those of the weights."""
        if joint.cut:
            joint.mask_gradients()
            return
        for name, parameter in joint.parameters.items():
            if (gradient := dense_gradient(name, parameter)) is not None:
                check_finite(gradient, f"the gradient of {name!r}")
        for pool, names in joint.choice.pools.items():
            if all(joint.parameters[name].grad is None for name in names):
                continue
            self._learn(joint, pool, joint.choice.summed(partial(_product, joint), pool))
            for name in names:
                grad, link = joint.parameters[name].grad, joint.installed[name]
                assert isinstance(link, masked.Scaled)
                if grad is not None:
                    grad.mul_(link.factors(link.values, grad))

    def weaken(self, joint: Joint, optimizer: Optimizer) -> None:
        """Draw new noise, and choose."""
        for pool, names in joint.choice.pools.items():
            values = self._drawn(joint, pool)
            for name in names:
                self._show(joint, name, values, joint.extra[f"{pool} mean"])
        joint.install(self._chosen(joint))

    def last(self, joint: Joint) -> None:
        """The cut itself chooses."""

    def cut(self, joint: Joint) -> None:
        """The strongest gates become part of their weights, the others' weights go."""
        self.end_schedule(joint)
        joint.install(self._chosen(joint))
        for pool in joint.choice.pools:
            means = joint.extra[f"{pool} mean"]
            for name, factors in joint.choice.shared(means, pool):
                parameter = joint.parameters[name]
                parameter.mul_(factors.to(parameter.dtype))
                self._show(joint, name, torch.ones_like(means), torch.ones_like(means))
            means.fill_(1)
        joint.cut = True
        joint.zero_outside()

    def finish(self, joint: Joint) -> None:
        """Leave plain weights."""
        super().finish(joint)
        masked.remove(list(joint.installed.values()), joint.orders)
        joint.installed, joint.orders = {}, []

    def _learn(self, joint: Joint, pool: str, gradient: Tensor) -> None:
        mean, spread = joint.extra[f"{pool} mean"], joint.extra[f"{pool} log variance"]
        ratio = mean.square() * (-spread).exp()
        noise = self._noise(joint, pool) * (spread / 2).exp()
        slopes = {
            "mean": gradient + self.strength * mean / (mean.square() + spread.exp()),
            "log variance": gradient * noise / 2 - self.strength * ratio / (1 + ratio) / 2,
        }
        for part, slope in slopes.items():
            name = f"{pool} {part}"
            Moments.step(joint.extra, name, joint.extra[name], slope, self.lr, joint.step + 1)

    def _drawn(self, joint: Joint, pool: str) -> Tensor:
        """The gates of the next step."""
        noise = self._noise(joint, pool)
        return joint.extra[f"{pool} mean"] + (joint.extra[f"{pool} log variance"] / 2).exp() * noise

    def _noise(self, joint: Joint, pool: str) -> Tensor:
        """The same in every process, and at every pass of one step."""
        words = hashlib.sha256(f"{joint.seed} {joint.step} {pool}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(words[:8], "little") >> 1)
        mean = joint.extra[f"{pool} mean"]
        return torch.randn(len(mean), generator=generator, dtype=mean.dtype).to(mean.device)

    def _chosen(self, joint: Joint) -> dict[str, Tensor]:
        masks = {name: empty_mask(parameter) for name, parameter in joint.parameters.items()}
        for pools, k in joint.choice.contests(joint.keep_at(joint.step)):
            signal = {
                pool: joint.extra[f"{pool} mean"].abs() * (-joint.extra[f"{pool} log variance"] / 2).exp()
                for pool in pools
            }
            own = {name: masks[name] for pool in pools for name in joint.choice.pools[pool]}
            joint.choice.best_units(signal, k, own)
        return masks

    def _show(self, joint: Joint, name: str, values: Tensor, means: Tensor) -> None:
        link = joint.installed.get(name)
        if isinstance(link, masked.Scaled):
            link.values.copy_(values)
            link.means.copy_(means)


def _product(joint: Joint, name: str) -> Tensor:
    """What each weight adds to the gradient of its gate."""
    parameter = joint.parameters[name]
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    found = parameter.grad * parameter.detach()
    return found if joint.scale is None else found / joint.scale
