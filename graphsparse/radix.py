"""Numba kernels of the exact threshold: histograms of order-preserving float bits.

A float's bits, read as a signed integer, already order the positive floats; flipping the lower bits of the
negative ones orders them all. Both zeros map to the same key. Import this module only when it is used: it
imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

DIGIT = 16
BINS = 1 << DIGIT


@njit(nogil=True, cache=True)
def histogram(bits: Any, start: int, stop: int, low: Any, nan_above: Any) -> Any:
    """Count the top 16 bits of the ordered keys of ``bits[start:stop]``.

    ``low`` masks all bits but the sign, ``nan_above`` is the bit pattern of infinity. Returns the counts and the
    first position of a NaN (-1: none).
    """
    counts = np.zeros(65536, np.int64)
    first_nan = -1
    shift = 8 * bits.itemsize - 16
    for i in range(start, stop):
        b = bits[i]
        magnitude = b & low
        if magnitude > nan_above and first_nan < 0:
            first_nan = i
        key = b if b >= 0 else (-magnitude)
        counts[(key >> shift) + 32768] += 1
    return counts, first_nan


@njit(nogil=True, cache=True)
def collect(bits: Any, start: int, stop: int, low: Any, digit: int, out: Any, offset: int) -> None:
    """Write the ordered keys of ``bits[start:stop]`` whose top 16 bits are ``digit`` to ``out[offset:]``."""
    shift = 8 * bits.itemsize - 16
    for i in range(start, stop):
        b = bits[i]
        key = b if b >= 0 else (-(b & low))
        if (key >> shift) + 32768 == digit:
            out[offset] = key
            offset += 1
