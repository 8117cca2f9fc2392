"""The inner form of every graph: an edge list that was checked, and what is counted in it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.graphs.arcs import Survey, survey
from graphsparse.graphs.labels import label_names
from graphsparse.keep_rule import whole_number

MOST_NODES = 1 << 31  # pairs of ids are hashed and packed as two halves of 64 bits
SPARE_NODES = 1 << 24  # so many nodes are never too many; above, at most 4,096 a node of an edge

Names = npt.NDArray[np.uint64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class EdgeList:
    """The inner form of every graph: what the scores and the keep rule read.

    Attributes:
        edge_index: integer ``[2, E]``, tails in row 0 and heads in row 1, in the caller's own order.
        num_nodes: number of nodes N; all ids lie in ``0..N-1``.
        undirected: whether the countable elements are pairs {u, v} (else arcs).
        mirrored: for an undirected graph, whether both arcs of each pair are listed (else each pair is named once).
        weight: edge weights ``[E]``, or None.
        x: node features ``[N, F]`` (dense or torch sparse CSR), or None.
        names: 64-bit name of each node ``[N]`` that ties are hashed from, or None where the ids are the names.
    """

    edge_index: Tensor
    num_nodes: int
    undirected: bool
    mirrored: bool
    weight: Tensor | None = None
    x: Tensor | None = None
    names: Names | None = None

    @property
    def num_edges(self) -> int:
        """Number of listed edges E (columns of ``edge_index``)."""
        return int(self.edge_index.size(1))

    @cached_property
    def survey(self) -> Survey:
        """Loops, degrees and symmetry of the list, found once."""
        return survey(self.edge_index, self.num_nodes)

    @property
    def num_countable(self) -> int:
        """Number of elements that ``keep`` counts: pairs or arcs, copies one by one, no loops."""
        arcs = self.num_edges - self.survey.loops
        return arcs // 2 if self.mirrored else arcs

    def checked_weight(self) -> Tensor:
        """The weights as finite float64 ``[E]``, ones where the graph has none.

        Raises:
            ValueError: for a weight that is missing, NaN or infinite, with its first position.
            TypeError: for complex weights.
        """
        if self.weight is None:
            return torch.ones(self.num_edges, dtype=torch.float64, device=self.edge_index.device)
        if self.weight.is_complex():
            raise TypeError("edge weights must be real numbers, got complex ones")
        weight = self.weight.to(torch.float64)
        bad = ~weight.isfinite()
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            raise ValueError(f"the weight of edge {at} is {float(weight[at])}; weights must be finite numbers")
        return weight


def edge_list(
    edge_index: Tensor,
    num_nodes: int | None = None,
    undirected: bool | None = None,
    *,
    weight: Tensor | None = None,
    x: Tensor | None = None,
    names: Names | None = None,
    pairs_once: bool = False,
) -> EdgeList:
    """Check an ``edge_index`` and decide whether it is undirected and mirrored, in one pass.

    Args:
        edge_index: integer ``[2, E]``.
        num_nodes: number of nodes; by default one more than the largest id.
        undirected: as in `open_graph`.
        weight: ``[E]``.
        x: ``[N, F]``.
        names: ``[N]``.
        pairs_once: that the list is known to name each pair of an undirected graph once.

    Raises:
        TypeError: for ids that are no integers, or names that are not uint64.
        ValueError: for a wrong shape, an id out of range, or a list with both arcs of some pairs only and
            ``undirected=True``.
    """
    check_edge_index(edge_index)
    if not (undirected is None or isinstance(undirected, (bool, np.bool_))):
        raise TypeError(f"undirected must be True, False or None, got {undirected!r:.50}")
    if num_nodes is None:
        num_nodes = max(0, int(edge_index.max()) + 1) if edge_index.numel() else 0
    elif type(num_nodes) is not int or num_nodes < 0:
        num_nodes = whole_number(num_nodes, "num_nodes", 0)
    _check_size(num_nodes, edge_index.size(1))
    if names is not None and getattr(names, "dtype", None) != np.uint64:
        raise TypeError(f"names must be an array of uint64, got {getattr(names, 'dtype', type(names).__name__)}")
    if names is not None and names.shape != (num_nodes,):
        raise ValueError(f"names must have one value for each of {num_nodes} nodes, got {list(names.shape)}")
    if edge_index.size(1) > 1 and edge_index.stride(1) != 1:  # such as the transpose of a list of pairs
        edge_index = edge_index.contiguous()  # once, and not in each of the passes over its rows
    found = survey(edge_index, num_nodes)
    mirrored = found.symmetric and undirected is not False and not pairs_once
    if undirected and not mirrored and not pairs_once:
        _check_pairs_once(edge_index)
    both = mirrored or bool(undirected) or pairs_once
    edges = EdgeList(edge_index, num_nodes, both, mirrored, weight, x, names)
    edges.__dict__["survey"] = found  # where cached_property looks first
    return edges


def coded_edges(
    ends: Array,
    labels: Sequence[Hashable] | Array,
    undirected: bool | None,
    weight: Tensor | None,
    pairs_once: bool = False,
) -> EdgeList:
    """The edge list with ends ``[2, E]`` as positions among the labels, which name the nodes for ties."""
    return edge_list(
        torch.from_numpy(ends),
        len(labels),
        undirected,
        weight=weight,
        names=label_names(labels),
        pairs_once=pairs_once,
    )


def number_tensor(values: Array) -> Tensor:
    """A tensor of the same values: torch knows neither foreign byte orders nor long doubles nor all unsigned kinds."""
    if values.dtype.kind == "u" or values.dtype.itemsize > (16 if values.dtype.kind == "c" else 8):
        values = values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
    return torch.from_numpy(np.ascontiguousarray(values, values.dtype.newbyteorder("=")))


def looks_dense(tensor: Tensor) -> bool:
    """Whether a dense tensor is an adjacency matrix by its shape; an ``edge_index`` ``[2, 2]`` holds integers.

    Example:
        >>> looks_dense(torch.eye(2)), looks_dense(torch.eye(2, dtype=torch.int64))
        (True, False)
    """
    square = tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]
    return square and (tensor.shape[0] != 2 or not_ids(tensor))


def not_ids(array: Any) -> bool:
    """Whether an array or a tensor holds something else than whole numbers."""
    if isinstance(array, Tensor):
        return array.is_floating_point() or array.is_complex() or array.dtype == torch.bool
    return array.dtype.kind not in "iu"


def check_edge_index(edge_index: Tensor) -> None:
    """Raise a TypeError or ValueError unless ``edge_index`` is an int32 or int64 tensor ``[2, E]``."""
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"edge_index must be a tensor, got {type(edge_index).__name__}")
    if edge_index.layout != torch.strided:
        raise TypeError(f"edge_index must be a dense tensor [2, num_edges], got the layout {edge_index.layout}")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"edge_index must hold int64 or int32 node ids, got {edge_index.dtype}")
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        turned = edge_index.dim() == 2 and edge_index.size(1) == 2
        hint = ": edge_index.t() has it" if turned else ""
        raise ValueError(f"edge_index must have the shape [2, num_edges], got {list(edge_index.shape)}{hint}")


def check_square(shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless a matrix of the shape can be that of a graph."""
    if len(shape) == 2 and shape[0] == shape[1]:
        return
    sides = (
        f"; of {shape[0]} x {shape[1]} nodes of two sides make an edge_index, the second side's ids after the first's "
        f"(row, {shape[0]} + column), and give undirected=True"
        if len(shape) == 2
        else ""
    )
    raise ValueError(f"the matrix of a graph must be square, got the shape {shape}{sides}")


