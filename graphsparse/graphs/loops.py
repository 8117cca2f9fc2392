# mypy: allow-untyped-decorators
"""Numba loops over an edge list, or over a matrix in compressed rows, without the interpreter lock.

Those over an edge list that several threads share take ``tails`` and ``heads`` ``[E]`` (int32 or int64) and the slice
``start:stop`` that they read, in one pass, and add integers only, so that partial results add up to the same bits in
any order. Import this module only when it is used: it imports numba. `graphsparse.graphs.arcs` is the door
to most of them.

Why the loops over an edge list look as they do: an array is sliced first and indexed by unsigned integers, because
signed ones are tested for being negative, which keeps the compiler from gathering several elements at once; it made
these loops 3 to 6 times slower. Ids are therefore looked over first (`look_over`, no stores, so vectorised whole), and
trusted afterwards.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
from numba import njit

from graphsparse.mixing_loops import MIX_1, S30, mixed

MINUS_ZERO = np.int64(-(1 << 63))  # the bits of the float -0.0, which equals 0.0
ARCS_AT_ONCE = 2048
S32 = np.uint64(32)


@njit(nogil=True, cache=True)
def look_over(tails: Any, heads: Any, start: int, stop: int) -> Any:
    """Find the largest id (a negative one counts as huge), the number of loops, and the balance of arcs and mirrors.

    To the balance each arc adds the hash of its pair if it points up, and subtracts it if it points down.
    """
    tails, heads = tails[start:stop], heads[start:stop]
    largest, balance, loops = np.uint64(0), np.uint64(0), 0
    for i in range(len(tails)):
        u, v = np.uint64(np.int64(tails[i])), np.uint64(np.int64(heads[i]))
        low, high = min(u, v), max(u, v)
        largest = max(largest, high)
        loops += u == v
        balance += mixed((low << S32) ^ high) * (np.uint64(u < v) - np.uint64(u > v))
    return largest, loops, balance


@njit(nogil=True, cache=True)
def count_tails(tails: Any, heads: Any, start: int, stop: int, degree: Any) -> None:
    """Add out-degrees without loops to ``degree``."""
    tails, heads = tails[start:stop], heads[start:stop]
    for i in range(len(tails)):
        degree[np.uint64(tails[i])] += tails[i] != heads[i]


@njit(nogil=True, cache=True)
def sum_heads(tails: Any, heads: Any, start: int, stop: int, values: Any, least: Any, sums: Any) -> None:
    """Add ``least + values[v]`` to ``sums[u]`` for every arc u->v that is no loop.

    The values of some arcs are gathered first and added afterwards: while a sum is being stored, the processor does
    not fetch the next value ahead, because it might be what is stored.
    """
    tails, heads = tails[start:stop], heads[start:stop]
    buffer = np.empty(ARCS_AT_ONCE, np.int64)
    for first in range(0, len(tails), ARCS_AT_ONCE):
        some_tails, some_heads = tails[first : first + ARCS_AT_ONCE], heads[first : first + ARCS_AT_ONCE]
        some = buffer[: len(some_tails)]
        for i in range(len(some)):
            real = np.int64(some_tails[i] != some_heads[i])
            some[i] = (np.int64(values[np.uint64(some_heads[i])]) + least) * real
        for i in range(len(some)):
            sums[np.uint64(some_tails[i])] += some[i]


@njit(nogil=True, cache=True)
def sum_ends(tails: Any, heads: Any, start: int, stop: int, once: bool, nodes: Any) -> None:
    """Add the value of either end to the sum of the other one, for every pair; ``nodes`` ``[N, 2]``: value, sum.

    ``once`` says that pairs are listed once each; else both arcs are there, and the one that points up is read. A value
    and a sum lie side by side, so a pair waits for two places in memory and not for four. As in `sum_heads`, the values
    of some pairs are gathered first and added afterwards.
    """
    tails, heads = tails[start:stop], heads[start:stop]
    us, vs = np.empty(ARCS_AT_ONCE, np.uint32), np.empty(ARCS_AT_ONCE, np.uint32)
    of_u, of_v = np.empty(ARCS_AT_ONCE, np.int64), np.empty(ARCS_AT_ONCE, np.int64)
    for first in range(0, len(tails), ARCS_AT_ONCE):
        some_tails, some_heads = tails[first : first + ARCS_AT_ONCE], heads[first : first + ARCS_AT_ONCE]
        found = np.uint64(0)
        for i in range(len(some_tails)):
            us[found], vs[found] = some_tails[i], some_heads[i]
            found += np.uint64(some_tails[i] != some_heads[i] if once else some_tails[i] < some_heads[i])
        for i in range(found):
            of_u[i], of_v[i] = nodes[np.uint64(us[i]), 0], nodes[np.uint64(vs[i]), 0]
        for i in range(found):
            nodes[np.uint64(us[i]), 1] += of_v[i]
            nodes[np.uint64(vs[i]), 1] += of_u[i]


@njit(nogil=True, cache=True)
def split_scores(scores: Any, low: Any, high: Any, mask: Any) -> Any:
    """Mark the scores above ``high`` in ``mask``; return their number, and that of the scores in ``low..high``."""
    above, between = 0, 0
    for i in range(len(scores)):
        over = scores[i] > high
        mask[i] = over
        above += over
        between += scores[i] >= low
    return above, between - above


@njit(nogil=True, cache=True)
def positions_between(scores: Any, low: Any, high: Any, start: int, out: Any) -> None:
    """Write the positions of the scores in ``low..high``, counted from ``start``, to ``out``."""
    at = 0
    for first in range(0, len(scores), 64):
        block = scores[first : first + 64]
        hits = np.int32(0)
        for i in range(len(block)):
            hits += np.int32(block[i] >= low) & np.int32(block[i] <= high)
        if hits:
            for i in range(len(block)):
                if low <= block[i] <= high:
                    out[at] = start + first + i
                    at += 1


@njit(nogil=True, cache=True)
def products(tails: Any, heads: Any, start: int, stop: int, of_tails: Any, of_heads: Any, out: Any) -> None:
    """Write ``of_tails[u] * of_heads[v]`` for every arc u->v, and infinity for loops."""
    tails, heads, out = tails[start:stop], heads[start:stop], out[start:stop]
    infinity = out.dtype.type(np.inf)
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        product = of_tails[u] * of_heads[v]
        out[i] = product if u != v else infinity


@njit(nogil=True, cache=True)
def compress(tails: Any, heads: Any, mask: Any, start: int, first: int, last: int, out: Any) -> None:
    """Write the kept arcs from position ``start`` on to the columns ``first:last`` of ``out`` ``[2, kept]``.

    Every arc is written and only a kept one moves on: a branch on a random mask would be guessed wrongly.
    """
    out_tails, out_heads = out[0], out[1]
    one = np.uint64(1)
    i, at, end = np.uint64(start), np.uint64(first), np.uint64(last)
    while at < end:
        out_tails[at] = tails[i]
        out_heads[at] = heads[i]
        at += np.uint64(mask[i])
        i += one


@njit(nogil=True, cache=True)
def score_balance(tails: Any, heads: Any, bits: Any, start: int, stop: int) -> Any:
    """Sum the hashes of (pair, score) over arcs that point up, less those over arcs that point down."""
    tails, heads, bits = tails[start:stop], heads[start:stop], bits[start:stop]
    balance = np.uint64(0)
    for i in range(len(tails)):
        u, v = np.uint64(tails[i]), np.uint64(heads[i])
        z = (min(u, v) << S32) ^ max(u, v)
        word = bits[i]
        z = ((z ^ (z >> S30)) * MIX_1) ^ np.uint64(word if word != MINUS_ZERO else 0)
        balance += mixed(z) * (np.uint64(u < v) - np.uint64(u > v))
    return balance


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


@njit(nogil=True, cache=True)
def best_of_ends(low: Any, high: Any, scores: Any, keys: Any, best: Any, taken: Any) -> None:
    """Mark the best edge of each node, by score, then by the smaller key, in ``taken``; ``best`` holds -1 a node."""
    for i in range(len(low)):
        for v in (low[i], high[i]):
            j = best[v]
            if j < 0 or scores[i] > scores[j] or (scores[i] == scores[j] and keys[i] < keys[j]):
                best[v] = i
    for v in range(len(best)):
        if best[v] >= 0:
            taken[best[v]] = True


@njit(nogil=True, cache=True)
def best_of_nodes(low: Any, high: Any, seen: Any, most: int, taken: Any) -> None:
    """Mark the edges, sorted best first, that are among the first ``most`` of one of their ends; ``seen`` holds 0."""
    for i in range(len(low)):
        u, v = low[i], high[i]
        taken[i] = seen[u] < most or seen[v] < most
        seen[u] += 1
        seen[v] += 1


@njit(nogil=True, cache=True)
def spanning_forest(low: Any, high: Any, parent: Any, taken: Any) -> None:
    """Mark the edges, sorted best first, that join two parts of the graph; ``parent`` holds each node itself."""
    for i in range(len(low)):
        u, v = low[i], high[i]
        while parent[u] != u:
            parent[u] = parent[parent[u]]
            u = parent[u]
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        if u != v:
            parent[max(u, v)] = min(u, v)
            taken[i] = True


@njit(nogil=True, cache=True)
def allot(
    low: Any, high: Any, both: bool, need: Any, benefit: Any, offset: float, graph: Any, budgets: Any, taken: Any
) -> None:
    """Take edges one by one, each time one whose ends gain most; a stale gain is computed again when it comes up.

    An end u gains ``need[u] * log((offset + have[u] + benefit[i]) / (offset + have[u]))``, where ``have[u]`` sums what
    its edges so far are worth; ``low`` gains only if ``both``. Equal gains go to the earlier edge. ``graph`` says which
    of the ``budgets`` pays. ``budgets`` and ``taken``, which says what is kept from the start, are updated.
    """
    have = np.full(len(need), offset)
    for i in range(len(low)):
        if taken[i]:
            have[high[i]] += benefit[i]
            if both:
                have[low[i]] += benefit[i]
    heap = [(0.0, 0) for _ in range(0)]
    for i in range(len(low)):
        if taken[i] or budgets[graph[i]] == 0:
            continue
        gain = need[high[i]] * math.log1p(benefit[i] / have[high[i]])
        if both:
            gain += need[low[i]] * math.log1p(benefit[i] / have[low[i]])
        heap.append((-gain, i))
    heapq.heapify(heap)
    while heap:
        _, i = heapq.heappop(heap)
        if budgets[graph[i]] == 0:
            continue
        u, v = low[i], high[i]
        gain = need[v] * math.log1p(benefit[i] / have[v])
        if both:
            gain += need[u] * math.log1p(benefit[i] / have[u])
        if heap and (-gain, i) > heap[0]:
            heapq.heappush(heap, (-gain, i))
            continue
        taken[i] = True
        budgets[graph[i]] -= 1
        have[v] += benefit[i]
        if both:
            have[u] += benefit[i]
