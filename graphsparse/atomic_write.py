"""Files that appear whole or not at all, and what killed writers left of theirs."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

DAY = 86_400.0
DISK = tuple(  # a disk that is full, failing or read-only: nothing more can be written, whatever it is
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO") if hasattr(errno, name)
)
_PARTIAL = re.compile(r"\.([0-9a-f]{12})([0-9a-f]{8})[0-9a-f]{12}\..")  # machine, process, chance
_cleared: set[Path] = set()


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` (with its suffix); rename it to ``target`` on success, else remove it.

    The content reaches the disk before the new name does, so that a crash leaves the old file or the new one. What
    processes that were killed have left in the folder is removed.

    Raises:
        OSError: the file cannot be written; it names the target.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "a.txt") as partial:
        ...         _ = partial.write_text("all of it")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    folder = target.parent.absolute()
    if folder not in _cleared:
        _cleared.add(folder)  # once a process: a folder may hold a million files
        clear_leftovers(folder)
    partial = target.with_name(f".{_machine()}{os.getpid() & 0xFFFFFFFF:08x}{uuid.uuid4().hex[:12]}.{target.name}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except Exception as error:
        named = _named(error, partial, target)
        if named is None:
            raise
        raise named from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_leftovers(folder: Path, age: float = DAY) -> None:
    """Remove the temporary files of writers that are dead.

    Args:
        folder: where they lie.
        age: seconds after which one of an unknown writer (on another machine, or before a restart) counts as dead.
    """
    try:
        found = [(entry, match) for entry in os.scandir(folder) if (match := _PARTIAL.match(entry.name))]
    except OSError:
        return
    for entry, match in found:
        with suppress(OSError):  # another process may clear, too
            known = match[1] == _machine()
            dead = not _alive(int(match[2], 16)) if known else time.time() - entry.stat().st_mtime >= age
            if dead and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


@cache
def _machine() -> str:
    """Names what process numbers belong to: the machine, since it started, and the container."""
    words = [platform.node()]
    with suppress(OSError):  # elsewhere than on Linux
        words += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # there is no harmless way to ask: it counts until it is a day old
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _named(error: Exception, partial: Path, target: Path) -> OSError | None:
    """The same error with the target's name, where it has none, or that of the temporary file."""
    if isinstance(error, OSError):
        ours = error.filename in (str(partial), partial) or (error.filename is None and error.errno in DISK)
        return OSError(error.errno, error.strerror or str(error), str(target)) if ours and error.errno else None
    said = re.search(r"\(os error (\d+)\)", str(error))  # how libraries in Rust, such as safetensors, pass them on
    return OSError(int(said[1]), os.strerror(int(said[1])), str(target)) if said else None
