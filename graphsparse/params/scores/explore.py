"""The gradient, and a bonus for what was seldom tried."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from graphsparse.keep_rule import is_number
from graphsparse.params.scores.evidence import SCORES, Evidence


@dataclass(frozen=True)
class Explore:
    r""":math:`|g| + c\,\ln t / (N + 1)`, with N the updates of the mask that saw the weight kept, after t steps.

    Args:
        c: the weight of the bonus, 0 or more; to be tuned on validation data.

    Raises:
        ValueError: for a ``c`` that is negative or no number.

    Source: Huang et al., "Dynamic sparse training via balancing the exploration-exploitation trade-off", DAC 2023.
    """

    c: float = 1e-3
    needs: ClassVar[tuple[str, ...]] = ("grad", "alive")

    def __post_init__(self) -> None:
        if not (is_number(self.c) and self.c >= 0):
            raise ValueError(f"c must be a number from 0 on, got {self.c!r:.50}")

    def __call__(self, evidence: Evidence) -> Tensor:
        """The score of each weight."""
        assert evidence.grad is not None
        assert evidence.alive is not None
        bonus = self.c * math.log(max(evidence.step, 1))
        return evidence.grad.abs() + bonus / (evidence.alive + 1)


SCORES.register("explore", Explore())
