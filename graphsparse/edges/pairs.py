"""The simple undirected graph underneath any graph: its pairs, and which pair each edge belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import mix64
from graphsparse.sorting import best_first, sorted_order

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SimpleGraph:
    """Distinct pairs {u, v}, u != v, in ascending order: what remains without directions, copies and self-loops.

    Whatever is computed once a pair is by construction the same on both arcs and in any order of the edges.

    Attributes:
        low: smaller end of each pair ``[P]``.
        high: larger end of each pair ``[P]``.
        pair: position of each edge's pair ``[E]``, -1 for a self-loop.
        num_nodes: number of nodes N.
    """

    low: Ints
    high: Ints
    pair: Ints
    num_nodes: int

    @classmethod
    def of(cls, graph: EdgeList) -> SimpleGraph:
        """Read the simple graph underneath ``graph``."""
        tail, head = endpoints(graph)
        keys = np.minimum(tail, head) * graph.num_nodes + np.maximum(tail, head)
        real = tail != head
        positions = np.flatnonzero(real)
        keys = keys[positions]
        order = sorted_order(keys)
        keys = keys[order]
        opens = np.ones(len(keys), bool)
        opens[1:] = keys[1:] != keys[:-1]
        distinct = keys[opens]
        pair = np.full(len(tail), -1, np.int64)
        pair[positions[order]] = np.cumsum(opens) - 1
        n = max(1, graph.num_nodes)
        return cls(distinct // n, distinct % n, pair, graph.num_nodes)

    def degrees(self) -> Ints:
        """Number of distinct neighbours of each node ``[N]``."""
        return np.bincount(self.low, minlength=self.num_nodes) + np.bincount(self.high, minlength=self.num_nodes)

    def spread(self, values: Floats, device: torch.device) -> Tensor:
        """Give every edge the value of its pair: float64 ``[P]`` to ``[E]``, self-loops +inf."""
        return spread(values, self.pair, device)


@dataclass(frozen=True)
class Neighbourhoods:
    """What the two ends of each distinct pair {u, v} have in common, in the simple graph underneath.

    Attributes:
        degrees: distinct neighbours of each node ``[N]``.
        fewer: the end of each pair ``[P]`` with fewer edges.
        other: the other end ``[P]``.
        common: neighbours of both ends ``[P]``, counted as triangles.
        pair: position of each edge's pair ``[E]``, -1 for a self-loop.
    """

    degrees: Ints
    fewer: Ints
    other: npt.NDArray[Any]
    common: npt.NDArray[Any]
    pair: npt.NDArray[Any]

    @classmethod
    def of(cls, graph: EdgeList) -> Neighbourhoods:
        """Count them: O(E sqrt(E)), as no node is the end with fewer edges of more than sqrt(2 E) edges."""
        from graphsparse.edges.pair_kernels import orient, triangles

        tails, heads = endpoints(graph)
        kind = np.int32 if max(len(tails), graph.num_nodes) < 1 << 31 else np.int64
        edges_at = (graph.survey.degree_out + graph.survey.degree_in).cpu().numpy()
        ends, position, pair = (np.empty(len(tails), kind) for _ in range(3))
        indptr, count = orient(tails, heads, edges_at, ends, position, pair)
        other, common = ends[:count], np.zeros(count, kind)
        triangles(indptr, other, common)
        rows = np.diff(indptr)
        degrees = rows + np.bincount(other, minlength=graph.num_nodes)
        return cls(degrees, np.repeat(np.arange(graph.num_nodes), rows), other, common, pair)


def spread(values: Floats, pair: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Give every edge the value of its pair: float64 ``[P]`` to ``[E]``, self-loops (-1) +inf."""
    scores = np.append(values, np.inf)[pair]  # position -1 is the last one
    return torch.from_numpy(scores).to(device)


def endpoints(graph: EdgeList) -> tuple[Ints, Ints]:
    """Tails and heads of the edges as int64 arrays ``[E]``, whatever the integer type and device of the graph."""
    edge_index = graph.edge_index.detach().cpu().to(torch.int64).numpy()
    return edge_index[0], edge_index[1]


def rows(tails: Ints, heads: Ints, num_nodes: int) -> tuple[Ints, Ints, Ints]:
    """Group distinct arcs by their tails, heads in ascending order.

    Returns:
        ``indptr`` ``[N + 1]``, the heads ``[m]`` row by row, and the position of each in the input ``[m]``.
    """
    order = sorted_order(tails * num_nodes + heads)
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(np.bincount(tails, minlength=num_nodes), out=indptr[1:])
    return indptr, heads[order], order


def by_degree(degrees: Ints, names: npt.NDArray[np.uint64] | None, seed: int) -> Ints:
    """Place of each node ``[N]`` when nodes are ordered by falling degree, equal ones by a seeded hash of the name."""
    hashes = mix64(seed, names if names is not None else np.arange(len(degrees)))
    order = best_first(degrees.astype(np.float64), hashes)
    place = np.empty(len(degrees), np.int64)
    place[order] = np.arange(len(degrees))
    return place
