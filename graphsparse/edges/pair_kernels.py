"""Numba kernels of scores: triangles of every pair, places among neighbours, and the waves of the rank-degree walk.

Import this module only when it is used: it imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


def _orient(tails: Any, heads: Any, edges_at: Any, ends: Any, position: Any, pair: Any) -> Any:
    num_nodes, name = len(edges_at), np.uint64(0xFFFFFFFF)
    rank = np.empty(num_nodes, np.uint64)  # edges, then the node: whole numbers compare without a branch
    for u in range(num_nodes):
        rank[u] = (np.uint64(min(edges_at[u], 0xFFFFFFFF)) << np.uint64(32)) | np.uint64(u)
    indptr = np.zeros(num_nodes + 1, np.int64)
    next_slot = np.zeros(num_nodes + 1, np.int64)
    for e in range(len(tails)):
        a, b = rank[np.uint64(tails[e])], rank[np.uint64(heads[e])]
        next_slot[(min(a, b) & name) + np.uint64(1)] += a != b
        pair[e] = np.int64(a > b) - np.int64(a == b)  # 1 where the head has fewer, -1 for a loop
    for u in range(num_nodes):
        next_slot[u + 1] += next_slot[u]
    for e in range(len(tails)):
        if pair[e] < 0:
            continue
        fewer, other = (heads[e], tails[e]) if pair[e] else (tails[e], heads[e])
        slot = np.uint64(next_slot[np.uint64(fewer)])
        next_slot[np.uint64(fewer)] += 1
        ends[slot], position[slot] = other, e
    found = np.full(num_nodes, -1, ends.dtype)  # the pair that each end got last: of this row from its first on
    first, count, start = 0, 0, 0
    for u in range(num_nodes):
        for i in range(start, next_slot[u]):  # the slot that would be next is where the next row begins
            v = np.uint64(ends[i])
            if found[v] < first:
                found[v], ends[count] = count, ends[i]
                count += 1
            pair[np.uint64(position[i])] = found[v]
        first, start = count, next_slot[u]
        indptr[u + 1] = count
    return indptr, count


def _triangles(indptr: Any, heads: Any, counts: Any) -> None:
    arc_to = np.full(len(indptr) - 1, -1, heads.dtype)
    for u in range(len(indptr) - 1):
        for i in range(indptr[u], indptr[u + 1]):
            arc_to[heads[i]] = i
        for i in range(indptr[u], indptr[u + 1]):
            v = np.uint64(heads[i])
            for j in range(indptr[v], indptr[v + np.uint64(1)]):
                k = arc_to[np.uint64(heads[j])]
                if k >= 0:
                    counts[i] += 1
                    counts[j] += 1
                    counts[k] += 1
        for i in range(indptr[u], indptr[u + 1]):
            arc_to[heads[i]] = -1


def _places(at: Any, other: Any, place: Any, width: Any, logs: Any, positions: Any, out: Any) -> None:
    next_slot = np.zeros(len(place) + 1, np.int64)
    for i in range(len(at)):  # unsigned positions: no test for a negative one, several at a time
        next_slot[np.uint64(place[np.uint64(other[i])] + 1)] += at[i] != other[i]
    for b in range(len(place)):
        next_slot[b + 1] += next_slot[b]
    ends = np.empty(next_slot[-1], np.uint32)  # with ``positions``: each arc's end, by the other end's place
    for i in range(len(at)):
        if at[i] != other[i]:
            rank = np.uint64(place[np.uint64(other[i])])
            slot = np.uint64(next_slot[rank])
            next_slot[rank] += 1
            ends[slot], positions[slot] = at[i], i
    state = np.zeros(
        (len(place), 4), np.int32
    )  # of each node: neighbours so far, the last group, the rank of its first
    group, end = 0, next_slot[0]
    for i in range(len(ends)):  # best neighbours first
        while i >= end:
            group += 1
            end = next_slot[group]
        a = np.uint64(ends[i])
        own = state[a]
        if own[1] != group + 1:
            own[1], own[2] = group + 1, own[0]
        own[0] += 1
        out[np.uint64(positions[i])] = 1.0 - logs[own[2]] / width[a]


def _waves(indptr: Any, heads: Any, pair: Any, restarts: Any, batch: int, share: Any) -> Any:
    numerator, denominator = share
    num_nodes, num_pairs = len(indptr) - 1, len(pair) // 2
    wave_of = np.zeros(num_pairs, np.int64)
    left = indptr[1:] - indptr[:-1]  # edges that each node still has
    next_arc = indptr[:-1].copy()
    reached_in = np.zeros(num_nodes, np.int64)
    seeds = np.empty(num_nodes, np.int64)
    reached = np.empty(num_nodes, np.int64)
    picked = np.empty((num_pairs, 2), np.int64)
    num_seeds, cursor, wave, done = 0, 0, 0, 0
    while done < num_pairs:
        if num_seeds == 0:
            if cursor == len(restarts):
                restarts = restarts[left[restarts] > 0]
                cursor = 0
            while num_seeds < batch and cursor < len(restarts):
                if left[restarts[cursor]] > 0:
                    seeds[num_seeds] = restarts[cursor]
                    num_seeds += 1
                cursor += 1
            if num_seeds == 0:
                continue
        wave += 1
        num_reached, num_picked = 0, 0
        for s in range(num_seeds):
            v = seeds[s]
            wanted = max(1, -(-numerator * left[v] // denominator))
            i = next_arc[v]
            while wanted > 0 and i < indptr[v + 1]:
                u, e = heads[i], pair[i]
                if wave_of[e] == 0:
                    wave_of[e] = wave
                    picked[num_picked, 0], picked[num_picked, 1] = u, v
                    num_picked += 1
                if wave_of[e] == wave:  # picked now, here or from its other end: all seeds see the same graph
                    wanted -= 1
                    if reached_in[u] != wave:
                        reached_in[u] = wave
                        reached[num_reached] = u
                        num_reached += 1
                i += 1
            next_arc[v] = i
        for p in range(num_picked):
            left[picked[p, 0]] -= 1
            left[picked[p, 1]] -= 1
        done += num_picked
        num_seeds = 0
        for r in range(num_reached):
            if left[reached[r]] > 0:
                seeds[num_seeds] = reached[r]
                num_seeds += 1
    return wave_of


orient: Callable[..., Any] = njit(nogil=True, cache=True)(_orient)
"""Rows of the simple graph with each pair at the end that has fewer edges: ``indptr`` ``[N + 1]`` and their number P.

The other ends go into the first P of ``ends`` ``[E]``, the pair of each edge into ``pair`` ``[E]``, -1 for a self-loop;
``position`` ``[E]`` is room to work in."""

triangles: Callable[..., Any] = njit(nogil=True, cache=True)(_triangles)
"""Add the triangles over every arc to ``counts`` ``[m]``, for an acyclic orientation in CSR form."""

places: Callable[..., Any] = njit(nogil=True, cache=True)(_places)
"""Write ``1 - logs[rank] / width[a]`` for each arc ``[m]`` at its end a, where the other end ranks by its place.

``positions`` ``[m]`` is room to work in."""

waves: Callable[..., Any] = njit(nogil=True, cache=True)(_waves)
"""Wave (1, 2, ...) in which the rank-degree walk picks each pair ``[P]``; both arcs listed, best neighbours first."""
