# mypy: allow-untyped-decorators
"""Numba loops of the radix sort and of long hashes. Import this module only when it is used: it imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from graphsparse.mixing_loops import GOLDEN, mixed

ALL_ONES, SIGN = np.uint64((1 << 64) - 1), np.uint64(1 << 63)


@njit(nogil=True, cache=True)
def count_digits(keys: Any, shift: Any, mask: Any, counts: Any) -> None:
    """Add the digits of ``keys`` above ``shift`` bits to ``counts``."""
    for i in range(len(keys)):
        counts[(keys[np.uint64(i)] >> shift) & mask] += 1


@njit(nogil=True, cache=True)
def scatter(keys: Any, places: Any, shift: Any, mask: Any, next_at: Any, out_keys: Any, out_places: Any) -> None:
    """Move each key, and the place that it came from, to where its digit's next one goes."""
    for i in range(len(keys)):
        key = keys[np.uint64(i)]
        digit = (key >> shift) & mask
        at = next_at[digit]
        out_keys[at], out_places[at] = key, places[np.uint64(i)]
        next_at[digit] = at + np.uint64(1)


@njit(nogil=True, cache=True)
def falling(bits: Any, out: Any) -> None:
    """Keys that ascend as the float64 with these bits (uint64, no NaN) fall."""
    for i in range(len(bits)):
        word = bits[i]
        out[i] = word if word & SIGN else ALL_ONES ^ SIGN ^ word


@njit(nogil=True, cache=True)
def absorb(part: Any, key: Any) -> None:
    """Mix ``part`` into the hashes ``key``, as `graphsparse.keep_rule.mix64` does."""
    for i in range(len(key)):
        key[i] = mixed((key[i] ^ np.uint64(part[i])) + GOLDEN)
