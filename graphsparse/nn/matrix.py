"""One CSR matrix per graph, remembered while the graph stays the same, never met by another graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphsparse.products import quietly, remember_transpose

Build = Callable[[Tensor, int, torch.dtype, Tensor | None], Tensor]

# A protocol with a training graph and a test graph alternates between two of them.
_SLOTS = 2


class MatrixCache:
    """The matrices of the graphs seen last, found again by the *content* of ``edge_index`` and of the weights.

    Identity is not enough: a new tensor may live at an old address, and ``numpy()`` or ``.data`` change a
    tensor without a new version. The cache keeps its own copy of the arcs and compares all of them, which
    costs about a thousandth of the product that follows. Copies and pickles of it are empty.

    Args:
        build: makes the matrix from ``(edge_index, num_nodes, dtype, edge_weight)``.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._entries: list[tuple[Tensor, Tensor | None, int, torch.dtype, Tensor]] = []

    def __call__(
        self, edge_index: Tensor, num_nodes: int, dtype: torch.dtype, edge_weight: Tensor | None = None
    ) -> Tensor:
        for position, (arcs, weight, nodes, kind, matrix) in enumerate(self._entries):
            if nodes == num_nodes and kind == dtype and _same(arcs, edge_index) and _same(weight, edge_weight):
                if position > 0:
                    self._entries.insert(0, self._entries.pop(position))
                return matrix
        matrix = self._build(edge_index, num_nodes, dtype, edge_weight)
        weight = None if edge_weight is None else edge_weight.detach().clone()
        self._entries.insert(0, (edge_index.detach().clone(), weight, num_nodes, dtype, matrix))
        del self._entries[_SLOTS:]
        return matrix

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget every graph."""
        self._entries.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> MatrixCache:
        return MatrixCache(self._build)

    def __getstate__(self) -> dict[str, Any]:
        return {"_build": self._build, "_entries": []}


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


def gcn_matrix(edge_index: Tensor, num_nodes: int, dtype: torch.dtype, edge_weight: Tensor | None = None) -> Tensor:
    """The transpose of D^-1/2 (A + I) D^-1/2, as PyG's ``gcn_norm`` has it; A holds the weights [E], or ones."""
    _check_ids(edge_index, num_nodes)
    arcs, weight = gcn_norm(edge_index, edge_weight, num_nodes, dtype=dtype)
    return _csr(arcs, weight, num_nodes)


def gin_matrix(edge_index: Tensor, num_nodes: int, dtype: torch.dtype, edge_weight: Tensor | None = None) -> Tensor:
    """The transpose of A + I; parallel arcs add up, and weights have no part."""
    _check_ids(edge_index, num_nodes)
    nodes = torch.arange(num_nodes, device=edge_index.device, dtype=edge_index.dtype)
    arcs = torch.cat((edge_index, nodes.expand(2, -1)), dim=1)
    return _csr(arcs, torch.ones(arcs.size(1), dtype=dtype, device=arcs.device), num_nodes)


def mean_matrix(edge_index: Tensor, num_nodes: int, dtype: torch.dtype, edge_weight: Tensor | None = None) -> Tensor:
    """The transpose of A, each row divided by its number of arcs, parallel ones one by one; weights have no part."""
    _check_ids(edge_index, num_nodes)
    arriving = torch.bincount(edge_index[1], minlength=num_nodes).to(dtype)
    return _csr(edge_index, (1 / arriving)[edge_index[1]], num_nodes)


def _check_ids(edge_index: Tensor, num_nodes: int) -> None:
    if edge_index.numel() == 0:
        return
    low, high = (int(bound) for bound in edge_index.aminmax())
    if low < 0 or high >= num_nodes:
        wrong = low if low < 0 else high
        raise IndexError(f"edge_index names node {wrong}, but x has {num_nodes} rows (ids 0 ... {num_nodes - 1})")


def _csr(arcs: Tensor, weight: Tensor, num_nodes: int) -> Tensor:
    size = (num_nodes, num_nodes)
    coo = torch.sparse_coo_tensor(arcs.flip(0), weight, size, check_invariants=False).coalesce()
    with quietly():
        return remember_transpose(coo.to_sparse_csr())
