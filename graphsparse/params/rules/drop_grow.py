"""Exchange weights: the weakest go, others take their place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor
from torch.optim import Optimizer

from graphsparse.keep_rule import is_number, whole_number
from graphsparse.params.distribution import share_out
from graphsparse.params.grains import Coupled
from graphsparse.params.joint import Joint
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.rules.rule import RULES, Rule, check_share, named_score, of_steps
from graphsparse.params.schedule import Constant, Cosine
from graphsparse.params.scores.evidence import Score, momentary
from graphsparse.params.tensors import empty_mask
from graphsparse.registry import one_of

_LEAST = 2.0**-40  # of the largest share: a tensor without gradient takes what the others have no room for


@RULES.register("drop-grow")
@dataclass(frozen=True)
class DropGrow(Rule):
    r"""Dynamic sparse training: every few steps the kept weights of least score go, and as many others come.

    At an update after step t, with :math:`k_l` units kept in tensor l, :math:`n_l = \lfloor f_t k_l \rfloor` of them
    are dropped and the :math:`n_l` best of all that are then not kept are grown, where
    :math:`f_t = \frac{f_0}{2}(1 + \cos(\pi t / t_1))`. One that was just dropped may grow again, and then stays as it
    is. All others start at zero, with an optimizer state of zero.

    Both choices are made before the step, by its weights and its gradients, and take effect after it: no second
    backward pass, and the step itself is an ordinary one.

    Args:
        grow: the score by which units come: ``"random"``, ``"gradient"``, :class:`Explore`, or any other.
        fraction: :math:`f_0`, in (0, 1].
        every: steps between two updates.
        until: :math:`t_1` as a share of the training.
        budget: ``"fixed"``, or ``"moving"``: the weakest of all tensors together go, and each tensor grows in
            proportion to the mean grow score of its weights.
        first: the score by which the first masks are chosen: ``"random"`` as published, or ``"magnitude"``, for a
            network that is trained already.

    Raises:
        ValueError: for numbers out of range, a training too short for one update, N:M, or a schedule.

    Source: Mocanu et al., Nature Communications 2018; Evci et al., ICML 2020, algorithm 1.
    """

    grow: str | Score = "gradient"
    fraction: float = 0.3
    every: int = 100
    until: float = 0.75
    budget: str = "fixed"
    first: str | Score = "random"

    def __post_init__(self) -> None:
        named_score(self.grow)
        if momentary(named_score(self.first)):
            raise ValueError("the first masks are chosen before there are gradients: first='random' or 'magnitude'")
        object.__setattr__(self, "every", whole_number(self.every, "every", least=1))
        object.__setattr__(self, "budget", one_of(self.budget, "budget", ("fixed", "moving")))
        if not (is_number(self.fraction) and 0 < self.fraction <= 1):
            raise ValueError(
                f"fraction is the share of the kept weights that is exchanged, in (0, 1]; got {self.fraction!r:.50}"
            )
        check_share(self.until, "until")

    def check(self, joint: Joint) -> None:
        """Refuse what cannot be exchanged, or never would be."""
        if isinstance(joint.choice.pattern, NofM):
            raise ValueError("DropGrow exchanges weights between runs, which N:M forbids: use StraightThrough()")
        if isinstance(joint.choice.pattern, Coupled):
            raise ValueError("DropGrow exchanges units, and coupled channels share weights: use Proximal() or Hold()")
        if joint.schedule != Constant():
            raise ValueError("DropGrow keeps the count as it is: leave schedule= out")
        if momentary(joint.score):
            raise ValueError("DropGrow drops by a score without gradients, such as 'magnitude'; grow= may need them")
        if of_steps(self.until, joint, "DropGrow") <= self.every:
            raise ValueError(
                f"steps={joint.steps} is shorter than one update: the first is after step {self.every}, and updates "
                f"end at {self.until} of the training; lower every= or train longer"
            )

    def scores(self, score: Score) -> tuple[Score, ...]:
        """That of dropping and that of growing."""
        return score, named_score(self.grow), named_score(self.first)

    def begin(self, joint: Joint) -> None:
        """Choose the first masks."""
        joint.install(joint.chosen(joint.keep_at(0), score=named_score(self.first)))
        joint.zero_outside()

    def reads(self, part: str, joint: Joint, step: int) -> bool:
        """At updates."""
        return super().reads(part, joint, step) and self._exchanged(joint, step) > 0

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Choose by weights and dense gradients, then mask the gradients."""
        step = joint.step + 1
        share = self._exchanged(joint, step)
        if share:
            moving = self.budget == "moving" and len(joint.choice.pools) > 1
            joint.plan = self._moving(joint, share, step) if moving else self._fixed(joint, share, step)
        joint.mask_gradients()

    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Let the choice take effect."""
        joint.zero_outside()
        if joint.plan is not None:
            changed = joint.differing(joint.plan)
            joint.install(joint.plan)
            joint.plan = None
            joint.zero_outside()
            joint.forget(optimizer, changed)

    def _exchanged(self, joint: Joint, step: int) -> float:
        end = of_steps(self.until, joint, "DropGrow")
        return Cosine(self.fraction, end)(step) if step % self.every == 0 else 0.0

    def _fixed(self, joint: Joint, share: float, step: int) -> dict[str, Tensor]:
        """Each pool keeps its count."""
        kept = joint.choice.held_counts(joint.masks)
        new: dict[str, Tensor] = {}
        for pool, names in joint.choice.pools.items():
            left = {name: empty_mask(joint.parameters[name]) for name in names}
            out = math.floor(share * kept[pool])
            joint.choice.best(lambda n: _dropping(joint, n, step), kept[pool] - out, left, joint.masks)
            new |= self._grown(joint, left, out, step)
        return new

    def _moving(self, joint: Joint, share: float, step: int) -> dict[str, Tensor]:
        """The weakest of all go; tensors grow in proportion to their mean score."""
        left = {name: empty_mask(parameter) for name, parameter in joint.parameters.items()}
        kept = sum(joint.choice.held_counts(joint.masks).values())
        out = math.floor(share * kept)
        joint.choice.best(lambda n: _dropping(joint, n, step), kept - out, left, joint.masks)
        stays = joint.choice.held_counts(left)
        room = {name: joint.choice.units[name] - stays[name] for name in left}
        means = {name: _mean(joint.scored(named_score(self.grow), name, step)) for name in left}
        least = max(means.values()) * _LEAST or 1.0
        shares = share_out(tuple(Fraction(max(mean, least)) for mean in means.values()), tuple(room.values()), out)
        grown = [
            self._grown(joint, {name: mask}, count, step)
            for (name, mask), count in zip(left.items(), shares, strict=True)
        ]
        return {name: mask for part in grown for name, mask in part.items()}

    def _grown(self, joint: Joint, left: dict[str, Tensor], count: int, step: int) -> dict[str, Tensor]:
        """What stays of a pool, and the best of the rest."""
        if count == 0:
            return left
        grown = {name: empty_mask(mask) for name, mask in left.items()}
        score = named_score(self.grow)
        outside = {name: ~mask for name, mask in left.items()}
        joint.choice.best(lambda n: joint.scored(score, n, step), count, grown, outside)
        return {name: grown[name] | mask for name, mask in left.items()}


def _mean(scores: Tensor) -> float:
    return float(scores.double().mean()) if scores.numel() else 0.0


def _dropping(joint: Joint, name: str, step: int) -> Tensor:
    return joint.scored(joint.score, name, step)
