# mypy: allow-untyped-decorators
"""Numba loops over a piece of an edge list that was read from a file; those that work in memory, too, are elsewhere.

Ids were looked over before (`graphsparse.graphs.loops.look_over`). Import this module only when it is used: it imports
numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from graphsparse.mixing_loops import GOLDEN, mixed

S6, S11, S32 = (np.uint64(bits) for bits in (6, 11, 32))
ONE, LOW_6 = np.uint64(1), np.uint64(63)


@njit(nogil=True, cache=True)
def count_up(tails: Any, heads: Any) -> int:
    """The number of arcs that point from a smaller to a larger id."""
    up = 0
    for i in range(len(tails)):
        up += tails[i] < heads[i]
    return up


@njit(nogil=True, cache=True)
def sums_of_ends(tails: Any, heads: Any, of_tails: Any, of_heads: Any, out: Any) -> None:
    """Write ``of_tails[u] + of_heads[v]`` for every arc u->v, and infinity for loops."""
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        total = of_tails[u] + of_heads[v]
        out[i] = total if u != v else np.inf


@njit(nogil=True, cache=True)
def _finalise(z: Any) -> Any:
    return mixed(z + GOLDEN)


@njit(nogil=True, cache=True)
def name_keys(tails: Any, heads: Any, undirected: bool, seed: Any, out: Any) -> None:
    """Write ``mix64(seed, low, high, 0)`` of each pair, or of each arc: the key of its first copy."""
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        low, high = (min(u, v), max(u, v)) if undirected else (u, v)
        out[i] = _finalise(_finalise(_finalise(seed ^ low) ^ high))


@njit(nogil=True, cache=True)
def count_between(keys: Any, low: int, last: int, base: int, shift: int, counts: Any) -> None:
    """Count the keys from ``low`` to ``last`` in bins of ``2^shift`` from ``base``; what is below it, in the first."""
    for i in range(len(keys)):
        key = keys[i]
        if low <= key <= last:
            above = np.uint64(key) - np.uint64(base) if key > base else np.uint64(0)
            counts[above >> np.uint64(shift)] += 1


@njit(nogil=True, cache=True)
def _slot(u: Any, v: Any, ordered: bool, turns: Any, turn: Any, shift: Any) -> Any:
    """Where a pair's bit lies, and whether this turn looks at it; the turn is told by bits that the slot has not."""
    low, high = (u, v) if ordered else (min(u, v), max(u, v))
    z = _finalise(_finalise(low) ^ high)
    return z >> shift, z % turns == turn


@njit(nogil=True, cache=True)
def mark_copies(tails: Any, heads: Any, ordered: bool, up: bool, how: Any, once: Any, twice: Any) -> None:
    """Set the bit of each pair in ``once``, and in ``twice`` where it was set; only of arcs that point up, if asked."""
    turns, turn, shift = how
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        if u == v or (up and u > v):
            continue
        slot, mine = _slot(u, v, ordered, turns, turn, shift)
        if mine:
            word, bit = slot >> S6, ONE << (slot & LOW_6)
            twice[word] |= once[word] & bit
            once[word] |= bit


@njit(nogil=True, cache=True)
def mark_directions(tails: Any, heads: Any, how: Any, rising: Any, falling: Any) -> None:
    """Set the bit of each pair in ``rising`` or ``falling``, by where its arc points."""
    turns, turn, shift = how
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        if u == v:
            continue
        slot, mine = _slot(u, v, False, turns, turn, shift)
        if mine:
            if u < v:
                rising[slot >> S6] |= ONE << (slot & LOW_6)
            else:
                falling[slot >> S6] |= ONE << (slot & LOW_6)


@njit(nogil=True, cache=True)
def find_marked(tails: Any, heads: Any, ordered: bool, how: Any, marks: Any, out: Any) -> int:
    """Write the positions of the arcs whose pair's bit is set to ``out``; returns how many they are."""
    turns, turn, shift = how
    found = 0
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        if u == v:
            continue
        slot, mine = _slot(u, v, ordered, turns, turn, shift)
        if mine and marks[slot >> S6] >> (slot & LOW_6) & ONE:
            out[found] = i
            found += 1
    return found
