"""Numba kernels that project float32 weights: one histogram pass, one search pass, one writing pass.

The bits of a float32 without its sign, read as an integer, order its magnitude. ``bits`` is always such an int32 view
``[m]``; a *bin* is the upper 14 bits of a magnitude. Import this module only when it is used: it imports numba.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits but the sign; int32, since wider constants would widen the loops
BIN_SHIFT = np.int32(17)  # 31 bits of magnitude in 2^14 bins: four rows of counts stay in the cache
BINS = 1 << 14
INFINITY = 0x7F800000


@njit(nogil=True, cache=True)
def count_bins(bits: Any, counts: Any) -> None:
    """Add the magnitudes of ``bits`` to ``counts`` ``[4, BINS]``, whose rows are to be summed.

    Four rows, because equal neighbours (the zeros of pruned weights) would make each count wait for the last.
    """
    quarter = len(bits) // 4
    for i in range(quarter):
        counts[0, (bits[i] & MAGNITUDE) >> BIN_SHIFT] += 1
        counts[1, (bits[i + quarter] & MAGNITUDE) >> BIN_SHIFT] += 1
        counts[2, (bits[i + 2 * quarter] & MAGNITUDE) >> BIN_SHIFT] += 1
        counts[3, (bits[i + 3 * quarter] & MAGNITUDE) >> BIN_SHIFT] += 1
    for i in range(4 * quarter, len(bits)):
        counts[0, (bits[i] & MAGNITUDE) >> BIN_SHIFT] += 1


@njit(nogil=True, cache=True)
def collect(bits: Any, digit: Any, out: Any, offset: int) -> int:
    """Write the magnitudes in bin ``digit`` (an int32) to ``out[offset:]``; return where the next one would go.

    A bin is thin, so most blocks are passed over by the first inner loop, which the compiler vectorises.
    """
    for start in range(0, len(bits), 64):
        block = bits[start : start + 64]
        hits = np.int32(0)
        for i in range(len(block)):
            hits += np.int32((block[i] & MAGNITUDE) >> BIN_SHIFT == digit)
        if hits:
            for i in range(len(block)):
                key = block[i] & MAGNITUDE
                if key >> BIN_SHIFT == digit:
                    out[offset] = key
                    offset += 1
    return offset


@njit(nogil=True, cache=True)
def find_equal(bits: Any, key: Any, rank: int) -> tuple[int, int]:
    """Position of the ``rank``-th (from 0) magnitude equal to ``key``, or -1, and how many were seen."""
    seen = 0
    for i in range(len(bits)):
        if bits[i] & MAGNITUDE == key:
            if seen == rank:
                return i, seen
            seen += 1
    return -1, seen


@njit(nogil=True, cache=True)
def mark(bits: Any, least: Any, mask: Any) -> None:
    """Set ``mask`` where the magnitude is at least ``least`` (an int32)."""
    for i in range(len(bits)):
        mask[i] = (bits[i] & MAGNITUDE) >= least


@njit(nogil=True, cache=True)
def mark_and_zero(bits: Any, least: Any, mask: Any) -> None:
    """Set ``mask`` where the magnitude is at least ``least`` (an int32), and write zeros elsewhere."""
    for i in range(len(bits)):
        kept = (bits[i] & MAGNITUDE) >= least
        mask[i] = kept
        bits[i] = bits[i] if kept else np.int32(0)
