# mypy: allow-untyped-decorators
"""Numba loops over slices of an edge list, each one pass and without the interpreter lock.

Every loop takes ``tails`` and ``heads`` ``[E]`` (int32 or int64) and the slice ``start:stop`` that it reads, and
adds integers only, so that partial results of several threads add up to the same bits in any order. Import this
module only when it is used: it imports numba. `graphsparse.arcs` and `graphsparse.edges.kernels` hold the doors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MIX_1 = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser of SplitMix64
MIX_2 = np.uint64(0x94D049BB133111EB)
S27, S30, S31, S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


@njit(nogil=True, cache=True)
def survey(tails: Any, heads: Any, start: int, stop: int, num_nodes: int, degree: Any) -> Any:
    """Count loops, add out-degrees without loops to ``degree``, and weigh each pair's arcs against their mirrors.

    Returns the first position with an id out of range (-1: none), the number of loops, and the balance: each arc
    adds the hash of its pair if it points up and subtracts it if it points down.
    """
    loops = 0
    balance = np.uint64(0)
    for i in range(start, stop):
        u, v = np.int64(tails[i]), np.int64(heads[i])
        if u < 0 or v < 0 or u >= num_nodes or v >= num_nodes:
            return i, loops, balance
        if u == v:
            loops += 1
            continue
        degree[u] += 1
        z = (np.uint64(min(u, v)) << S32) ^ np.uint64(max(u, v))
        z = (z ^ (z >> S30)) * MIX_1
        z = (z ^ (z >> S27)) * MIX_2
        z ^= z >> S31
        balance += z if u < v else ~z + np.uint64(1)
    return -1, loops, balance


@njit(nogil=True, cache=True)
def count_heads(tails: Any, heads: Any, start: int, stop: int, degree: Any) -> None:
    """Add in-degrees without loops to ``degree``."""
    for i in range(start, stop):
        if tails[i] != heads[i]:
            degree[heads[i]] += 1


@njit(nogil=True, cache=True)
def sum_heads(tails: Any, heads: Any, start: int, stop: int, values: Any, sums: Any) -> None:
    """Add ``values[v]`` to ``sums[u]`` for every arc u->v that is no loop."""
    for i in range(start, stop):
        u, v = tails[i], heads[i]
        if u != v:
            sums[u] += values[v]


@njit(nogil=True, cache=True)
def products(tails: Any, heads: Any, start: int, stop: int, of_tails: Any, of_heads: Any, out: Any) -> None:
    """Write ``of_tails[u] * of_heads[v]`` for every arc u->v, and infinity for loops."""
    for i in range(start, stop):
        u, v = tails[i], heads[i]
        out[i] = of_tails[u] * of_heads[v] if u != v else np.inf


@njit(nogil=True, cache=True)
def count_true(mask: Any, start: int, stop: int) -> int:
    """Count the true elements of ``mask[start:stop]``."""
    kept = 0
    for i in range(start, stop):
        kept += mask[i]
    return kept


@njit(nogil=True, cache=True)
def compress(tails: Any, heads: Any, mask: Any, start: int, first: int, last: int, out: Any) -> None:
    """Write the kept arcs from position ``start`` on to the columns ``first:last`` of ``out`` ``[2, kept]``.

    Every arc is written and only a kept one moves on: a branch on a random mask would be guessed wrongly.
    """
    i = start
    while first < last:
        out[0, first] = tails[i]
        out[1, first] = heads[i]
        first += mask[i]
        i += 1


@njit(nogil=True, cache=True)
def score_balance(tails: Any, heads: Any, bits: Any, start: int, stop: int) -> Any:
    """Sum the hashes of (pair, score) over arcs that point up, less those over arcs that point down."""
    balance = np.uint64(0)
    for i in range(start, stop):
        u, v = np.int64(tails[i]), np.int64(heads[i])
        if u == v:
            continue
        z = (np.uint64(min(u, v)) << S32) ^ np.uint64(max(u, v))
        z = (z ^ (z >> S30)) * MIX_1
        z ^= np.uint64(bits[i])
        z = (z ^ (z >> S30)) * MIX_1
        z = (z ^ (z >> S27)) * MIX_2
        z ^= z >> S31
        balance += z if u < v else ~z + np.uint64(1)
    return balance


@njit(nogil=True, cache=True)
def mark_above(scores: Any, start: int, stop: int, value: float, mask: Any, tied: Any) -> int:
    """Write ``scores > value`` to ``mask``, and the positions of the equal ones to ``tied``; stop there when full.

    Returns the number of equal scores in the slice, which may be more than ``tied`` holds.
    """
    found, room = 0, len(tied)
    for i in range(start, stop):
        score = scores[i]
        mask[i] = score > value
        if score == value:
            if found < room:
                tied[found] = i
            found += 1
    return found


@njit(nogil=True, cache=True)
def cover(low: Any, high: Any, covered: Any, taken: Any, budget: int) -> None:
    """Spend ``budget`` on edges, best first: two ends without a kept edge, then one such end, then the rest.

    ``covered`` tells which nodes have a kept edge already, ``taken`` which edges are kept; both are updated.
    """
    for wanted in (2, 1, 0):
        for i in range(len(low)):
            if budget == 0:
                return
            u, v = low[i], high[i]
            if not taken[i] and 2 - covered[u] - covered[v] >= wanted:
                taken[i] = covered[u] = covered[v] = True
                budget -= 1
