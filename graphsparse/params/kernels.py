"""Numba kernels that mark, and zero, what lies above or below a magnitude.

The bits of a float32 without its sign, read as an integer, order its magnitude. ``bits`` is always such an int32 view
``[m]``. Import this module only when it is used: it imports numba.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits but the sign; int32, since wider constants would widen the loops
INFINITY = 0x7F800000


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
