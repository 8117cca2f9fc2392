"""What a score may look at, and the table of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from graphsparse.registry import Registry


@dataclass(frozen=True)
class Evidence:
    """What is known of one tensor when its weights are scored.

    Attributes:
        name: of the tensor, its first one if it is tied.
        weight: its values.
        mask: bool, which of them are kept now.
        step: optimizer steps done when the update takes effect, from 1; 0 before training.
        seed: of whatever the score draws.
        keep: the kept fraction of all units at the end.
        grad: the dense gradient, before it is masked; only for a score whose ``needs`` name it, as the next ones.
        correlation: float64, of the activations at the two ends, along the first two dimensions of the weight.
        alive: int32, how many updates of the mask saw each weight kept.
        start: the values at the beginning.
    """

    name: str
    weight: Tensor
    mask: Tensor
    step: int
    seed: int
    keep: Fraction = Fraction(1)
    grad: Tensor | None = None
    correlation: Tensor | None = None
    alive: Tensor | None = None
    start: Tensor | None = None


Score = Callable[[Evidence], Tensor]

_MOMENTARY = ("grad", "correlation")  # there between the backward pass and the step
_KEPT = ("alive", "start")


def needs(score: Score) -> tuple[str, ...]:
    """Which parts of the evidence a score asks for, beside those that are always there: its attribute ``needs``."""
    return tuple(getattr(score, "needs", ()))


def momentary(score: Score) -> bool:
    """Whether a score asks for what is there just before a step only: gradients, activations."""
    return any(part in _MOMENTARY for part in needs(score))


def needing(*parts: str) -> Callable[[Score], Score]:
    """A decorator that sets ``needs``."""

    def mark(score: Score) -> Score:
        score.needs = parts  # type: ignore[attr-defined]
        return score

    return mark


def _checked(name: str, entry: object) -> Score:
    if not callable(entry):
        raise TypeError(f"a weight score is a function of Evidence, {name!r} is {entry!r:.50}")
    found: Score = entry
    unknown = set(needs(found)) - {*_MOMENTARY, *_KEPT}
    if unknown:
        known = ", ".join(map(repr, (*_MOMENTARY, *_KEPT)))
        raise ValueError(f"the weight score {name!r} needs {sorted(unknown)}; there are {known}")
    return found


SCORES: Registry[Score] = Registry("weight score", folder="graphsparse.params.scores", check=_checked)
