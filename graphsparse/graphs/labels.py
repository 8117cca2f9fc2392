"""64-bit names of node labels by value, so that ties break the same way in every process and on every machine."""

from __future__ import annotations

import hashlib
import numbers
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


def label_names(labels: Iterable[Hashable] | npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Name nodes by the values of their labels.

    An integer that fits in 64 bits names itself, so that a graph has the same names with labels and with ids. Other
    labels are hashed (BLAKE2b over type and value); labels that Python holds equal (1, 1.0, True) have one name.

    Args:
        labels: any hashable values; strings, bytes, numbers, None, and tuples and frozensets of them go by value, and
            other objects by their type and ``repr``.

    Returns:
        uint64 ``[n]``.

    Raises:
        TypeError: for an object whose ``repr`` tells its address and not its value.

    Example:
        >>> label_names([7, -1]).tolist() == [7, 2**64 - 1]
        True
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "i":  # what the loop would find, at once
        return labels.astype(np.int64).view(np.uint64)
    return np.fromiter((_name(label) for label in labels), np.uint64)


def as_number(value: Any) -> float:
    """An attribute that is no number becomes NaN: an error where weights are used, and nowhere else.

    Example:
        >>> as_number("2.5"), as_number("heavy"), as_number(None)
        (2.5, nan, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def label_codes(tails: Sequence[Hashable], heads: Sequence[Hashable]) -> tuple[npt.NDArray[Any], list[Hashable]]:
    """Ends ``[2, E]`` as positions among the labels, and the labels in the order in which they appear.

    Example:
        >>> label_codes(["a", "b"], ["b", "c"])[1]
        ['a', 'b', 'c']
    """
    ids: defaultdict[Hashable, int] = defaultdict()
    ids.default_factory = ids.__len__
    codes = np.fromiter(map(ids.__getitem__, chain(tails, heads)), np.int64, len(tails) + len(heads))
    return codes.reshape(2, -1), list(ids)


def _name(label: Hashable) -> int:
    if isinstance(label, numbers.Number) and _is_small_integer(label):
        return int(label) % (1 << 64)  # type: ignore[call-overload, no-any-return]
    return int.from_bytes(_digest(label), "little")


def _is_small_integer(label: object) -> bool:
    try:
        return label == int(label) and -(1 << 63) <= label < 1 << 63  # type: ignore
    except (TypeError, ValueError, OverflowError):  # complex numbers, NaN and infinity
        return False


def _digest(label: Hashable) -> bytes:
    if isinstance(label, str):
        return _hash(b"str", label.encode("utf-8", "surrogatepass"))
    if isinstance(label, bytes):
        return _hash(b"bytes", label)
    if label is None:
        return _hash(b"none")
    if isinstance(label, numbers.Number):
        return _hash(b"number", _number_text(label).encode())
    if isinstance(label, tuple):
        return _hash(b"tuple", *map(_digest, label))
    if isinstance(label, frozenset):
        return _hash(b"frozenset", *sorted(map(_digest, label)))
    return _hash(b"object", type(label).__qualname__.encode(), _value_repr(label).encode("utf-8", "surrogatepass"))


def _number_text(label: object) -> str:
    """One text for all numbers that are equal: 1, 1.0 and True; 0.5 and Fraction(1, 2)."""
    if isinstance(label, numbers.Complex) and not isinstance(label, numbers.Real):
        return str(complex(label)) if label.imag else _number_text(label.real)
    try:
        top, bottom = label.as_integer_ratio()  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OverflowError):  # NaN and infinity have no ratio
        return str(label).lower()
    return f"{int(top)}/{int(bottom)}"


def _value_repr(label: object) -> str:
    text = repr(label)
    if type(label).__repr__ is object.__repr__ or ADDRESS.search(text):
        raise TypeError(
            f"the node label {text} has no value to be named by (its repr is an address), so ties between edges could "
            "not be repeated; relabel the nodes (networkx.convert_node_labels_to_integers) or give the class a __repr__"
        )
    return text


def _hash(*parts: bytes) -> bytes:
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
