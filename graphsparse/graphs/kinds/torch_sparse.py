"""torch's sparse tensors of every layout, and the `SparseTensor` of torch_sparse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphsparse.graphs.inner_form import check_square, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library

_ROWS_FIRST = (torch.sparse_csr, torch.sparse_bsr)
_BLOCKS = (torch.sparse_bsr, torch.sparse_bsc)


@KINDS.register("torch-sparse")
class SparseGraph(OpenGraph):
    """A square sparse tensor: COO (coalesced or not), CSR, CSC, BSR or BSC; every entry is an edge row -> column.

    In blocks an entry is a nonzero, as in scipy: they cannot tell a stored zero from padding. Entries may be vectors
    (hybrid tensors), which are no weights.
    """

    says = "a square torch sparse tensor"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return isinstance(graph, Tensor) and graph.layout != torch.strided

    def __init__(self, matrix: Tensor, undirected: bool | None, *, square: bool = True) -> None:
        self.matrix = matrix
        blocks = matrix.layout in _BLOCKS
        sparse_dims = matrix.dim() - matrix.dense_dim()
        if sparse_dims != 2:
            raise ValueError(f"the matrix of a graph has rows and columns, got a tensor of {sparse_dims} sparse dims")
        if square:
            check_square(tuple(matrix.shape[:2]))
        if matrix.layout == torch.sparse_coo:
            rows, columns = matrix._indices()
            self.values = matrix._values()
        else:
            starts, self.minor = _compressed(matrix)
            _check(matrix, starts, self.minor)
            major = torch.repeat_interleave(torch.arange(len(starts) - 1, device=starts.device), starts.diff().long())
            minor, self.values = self.minor.long(), matrix.values()
            if blocks:
                high, wide = self.values.shape[1:3]
                filled = self.values != 0 if self.values.dim() == 3 else (self.values != 0).flatten(3).any(3)
                self.at = filled.nonzero().t()
                block, row, column = self.at
                heights = (high, wide) if matrix.layout in _ROWS_FIRST else (wide, high)
                offsets = (row, column) if matrix.layout in _ROWS_FIRST else (column, row)
                major, minor = major[block] * heights[0] + offsets[0], minor[block] * heights[1] + offsets[1]
                self.values = self.values[block, row, column]
            rows, columns = (major, minor) if matrix.layout in _ROWS_FIRST else (minor, major)
        weight = self.values.detach() if self.values.dim() == 1 else None
        self.edges = edge_list(torch.stack([rows, columns]), max(matrix.shape[:2]), undirected, weight=weight)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        values = self.values if edge_weight is None else edge_weight
        size = (*self.matrix.shape[:2], *values.shape[1:])
        mask = mask.to(values.device)
        if self.matrix.layout == torch.sparse_coo:
            known = self.matrix.is_coalesced()
            indices = self.matrix._indices()[:, mask]
            return torch.sparse_coo_tensor(indices, values[mask], size, is_coalesced=known, check_invariants=False)
        starts, minor = _compressed(self.matrix)
        if self.matrix.layout in _BLOCKS:
            whole = torch.zeros_like(self.matrix.values(), dtype=values.dtype)
            block, row, column = self.at[:, mask]
            whole = whole.index_put((block, row, column), values[mask])
            mask = torch.zeros(len(minor), dtype=torch.bool, device=mask.device)
            mask[block] = True  # a block without an edge goes
            values = whole
        before = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.cumsum(0)]).to(starts.dtype)
        parts = before[starts.long()], minor[mask], values[mask]
        layout, device = self.matrix.layout, self.matrix.device
        return torch.sparse_compressed_tensor(*parts, size, layout=layout, device=device, check_invariants=False)


def _compressed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    if matrix.layout in _ROWS_FIRST:
        return matrix.crow_indices(), matrix.col_indices()
    return matrix.ccol_indices(), matrix.row_indices()


def _check(matrix: Tensor, starts: Tensor, minor: Tensor) -> None:
    """torch trusts the arrays of a compressed tensor that was made without a check; wrong ones invent edges."""
    ends = starts.tolist() if len(starts) < 3 else [int(starts[0]), int(starts[-1])]
    if ends[0] != 0 or ends[-1] != len(minor) or len(minor) != len(matrix.values()) or bool((starts.diff() < 0).any()):
        raise ValueError("the sparse tensor is damaged: its compressed indices do not fit its entries")


@KINDS.register("sparse-tensor")
class SparseTensorGraph(OpenGraph):
    """A square ``torch_sparse.SparseTensor``: every entry is an edge row -> column, its value the weight."""

    says = "a torch_sparse SparseTensor"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "torch_sparse", "SparseTensor")

    def __init__(self, matrix: Any, undirected: bool | None, *, square: bool = True) -> None:
        if square:
            check_square(tuple(matrix.sparse_sizes()))
        self.matrix = matrix
        self.row, self.column, self.value = matrix.coo()
        weight = self.value if self.value is not None and self.value.dim() == 1 else None
        ends = torch.stack([self.row, self.column])
        self.edges = edge_list(
            ends, max(matrix.sparse_sizes()), undirected, weight=None if weight is None else weight.detach()
        )

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        value = self.value if edge_weight is None else edge_weight
        return type(self.matrix)(
            row=self.row[mask],
            col=self.column[mask],
            value=None if value is None else value[mask],
            sparse_sizes=tuple(self.matrix.sparse_sizes()),
            is_sorted=True,
        )
