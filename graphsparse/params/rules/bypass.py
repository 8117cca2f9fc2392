"""Whole blocks become the identity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphsparse.keep_rule import is_number
from graphsparse.params.choice import ALL
from graphsparse.params.grains import Modules
from graphsparse.params.hooks import seen_by_compiled_models
from graphsparse.params.joint import Joint, one
from graphsparse.params.ranks import over_ranks, world
from graphsparse.params.rules.adam import Moments
from graphsparse.params.rules.late import Late
from graphsparse.params.rules.rule import RULES, check_share, of_steps
from graphsparse.params.schedule import Constant
from graphsparse.params.scores.magnitude import by_magnitude
from graphsparse.params.tensors import empty_mask
from graphsparse.params.whole_blocks import bypass_, first_of


@RULES.register("bypass")
@dataclass(frozen=True)
class Bypass(Late):
    r"""Gates choose whole blocks, a distance makes them superfluous, then they become the identity.

    First every block of input x and output f(x) gives :math:`x + \alpha (f(x) - x)`, which of a residual block is its
    branch times :math:`\alpha`, and the loss has :math:`\lambda_1 \sum |\alpha|`; gates begin at 1. Then the blocks of
    smallest :math:`|\alpha|` are out: all gates are 1 again, and the loss has :math:`\lambda_2 \sum \|f(x) - x\|` over
    these, the mean over examples of the distance per root of its size. At ``until`` they are cut; what is left
    fine-tunes. :meth:`Sparsifier.finish` puts :class:`Bypassed` in their places.

    Gates have an Adam of their own. The distance enters the backward pass as if it were part of the loss; if
    the loss is multiplied by an AMP scaler, ``attach`` must know it.

    Args:
        gates: :math:`\lambda_1`.
        distance: :math:`\lambda_2`.
        chosen: the share of the training after which the blocks are chosen.
        until: that after which they are cut.
        lr: learning rate of the gates.

    Raises:
        ValueError: for numbers out of range, a pattern other than :class:`Modules`, blocks whose input and output
            differ in shape (at the first pass), a score or a schedule.

    Source: Feng et al., "Two-stage regularization-based structured pruning for LLMs", 2025.
    """

    gates: float = 0.01
    distance: float = 0.1
    chosen: float = 0.25
    until: float = 0.75
    lr: float = 0.01

    def __post_init__(self) -> None:
        for name in ("gates", "distance", "lr"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise ValueError(f"{name} must be a number from 0 on, got {value!r:.50}")
        check_share(self.chosen, "chosen")
        super().__post_init__()
        if self.chosen > self.until:
            raise ValueError(f"blocks are chosen before they are cut: chosen={self.chosen}, until={self.until}")

    def check(self, joint: Joint) -> None:
        """Refuse what is no block."""
        if not isinstance(joint.choice.pattern, Modules):
            raise ValueError(
                "Bypass takes out whole blocks: pattern=Modules(names); find_blocks(net, x) names those whose input "
                "and output have one shape"
            )
        if joint.score is not by_magnitude:
            raise ValueError("Bypass ranks blocks by their gates: leave score= out")
        if joint.schedule != Constant():
            raise ValueError("Bypass chooses once: leave schedule= out")
        super().check(joint)

    def prepare(self, joint: Joint) -> None:
        """Open all gates."""
        device = next(iter(joint.parameters.values())).device
        joint.extra["gates"] = torch.ones(joint.choice.total, dtype=torch.float64, device=device)
        Moments.prepare(joint.extra, "gates", joint.extra["gates"])

    def dress(self, joint: Joint) -> None:
        """Gate the blocks."""
        assert isinstance(joint.choice.pattern, Modules)
        for name in joint.choice.pattern.names:
            hook = Gate(name)
            handle = joint.model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
            joint.hooks.append((hook, handle))
        seen_by_compiled_models()
        self._show(joint)

    def restored(self, joint: Joint) -> None:
        """Show the gates that were loaded."""
        self._show(joint)

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Train the gates."""
        super().before_step(joint, optimizer)
        if joint.cut or joint.step >= self._choosing(joint):
            return
        gates = joint.extra["gates"]
        heard = torch.stack([hook.slope.to(gates) for hook, _ in joint.hooks])
        slope = (over_ranks(heard) / (world() * joint.loss_scale())).nan_to_num(0, 0, 0)  # of a skipped step: infinite
        slope = slope + self.gates * gates.sign()  # before Adam, whose steps are of one size whatever the slope is
        Moments.step(joint.extra, "gates", gates, slope, self.lr, joint.step + 1)

    def weaken(self, joint: Joint, optimizer: Optimizer) -> None:
        """Choose by the gates, until they are decided."""
        choosing = self._choosing(joint)
        if joint.step <= choosing:
            self.last(joint)
        if joint.step == choosing:
            joint.extra["gates"].fill_(1)
        self._show(joint)

    def last(self, joint: Joint) -> None:
        """The choice was made before."""
        if joint.step <= self._choosing(joint):
            masks = {name: empty_mask(parameter) for name, parameter in joint.parameters.items()}
            ((_, k),) = joint.choice.contests(joint.keep)
            joint.choice.best_units({ALL: joint.extra["gates"].abs()}, k, masks)
            joint.install(masks)

    def cut(self, joint: Joint) -> None:
        """The blocks are passed by from now on."""
        super().cut(joint)
        self._show(joint)

    def finish(self, joint: Joint) -> None:
        """Leave the identity in the blocks' places."""
        super().finish(joint)
        for _, handle in joint.hooks:
            handle.remove()
        joint.hooks = []
        bypass_(joint.model, [name for name, stays in self._blocks(joint) if not stays])

    def _choosing(self, joint: Joint) -> int:
        return of_steps(self.chosen, joint, "Bypass")

    @staticmethod
    def _blocks(joint: Joint) -> list[tuple[str, bool]]:
        assert isinstance(joint.choice.pattern, Modules)
        held = joint.choice.held(ALL, joint.masks).tolist()
        return list(zip(joint.choice.pattern.names, held, strict=True))

    def _show(self, joint: Joint) -> None:
        """Tell the hooks what to do in the next step."""
        decided = joint.step >= self._choosing(joint)
        gates = joint.extra["gates"].tolist()
        for (hook, _), gate, (_, stays) in zip(joint.hooks, gates, self._blocks(joint), strict=True):
            hook.slope.zero_()
            hook.gate = (1.0 if stays or not joint.cut else 0.0) if decided or joint.cut else gate
            pulls = decided and not (joint.cut or stays)
            hook.pull, hook.scale = self.distance if pulls else 0.0, joint.loss_scale


