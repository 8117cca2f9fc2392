"""Rectangles of a matrix, as block-sparse kernels take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphsparse.keep_rule import whole_number
from graphsparse.params.grains.grain import GRAINS, Grain
from graphsparse.params.tensors import Named


@GRAINS.register("blocks")
@dataclass(frozen=True)
class Blocks(Grain):
    """Blocks of ``height`` rows and ``width`` columns; what follows the first dimension counts as columns.

    A tensor whose sides are no multiples has smaller blocks at its edges. A block's score is the l2 norm of its
    elements' scores, in float64.

    Args:
        height, width: of a block, at least 1; ``Blocks(1, 16)`` are runs along the inputs.

    Example:
        >>> Blocks(2, 2).units((4, 5)), Blocks(2, 2).spread(torch.tensor([True, False]), (2, 3)).int()
        (6, tensor([[1, 1, 0],
                [1, 1, 0]], dtype=torch.int32))
    """

    height: int = 4
    width: int = 4

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name, least=1))

    def units(self, shape: Sequence[int]) -> int:
        """Blocks of the matrix, those at its edges among them."""
        down, across = self._grid(shape)
        return down * across

    def pool(self, scores: Tensor) -> Tensor:
        """The norm of each block, row by row of blocks."""
        matrix = scores.double().reshape(len(scores), -1)
        down, across = self._grid(scores.shape)
        missing = (0, across * self.width - matrix.shape[1], 0, down * self.height - matrix.shape[0])
        tiles = nn.functional.pad(matrix, missing).view(down, self.height, across, self.width)
        norms: Tensor = torch.linalg.vector_norm(tiles, dim=(1, 3))
        return norms.reshape(-1)

    def spread(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """Each bool over its block."""
        grid = kept.view(*self._grid(shape))
        whole = grid.repeat_interleave(self.height, 0).repeat_interleave(self.width, 1)
        return whole[: shape[0], : math.prod(shape[1:])].reshape(*shape)

    def check(self, tensors: Named) -> None:
        """Raise a ValueError for a tensor that is no matrix or kernel."""
        for name, tensor in tensors.items():
            if tensor.dim() < 2:
                raise ValueError(
                    f"{name} has shape {[*tensor.shape]} and no blocks; select matrices (which='matrices')"
                )

    def _grid(self, shape: Sequence[int]) -> tuple[int, int]:
        return -(-shape[0] // self.height), -(-math.prod(shape[1:]) // self.width)
