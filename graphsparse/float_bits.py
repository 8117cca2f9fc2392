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
    bits = bits[start:stop]
    shift = 8 * bits.itemsize - 16
    largest = low - low
    for i in range(len(bits)):
        b = bits[i]
        magnitude = b & low
        largest = max(largest, magnitude)
        key = b if b >= 0 else (-magnitude)
        counts[np.uint64((key >> shift) + 32768)] += 1  # unsigned: no test for a negative index, twice as fast
    if largest > nan_above:
        for i in range(len(bits)):
            if (bits[i] & low) > nan_above:
                return counts, start + i
    return counts, -1


@njit(nogil=True, cache=True)
def collect(bits: Any, start: int, stop: int, low: Any, digit: int, out: Any, offset: int) -> None:
    """Write the ordered keys of ``bits[start:stop]`` whose top 16 bits are ``digit`` to ``out[offset:]``."""
    bits = bits[start:stop]
    shift = 8 * bits.itemsize - 16
    for first in range(0, len(bits), 512):  # most blocks hold none, and counting is vectorised where writing is not
        block = bits[first : first + 512]
        hits = 0
        for i in range(len(block)):
            b = block[i]
            key = b if b >= 0 else (-(b & low))
            hits += (key >> shift) + 32768 == digit
        if hits:
            for i in range(len(block)):
                b = block[i]
                key = b if b >= 0 else (-(b & low))
                if (key >> shift) + 32768 == digit:
                    out[offset] = key
                    offset += 1