class Gate:
    """A forward hook: the output of a block between its input and what it computes; a copy works by itself.

    Attributes:
        gate: 1 for what the block computes, 0 for its input.
        pull: strength by which the output is drawn to the input.
        scale: gives the factor of the loss.
        slope: the gradient of the gate since the last step.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate, self.pull = 1.0, 0.0
        self.scale: Callable[[], float] = one
        self.slope = torch.zeros((), dtype=torch.float64)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # what it adds up is no part of the graph
    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor:
        x = first_of(inputs, named)
        if x is None or not isinstance(output, Tensor) or x.shape != output.shape:
            shapes = [[*v.shape] if isinstance(v, Tensor) else type(v).__name__ for v in (x, output)]
            raise ValueError(
                f"the block {self.name!r} makes {shapes[1]} of {shapes[0]}: only one whose input and output are "
                "tensors of one shape can become the identity; find_blocks(net, x) names those"
            )
        if self.pull and module.training and torch.is_grad_enabled():
            pulled: Tensor = _Pulled.apply(output, x, self.pull * self.scale())  # type: ignore[no-untyped-call]
            return pulled
        gated: Tensor = _Gated.apply(output, x, self.gate, self.slope)  # type: ignore[no-untyped-call]
        return gated

    def __deepcopy__(self, memo: object) -> Gate:
        twin = Gate(self.name)
        twin.gate, twin.pull = self.gate, self.pull
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return Gate, (self.name,), {"gate": self.gate, "pull": self.pull}


class _Gated(torch.autograd.Function):
    """A point between two tensors, whose slope is added up."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, gate: float, slope: Tensor) -> Tensor:
        ctx.save_for_backward(output, x)
        ctx.gate, ctx.slope = gate, slope
        if gate in (0.0, 1.0):
            return (output if gate else x).clone()
        return x + gate * (output - x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        output, x = ctx.saved_tensors
        ctx.slope.add_((gradient * (output - x)).sum(dtype=torch.float64).to(ctx.slope.device))
        return gradient * ctx.gate, gradient * (1 - ctx.gate), None, None


class _Pulled(torch.autograd.Function):
    """A block's output, to whose gradient that of its distance from the input is added."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, strength: float) -> Tensor:
        ctx.save_for_backward(output, x)
        ctx.strength = strength
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        output, x = ctx.saved_tensors
        away = (output - x).float().flatten(1)
        size = away.norm(dim=1, keepdim=True).clamp(min=1e-12)
        per_example = ctx.strength / (len(away) * math.sqrt(max(away.shape[1], 1)))
        pull = (away / size * per_example).view_as(output).to(output.dtype)
        return gradient + pull, -pull, None
