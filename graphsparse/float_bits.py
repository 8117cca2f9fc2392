"""The exact k-th largest float of many, by a histogram of order-preserving bits and one search in a single bin.

A float's bits, read as a signed integer, already order the positive floats; flipping the lower bits of the negative
ones orders them all, and leaving the sign out orders magnitudes. Both zeros map to the same key. Import this module
only when it is used: it imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from graphsparse.parallel import over_slices, slices

SIGN_AND_DIGIT = 15  # upper bits that make a bin; without the sign four rows of counts stay in the cache


@njit(nogil=True, cache=True)
def _key(b: Any, low: Any, signed: Any) -> Any:
    """The key of a float's bits: ``low`` masks all but the sign, which is left out if ``signed`` is None.

    None and not False: numba compiles a function for each type of argument, so no loop asks twice.
    """
    if signed is None:
        return b & low
    return b if b >= 0 else (-(b & low))


@njit(nogil=True, cache=True)
def count_bins(bits: Any, low: Any, signed: Any, shift: Any, middle: Any, counts: Any) -> None:
    """Add the bins of the keys of ``bits`` to ``counts`` ``[4, bins]``, whose rows are to be summed.

    A key's bin is what is above ``shift`` bits, counted from ``middle``. Four rows, because equal neighbours (the zeros
    of pruned weights) would make each count wait for the last.
    """
    quarter = len(bits) // 4
    for i in range(quarter):  # unsigned: no test for a negative index, twice as fast
        counts[0, np.uint64((_key(bits[i], low, signed) >> shift) + middle)] += 1
        counts[1, np.uint64((_key(bits[i + quarter], low, signed) >> shift) + middle)] += 1
        counts[2, np.uint64((_key(bits[i + 2 * quarter], low, signed) >> shift) + middle)] += 1
        counts[3, np.uint64((_key(bits[i + 3 * quarter], low, signed) >> shift) + middle)] += 1
    for i in range(4 * quarter, len(bits)):
        counts[0, np.uint64((_key(bits[i], low, signed) >> shift) + middle)] += 1


@njit(nogil=True, cache=True)
def collect(bits: Any, low: Any, signed: Any, shift: Any, digit: Any, out: Any, offset: int) -> int:
    """Write the keys of ``bits`` in the bin ``digit`` (from 0) to ``out[offset:]``; return where the next would go.

    A bin is thin, so most blocks are passed over by the first inner loop, which the compiler vectorises.
    """
    for start in range(0, len(bits), 64):
        block = bits[start : start + 64]
        hits = np.int32(0)
        for i in range(len(block)):
            hits += np.int32(_key(block[i], low, signed) >> shift == digit)
        if hits:
            for i in range(len(block)):
                key = _key(block[i], low, signed)
                if key >> shift == digit:
                    out[offset] = key
                    offset += 1
    return offset


def kth_largest(
    pieces: Sequence[npt.NDArray[Any]], k: int, parts: int, check_nan: Callable[[], None], *, magnitude: bool = False
) -> tuple[int, int, int]:
    """The k-th largest key of all pieces together, how many keys are larger, and how many are equal.

    Args:
        pieces: bits of floats, int32 or int64 arrays ``[m]``.
        k: rank, from 1 to the number of elements.
        parts: threads that share the pieces.
        check_nan: called if a NaN is possible (there is one, or an infinity); it is to raise an error.
        magnitude: whether to leave the signs out.

    Example:
        >>> bits = np.array([3.0, -5.0, 1.0, 3.0], np.float32).view(np.int32)
        >>> key, above, equal = kth_largest([bits], 2, 1, lambda: None)
        >>> np.int32(key).view(np.float32), above, equal
        (np.float32(3.0), 0, 2)
        >>> kth_largest([bits], 2, 1, lambda: None, magnitude=True)[1:]
        (1, 2)
    """
    integer = pieces[0].dtype.type
    width = 8 * pieces[0].dtype.itemsize
    infinity = int(np.dtype(f"f{width // 8}").type(np.inf).view(integer))
    low, shift = np.iinfo(integer).max, width - SIGN_AND_DIGIT
    middle = 0 if magnitude else 1 << (SIGN_AND_DIGIT - 1)
    how = integer(low), None if magnitude else True, integer(shift)

    def count(a: int, b: int) -> Any:
        rows = np.zeros((4, middle + (1 << (SIGN_AND_DIGIT - 1))), np.int32)
        for bits in pieces[a:b]:
            count_bins(bits, *how, integer(middle), rows)
        return rows[0].astype(np.int64) + rows[1] + rows[2] + rows[3]

    counts = over_slices(count, len(pieces), parts)
    in_bin = sum(counts[1:], start=counts[0])
    if in_bin[middle + (infinity >> shift) :].any() or in_bin[: max(middle - (infinity >> shift), 0)].any():
        check_nan()
    digit, above = _bin_of_rank(in_bin, k)
    keys = np.empty(in_bin[digit], integer)
    ends = np.cumsum([part[digit] for part in counts])
    starts = dict(zip(slices(len(pieces), parts), [0, *ends[:-1]], strict=True))

    def write(a: int, b: int) -> None:
        offset = starts[a, b]
        for bits in pieces[a:b]:
            offset = collect(bits, *how, integer(digit - middle), keys, offset)

    over_slices(write, len(pieces), parts)
    key = np.partition(keys, len(keys) - k + above)[len(keys) - k + above]
    return int(key), above + int(np.count_nonzero(keys > key)), int(np.count_nonzero(keys == key))


def _bin_of_rank(counts: npt.NDArray[np.int64], k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest element, and how many elements lie in higher bins."""
    from_top = np.cumsum(counts[::-1])
    rank = int(np.searchsorted(from_top, k))
    return len(counts) - 1 - rank, int(from_top[rank] - counts[::-1][rank])
