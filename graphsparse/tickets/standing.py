"""How tickets stand beside their dense models, seed by seed and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphsparse.fit import finite_or_none, paired_difference

ADVICE = (
    "what may help: more epochs, a larger keep of edges or of weights, the guard cover where nodes lose all edges, or "
    "another method"
)


@dataclass(frozen=True)
class Standing:
    """How far tickets are below their dense models.

    Attributes:
        below: mean difference, dense minus ticket where larger is better, else ticket minus dense: above 0 is worse.
        half_width: of its 95 % interval; NaN of one seed.
        pairs: seeds.
        maximize: whether larger is better.
    """

    below: float
    half_width: float
    pairs: int
    maximize: bool

    @staticmethod
    def of(dense: Sequence[float], sparse: Sequence[float], *, maximize: bool) -> Standing:
        """Of the figures of the same seeds in the same order."""
        found = paired_difference(*((dense, sparse) if maximize else (sparse, dense)))
        return Standing(found.mean, found.half_width, found.pairs, maximize)

    @property
    def is_below(self) -> bool:
        """Whether the tickets are worse: by more than the interval, or, of one seed, at all."""
        return self.below > (0.0 if math.isnan(self.half_width) else self.half_width)

    @property
    def sentence(self) -> str:
        """In words, with what may help where the tickets are worse.

        Example:
            >>> Standing.of([0.911], [0.856], maximize=True).sentence[:69]
            'the ticket is 5.50 points below the dense model (one seed, which cann'
        """
        who, seeds = ("the ticket is", "one seed, which cannot tell chance from loss")
        if self.pairs > 1:
            who, seeds = "the tickets are", f"paired over {self.pairs} seeds"
        where = f"{who} {self.distance} the dense model ({seeds})"
        if self.is_below:
            return f"{where}; {ADVICE}"
        shown = math.isnan(self.half_width) or abs(self.below) > self.half_width
        return where if shown else f"{where}: no difference is shown"

    @property
    def distance(self) -> str:
        """Such as ``"5.50 ± 0.31 points below"``."""
        scale, unit, digits = (100.0, " points", 2) if self.maximize else (1.0, "", 3)
        text = f"{scale * abs(self.below):.{digits}f}"
        if not math.isnan(self.half_width):
            text += f" ± {scale * self.half_width:.{digits}f}"
        worse, better = ("below", "above") if self.maximize else ("above", "below")
        return f"{text}{unit} {worse if self.below > 0 else better}"

    def figures(self) -> dict[str, Any]:
        """For a JSON object."""
        return {
            "below_dense": self.below,
            "ci95": finite_or_none(self.half_width),
            "seeds": self.pairs,
            "is_below": self.is_below,
            "in_words": self.sentence,
        }
