# mypy: allow-untyped-decorators
"""Numba loops of a compiled ticket. They import numba: import this file only when it is used.

All of them write ``out[start:stop]`` (and first add what is there, if ``add``), add ``bias`` to each row, and end with
a ReLU if ``relu``. Sums may use fused multiply-adds, which round once where two operations round twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_FUSED = {"contract"}


@njit(nogil=True, cache=True, inline="always")
def _begin(row: Any, bias: Any, add: bool) -> None:
    if add:
        for j in range(len(row)):
            row[j] += bias[j]
    else:
        for j in range(len(row)):
            row[j] = bias[j]


@njit(nogil=True, cache=True, inline="always")
def _rectify(row: Any) -> None:
    for j in range(len(row)):
        if row[j] < 0:  # noqa: PLR1730  (NaN stays)
            row[j] = 0


@njit(nogil=True, cache=True, fastmath=_FUSED)
def gather(
    starts: Any, columns: Any, values: Any, x: Any, bias: Any, out: Any, add: bool, relu: bool, start: int, stop: int
) -> None:
    """S x for S ``[n, m]`` in compressed rows and x ``[m, w]``."""
    width = x.shape[1]
    for i in range(start, stop):
        row = out[i]
        _begin(row, bias, add)
        e, last = starts[i], starts[i + 1]
        while width >= 16 and e + 4 <= last:  # four at once: a sum is read and written once for four products
            a, b, c, d = values[e], values[e + 1], values[e + 2], values[e + 3]
            one, two, three, four = x[columns[e]], x[columns[e + 1]], x[columns[e + 2]], x[columns[e + 3]]
            for j in range(width):
                row[j] += a * one[j] + b * two[j] + c * three[j] + d * four[j]
            e += 4
        while e < last:
            value, source = values[e], x[columns[e]]
            for j in range(width):
                row[j] += value * source[j]
            e += 1
        if relu:
            _rectify(row)


@njit(nogil=True, cache=True, fastmath=_FUSED)
def by_sparse_weights(
    starts: Any, columns: Any, values: Any, x: Any, bias: Any, out: Any, add: bool, relu: bool, start: int, stop: int
) -> None:
    """x W^T for x ``[n, m]`` and W ``[w, m]`` in compressed rows; 64 rows of x at a time, so that lanes are rows."""
    width, height = len(starts) - 1, x.shape[1]
    turned, sums = np.empty((height, 64), x.dtype), np.empty((16, 64), x.dtype)
    for first in range(start, stop, 64):
        rows = min(64, stop - first)
        for low in range(0, height, 16):  # small squares, so that what is read and written stays in the first cache
            for i in range(rows):
                for k in range(low, min(low + 16, height)):
                    turned[k, i] = x[first + i, k]
        for low in range(0, width, 16):
            high = min(low + 16, width)
            for j in range(low, high):
                row = sums[j - low]
                for i in range(64):
                    row[i] = bias[j]
                e, last = starts[j], starts[j + 1]
                while e + 4 <= last:
                    a, b, c, d = values[e], values[e + 1], values[e + 2], values[e + 3]
                    one, two = turned[columns[e]], turned[columns[e + 1]]
                    three, four = turned[columns[e + 2]], turned[columns[e + 3]]
                    for i in range(64):
                        row[i] += a * one[i] + b * two[i] + c * three[i] + d * four[i]
                    e += 4
                while e < last:
                    value, lane = values[e], turned[columns[e]]
                    for i in range(64):
                        row[i] += value * lane[i]
                    e += 1
            for i in range(rows):
                for j in range(low, high):
                    total = sums[j - low, i]
                    if add:
                        total += out[first + i, j]
                    if relu and total < 0:
                        total = 0
                    out[first + i, j] = total


@njit(nogil=True, cache=True, fastmath=_FUSED)
def gather_sparse(
    starts: Any,
    columns: Any,
    values: Any,
    of_starts: Any,
    of_columns: Any,
    of_values: Any,
    bias: Any,
    out: Any,
    add: bool,
    relu: bool,
    start: int,
    stop: int,
) -> None:
    """S T for S ``[n, m]`` and T ``[m, w]``, both in compressed rows; the result is dense."""
    for i in range(start, stop):
        row = out[i]
        _begin(row, bias, add)
        for e in range(starts[i], starts[i + 1]):
            value, k = values[e], columns[e]
            for f in range(of_starts[k], of_starts[k + 1]):
                row[of_columns[f]] += value * of_values[f]
        if relu:
            _rectify(row)


@njit(nogil=True, cache=True)
def count_rows(x: Any, starts: Any) -> None:
    """Into ``starts[1:]``, which are zeros, how many numbers of each row of x are not zero."""
    for i in range(x.shape[0]):
        count = 0
        for j in range(x.shape[1]):
            count += x[i, j] != 0
        starts[i + 1] = count


@njit(nogil=True, cache=True)
def fill_rows(x: Any, starts: Any, columns: Any, values: Any) -> None:
    """Columns and values of what is not zero in x, at the places that ``starts`` gives."""
    for i in range(x.shape[0]):
        at = starts[i]
        for j in range(x.shape[1]):
            if x[i, j] != 0:
                columns[at] = j
                values[at] = x[i, j]
                at += 1


@njit(nogil=True, cache=True, fastmath=_FUSED)
def attend(
    starts: Any,
    columns: Any,
    near: Any,
    far: Any,
    values: Any,
    out: Any,
    heads: int,
    slope: float,
    start: int,
    stop: int,
) -> None:
    """Rows of zeros become means of what arrives, weighted by the softmax of LeakyReLU(near_i + far_j) in each head."""
    width = values.shape[1] // heads
    for i in range(start, stop):
        for h in range(heads):
            row = out[i][h * width : (h + 1) * width]
            highest = -np.inf
            for e in range(starts[i], starts[i + 1]):
                score = near[i, h] + far[columns[e], h]
                highest = max(highest, score if score > 0 else slope * score)
            total = 0.0
            for e in range(starts[i], starts[i + 1]):
                score = near[i, h] + far[columns[e], h]
                weight = values.dtype.type(np.exp((score if score > 0 else slope * score) - highest))
                source = values[columns[e]][h * width : (h + 1) * width]
                total += weight
                for j in range(width):
                    row[j] += weight * source[j]
            share = values.dtype.type(1 / (total + 1e-16))
            for j in range(width):
                row[j] *= share


@njit(nogil=True, cache=True, fastmath=_FUSED)
def attend_by_keys(
    starts: Any,
    columns: Any,
    queries: Any,
    keys: Any,
    values: Any,
    out: Any,
    heads: int,
    scale: float,
    start: int,
    stop: int,
) -> None:
    """The same with scores q_i . k_j times ``scale``."""
    width = values.shape[1] // heads
    longest = 0
    for i in range(start, stop):
        longest = max(longest, starts[i + 1] - starts[i])
    scores = np.empty(longest, values.dtype)
    for i in range(start, stop):
        first = starts[i]
        for h in range(heads):
            row, query = out[i][h * width : (h + 1) * width], queries[i][h * width : (h + 1) * width]
            highest = -np.inf
            for e in range(first, starts[i + 1]):
                key = keys[columns[e]][h * width : (h + 1) * width]
                score = values.dtype.type(0)
                for j in range(width):
                    score += query[j] * key[j]
                scores[e - first] = score * scale
                highest = max(highest, scores[e - first])
            total = 0.0
            for e in range(first, starts[i + 1]):
                weight = values.dtype.type(np.exp(scores[e - first] - highest))
                source = values[columns[e]][h * width : (h + 1) * width]
                total += weight
                for j in range(width):
                    row[j] += weight * source[j]
            share = values.dtype.type(1 / (total + 1e-16))
            for j in range(width):
                row[j] *= share
