"""Numba kernels that mark, and zero, what lies above or below a magnitude.

The bits of a float32 without its sign, read as an integer, order its magnitude. ``bits`` is always such an int32 view
``[m]``. Import this module only when it is used: it imports numba.
"""
# mypy: disallow-untyped-decorators=False, disable-error-code=assignment

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


@njit(nogil=True, cache=True)
def count_around(bits: Any, low: Any, high: Any) -> tuple[int, int, int]:
    """How many magnitudes are above ``high`` (int32), how many at least ``low``, and how many are NaN."""
    above, from_low, nan = 0, 0, 0
    for i in range(len(bits)):
        own = bits[i] & MAGNITUDE
        above += np.int32(own > high)
        from_low += np.int32(own >= low)
        nan += np.int32(own > INFINITY)
    return above, from_low, nan


@njit(nogil=True, cache=True)
def gather_around(bits: Any, low: Any, high: Any, found: Any, count: int) -> int:
    """Write the magnitudes from ``low`` to ``high`` to ``found`` from ``count`` on; without branches. The new count."""
    width = np.uint32(high - low)
    for i in range(len(bits)):
        own = bits[i] & MAGNITUDE
        found[count] = own  # and again, unless it is one
        count += np.uint32(own - low) <= width
    return count


@njit(nogil=True, cache=True)
def keep_only(bits: Any, mask: Any) -> None:
    """Write zeros where ``mask`` (uint8, 0 or 1) is 0."""
    for i in range(len(bits)):
        bits[i] &= -np.int32(mask[i])


@njit(nogil=True, cache=True)
def masked_copy(bits: Any, mask: Any, out: Any) -> None:
    """Write to ``out`` what a mask (uint8, 0 or 1) keeps, and zeros elsewhere."""
    for i in range(len(bits)):
        out[i] = bits[i] & -np.int32(mask[i])


@njit(nogil=True, cache=True)
def take_over(new: Any, mask: Any, seen: Any) -> int:
    """Copy ``new`` to ``mask`` and add it to ``seen`` (uint8, 0 or 1); how many elements of the mask changed."""
    changed = 0
    for i in range(len(new)):
        changed += new[i] ^ mask[i]
        mask[i] = new[i]
        seen[i] |= new[i]
    return changed


@njit(nogil=True, cache=True)
def add_outside(gradient: Any, weight: Any, mask: Any, factor: Any) -> None:
    """Add ``factor`` (float32) times the weights outside a mask (uint8) to a gradient."""
    for i in range(len(gradient)):
        gradient[i] += (weight[i] * factor) * np.float32(1 - mask[i])


@njit(nogil=True, cache=True)
def shrink_outside(weight: Any, mask: Any, factor: Any) -> None:
    """Multiply the weights outside a mask (uint8) by ``factor`` (float32)."""
    for i in range(len(weight)):
        weight[i] = weight[i] if mask[i] else weight[i] * factor


@njit(nogil=True, cache=True)
def best_of_fours(bits: Any, mask: Any, n: Any) -> bool:
    """Mark the ``n`` (int32) largest of every four, of equal ones the earlier; False if one is NaN.

    Without branches, so that the loop is vectorised: each place counts those that are before it.
    """
    largest = np.int32(0)
    for run in range(len(bits) // 4):  # counted so, the loop is vectorised
        a, b = bits[4 * run] & MAGNITUDE, bits[4 * run + 1] & MAGNITUDE
        c, d = bits[4 * run + 2] & MAGNITUDE, bits[4 * run + 3] & MAGNITUDE
        ab, ac, ad = np.int32(a >= b), np.int32(a >= c), np.int32(a >= d)
        bc, bd, cd = np.int32(b >= c), np.int32(b >= d), np.int32(c >= d)
        mask[4 * run] = (np.int32(3) - ab - ac - ad) < n
        mask[4 * run + 1] = (np.int32(2) + ab - bc - bd) < n
        mask[4 * run + 2] = (np.int32(1) + ac + bc - cd) < n
        mask[4 * run + 3] = (ad + bd + cd) < n
        largest = max(largest, max(max(a, b), max(c, d)))  # noqa: PLW3301  (in pairs, or it is not vectorised)
    return bool(largest <= INFINITY)
