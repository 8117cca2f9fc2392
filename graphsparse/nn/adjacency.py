"""One CSR adjacency per graph, remembered while the graph stays the same, never met by another graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm

Build = Callable[[Tensor, int, torch.dtype], Tensor]

# A protocol with a training graph and a test graph alternates between two of them.
_SLOTS = 2


class AdjacencyCache:
    """Adjacencies of the graphs seen last, found again by the *content* of ``edge_index``.

    Identity is not enough: a new tensor may live at an old address, and ``numpy()`` or ``.data`` change a
    tensor without a new version. The cache keeps its own copy of the arcs and compares all of them, which
    costs about a thousandth of the product that follows. Copies and pickles of it are empty.

    Args:
        build: makes the adjacency from ``(edge_index, num_nodes, dtype)``.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._entries: list[tuple[Tensor, int, torch.dtype, Tensor]] = []

    def __call__(self, edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> Tensor:
        for position, (arcs, nodes, kind, adjacency) in enumerate(self._entries):
            same_kind = nodes == num_nodes and kind == dtype and arcs.device == edge_index.device
            if same_kind and arcs.dtype == edge_index.dtype and torch.equal(arcs, edge_index):
                if position > 0:
                    self._entries.insert(0, self._entries.pop(position))
                return adjacency
        adjacency = self._build(edge_index, num_nodes, dtype)
        self._entries.insert(0, (edge_index.detach().clone(), num_nodes, dtype, adjacency))
        del self._entries[_SLOTS:]
        return adjacency

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget every graph."""
        self._entries.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> AdjacencyCache:
        return AdjacencyCache(self._build)

    def __getstate__(self) -> dict[str, Any]:
        return {"_build": self._build, "_entries": []}


def gcn_adjacency(edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> Tensor:
    """The transposed GCN matrix (D^-1/2 (A + I) D^-1/2)^T as sparse CSR, PyG's ``adj_t``."""
    check_ids(edge_index, num_nodes)
    arcs, weight = gcn_norm(edge_index, None, num_nodes, dtype=dtype)
    return _csr(arcs, weight, num_nodes)


def sum_adjacency(edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> Tensor:
    """The transposed adjacency as sparse CSR; parallel arcs become one entry with their count."""
    check_ids(edge_index, num_nodes)
    return _csr(edge_index, torch.ones(edge_index.size(1), dtype=dtype, device=edge_index.device), num_nodes)


def mean_adjacency(edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> Tensor:
    """The transposed adjacency whose ``mean``-reduced product is the mean over all arcs.

    ``spmm(..., reduce="mean")`` divides by the number of stored entries of a row, and parallel arcs share
    one entry; so an entry holds count * entries / arcs of its row, which is 1 in a simple graph.
    """
    adjacency = sum_adjacency(edge_index, num_nodes, dtype)
    pointer = adjacency.crow_indices()
    entries = pointer.diff()
    arcs = torch.bincount(edge_index[1].long(), minlength=num_nodes)
    scale = entries.to(dtype) / arcs.clamp(min=1).to(dtype)
    values = adjacency.values() * scale.repeat_interleave(entries)
    return torch.sparse_csr_tensor(
        pointer, adjacency.col_indices(), values, (num_nodes, num_nodes), check_invariants=False
    )


def check_ids(edge_index: Tensor, num_nodes: int) -> None:
    """Refuse arcs whose ends are not nodes.

    Raises:
        IndexError: if an id is negative or not below ``num_nodes``.
    """
    if edge_index.numel() == 0:
        return
    low, high = (int(bound) for bound in edge_index.aminmax())
    if low < 0 or high >= num_nodes:
        wrong = low if low < 0 else high
        raise IndexError(f"edge_index names node {wrong}, but x has {num_nodes} rows (ids 0 ... {num_nodes - 1})")


def _csr(arcs: Tensor, weight: Tensor, num_nodes: int) -> Tensor:
    size = (num_nodes, num_nodes)
    coo = torch.sparse_coo_tensor(arcs.flip(0), weight, size, check_invariants=False).coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return coo.to_sparse_csr()
