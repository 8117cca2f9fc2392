"""Units: the countable elements of an edge list, one for both arcs of an undirected pair, with names to break ties."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import mix64, top_mask
from graphsparse.sorting import best_first, sorted_order

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Units:
    """Countable elements in an order of their own (by ends and copy), whatever the order of the edges.

    Attributes:
        low: one end of each unit ``[m]``: the smaller id in an undirected graph, the tail in a directed one.
        high: the other end ``[m]``.
        scores: score of each unit ``[m]``, the larger one where two arcs differ.
        keys: uint64 tie key of each unit ``[m]``; among equal scores the smallest stay.
        arcs: for each arc of a unit (one or two), its position in the edge list ``[m]``.
    """

    low: Ints
    high: Ints
    scores: Array
    keys: npt.NDArray[np.uint64]
    arcs: tuple[Ints, ...]

    @cached_property
    def best_first(self) -> Ints:
        """Units ``[m]`` by falling score, then by tie key."""
        return best_first(self.scores, self.keys)

    def top(self, count: int, among: Ints | None = None) -> npt.NDArray[np.bool_]:
        """Mark the ``count`` best units ``[m]`` without a sort, of all or of those at the positions ``among``."""
        scores, keys = (self.scores, self.keys) if among is None else (self.scores[among], self.keys[among])
        found: npt.NDArray[np.bool_] = top_mask(
            torch.from_numpy(scores), count, lambda tied: keys[tied.numpy()]
        ).numpy()
        if among is None:
            return found
        chosen = np.zeros(len(self.scores), bool)
        chosen[among] = found
        return chosen

    def spread(self, chosen: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_]) -> None:
        """Write what was ``chosen`` ``[m]`` to all the arcs of each unit in ``mask`` ``[E]``."""
        for positions in self.arcs:
            mask[positions] = chosen


def find_units(graph: EdgeList, scores: Tensor, seed: int, among: Tensor | None = None) -> Units:
    """Group arcs into countable elements.

    The copies of an arc are counted by falling score, then by position, and the k-th copy of (u, v) belongs with the
    k-th of (v, u). The tie key hashes the names of both ends and the number of the copy among those of equal score.

    Args:
        graph: the edge list.
        scores: floats without NaN, of the arcs to look at.
        seed: of the tie keys.
        among: positions of the arcs to look at, by default all; with an arc comes its mirror.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> graph = open_graph(torch.tensor([[0, 1, 1, 2], [1, 0, 1, 2]])).edges
        >>> units = find_units(graph, torch.tensor([1.0, 2.0, 0.0, 0.0]), seed=0)
        >>> units.low.tolist(), units.high.tolist(), units.scores.tolist(), [arc.tolist() for arc in units.arcs]
        ([0], [1], [2.0], [[0], [1]])
    """
    edge_index = graph.edge_index if among is None else graph.edge_index[:, among]
    tails, heads = edge_index.cpu().numpy()
    values = scores.detach().cpu().numpy()
    values = values + 0.0  # the two zeros are equal
    sides = [tails < heads, tails > heads] if graph.mirrored else [tails != heads]
    arcs: list[Ints] = []
    pairs = np.empty(0, np.int64)
    for side in reversed(sides):
        positions, pairs = _by_pair(graph, tails, heads, values, np.flatnonzero(side))
        arcs.insert(0, positions)
    best = values[arcs[0]] if len(arcs) == 1 else np.maximum(values[arcs[0]], values[arcs[1]])
    low, high = np.divmod(pairs, max(1, graph.num_nodes))
    keys = _tie_keys(graph, low, high, _copy_numbers(pairs, best), seed)
    if among is not None:
        chosen = among.cpu().numpy()
        arcs = [chosen[positions] for positions in arcs]
    return Units(low, high, best, keys, tuple(arcs))


def _by_pair(graph: EdgeList, tails: Array, heads: Array, values: Array, positions: Ints) -> tuple[Ints, Ints]:
    """Positions sorted by pair, copies of a pair by falling score and then by position; and the pairs' numbers."""
    first, second = tails[positions].astype(np.int64, copy=False), heads[positions].astype(np.int64, copy=False)
    if graph.undirected:
        first, second = np.minimum(first, second), np.maximum(first, second)
    own = first * graph.num_nodes + second
    order = sorted_order(own)
    positions, own = positions[order], own[order]
    same = own[1:] == own[:-1]
    if same.any():  # only copies need the slower sort by two keys
        copies = np.zeros(len(own), bool)
        copies[1:] |= same
        copies[:-1] |= same
        places = np.flatnonzero(copies)
        members = positions[places]
        positions[places] = members[np.lexsort((-values[members], own[places]))]
    return positions, own


def _copy_numbers(pairs: Ints, scores: Array) -> Ints:
    """Number each unit among the copies of its pair that have its score; they lie side by side."""
    if not (pairs[1:] == pairs[:-1]).any():
        return np.zeros(1, np.int64)
    starts = np.ones(len(pairs), bool)
    starts[1:] = (pairs[1:] != pairs[:-1]) | (scores[1:] != scores[:-1])
    at = np.arange(len(pairs))
    return at - np.maximum.accumulate(np.where(starts, at, 0))


def _tie_keys(graph: EdgeList, low: Ints, high: Ints, copies: Ints, seed: int) -> npt.NDArray[np.uint64]:
    if graph.names is None:
        return mix64(seed, low, high, copies)
    first, second = graph.names[low], graph.names[high]
    if graph.undirected:
        first, second = np.minimum(first, second), np.maximum(first, second)
    return mix64(seed, first, second, copies)