def _check_size(num_nodes: int, num_edges: int) -> None:
    """Refuse ids that ask for node vectors far beyond what the edges are worth: they are labels, no positions."""
    if num_nodes > MOST_NODES or (num_nodes > SPARE_NODES and num_nodes > SPARE_NODES * num_edges // 4096):
        raise ValueError(
            f"the graph has {num_edges:,} edges and, by its largest id or num_nodes, {num_nodes:,} nodes; ids are "
            f"positions, and one number for each takes {num_nodes * 8 / 1e9:,.1f} GB: relabel the nodes as "
            "0, 1, 2 ..., as torch.unique(edge_index, return_inverse=True)[1] does"
        )


def _check_pairs_once(edge_index: Tensor) -> None:
    """Refuse a list of pairs that names some in both directions: copies, or arcs with a few mirrors missing?"""
    tails, heads = edge_index.long().cpu().numpy()
    keys = (np.minimum(tails, heads).astype(np.uint64) << np.uint64(32)) | np.maximum(tails, heads).astype(np.uint64)
    both = np.intersect1d(keys[tails < heads], keys[tails > heads])
    if len(both):
        u, v = int(both[0] >> np.uint64(32)), int(both[0] & np.uint64(0xFFFFFFFF))
        raise ValueError(
            f"undirected=True, but edge_index lists ({u}, {v}) and ({v}, {u}) while other arcs have no mirror: list "
            "both arcs of every pair (torch_geometric.utils.to_undirected), or each pair once in one direction"
        )
