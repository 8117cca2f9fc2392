"""One run at a time in a folder, and a folder that can be written before hours are spent for it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from graphsparse.atomic_write import clear_leftovers
from graphsparse.errors import GraphsparseError

if os.name == "posix":
    import fcntl


class BusyError(GraphsparseError):
    """Another process works in the same place."""


@contextmanager
def only_one(
    folder: Path, *, lock: str = ".lock", files: Sequence[str] = (), folders: Sequence[str] = ()
) -> Iterator[None]:
    """Make the folder, keep other processes out of it, and see that it can be written; afterwards an empty one goes.

    The system releases the lock when the process ends, however it ends; what is then left of the file does not matter.

    Args:
        folder: made with those above it.
        lock: name of the lock's file.
        files, folders: names that will be written in it.

    Raises:
        BusyError: another process is in it; says which.
        OSError: it cannot be made or written.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not os.path.exists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _held(folder / lock)
    except OSError as error:
        _remove_empty(made)
        reason = "it is no folder" if os.path.exists(folder) and not os.path.isdir(folder) else error.strerror
        raise type(error)(f"cannot write into {folder}: {reason}; choose another place") from error
    except BusyError:
        _remove_empty(made)
        raise
    try:
        _check(folder, files, folders)
        clear_leftovers(folder, age=0)
        yield
    finally:
        with suppress(OSError):
            (folder / lock).unlink()
        os.close(descriptor)
        _remove_empty(made)


def locked(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file for this process alone; False if another one has it. Disks that know no locks lock nothing."""
    if os.name != "posix":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_still(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one of that name: before it was locked, another may have taken its place."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _held(path: Path) -> int:
    """The descriptor of the lock's file, locked, with the name of this process in it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not locked(descriptor, wait=False):
                holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
                raise BusyError(f"{holder} works in {path.parent}: wait until it has ended, or choose another place")
            if is_still(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _me().encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _me() -> str:
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    return f"process {os.getpid()} on {platform.node()} ({words}), since {time.strftime('%Y-%m-%d %H:%M:%S')},\n"


def _check(folder: Path, files: Sequence[str], folders: Sequence[str]) -> None:
    for path in (folder / name for name in files):
        if path.is_dir():
            raise IsADirectoryError(f"cannot write {path}: it is a folder; choose another place")
    for path in (folder / name for name in folders):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"cannot write into {path}: it is no folder; choose another place")
    for path in (folder, *(folder / name for name in (*files, *folders))):
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(f"cannot write {path}: it is read-only; choose another place")


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:  # the innermost first
        with suppress(OSError):
            folder.rmdir()
