"""Sparsity over steps: what share of the weights is removed after each step of the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from graphsparse.keep_rule import Keep, exact_fraction, is_number, whole_number
from graphsparse.params.patterns.n_of_m import NofM

Schedule = Callable[[int, Fraction], Keep]


def sparsity_fraction(value: Keep, name: str = "sparsity") -> Fraction:
    """Check that a sparsity lies in [0, 1) and read it exactly, as the decimal that was written.

    Raises:
        TypeError: if it is no number.
        ValueError: if it lies outside [0, 1).

    Example:
        >>> 1 - sparsity_fraction(0.9) == Fraction(1, 10)
        True
    """
    fraction = exact_fraction(value, name)
    if not 0 <= fraction < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}; it is the removed fraction, 0 removes nothing")
    return fraction


@dataclass(frozen=True)
class Constant:
    """The whole sparsity from step ``begin`` on, and none before.

    Raises:
        ValueError: if ``begin`` is negative.

    Example:
        >>> schedule = Constant(begin=5)
        >>> [str(schedule(step, Fraction(1, 2))) for step in (4, 5, 6)]
        ['0', '1/2', '1/2']
    """

    begin: int = 0

    def __post_init__(self) -> None:
        if whole_number(self.begin, "begin") < 0:
            raise ValueError(f"begin is a step, 0 or later; got {self.begin}")

    def __call__(self, step: int, final: Fraction) -> Fraction:
        return final if step >= self.begin else Fraction(0)


@dataclass(frozen=True)
class _Ramp:
    end: int
    begin: int = 0
    every: int = 1
    initial: Keep = 0

    def __post_init__(self) -> None:
        for name in ("begin", "end", "every"):
            whole_number(getattr(self, name), name)
        if not 0 <= self.begin < self.end:
            raise ValueError(f"a ramp needs 0 <= begin < end, got begin={self.begin}, end={self.end}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1 step, got {self.every}")
        sparsity_fraction(self.initial, "initial")

    def __call__(self, step: int, final: Fraction) -> Fraction:
        initial = sparsity_fraction(self.initial, "initial")
        if initial > final:
            raise ValueError(f"the ramp starts at sparsity {initial}, above its end {final}; sparsity may not fall")
        if step < self.begin:
            return Fraction(0)
        if step >= self.end:
            return final
        level = (step - self.begin) // self.every * self.every
        return final + (initial - final) * self._left(Fraction(level, self.end - self.begin))

    def _left(self, progress: Fraction) -> Fraction:
        """The share of the way from ``initial`` to ``final`` that is left at ``progress`` in [0, 1)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Ramp):
    r"""Sparsity that rises in a straight line from ``initial`` at step ``begin`` to its final value at step ``end``.

    .. math:: s_t = s_f + (s_i - s_f) \left(1 - \frac{t - t_0}{t_1 - t_0}\right)

    Args:
        end: the first step with the final sparsity, reached exactly.
        begin: the step at which the ramp starts; before it nothing is removed.
        every: the sparsity changes once in so many steps.
        initial: sparsity at ``begin``.

    Raises:
        ValueError: for a ramp without steps, ``every`` below 1, ``initial`` outside [0, 1), and, when called, for an
            ``initial`` above the final sparsity.

    Example:
        >>> [str(Linear(end=4)(step, Fraction(4, 5))) for step in range(6)]
        ['0', '1/5', '2/5', '3/5', '4/5', '4/5']
    """

    def _left(self, progress: Fraction) -> Fraction:
        return 1 - progress


@dataclass(frozen=True)
class Cubic(_Ramp):
    r"""Sparsity that rises quickly at first, while many weights are spare, and slowly towards its final value.

    .. math:: s_t = s_f + (s_i - s_f) \left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3

    Arguments and errors as in :class:`Linear`.

    Source: Zhu & Gupta, "To prune, or not to prune", 2017, equation 1, with :math:`t_1 = t_0 + n \Delta t` and
    ``every`` for :math:`\Delta t`.

    Example:
        >>> [str(Cubic(end=2)(step, Fraction(4, 5))) for step in range(3)]
        ['0', '7/10', '4/5']
    """

    def _left(self, progress: Fraction) -> Fraction:
        return (1 - progress) ** 3


@dataclass(frozen=True)
class Cosine:
    r"""A share that falls along half a cosine: of the kept weights, those that are exchanged at a step.

    .. math:: f_t = \frac{f_0}{2} \Big(1 + \cos \frac{\pi t}{t_1}\Big) \;(t < t_1), \qquad 0 \;(t \ge t_1)

    Args:
        share: :math:`f_0`, in (0, 1].
        end: :math:`t_1`, the first step at which nothing is exchanged.

    Raises:
        ValueError: for a share outside (0, 1], or an ``end`` below 1.

    Source: Evci et al., "Rigging the lottery", ICML 2020, section 3.

    Example:
        >>> [round(Cosine(0.4, end=4)(step), 3) for step in range(5)]
        [0.4, 0.341, 0.2, 0.059, 0.0]
    """

    share: float
    end: int

    def __post_init__(self) -> None:
        if not (is_number(self.share) and 0 < self.share <= 1):
            raise ValueError(f"the share that is exchanged must lie in (0, 1], got {self.share!r:.50}")
        whole_number(self.end, "end", least=1)

    def __call__(self, step: int) -> float:
        """The share at a step."""
        return self.share / 2 * (1 + math.cos(math.pi * step / self.end)) if step < self.end else 0.0


@dataclass(frozen=True)
class Stages:
    """N:M patterns in turn, each for as many steps: dense ones first, so that the last cut is a small one.

    Args:
        patterns: as ``"7:8"``, the last one the wanted.
        end: steps of all of them together; the last one stays after them.

    Raises:
        ValueError: for fewer steps than patterns, or what is no N:M pattern.

    Source: Bambhaniya et al., "Progressive gradient flow for robust N:M sparsity training in transformers", 2024.

    Example:
        >>> stages = Stages(["3:4", "2:4", "1:4"], end=6)
        >>> [stages.at(step) for step in (0, 1, 2, 4, 9)]
        ['3:4', '3:4', '2:4', '1:4', '1:4']
    """

    patterns: Sequence[str]
    end: int

    def __post_init__(self) -> None:
        if isinstance(self.patterns, str):
            raise ValueError(f"stages are a list of patterns, such as ['3:4', '2:4'], got {self.patterns!r:.50}")
        object.__setattr__(self, "patterns", tuple(self.patterns))
        if not self.patterns or whole_number(self.end, "end") < len(self.patterns):
            raise ValueError(
                f"{len(self.patterns)} stages need at least as many steps, and one at least; got {self.end}"
            )
        for text in self.patterns:
            NofM.read(text)

    def at(self, step: int) -> str:
        """The pattern at a step."""
        return self.patterns[min(step * len(self.patterns) // self.end, len(self.patterns) - 1)]
