"""Numbers of nodes in files that all workers read: a vector is broadcast by its name, and held once a process."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsparse.atomic_write import atomic_write

Array = npt.NDArray[Any]

_held: dict[str, tuple[tuple[int, int], Array]] = {}
_lock = threading.Lock()


def save(path: Path, values: Array) -> None:
    """Write a vector, and hold it in this process."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array(file, values, allow_pickle=False)
    with _lock:
        _held[str(path)] = _version(path), values


def load(path: str) -> Array:
    """A vector that was saved: what this process holds of it, else a map of its file."""
    version = _version(Path(path))
    with _lock:
        found = _held.get(path)
        if found is None or found[0] != version:
            found = _held[path] = version, np.load(path, mmap_mode="r", allow_pickle=False)
        return found[1]


def release(*paths: str) -> None:
    """Hold these no longer in memory; their files stay."""
    with _lock:
        for path in paths:
            _held.pop(path, None)


def forget(folder: Path) -> None:
    """Hold nothing more of what lies in a folder."""
    release(*(path for path in list(_held) if Path(path).parent == folder))


def _version(path: Path) -> tuple[int, int]:
    about = os.stat(path)
    return about.st_mtime_ns, about.st_ino
