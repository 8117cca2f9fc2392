"""Modular networks: units in ensembles, dense inside and sparse between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphsparse.keep_rule import is_number
from graphsparse.params.scores.evidence import SCORES, Evidence, Score, needs


@dataclass(frozen=True)
class Ensembles:
    r"""Weights inside an ensemble first, the others after them; in each by another score.

    The units on both sides of a weight are divided, in order, into E ensembles of equal size, so that the inside is one
    E-th of the weights: a share of all that are kept. The rest connects ensembles, with probability
    :math:`p = (keep - 1/E) / (1 - 1/E)`. A tensor with a side of fewer than E units has no ensembles.

    Args:
        of: the score inside and between, ``"random"`` or any other that lies in [0, 1], such as ``"hebbian"``.
        share: of the kept weights that lie inside, in (0, 1]: :math:`E = \lceil 1 / (share \cdot keep) \rceil`.

    Raises:
        ValueError: for a share out of range, or an unknown score.

    Source: Konstantaropoulos et al., "Dynamic sparse training with modular ensemble-to-ensemble masks", 2025, as far as
    its abstract says; how many ensembles there are is our choice.
    """

    of: str | Score = "random"
    share: float = 0.5

    def __post_init__(self) -> None:
        if not (is_number(self.share) and 0 < self.share <= 1):
            raise ValueError(f"share is that of the kept weights inside ensembles, in (0, 1]; got {self.share!r:.50}")
        self._inner()

    @property
    def needs(self) -> tuple[str, ...]:
        """What the other score needs."""
        return needs(self._inner())

    def __call__(self, evidence: Evidence) -> Tensor:
        """The score of each weight."""
        scores = self._inner()(evidence)
        sides = evidence.weight.shape[:2]
        count = math.ceil(1 / (self.share * float(evidence.keep)))
        if len(sides) < 2 or min(sides) < count:
            return scores
        rows, columns = (torch.arange(side, device=scores.device) * count // side for side in sides)
        inside = (rows[:, None] == columns).view(*sides, *[1] * (scores.dim() - 2))
        return scores + 2 * inside

    def _inner(self) -> Score:
        return SCORES.find(self.of) if isinstance(self.of, str) else self.of

    def __repr__(self) -> str:
        of: Any = self.of if isinstance(self.of, str) else getattr(self.of, "__qualname__", self.of)
        return f"Ensembles({of!r}, {self.share})"
