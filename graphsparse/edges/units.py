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
from graphsparse.keep_rule import mix64

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
        return np.lexsort((self.keys, -self.scores))

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
    tails, heads = edge_index.cpu().to(torch.int64).numpy()
    values = scores.detach().cpu().numpy()
    values = values + 0.0  # the two zeros are equal
    if graph.undirected:
        low, high = np.minimum(tails, heads), np.maximum(tails, heads)
    else:
        low, high = tails, heads
    pairs = low * graph.num_nodes + high
    sides = (tails < heads, tails > heads) if graph.mirrored else (tails != heads,)
    arcs = tuple(_by_pair(pairs, values, np.flatnonzero(side)) for side in sides)
    first = arcs[0]
    best = values[first] if len(arcs) == 1 else np.maximum(values[first], values[arcs[1]])
    low, high = low[first], high[first]
    keys = _tie_keys(graph, low, high, _copy_numbers(pairs[first], best), seed)
    if among is not None:
        chosen = among.cpu().numpy()
        arcs = tuple(chosen[positions] for positions in arcs)
    return Units(low, high, best, keys, arcs)


def _by_pair(pairs: Ints, values: Array, positions: Ints) -> Ints:
    """Sort positions by pair, copies of a pair by falling score and then by position."""
    own = pairs[positions]
    order = np.argsort(own, kind="stable")
    ordered = own[order]
    if (ordered[1:] == ordered[:-1]).any():  # only copies need the slower sort by two keys
        order = np.lexsort((-values[positions], own))
    return positions[order]


def _copy_numbers(pairs: Ints, scores: Array) -> Ints:
    """Number each unit among the copies of its pair that have its score; they lie side by side."""
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
