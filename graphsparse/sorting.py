"""Sorts whose time grows with the number of elements alone: of whole numbers, of pairs, and of scores with tie keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphsparse.parallel import over_slices, slices

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Array = npt.NDArray[Any]

RADIX_FROM = 1 << 16  # shorter arrays go through numpy's sort, which needs no compiled loop
DIGIT = 9  # bits of a digit: the places of 512 next elements stay in the cache, and their pages are known


def sorted_order(keys: Array) -> Ints:
    """The stable order of whole numbers that are not negative, ``[m]``: a radix sort, O(m) for numbers of 64 bits.

    Digits in which all numbers are equal are passed over.

    Args:
        keys: int64 or uint64 ``[m]``.

    Example:
        >>> sorted_order(np.array([3, 1, 2, 1]))
        array([1, 3, 2, 0])
    """
    if len(keys) < RADIX_FROM:
        return np.argsort(keys, kind="stable")
    from graphsparse.sorting_loops import count_digits, scatter

    words, mask = keys.view(np.uint64), np.uint64((1 << DIGIT) - 1)
    places = np.arange(len(keys), dtype=np.uint32 if len(keys) < 1 << 32 else np.int64)
    varying = int(np.bitwise_or.reduce(words) & ~np.bitwise_and.reduce(words))
    spare = None
    for shift in range(0, 64, DIGIT):
        if not (varying >> shift) & int(mask):
            continue
        bits = np.uint64(shift)

        def count(a: int, b: int, words: Words = words, bits: np.uint64 = bits) -> Ints:
            counts = np.zeros(1 << DIGIT, np.int64)
            count_digits(words[a:b], bits, mask, counts)
            return counts

        counts = np.array(over_slices(count, len(words)))  # of each slice, whose elements go before the next one's
        next_at = (np.cumsum(counts.T.ravel()).reshape(counts.T.shape).T - counts).astype(np.uint64)
        own = {start: next_at[number] for number, (start, _) in enumerate(slices(len(words)))}
        target = spare if spare is not None else (np.empty_like(words), np.empty_like(places))

        def move(
            a: int,
            b: int,
            source: tuple[Words, Array] = (words, places),
            bits: np.uint64 = bits,
            own: dict[int, Words] = own,
            target: tuple[Words, Array] = target,
        ) -> None:
            scatter(source[0][a:b], source[1][a:b], bits, mask, own[a], *target)

        over_slices(move, len(words))
        spare = (words, places) if spare is not None else (np.empty_like(words), np.empty_like(places))
        words, places = target
    return places.astype(np.int64)


def smallest(keys: Array, count: int) -> npt.NDArray[np.bool_]:
    """Mark the ``count`` smallest of ``keys`` ``[m]``, of equal ones the first, without a sort.

    Example:
        >>> smallest(np.array([3, 1, 2, 1, 2]), 3)
        array([False,  True,  True,  True, False])
    """
    if count in (0, len(keys)):
        return np.full(len(keys), count > 0)
    last = np.partition(keys, count - 1)[count - 1]
    chosen: npt.NDArray[np.bool_] = keys < last
    chosen[np.flatnonzero(keys == last)[: count - np.count_nonzero(chosen)]] = True
    return chosen


def best_first(scores: Array, keys: Words) -> Ints:
    """The order ``[m]`` by falling score, then by rising key, then by position.

    Args:
        scores: real numbers ``[m]`` without NaN.
        keys: uint64 ``[m]``.

    Example:
        >>> best_first(np.array([1.0, 2.0, 2.0]), np.array([0, 9, 8], np.uint64))
        array([2, 1, 0])
    """
    if len(scores) < RADIX_FROM:
        return np.lexsort((keys, -scores))
    from graphsparse.sorting_loops import falling

    bits = (scores + 0.0).astype(np.float64, copy=False).view(np.uint64)  # the two zeros are equal
    ranks = np.empty_like(bits)
    over_slices(lambda a, b: falling(bits[a:b], ranks[a:b]), len(bits))
    order = sorted_order(ranks)
    same = _equal_to_next(ranks[order])
    tied = np.zeros(len(order), bool)
    tied[1:] |= same
    tied[:-1] |= same
    places = np.flatnonzero(tied)
    if len(places):
        run = np.cumsum(np.concatenate([[True], ~same]), dtype=np.int64)[places]
        members = order[places]
        by_key = sorted_order(keys[members])
        by_run = by_key[sorted_order(run[by_key])]
        order[places] = members[by_run]
    return order


def _equal_to_next(values: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(values[1:] == values[:-1])
