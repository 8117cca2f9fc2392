"""Files whose origin nobody vouches for: what is in them is checked against the bytes that are there."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphsparse.errors import GraphsparseError

LARGEST_JSON = 64 << 20  # bytes; what describes tensors is small beside them
LONGEST_INTEGER = 64  # bits
_LARGE = 1 << 30  # bytes; less may be packed as tightly as it likes
_TIGHTEST = 200  # times smaller than its content; real data of this size are nowhere near


@contextmanager
def reading(
    source: str | os.PathLike[str],
    error: type[GraphsparseError],
    what: str = "a readable file",
    *,
    wrong: str | None = None,
) -> Iterator[None]:
    """Whatever goes wrong inside while a file is read and understood becomes one ``error`` that names it.

    A file that lies can break any line that believes it: a missing key, a list for an object, brackets a million deep,
    a size that no machine has. This is the one place where that becomes a sentence. Errors of ``error``'s own kind pass
    as they are; the first cause stays attached. What ends a program on purpose (Ctrl-C) passes, too.

    Args:
        source: the file's path, or in words what is read.
        error: the kind of error that the caller promises.
        what: what the file should have been, with its article.
        wrong: what it is instead, as the end of a sentence; by default that it is not ``what``.

    Raises:
        error: for any other exception inside.

    Example:
        >>> from graphsparse.errors import TicketError
        >>> with reading("a/ticket.json", TicketError, "a ticket"):
        ...     {}["format"]
        Traceback (most recent call last):
        ...
        graphsparse.errors.TicketError: a/ticket.json is not a ticket: 'format' is missing
    """
    try:
        yield
    except error:
        raise
    except OSError as cause:
        name = os.fspath(source) if cause.filename is None else cause.filename
        raise error(f"cannot read {name}: {cause.strerror or cause}") from cause
    except Exception as cause:
        raise error(f"{os.fspath(source)} {wrong or f'is not {what}'}: {_reason(cause)}") from cause


def _reason(cause: Exception) -> str:
    if isinstance(cause, KeyError):
        return f"{cause} is missing"
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    if isinstance(cause, MemoryError):
        return "it asks for more memory than there is"
    said = " ".join(str(cause).split()) or type(cause).__name__
    return said if len(said) <= 300 else f"{said[:300]} ..."


def read_bytes(
    path: str | os.PathLike[str], *, largest: int | None = None, folder: str | os.PathLike[str] | None = None
) -> bytes:
    """The bytes of a regular file; a device or a pipe, which may never end, is not opened.

    Args:
        path: the file.
        largest: bytes that it may have.
        folder: where it must lie, its links followed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, or a link that leaves the folder.

    Example:
        >>> read_bytes("/dev/zero")
        Traceback (most recent call last):
        ...
        ValueError: /dev/zero is no regular file
    """
    path = Path(path)
    if folder is not None and not path.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"{path} is a link that leaves its folder")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):  # it was exchanged since
            raise ValueError(f"{path} is no regular file")
        if largest is not None and about.st_size > largest:
            raise ValueError(f"{path} has {about.st_size} bytes, at most {largest} are read")
        return file.read(about.st_size)


def most_unpacked(packed: int) -> int:
    """How many bytes so many packed ones may stand for.

    Example:
        >>> most_unpacked(10) == 1 << 30, most_unpacked(10**9)
        (True, 200000000000)
    """
    return max(_LARGE, _TIGHTEST * packed)


def read_json_object(content: bytes) -> dict[str, Any]:
    """The JSON object that some bytes spell; every key once, every number finite and of a sane size.

    Raises:
        ValueError: it is no such object; RecursionError: it is nested too deeply.

    Example:
        >>> read_json_object(b'{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> read_json_object(b'{"a": NaN}')
        Traceback (most recent call last):
        ...
        ValueError: NaN is no JSON number
    """
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it has {len(content)} bytes, at most {LARGEST_JSON} are read")
    text = content.decode("utf-8")
    found = json.loads(
        text, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
    )
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.50} stands twice")
    return found


def _integer(text: str) -> int:
    if len(text) > 25 or int(text).bit_length() > LONGEST_INTEGER:
        raise ValueError(f"the integer {text[:20]}... is too long")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
