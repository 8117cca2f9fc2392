"""Whole rows of a tensor: neurons, filters, columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.keep_rule import whole_number
from graphsparse.params.grains.grain import GRAINS, Grain
from graphsparse.params.patterns.pattern import check_dimension
from graphsparse.params.tensors import Named


@GRAINS.register("rows")
@dataclass(frozen=True)
class Rows(Grain):
    """The slices along a dimension; a row's score is the l2 norm of its elements' scores, in float64.

    Args:
        dim: 0 cuts the outputs of linear and convolution layers, 1 their inputs.

    Example:
        >>> rows = Rows()
        >>> rows.units((3, 4)), rows.pool(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        (3, tensor([5., 1.], dtype=torch.float64))
    """

    dim: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", whole_number(self.dim, "dim"))

    def units(self, shape: Sequence[int]) -> int:
        """The size of the dimension."""
        return shape[self.dim]

    def pool(self, scores: Tensor) -> Tensor:
        """The norm of each slice."""
        lines = scores.movedim(self.dim, 0)  # the double precision is that of the sum: no copy of the tensor
        lines = lines.reshape(len(lines), lines[:1].numel())
        norms: Tensor = torch.linalg.vector_norm(lines, dim=1, dtype=torch.float64)
        return norms

    def sums(self, values: Tensor) -> Tensor:
        """The sum of each slice."""
        return values.movedim(self.dim, 0).flatten(1).sum(1, dtype=torch.float64)

    def spread(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """Each bool over its slice."""
        axis = self.dim % len(shape)
        return kept.view([-1 if i == axis else 1 for i in range(len(shape))]).expand(*shape)

    def check(self, tensors: Named) -> None:
        """Raise a ValueError for a tensor without the dimension."""
        check_dimension(tensors, self.dim)
