# mypy: allow-untyped-decorators
"""Numba loops of products with a matrix in compressed rows. It imports numba: import it only when it is used."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True)
def gather_rows(start_of: Any, columns: Any, values: Any, x: Any, out: Any, start: int, stop: int) -> None:
    """Rows ``start:stop`` of S x ``[n, w]``, for S ``[n, m]`` in compressed rows and x ``[m, w]``."""
    width = x.shape[1]
    for i in range(start, stop):
        row = out[i]
        for j in range(width):
            row[j] = 0
        for e in range(start_of[i], start_of[i + 1]):
            value, source = values[e], x[columns[e]]
            for j in range(width):
                row[j] += value * source[j]


@njit(nogil=True, cache=True)
def scatter_rows(start_of: Any, columns: Any, values: Any, x: Any, out: Any, start: int, stop: int) -> None:
    """Columns ``start:stop`` of S^T x ``[m, w]``, for S ``[n, m]`` in compressed rows and x ``[n, w]``.

    Better than rows of a stored transpose where ``out`` fits the cache and x does not.
    """
    for i in range(out.shape[0]):
        row = out[i][start:stop]
        for j in range(len(row)):
            row[j] = 0
    for i in range(x.shape[0]):
        source = x[i][start:stop]
        for e in range(start_of[i], start_of[i + 1]):
            value, row = values[e], out[columns[e]][start:stop]
            for j in range(len(source)):
                row[j] += value * source[j]
