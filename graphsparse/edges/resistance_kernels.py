# mypy: allow-untyped-decorators
"""Numba kernels of effective resistance on many columns at once. Import this module only when it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from graphsparse.edges.approximate_cholesky import solve

_NO_INTS, _NO_FLOATS = np.empty(0, np.int64), np.empty(0)
NO_FACTOR = _NO_INTS, _NO_INTS, _NO_INTS, _NO_FLOATS, _NO_FLOATS  # for the diagonal as the preconditioner


@njit(nogil=True, cache=True)
def signed_flows(low: Any, high: Any, root: Any, turn: Any, words: Any, first: int, out: Any) -> None:
    """Add ``B^T W^(1/2) q`` to the columns of ``out`` ``[n, b]``; the signs of column j are bits ``first + j``."""
    columns = out.shape[1]
    for e in range(len(low)):
        u, v, size = low[e], high[e], root[e] * turn[e]
        word = words[e] >> np.uint64(first)
        for j in range(columns):
            flow = size if (word >> np.uint64(j)) & np.uint64(1) else -size
            out[u, j] += flow
            out[v, j] -= flow


@njit(nogil=True, cache=True)
def laplacian_times(indptr: Any, heads: Any, weight: Any, diagonal: Any, x: Any, out: Any, dots: Any) -> None:
    """Write ``L x`` for the columns of x ``[n, b]`` to ``out``, and the columns' inner products with x to ``dots``."""
    columns = x.shape[1]
    dots[:] = 0.0
    row = np.empty(columns)
    for u in range(len(diagonal)):
        for j in range(columns):
            row[j] = diagonal[u] * x[u, j]
        for i in range(indptr[u], indptr[u + 1]):
            v, w = heads[i], weight[i]
            for j in range(columns):
                row[j] -= w * x[v, j]
        for j in range(columns):
            dots[j] += row[j] * x[u, j]
            out[u, j] = row[j]


@njit(nogil=True, cache=True)
def conjugate_gradients(
    indptr: Any,
    heads: Any,
    weight: Any,
    diagonal: Any,
    factor: Any,
    residual: Any,
    tolerance: float,
    most: int,
    solution: Any,
) -> int:
    """Solve ``L z = y`` for the columns ``[n, b]`` of ``residual``, which starts as y and is used up.

    The preconditioner is an approximate Cholesky factor, or the diagonal where ``factor`` is `NO_FACTOR`. The vectors
    of a step are read once for all that it does with them. Returns the number of iterations, or -1 where not all
    columns came to the tolerance after ``most``. L is singular, but the columns lie in its range.
    """
    nodes, columns = residual.shape
    order, start, rows, shares, pivot = factor
    factored = len(order) > 0
    direction, flow = np.empty((nodes, columns)), np.empty((nodes, columns))
    energy, norms, dots, goal = np.zeros(columns), np.zeros(columns), np.empty(columns), np.empty(columns)
    step, turn = np.empty(columns), np.empty(columns)
    for u in range(nodes):
        for j in range(columns):
            direction[u, j] = residual[u, j] if factored else residual[u, j] / diagonal[u]
    if factored:
        solve(order, start, rows, shares, pivot, direction)
    for u in range(nodes):
        for j in range(columns):
            energy[j] += residual[u, j] * direction[u, j]
            norms[j] += residual[u, j] * residual[u, j]
            solution[u, j] = 0.0
    for j in range(columns):
        goal[j] = tolerance * tolerance * norms[j]
    for done in range(most):
        if (norms <= goal).all():
            return done
        laplacian_times(indptr, heads, weight, diagonal, direction, flow, dots)
        for j in range(columns):
            step[j] = energy[j] / dots[j] if dots[j] > 0 else 0.0
            turn[j] = energy[j]
            energy[j] = 0.0
            norms[j] = 0.0
        for u in range(nodes):
            scale = 1.0 if factored else 1.0 / diagonal[u]
            for j in range(columns):
                solution[u, j] += step[j] * direction[u, j]
                left = residual[u, j] - step[j] * flow[u, j]
                residual[u, j] = left
                flow[u, j] = left * scale  # the preconditioned residual, or what it is made of
                norms[j] += left * left
                energy[j] += left * left * scale
        if factored:
            solve(order, start, rows, shares, pivot, flow)
            energy[:] = 0.0
            for u in range(nodes):
                for j in range(columns):
                    energy[j] += residual[u, j] * flow[u, j]
        for j in range(columns):
            turn[j] = energy[j] / turn[j] if turn[j] > 0 else 0.0
        for u in range(nodes):
            for j in range(columns):
                direction[u, j] = turn[j] * direction[u, j] + flow[u, j]
    return most if (norms <= goal).all() else -1


@njit(nogil=True, cache=True)
def add_squares(low: Any, high: Any, potential: Any, squares: Any) -> None:
    """Add the squared potential differences of each pair, over all columns ``[n, b]``, to ``squares`` ``[P]``."""
    for e in range(len(low)):
        u, v, total = low[e], high[e], 0.0
        for j in range(potential.shape[1]):
            difference = potential[u, j] - potential[v, j]
            total += difference * difference
        squares[e] += total
