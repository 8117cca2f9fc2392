# mypy: allow-untyped-decorators
"""An approximate Cholesky factor of a graph's Laplacian, in about linear time. Import this module only when it is used.

Nodes are eliminated one by one, those with few edges first. Eliminating v exactly would join all its neighbours: a
clique with conductances ``w_i w_j / W`` (W the sum of v's). Instead each neighbour but the last gets one edge, to a
neighbour drawn at random among those with larger conductances, so that the clique is right in expectation and edges
never become more. The result is a preconditioner with which conjugate gradients need few iterations on any graph.

Source: Kyng & Sachdeva, "Approximate Gaussian elimination for Laplacians", FOCS 2016, algorithm 1; the order of the
nodes and one edge a neighbour: Gao, Kyng & Spielman, "Robust and practical solution of Laplacian equations by
approximate elimination", 2023, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from graphsparse.mixing_loops import GOLDEN, mixed


@njit(nogil=True, cache=True)
def _enter(bucket: Any, after: Any, before: Any, degree: Any, u: int) -> None:
    d = min(degree[u], len(bucket) - 1)
    after[u], before[u] = bucket[d], -1
    if bucket[d] >= 0:
        before[bucket[d]] = u
    bucket[d] = u


@njit(nogil=True, cache=True)
def _leave(bucket: Any, after: Any, before: Any, degree: Any, u: int) -> None:
    if before[u] >= 0:
        after[before[u]] = after[u]
    else:
        bucket[min(degree[u], len(bucket) - 1)] = after[u]
    if after[u] >= 0:
        before[after[u]] = before[u]


@njit(nogil=True, cache=True)
def _longer(array: Any, least: int) -> Any:
    longer = np.empty(max(least, 2 * len(array)), array.dtype)
    longer[: len(array)] = array
    return longer


@njit(nogil=True, cache=True)
def factorise(nodes: int, low: Any, high: Any, conductance: Any, seed: int) -> Any:
    """Eliminate all nodes of a connected graph without loops.

    Half-edge ``2e`` lies in the list of ``low[e]`` and points to ``high[e]``, half-edge ``2e + 1`` the other way round;
    of an edge that is gone both have the weight 0. A sampled edge takes the place of the one that it comes from, so the
    lists never grow.

    Args:
        nodes: n.
        low: one end of each edge ``[m]``.
        high: the other end ``[m]``.
        conductance: positive ``[m]``.
        seed: of the random draws.

    Returns:
        the order of elimination ``[n]``; for each place in it the start ``[n + 1]`` of its entries; their nodes
        ``[entries]`` and shares ``w_i / W`` ``[entries]``; and W ``[n]``, 0 for the last node.
    """
    edges = len(low)
    weight = conductance.copy()
    target = np.empty(2 * edges, np.int64)
    following = np.empty(2 * edges, np.int64)
    first = np.full(nodes, -1, np.int64)
    degree = np.zeros(nodes, np.int64)
    for e in range(edges):
        for half, (source, end) in enumerate(((low[e], high[e]), (high[e], low[e]))):
            h = 2 * e + half
            target[h], following[h] = end, first[source]
            first[source] = h
            degree[source] += 1

    bucket = np.full(nodes, -1, np.int64)  # the first node of each degree; larger degrees share the last bucket
    after, before = np.full(nodes, -1, np.int64), np.full(nodes, -1, np.int64)
    for u in range(nodes):
        _enter(bucket, after, before, degree, u)

    order, start, pivot = np.empty(nodes, np.int64), np.zeros(nodes + 1, np.int64), np.zeros(nodes)
    rows, shares = np.empty(2 * edges + nodes, np.int64), np.empty(2 * edges + nodes)
    place = np.full(nodes, -1, np.int64)  # of a neighbour, among those of the node that is eliminated
    halves, sizes = np.empty(nodes, np.int64), np.empty(nodes)
    drawn, least, filled = np.uint64(seed) * GOLDEN, 0, 0
    for at in range(nodes):
        while bucket[least] < 0:
            least += 1
        v = bucket[least]
        _leave(bucket, after, before, degree, v)
        count = 0
        h = first[v]
        while h >= 0:  # parallel edges become one
            e = h >> 1
            if weight[e] > 0:
                u = target[h]
                if place[u] < 0:
                    place[u], halves[count], sizes[count] = count, h, weight[e]
                    count += 1
                else:
                    sizes[place[u]] += weight[e]
                    weight[e] = 0.0
                    _leave(bucket, after, before, degree, u)
                    degree[u] -= 1
                    _enter(bucket, after, before, degree, u)
                    least = min(least, degree[u])
            h = following[h]
        order[at], start[at] = v, filled
        if filled + count > len(rows):
            rows, shares = _longer(rows, filled + count), _longer(shares, filled + count)
        ascending = np.argsort(sizes[:count])
        total = sizes[:count].sum()
        pivot[at] = total
        sums = np.cumsum(sizes[:count][ascending])
        for i in range(count):
            half, size = halves[ascending[i]], sizes[ascending[i]]
            u = target[half]
            place[u] = -1
            rows[filled], shares[filled] = u, size / total
            filled += 1
            rest = sums[count - 1] - sums[i]
            if i == count - 1 or rest <= 0:
                weight[half >> 1] = 0.0
                _leave(bucket, after, before, degree, u)
                degree[u] -= 1
                _enter(bucket, after, before, degree, u)
                least = min(least, degree[u])
                continue
            drawn += GOLDEN
            point = sums[i] + rest * (np.float64(mixed(drawn) >> np.uint64(11)) * 2.0**-53)
            j = min(count - 1, max(i + 1, np.searchsorted(sums, point, side="right")))
            other = target[halves[ascending[j]]]
            weight[half >> 1] = size * rest / total
            target[half ^ 1] = other  # stays in the list of u
            target[half], following[half] = u, first[other]
            first[other] = half
            _leave(bucket, after, before, degree, other)
            degree[other] += 1
            _enter(bucket, after, before, degree, other)
    start[nodes] = filled
    return order, start, rows[:filled], shares[:filled], pivot


@njit(nogil=True, cache=True)
def solve(order: Any, start: Any, rows: Any, shares: Any, pivot: Any, columns: Any) -> None:
    """Solve with the factor in place: ``columns`` ``[n, b]`` become potentials, up to a constant each."""
    width = columns.shape[1]
    for at in range(len(order)):
        v = order[at]
        for i in range(start[at], start[at + 1]):
            u, share = rows[i], shares[i]
            for j in range(width):
                columns[u, j] += share * columns[v, j]
        inverse = 1.0 / pivot[at] if pivot[at] > 0 else 0.0
        for j in range(width):
            columns[v, j] *= inverse
    for at in range(len(order) - 1, -1, -1):
        v = order[at]
        for i in range(start[at], start[at + 1]):
            u, share = rows[i], shares[i]
            for j in range(width):
                columns[v, j] += share * columns[u, j]
