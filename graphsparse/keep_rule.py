"""Keep: the one rule by which scores of edges, weights or channels become an exact number of kept elements."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from operator import index
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.parallel import over_slices, slices
from graphsparse.sorting import smallest

Keep = float | str | Fraction | Decimal
Names = npt.NDArray[np.uint64]

RADIX_FROM = 1 << 16  # shorter arrays go through numpy's partition, which needs no compiled kernel
LONGEST_TEXT = 1000  # characters of a number and its largest exponent: exact arithmetic would take any memory asked for
LONGEST_BITS = 14_000  # of a fraction's two integers: Python prints no longer ones
_EXPONENT = re.compile(r"[eE]([+-]?[\d_]+)\s*$")


def exact_fraction(value: Keep, name: str = "keep") -> Fraction:
    """Read a number as the decimal that was written, not as its binary float.

    Args:
        value: a float, a decimal string, per cents such as ``"50%"``, a quotient such as ``"1/3"``, a ``Fraction`` or a
            ``Decimal``.
        name: what the number is called in the error.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is not finite, or so long, large or small (``"1e-99999999"``) that exact arithmetic with it
            would take the machine's memory.

    Example:
        >>> exact_fraction(0.1) == Fraction(1, 10)
        True
        >>> exact_fraction("12.5%")
        Fraction(1, 8)
    """
    numbers = (int, float, str, Fraction, Decimal, np.number)
    if isinstance(value, (bool, np.complexfloating)) or not isinstance(value, numbers):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if isinstance(value, (int, Fraction)):
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if bits > LONGEST_BITS:
            raise _extreme(name, f"a fraction of {bits} bits")
        return Fraction(value)
    text = str(value)
    exponent = _EXPONENT.search(text[-LONGEST_TEXT:])
    if len(text) > LONGEST_TEXT or (exponent and abs(int(exponent[1])) > LONGEST_TEXT):
        raise _extreme(name, text if len(text) <= 50 else f"{text[:20]}... of {len(text)} characters")
    number, per_cent = (text.rstrip()[:-1], 100) if text.rstrip().endswith("%") else (text, 1)
    try:
        return Fraction(number) / per_cent
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a finite number, got {text!r:.50}") from None


def whole_number(value: Any, name: str, least: int | None = None) -> int:
    """Read a whole number: Python's, numpy's or a tensor's.

    Raises:
        ValueError: for anything else, a float or a bool among them, and for one below ``least``.

    Example:
        >>> whole_number(np.int64(3), "every", least=1)
        3
    """
    try:
        if isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        number = index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r:.50}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite real number: a float, an int or numpy's, no bool and no text.

    Example:
        >>> is_number(0.5), is_number(np.float32(2)), is_number("0.5"), is_number(math.inf), is_number(True)
        (True, True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def check_seed(seed: Any) -> int:
    """Read a seed: a whole number, since 1.5 and 1 would be one seed; a negative one is fine where it is only hashed.

    Raises:
        ValueError: if it is none.

    Example:
        >>> check_seed(1.5)
        Traceback (most recent call last):
        ...
        ValueError: seed must be a whole number, got 1.5
    """
    return whole_number(seed, "seed")


def keep_fraction(keep: Keep) -> Fraction:
    """Check that ``keep`` lies in (0, 1] and read it exactly.

    Raises:
        TypeError: if ``keep`` is no number.
        ValueError: if it lies outside (0, 1].
    """
    fraction = exact_fraction(keep)
    if not 0 < fraction <= 1:
        per_cent = f"; for per cents write '{keep!s:.50}%'" if 1 < fraction <= 100 and "%" not in str(keep) else ""
        raise ValueError(
            f"keep must lie in (0, 1], got {keep!s:.50}; keep is the kept fraction, 1.0 keeps everything{per_cent}"
        )
    return fraction


def kept_count(keep: Keep, total: int) -> int:
    r"""Number of elements that ``keep`` leaves of ``total``: :math:`\max(1, \lceil keep \cdot total \rceil)`, 0 of 0.

    Example:
        >>> kept_count(0.7, 10), kept_count(0.1, 7), kept_count(1e-9, 5), kept_count(0.5, 0)
        (7, 1, 1, 0)
    """
    fraction = keep_fraction(keep)
    return max(1, math.ceil(fraction * total)) if total else 0


@dataclass(frozen=True)
class Threshold:
    """The k-th largest of some scores: its ``value``, how many lie ``above`` it and how many are ``equal`` to it."""

    value: float
    above: int
    equal: int


def threshold(scores: Tensor, k: int) -> Threshold:
    """Find the k-th largest score exactly, by a histogram of float bits instead of a sort.

    Infinite scores are ordered as usual, and the two zeros are equal. Integer and half-precision scores are widened
    exactly (integers up to 2^53).

    Args:
        scores: ``[m]`` real numbers on any device.
        k: rank, from 1 to ``m``.

    Raises:
        ValueError: for a NaN, with its first position, or a rank outside 1..m.

    Example:
        >>> threshold(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2)
        Threshold(value=2.0, above=1, equal=2)
    """
    if not 1 <= k <= scores.numel():
        raise ValueError(f"the rank must lie in 1..{scores.numel()}, got {k}")
    scores = _as_float(scores.detach()).reshape(-1)
    if scores.device.type != "cpu":
        return _threshold_torch(scores, k)
    values = scores.contiguous().numpy()
    return _threshold_radix(values, k) if len(values) >= RADIX_FROM else _threshold_partition(values, k)


def top_mask(scores: Tensor, k: int, ties: Callable[[Tensor], Names] | None = None) -> Tensor:
    """Mark exactly the ``k`` highest scores.

    Args:
        scores: ``[m]`` real numbers without NaN.
        k: how many to keep, from 0 to ``m``.
        ties: given the positions ``[t]`` of elements that tie at the threshold, returns a key for each; the
            smallest keys are kept, equal keys by position. By default the earliest positions are kept.

    Returns:
        bool ``[m]`` with exactly ``k`` true elements.

    Example:
        >>> top_mask(torch.tensor([1.0, 5.0, 1.0]), 2)
        tensor([ True,  True, False])
    """
    if k == scores.numel() or k == 0:
        check_no_nan(scores)
        return torch.full((scores.numel(),), k > 0, device=scores.device)
    cut = threshold(scores, k)
    scores = _as_float(scores)
    if cut.equal == k - cut.above:
        return scores >= cut.value
    mask = scores > cut.value
    tied = (scores == cut.value).nonzero().view(-1)
    if ties is None:
        tied = tied[: k - cut.above]
    else:
        tied = tied[torch.from_numpy(smallest(ties(tied), k - cut.above)).to(tied.device)]
    mask[tied] = True
    return mask


def check_no_nan(scores: Tensor) -> None:
    """Raise a ``ValueError`` that names the first position of a NaN among ``scores`` ``[m]``."""
    if scores.is_floating_point():
        bad = scores.isnan()
        if bool(bad.any()):
            _raise_nan(int(bad.view(-1).nonzero()[0]))


def mix64(seed: int, *parts: npt.NDArray[Any]) -> Names:
    """Hash integers ``[m]`` (one array for each part of a name) with a seed into uniform 64-bit keys ``[m]``.

    Each part passes through the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). The keys are the same on
    every machine, so ties that they break do not depend on order, threads or engine.

    Raises:
        ValueError: if the seed is no whole number.

    Example:
        >>> a, b = mix64(0, np.array([1, 2]), np.array([3, 3]))
        >>> bool(a != b)
        True
    """
    key = np.full(1, check_seed(seed) % (1 << 64), np.uint64)
    for part in parts:
        words = part if part.dtype == np.uint64 else part.astype(np.int64, copy=False).view(np.uint64)
        if len(part) < RADIX_FROM:
            key = _finalise(key ^ words)
        else:
            key = np.broadcast_to(key, words.shape).copy() if len(key) == 1 else key
            _absorb(words, key)
    return key


def _absorb(words: Names, key: Names) -> None:
    """Mix ``words`` into ``key`` in one pass, where numpy takes one for each operation."""
    from graphsparse.sorting_loops import absorb

    over_slices(lambda a, b: absorb(words[a:b], key[a:b]), len(key))


def _finalise(z: Names) -> Names:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _extreme(name: str, shown: str) -> ValueError:
    limit = f"at most {LONGEST_TEXT} characters and an exponent of at most {LONGEST_TEXT}"
    return ValueError(f"{name} must be a number of ordinary length, {limit}, got {shown}")


def _as_float(scores: Tensor) -> Tensor:
    if scores.is_complex():
        raise TypeError("scores must be real numbers, got a complex tensor")
    if scores.dtype in (torch.float32, torch.float64):
        return scores
    return scores.to(torch.float32 if scores.is_floating_point() else torch.float64)


def _raise_nan(position: int) -> None:
    raise ValueError(f"the score at position {position} is NaN; scores must be numbers")


def _threshold_partition(values: npt.NDArray[Any], k: int) -> Threshold:
    bad = np.isnan(values)
    if bad.any():
        _raise_nan(int(bad.argmax()))
    value = np.partition(values, len(values) - k)[len(values) - k]
    return Threshold(float(value) + 0.0, int((values > value).sum()), int((values == value).sum()))


def _threshold_radix(values: npt.NDArray[Any], k: int) -> Threshold:
    from graphsparse.float_bits import kth_largest

    integer = np.dtype(f"i{values.dtype.itemsize}").type
    cuts = slices(len(values))
    pieces = [values[a:b].view(integer) for a, b in cuts]
    key, above, equal = kth_largest(pieces, k, len(cuts), lambda: check_no_nan(torch.from_numpy(values)))
    pattern = integer(key if key >= 0 else -key | ~int(np.iinfo(integer).max))
    return Threshold(float(pattern.view(values.dtype)), above, equal)


def _threshold_torch(scores: Tensor, k: int) -> Threshold:
    """The same on devices that numba does not reach: torch's own selection, and two counts."""
    check_no_nan(scores)
    value = scores.kthvalue(len(scores) - k + 1).values
    return Threshold(float(value) + 0.0, int((scores > value).sum()), int((scores == value).sum()))
