"""The doors for pickles of others: nothing that is loaded runs code, or takes more memory than its file has bytes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphsparse.data.pickle_reader import PickleReader, Refused, SparseParts, TorchReader
from graphsparse.errors import DataError
from graphsparse.untrusted import read_bytes, reading

_LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read one pickle of numpy arrays, CSR matrices and plain containers, of Python 2 or 3.

    Args:
        path: the file. CSR matrices come back as :class:`SparseParts`; see :func:`to_csr`.

    Raises:
        DataError: the file is missing, empty, cut short, damaged, claims more than it holds, or names a global that is
            not on the list; the sentence names the file and the refused global, and nothing of the file has been run.

    Example:
        >>> import pickle, tempfile, numpy as np
        >>> with tempfile.NamedTemporaryFile(delete=False) as file:
        ...     _ = file.write(pickle.dumps({"a": np.arange(3)}))
        >>> load_pickle(file.name)
        {'a': array([0, 1, 2])}
    """
    return _guarded(Path(path), lambda content: PickleReader(io.BytesIO(content), len(content)).load())


def load_torch(path: str | os.PathLike[str]) -> Any:
    """Read a ``torch.save`` file of tensors, numpy arrays and plain containers, without ``torch.load``.

    ``torch.load(weights_only=True)`` refuses numpy arrays and pickle protocol 4, and OGB's split files are made of
    both; ``weights_only=False`` runs what a file tells it to. Here the same allow-list reads them all, in the zip
    format and, numpy only, in the one of torch before 1.6.

    Args:
        path: the file.

    Raises:
        DataError: as :func:`load_pickle`.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.NamedTemporaryFile(delete=False) as file:
        ...     torch.save({"edge": torch.tensor([[0, 1]])}, file)
        >>> load_torch(file.name)
        {'edge': tensor([[0, 1]])}
    """
    return _guarded(Path(path), _read_torch)


def _read_torch(content: bytes) -> Any:
    source = io.BytesIO(content)
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(content):
                raise ValueError("its parts claim more bytes than the file has")
            members = set(archive.namelist())
            folder = next(name for name in members if name.endswith("/data.pkl")).removesuffix("/data.pkl")
            order = f"{folder}/byteorder"
            if order in members and archive.read(order) != b"little":
                raise ValueError("its numbers are big-endian")
            return TorchReader(archive, folder, len(content)).load()
    source.seek(0)
    # Before torch 1.6: magic number, version, system, the object, the list of its storages, each a pickle.
    magic, _version, _system, found, storages = (PickleReader(source, len(content)).load() for _ in range(5))
    if magic != _LEGACY_TORCH_MAGIC or storages:
        raise ValueError("it is no torch file, or an old one that holds tensors")
    return found


def _guarded(path: Path, read: Callable[[bytes], Any]) -> Any:
    """Run ``read`` on the bytes of the file; whatever a damaged pickle raises becomes one DataError."""
    with reading(path, DataError, wrong="is damaged or no pickle"):
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a folder or a device, no file.")
        try:
            return read(read_bytes(path))
        except Refused as refused:
            raise DataError(f"{path} asks for {refused}, which no data file needs; it was not loaded.") from None


def to_csr(parts: Any, path: str | os.PathLike[str]) -> Any:
    """Turn what :func:`load_pickle` gave for a CSR matrix into a checked ``scipy.sparse.csr_matrix``.

    Args:
        parts: a :class:`SparseParts`.
        path: the file it came from, for the error.

    Raises:
        DataError: it is no CSR matrix, or its index arrays do not fit its shape.
    """
    import scipy.sparse

    if not isinstance(parts, SparseParts):
        raise DataError(f"{path} holds a {type(parts).__name__} where a CSR matrix belongs.")
    held = vars(parts)
    try:
        shape = held["_shape"] if "_shape" in held else held["shape"]
        kinds = [held[part].dtype.kind for part in ("data", "indices", "indptr")]
        if kinds[0] not in "iufb" or kinds[1:] != ["i", "i"]:
            raise ValueError(f"its arrays hold {kinds}")
        matrix = scipy.sparse.csr_matrix((held["data"], held["indices"], held["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} holds a damaged CSR matrix ({error}).") from error
    return matrix
