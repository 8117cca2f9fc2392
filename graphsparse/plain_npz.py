"""Plain arrays of ``.npz`` files: nothing is unpickled, and no array is larger than the bytes that are there."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.errors import DataError
from graphsparse.untrusted import most_unpacked, reading


def read_npz(path: Path, keys: Iterable[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """Read named arrays (all of them by default) of an ``.npz`` file.

    Raises:
        DataError: the file is no ``.npz``, is damaged, lacks a key, hides a pickled object, or an array claims another
            size than it has.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "a.npz", ids=np.arange(3))
        ...     read_npz(Path(folder) / "a.npz", ["ids"])
        {'ids': array([0, 1, 2])}
    """
    with reading(path, DataError, wrong="is damaged or no .npz file of plain arrays"):
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a folder or a device, no file.")
        with zipfile.ZipFile(path) as packed:
            found = {info.filename.removesuffix(".npy"): info for info in packed.infolist()}
            wanted = list(found if keys is None else keys)
            missing = sorted(set(wanted) - set(found))
            if missing:
                raise DataError(f"{path} lacks the arrays {', '.join(missing)}; it has {', '.join(found)}.")
            for key in wanted:
                _check_size(packed, found[key])
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in wanted}


def _check_size(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Hold what an array's header claims against what is packed; NumPy asks for the memory first."""
    with packed.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{info.filename} has the format {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds objects")
        size, there = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
    if min(shape, default=0) < 0 or size != there:
        raise ValueError(f"{info.filename} claims {size:,} bytes and has {there:,}")
    if size > most_unpacked(info.compress_size):
        raise ValueError(f"{info.filename} unpacks {info.compress_size:,} bytes into {size:,}")
