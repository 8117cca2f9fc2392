"""A proximal step after each step of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.optim import Optimizer

from graphsparse.keep_rule import is_number
from graphsparse.params.joint import Joint, check_finite
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.penalties import PENALTIES, Pool, Shrinkage
from graphsparse.params.rules.late import Late
from graphsparse.params.rules.rule import RULES
from graphsparse.params.schedule import Schedule


@RULES.register("proximal")
@dataclass(frozen=True)
class Proximal(Late):
    r"""Proximal gradient steps: after every step :math:`w \leftarrow \operatorname{prox}_{\eta \lambda_t P}(w)` for a
    penalty P, with the learning rate :math:`\eta` that the optimizer has for the weight's parameter.

    A proximal step makes exact zeros, but not as many as are wanted: the strongest units are chosen exactly at
    ``until``, and the others are cut. With Adam the penalty knows the plain learning rate only, not Adam's own scale.

    Args:
        penalty: ``"group-lasso"``, ``"group-envelope"`` (the count that is kept is known to it) or ``"l1"``; the groups
            are the units of the pattern, those of all tensors together where ``distribution="global"``.
        strength: :math:`\lambda`.
        schedule: how the strength rises, such as ``Linear(end=500)``: :math:`\lambda_t` is ``schedule(t, strength)``.
            None: it is constant.
        until: the share of the training after which the weakest units are cut for good.

    Raises:
        ValueError: for an unknown penalty, a strength that is negative or no number, N:M, and what
            :class:`Shrink` raises.

    Source: Parikh & Boyd, "Proximal algorithms", 2014; the penalties name theirs.
    """

    penalty: str | Shrinkage = "group-lasso"
    strength: float = 1e-2
    schedule: Schedule | None = None
    until: float = 0.75

    def __post_init__(self) -> None:
        if not (is_number(self.strength) and self.strength >= 0):
            raise ValueError(f"strength must be a number from 0 on, got {self.strength!r:.50}")
        if self.schedule is not None and not callable(self.schedule):
            raise ValueError(f"schedule is one such as Linear(end=500), got {self.schedule!r:.50}")
        if isinstance(self.penalty, str):
            object.__setattr__(self, "penalty", PENALTIES.key(self.penalty))
        if not callable(self._shrinkage()):
            raise TypeError(f"penalty is a name or a function of a Pool, got {self.penalty!r:.50}")
        super().__post_init__()

    def check(self, joint: Joint) -> None:
        """Refuse runs, which are no groups."""
        if isinstance(joint.choice.pattern, NofM):
            raise ValueError("Proximal shrinks groups, and N:M has none: use Rows(), Blocks() or Elements()")
        super().check(joint)

    def weaken(self, joint: Joint, optimizer: Optimizer) -> None:
        """The proximal step, then the strongest."""
        strength, keep = self._strength(joint.step), joint.keep_at(joint.step)
        shrinkage = self._shrinkage()
        choice = joint.singles if getattr(shrinkage, "elementwise", False) else joint.choice
        rates = _rates(joint, optimizer)
        for name, parameter in joint.parameters.items():
            check_finite(parameter.detach(), f"the weight {name!r}")
        for pools, count in choice.contests(keep) if strength else ():
            norms = [choice.pooled(lambda name: joint.parameters[name].detach(), pool).abs() for pool in pools]
            sizes = [choice.sizes(pool).to(norm.device) for pool, norm in zip(pools, norms, strict=True)]
            steps = [choice.means(rates, pool).to(norm.device) for pool, norm in zip(pools, norms, strict=True)]
            found = shrinkage(Pool(_joined(norms), _joined(sizes), _joined(steps), strength, count))
            for pool, norm, factors in zip(pools, norms, torch.split(found, [len(n) for n in norms]), strict=True):
                for name, factor in choice.shared(factors.to(norm.device), pool):
                    joint.parameters[name].mul_(factor.to(joint.parameters[name].dtype))
        joint.install(joint.chosen(keep))

    def _strength(self, step: int) -> float:
        if self.schedule is None:
            return self.strength
        return float(self.schedule(step, Fraction(str(self.strength))))

    def _shrinkage(self) -> Shrinkage:
        return PENALTIES.find(self.penalty) if isinstance(self.penalty, str) else self.penalty


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0]) for part in parts])


def _rates(joint: Joint, optimizer: Optimizer) -> dict[str, float]:
    """The learning rate of each parameter, 0 for one that the optimizer does not step."""
    of = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    return {name: of.get(id(parameter), 0.0) for name, parameter in joint.parameters.items()}
