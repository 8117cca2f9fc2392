"""Single weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from graphsparse.params.grains.grain import GRAINS, Grain


@GRAINS.register("elements")
@dataclass(frozen=True)
class Elements(Grain):
    """Each weight by itself (unstructured sparsity).

    Example:
        >>> Elements().units((3, 4))
        12
    """

    def units(self, shape: Sequence[int]) -> int:
        """As many as there are elements."""
        return math.prod(shape)

    def pool(self, scores: Tensor) -> Tensor:
        """The scores themselves, in order of position."""
        return scores.reshape(-1)

    def sums(self, values: Tensor) -> Tensor:
        """The values themselves, in order of position."""
        return values.reshape(-1).double()

    def spread(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """The bools in the tensor's shape."""
        return kept.view(*shape)
