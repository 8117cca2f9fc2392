"""Lists of undirected edges of which some stand in both directions and others in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BothWays:
    """Which lines of a list are one edge.

    Attributes:
        first: the first line of each edge ``[m]``, ascending.
        edge_of: the edge of each line ``[E]``.
    """

    first: Array
    edge_of: Array

    @property
    def twice(self) -> int:
        """How many edges stand on two lines."""
        return len(self.edge_of) - len(self.first)

    @property
    def said(self) -> str:
        """What a report says of it."""
        if self.twice == 1:
            return "1 edge stands in both directions, and is one edge: its lines stay or go together"
        return (
            f"{self.twice:,} edges stand in both directions, and are one edge each; their two lines stay or go together"
        )


def edges_of_lines(ends: Array) -> BothWays | None:
    """Join each line (v, u) with its line (u, v), where only some lines of a list have such a partner; else None.

    The k-th copy of (u, v) belongs to the k-th copy of (v, u): a pair that stands a times in one direction and b times
    in the other is max(a, b) parallel edges. So no line is dropped, and none is counted twice.

    Args:
        ends: ids from 0 on, ``[2, E]``.

    Example:
        >>> edges_of_lines(np.array([[0, 1, 1, 1], [1, 0, 2, 0]])).edge_of
        array([0, 0, 1, 2])
        >>> edges_of_lines(np.array([[0, 1], [1, 0]])) is None, edges_of_lines(np.array([[0, 0], [1, 1]])) is None
        (True, True)
    """
    tails, heads = ends.astype(np.int64)
    low, high, down = np.minimum(tails, heads), np.maximum(tails, heads), (tails > heads).astype(np.int64)
    order = np.lexsort((down, high, low))  # stable: copies stay in the order of their lines
    pair = np.r_[True, (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)]
    run = pair | np.r_[True, np.diff(down[order]) != 0]
    at = np.arange(len(order))
    copy = at - np.maximum.accumulate(np.where(run, at, 0))
    both = np.zeros(len(order), bool)
    both[order] = ~pair & (down[order] == 1) & ~np.r_[True, np.diff(down[order]) == 0]  # a second direction begins
    if not both.any():
        return None
    name = np.empty(len(order), np.int64)
    name[order] = np.cumsum(pair) - 1
    number = np.empty(len(order), np.int64)
    number[order] = copy
    _, first, edge_of, lines = np.unique(
        name * (int(copy.max()) + 1) + number, return_index=True, return_inverse=True, return_counts=True
    )
    if ((lines == 2) | (tails[first] == heads[first])).all():
        return None  # every line has its partner
    by_line = np.argsort(first)
    rank = np.empty_like(by_line)
    rank[by_line] = np.arange(len(by_line))
    return BothWays(first[by_line], rank[edge_of])
