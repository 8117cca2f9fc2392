"""Results as JSON lines: a line is there whole or not at all, and what an earlier failure tore is mended."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graphsparse.atomic_write import atomic_write
from graphsparse.locking import is_still, locked


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line, whole and on the disk, or nothing; several processes may add to one file.

    Raises:
        OSError: the disk is full, or the file cannot be written; it names the file, which is as it was.
        ValueError, TypeError: the row holds what JSON cannot say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, allow_nan=False) + "\n").encode()
    with _alone(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # else it would be glued to a line that a killed run has torn
        try:
            _write(descriptor, line)
            os.fsync(descriptor)
        except BaseException as error:
            os.ftruncate(descriptor, size)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise


def read_rows(path: Path, key: Sequence[str], older: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a file of JSON lines; of those with the same values of ``key`` the last.

    What a killed run or a full disk has left of a line is cut out of the file, with a warning; whole rows that stand in
    the same line stay. ``older`` holds what a row means by leaving a name out, where rows were made before it was
    written.

    Raises:
        ValueError: another line is no JSON object with these keys.

    Example:
        >>> read_rows(Path("nowhere.jsonl"), ["seed"])
        []
    """
    if not path.exists():
        return []
    names = [name for name in key if name not in (older or {})]
    with _alone(path, write=False):
        content = path.read_bytes()
        rows: dict[str, dict[str, Any]] = {}
        whole, torn = list[dict[str, Any]](), list[int]()
        for number, line in enumerate(content.split(b"\n"), start=1):
            found, clean = _rows_in(line, names, f"line {number} of {path}")
            torn += [] if clean else [number]
            whole += found
        if torn:
            numbers = ", ".join(map(str, torn))
            lines = f"line {numbers} of {path} is" if len(torn) == 1 else f"lines {numbers} of {path} are"
            warnings.warn(f"{lines} torn by a full disk or a killed run: what it held is made again", stacklevel=2)
            with suppress(OSError):  # where it cannot be mended, it is read in the same way the next time
                _mend(path, whole)
    for row in ({**(older or {}), **row} for row in whole):
        rows[json.dumps([row[name] for name in key])] = row
    return list(rows.values())


def _rows_in(line: bytes, names: Sequence[str], where: str) -> tuple[list[dict[str, Any]], bool]:
    """The whole rows of a line, and whether there is nothing else in it."""
    text = line.decode(errors="replace")
    if not text.strip():
        return [], True
    begun = text.strip("\0 \r")  # some file systems fill with zeros what was not written before a crash
    try:
        row = json.loads(text)
        return [_checked(row, names)], True
    except (json.JSONDecodeError, RecursionError) as error:
        if begun and not begun.startswith("{"):
            raise ValueError(f"{where} is no row of this study: {error!r}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where} is no row of this study: {error!r}") from error
    found, place = list[dict[str, Any]](), 0
    while (place := text.find('{"', place)) >= 0:
        row, place = _row_at(text, place, names)
        found += [] if row is None else [row]
    return found, False


def _row_at(text: str, place: int, names: Sequence[str]) -> tuple[dict[str, Any] | None, int]:
    """The row that begins at a place, if one does, and where to look on."""
    try:
        row, end = json.JSONDecoder().raw_decode(text, place)
        return _checked(row, names), end
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, place + 1  # a piece of a row, or an object within one


def _checked(row: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise TypeError(f"a row is an object, not a {type(row).__name__}")
    for name in names:
        row[name]  # a KeyError names the first that is missing
    return row


def _mend(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_write(path) as partial:
        partial.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


@contextmanager
def _alone(path: Path, *, write: bool = True) -> Iterator[int]:
    """The file, open and locked; it may have been mended, and so replaced, while the lock was waited for."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT if write else os.O_RDONLY, 0o644)
        try:
            locked(descriptor, wait=True)
            if is_still(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    """All of it: a disk that runs full writes a part without an error."""
    rest = memoryview(content)
    while rest:
        done = os.write(descriptor, rest)
        if done == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[done:]
