"""Numba kernels that arrange arcs by their head, draw neighbours, and number the nodes of a batch.

Import this module only when it is used: it imports numba.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from graphsparse.mixing_loops import GOLDEN, mixed

_HALF = np.uint64(32)
_FEW = 32  # up to so many draws, what was moved is searched one by one; beyond, all neighbours are written out


@njit(nogil=True, cache=True)
def place(tails: Any, heads: Any, cursor: Any, sources: Any, positions: Any) -> None:
    """Write each arc's tail and position where its head's arcs lie, in the order of the list.

    Args:
        tails, heads: arcs [E].
        cursor: where the arcs of each head begin [N]; on return, where they end.
        sources, positions: written [E].
    """
    for arc in range(len(heads)):
        at = cursor[heads[arc]]
        sources[at] = tails[arc]
        positions[at] = arc
        cursor[heads[arc]] = at + 1


@njit(nogil=True, cache=True, inline="always")
def _below(stream: Any, number: int, bound: int) -> Any:
    """The ``number``-th draw of a stream, uniform below ``bound``."""
    word = mixed(stream + GOLDEN * np.uint64(number + 1))
    return np.int64(((word >> _HALF) * np.uint64(bound)) >> _HALF)


@njit(nogil=True, cache=True)
def draw(begin: int, end: int, nodes: Any, first: Any, out_first: Any, replace: bool, seed: Any, slots: Any) -> None:
    """Draw in-neighbours of ``nodes[begin:end]``; a node's draw depends on the seed and on its id alone.

    Without replacement the first k of more draws are those of k draws.

    Args:
        nodes: ids [M].
        first: where the arcs of each head begin [N + 1].
        out_first: where the draws of each of the nodes go [M + 1]; as many as there are arcs takes all, in their order.
        replace: with replacement.
        seed: uint64.
        slots: written: positions among the arranged arcs.
    """
    at, to = np.empty(_FEW, np.int64), np.empty(_FEW, np.int64)
    for i in range(begin, end):
        node, out = nodes[i], out_first[i]
        start, degree, count = first[node], first[node + 1] - first[node], out_first[i + 1] - out_first[i]
        stream = mixed(seed + GOLDEN * np.uint64(node + 1))
        if replace:
            for k in range(count):
                slots[out + k] = start + _below(stream, k, degree)
        elif count == degree:
            for k in range(count):
                slots[out + k] = start + k
        elif count <= _FEW:
            # the first steps of a Fisher-Yates shuffle of 0 ... degree - 1, of which only what moved is written down
            for k in range(count):
                j = k + _below(stream, k, degree - k)
                taken, here = j, k
                for m in range(k):  # what was written last holds
                    if at[m] == j:
                        taken = to[m]
                    if at[m] == k:
                        here = to[m]
                slots[out + k] = start + taken
                at[k], to[k] = j, here
        else:
            whole = np.arange(degree)
            for k in range(count):
                j = k + _below(stream, k, degree - k)
                slots[out + k] = start + whole[j]
                whole[j] = whole[k]


@njit(nogil=True, cache=True)
def number(slots: Any, sources: Any, local: Any, nodes: Any, known: int, rows: Any) -> int:
    """Give each new source the next number; how many nodes are known then.

    Args:
        slots: arcs that were drawn [m].
        sources: tails of all arranged arcs.
        local: number of each node [N], -1 where it has none; written.
        nodes: ids by number; written from ``known`` on.
        known: nodes numbered before.
        rows: written: the number of each arc's tail [m].
    """
    for i in range(len(slots)):
        node = sources[slots[i]]
        if local[node] < 0:
            local[node] = known
            nodes[known] = node
            known += 1
        rows[i] = local[node]
    return known
