"""Arrays and lists: edge lists ``[2, E]`` and ``[E, 2]``, and dense adjacency matrices ``[N, N]``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import compress
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import (
    EdgeList,
    check_square,
    coded_edges,
    edge_list,
    looks_dense,
    not_ids,
    number_tensor,
)
from graphsparse.graphs.interop import KINDS, OpenGraph, about, kind_of
from graphsparse.graphs.labels import as_number, label_codes
from graphsparse.graphs.stores import is_weighted_pair

Array = npt.NDArray[Any]

ROWS, PAIRS, DENSE, MANY = "edge-array", "edge-pairs", "adjacency", "list"
SAY_WHICH = f'say which by kind="{ROWS}", "{PAIRS}" or "{DENSE}"'


@KINDS.register(ROWS)
class EdgeArray(OpenGraph):
    """A numpy array ``[2, E]``, or two arrays or lists of one length: the tails and the heads of the edges."""

    says = "a numpy array [2, E]"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return _is_table(graph) and (asked or _reading(graph) == ROWS)

    def __init__(self, graph: Any, undirected: bool | None) -> None:
        self.graph = graph
        if isinstance(graph, np.ndarray) and (graph.ndim != 2 or graph.shape[0] != 2):
            shape = list(graph.shape)
            hint = ": array[:, :2] holds the ends" if graph.ndim == 2 and graph.shape[1] > 2 else ""
            raise ValueError(
                f"an array of edges must have the shape [2, E] or [E, 2], an adjacency matrix [N, N]; got {shape}{hint}"
            )
        tails, heads = (_ids(row, f"row {number}") for number, row in enumerate(graph))
        if len(tails) != len(heads):
            raise ValueError(f"row 0 has {len(tails)} entries and row 1 has {len(heads)}: every edge has two ends")
        self.edges = edge_list(torch.from_numpy(np.stack([tails, heads])), None, undirected)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        keep = mask.cpu().numpy()
        if isinstance(self.graph, np.ndarray):
            small: Any = self.graph[:, keep]
        else:
            small = type(self.graph)([_kept(row, keep) for row in self.graph])
        return small if edge_weight is None else (small, edge_weight.cpu().numpy()[keep])


@KINDS.register(PAIRS)
class EdgePairs(OpenGraph):
    """A numpy array ``[E, 2]``, or a list of pairs; of triples the third is kept, and a number there is the weight.

    In a list ends may be labels: text, or any values if they are not all whole numbers; these are compared as Python
    compares them. Whole numbers are ids, as in an ``edge_index``.
    """

    says = "a list of pairs or a numpy array [E, 2]"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return _is_table(graph) and (asked or _reading(graph) == PAIRS)

    def __init__(self, graph: Any, undirected: bool | None) -> None:
        self.graph = graph
        if isinstance(graph, np.ndarray):
            if graph.ndim != 2 or graph.shape[1] != 2:
                raise ValueError(f"an array of pairs must have the shape [E, 2], got {list(graph.shape)}")
            ends = _ids(graph.reshape(-1), "the array", per_row=2).reshape(-1, 2).T
            self.edges = edge_list(torch.from_numpy(np.ascontiguousarray(ends)), None, undirected)
            return
        rows = [row.tolist() if isinstance(row, (np.ndarray, Tensor)) else row for row in graph]
        width = len(rows[0]) if rows else 2
        for number, row in enumerate(rows):
            if len(row) != width:
                raise ValueError(f"row {number} has {len(row)} entries and row 0 has {width}: every edge has two ends")
        if width not in (2, 3):
            raise ValueError(f"row 0 has {width} entries: an edge is a pair, or a triple with its weight")
        self.edges = _labelled(rows, undirected, _third(rows) if width == 3 else None)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        keep = mask.cpu().numpy()
        small = self.graph[keep] if isinstance(self.graph, np.ndarray) else _kept(self.graph, keep)
        return small if edge_weight is None else (small, edge_weight.cpu().numpy()[keep])


@KINDS.register(DENSE)
class Adjacency(OpenGraph):
    """A dense adjacency matrix ``[N, N]``, of numpy, torch or as lists: every nonzero entry is an edge row -> column.

    Its value is the weight; dropped entries become zeros. An integer tensor ``[2, 2]`` is an ``edge_index`` unless
    ``kind="adjacency"`` is given; an integer array ``[2, 2]`` could be either, and has to be said.
    """

    says = "a dense adjacency matrix [N, N] (numpy, torch)"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        if isinstance(graph, Tensor):
            return graph.layout == torch.strided and (asked or looks_dense(graph))
        return _is_table(graph) and (asked or _reading(graph) == DENSE)

    def __init__(self, graph: Any, undirected: bool | None) -> None:
        self.graph = graph
        self.matrix: Any = graph if isinstance(graph, Tensor) else _matrix(graph)
        matrix = self.matrix
        if matrix.ndim != 2:
            raise ValueError(f"an adjacency matrix has rows and columns, got the shape {list(matrix.shape)}")
        check_square(tuple(matrix.shape))
        ends = matrix.nonzero()
        self.at: Any = ends.unbind(1) if isinstance(ends, Tensor) else ends
        values = matrix[self.at]
        weight = values.detach() if isinstance(values, Tensor) else number_tensor(values)
        edge_index = torch.stack([torch.as_tensor(end) for end in self.at])
        self.edges = edge_list(edge_index, int(matrix.shape[0]), undirected, weight=weight)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        if isinstance(self.matrix, Tensor):
            small = self.matrix.clone() if edge_weight is None else self.matrix.to(edge_weight.dtype, copy=True)
            if edge_weight is not None:
                small[self.at] = edge_weight
            gone = ~mask
            small[self.at[0][gone], self.at[1][gone]] = 0
            return small
        keep = mask.cpu().numpy()
        kept_class = isinstance(self.graph, np.ndarray)  # numpy.matrix stays one
        small = self.graph.copy(order="K") if kept_class else self.matrix.copy(order="K")
        if edge_weight is not None:
            small = small.astype(np.float64, order="K")
            small[self.at] = edge_weight.cpu().numpy()
        small[self.at[0][~keep], self.at[1][~keep]] = 0
        if kept_class:
            return small
        return type(self.graph)([type(row)(values) for row, values in zip(self.graph, small.tolist(), strict=True)])


@KINDS.register(MANY)
class ManyGraphs(OpenGraph):
    """A list or tuple of graphs of any kinds: each keeps a count of its own."""

    says = "a list of graphs"
    options = ("weight", "src", "dst")

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return isinstance(graph, (list, tuple)) and (asked or _reading(graph) == MANY)

    def __init__(self, graphs: Sequence[Any], undirected: bool | None, **options: Any) -> None:
        self.graphs = graphs
        self.opened: dict[Hashable, OpenGraph] = {}
        for number, graph in enumerate(graphs):
            with about(number):
                self.opened[number] = kind_of(graph)(graph, undirected, **options)
            if len(self.opened[number].parts) != 1:
                raise TypeError(f"graph {number} of the list holds several graphs itself: sparsify it by itself")

    @property
    def parts(self) -> Mapping[Hashable, EdgeList]:
        return {number: opened.edges for number, opened in self.opened.items()}

    def cut_parts(self, masks: Mapping[Any, Tensor], weights: Mapping[Any, Tensor] | None = None) -> Any:
        cut = [
            opened.cut(masks[number], None if weights is None else weights[number])
            for number, opened in self.opened.items()
        ]
        return cut if isinstance(self.graphs, list) else tuple(cut)

    def gathered(self, values: Mapping[Any, Tensor]) -> list[Tensor]:
        return list(values.values())

    def scattered(self, values: Any) -> Mapping[Any, Any]:
        if not isinstance(values, (list, tuple)) or len(values) != len(self.opened):
            raise TypeError(f"scores of a list of {len(self.opened)} graphs are a list of as many tensors of scores")
        return dict(enumerate(values))


def _is_table(graph: Any) -> bool:
    return isinstance(graph, (np.ndarray, list, tuple))


def _is_row(entry: Any) -> bool:
    return isinstance(entry, (list, tuple)) or (isinstance(entry, (np.ndarray, Tensor)) and entry.ndim == 1)


def _reading(graph: Any) -> str | None:
    """Which kind an array or a list is, by its shape and its first row alone.

    Raises:
        ValueError: it could be two kinds.
    """
    if isinstance(graph, np.ndarray):
        return _reading_of_array(graph)
    if not isinstance(graph, (list, tuple)) or is_weighted_pair(graph):
        return None
    if not len(graph):
        return PAIRS
    first = graph[0]
    if not _is_row(first):
        return None if isinstance(first, (Real, np.generic)) or first is None else MANY
    count, width = len(graph), len(first)
    if isinstance(first, (np.ndarray, Tensor)):  # [sources, targets]
        return ROWS if count == 2 else PAIRS
    if isinstance(first, tuple) and isinstance(graph, list) and width in (2, 3):
        return PAIRS
    if count == 2 and isinstance(graph, tuple) and isinstance(first, list):
        return ROWS
    two = count == 2 and (width == 2 or (width == 3 and isinstance(first, tuple)))
    if two or (count == width == 3):
        raise ValueError(
            f"a {type(graph).__name__} of {count} rows of {width} could be two lists of ends, one row an edge, or an "
            f"adjacency matrix: {SAY_WHICH} (a list of tuples is one row an edge)"
        )
    if count == 2:
        return ROWS
    return DENSE if count == width and width != 2 else PAIRS


def _reading_of_array(graph: Array) -> str:
    if graph.ndim != 2:
        return ROWS
    if graph.shape[0] == graph.shape[1]:
        if graph.shape[0] != 2 or not_ids(graph):
            return DENSE
        raise ValueError(
            f"an integer array [2, 2] could be two rows of ends, two pairs, or an adjacency matrix: {SAY_WHICH}"
        )
    return PAIRS if graph.shape[1] == 2 else ROWS


def _ids(row: Any, what: str, per_row: int = 1) -> npt.NDArray[np.int64]:
    """Ids as int64 ``[E]``; ``per_row`` of an array that was flattened stand in one of its rows.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: one is negative or too large.
    """
    if isinstance(row, Tensor):
        row = row.detach().cpu().numpy()
    if not isinstance(row, np.ndarray):
        for number, entry in enumerate(row):
            if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, Integral):
                raise TypeError(f"{what} holds {entry!r:.40} at {number}: the ids of nodes are whole numbers")
        row = np.array(row, dtype=object) if len(row) else np.empty(0, np.int64)
        if row.size and not 0 <= min(row) <= max(row) < 1 << 63:
            at = next(number for number, entry in enumerate(row) if not 0 <= entry < 1 << 63)
            raise ValueError(f"{what} names node {row[at]} at {at}: ids are not negative, and below 2^63")
        ids: npt.NDArray[np.int64] = row.astype(np.int64)
        return ids
    if row.ndim != 1:
        raise ValueError(f"{what} must be a list of ids, got the shape {list(row.shape)}")
    if not_ids(row):
        hint = "; where all are whole, array.astype(int) makes ids of them" if row.dtype.kind == "f" else ""
        hint = "; give a list of pairs, array.tolist(), for labels" if row.dtype.kind in "OUSTM" else hint
        raise TypeError(f"{what} holds {row.dtype}: the ids of nodes are whole numbers{hint}")
    if row.size and not 0 <= int(row.min()) <= int(row.max()) < 1 << 63:
        at = int(((row < 0) | (row > np.int64((1 << 63) - 1))).argmax())
        raise ValueError(f"{what} names node {int(row[at])} at {at // per_row}: ids are not negative, and below 2^63")
    return np.ascontiguousarray(row, np.int64)


def _labelled(rows: Sequence[Sequence[Any]], undirected: bool | None, weight: Tensor | None) -> EdgeList:
    """Ids where all ends are whole numbers, else labels."""
    tails, heads = [row[0] for row in rows], [row[1] for row in rows]
    for number, row in enumerate(rows):
        for end in row[:2]:
            _check_label(end, number)
    if all(isinstance(end, Integral) for ends in (tails, heads) for end in ends):
        ends = np.array([tails, heads], dtype=object)
        wrong = [(at, end) for at in range(len(rows)) for end in ends[:, at] if not 0 <= end < 1 << 63]
        if wrong:
            raise ValueError(f"row {wrong[0][0]} names node {wrong[0][1]}: ids are not negative, and below 2^63")
        return edge_list(torch.from_numpy(ends.astype(np.int64)), None, undirected, weight=weight)
    return coded_edges(*label_codes(tails, heads), undirected, weight)


def _check_label(end: Any, row: int) -> None:
    if isinstance(end, (bool, np.bool_)) or end is None or (isinstance(end, Real) and not isinstance(end, Integral)):
        raise TypeError(f"row {row} holds {end!r:.40} as an end: nodes are named by whole numbers or text")
    try:
        hash(end)
        plain = not isinstance(end, (Tensor, np.ndarray))
    except TypeError:
        plain = False
    if not plain:
        raise TypeError(f"row {row} holds a {type(end).__name__} as an end: nodes are named by plain values")


def _third(rows: Sequence[Sequence[Any]]) -> Tensor | None:
    """What stands third as weights: numbers, or the ``"weight"`` of networkx's dictionaries."""
    values = [row[2].get("weight", 1.0) if isinstance(row[2], Mapping) else row[2] for row in rows]
    if any(isinstance(value, str) for value in values):
        return None
    return torch.tensor([as_number(value) for value in values], dtype=torch.float64)


def _kept(row: Any, keep: npt.NDArray[np.bool_]) -> Any:
    if isinstance(row, Tensor):
        return row[torch.from_numpy(keep).to(row.device)]
    if isinstance(row, np.ndarray):
        return row[keep]
    kept = list(compress(row, keep.tolist()))
    return kept if isinstance(row, list) else tuple(kept)


def _matrix(graph: Any) -> Array:
    """An array of numbers, from lists too."""
    if not isinstance(graph, np.ndarray):
        for number, row in enumerate(graph):
            if not _is_row(row) or len(row) != len(graph):
                raise ValueError(f"row {number} of the adjacency matrix has not {len(graph)} entries, as it has rows")
        try:
            graph = np.array(graph)
        except ValueError:
            raise TypeError("the rows of an adjacency matrix hold numbers, and these hold other things") from None
    if isinstance(graph, np.ma.MaskedArray):
        raise TypeError("a masked array does not say whether there is an edge behind the mask: array.filled(0) does")
    if graph.dtype.kind not in "biufc":
        raise TypeError(f"an adjacency matrix holds numbers, got {graph.dtype}")
    found: Array = np.asarray(graph)
    return found
