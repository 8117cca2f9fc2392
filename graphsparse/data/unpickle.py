"""The one door for pickles of others: an allow-list, so that nothing that is loaded can run code."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.errors import DataError

_BUILTINS = {
    builtin.__name__: builtin
    for builtin in (list, dict, set, frozenset, tuple, int, float, complex, bool, str, bytes, bytearray, slice)
}
_COLLECTIONS = {"defaultdict": collections.defaultdict, "OrderedDict": collections.OrderedDict}
_STORAGES = {
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
}
_LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_NUMPY_MODULES = (
    "numpy",
    "numpy.core.multiarray",
    "numpy.core.numeric",
    "numpy._core.multiarray",
    "numpy._core.numeric",
)
_SPARSE_MODULES = ("scipy.sparse", "scipy.sparse.csr", "scipy.sparse._csr")


class SparseParts:
    """What a pickled CSR matrix consists of: its attributes, and none of its methods.

    SciPy's compiled code trusts ``indices``; a damaged file would make it write out of bounds. So a pickled matrix
    stays a bag of attributes until :func:`to_csr` has checked them.
    """


class _Refused(pickle.UnpicklingError):
    """A global that is not on the list."""


def _bytes_of(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, which protocol 2 uses for bytes, without its other codecs."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _numpy_globals() -> dict[str, Any]:
    """NumPy's own constructors, found through what NumPy itself writes, whatever its version calls its modules."""
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    return {
        "_reconstruct": reconstruct,
        "_frombuffer": from_buffer,
        "scalar": scalar,
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }


class _AllowList(pickle.Unpickler):
    """An unpickler that knows numpy arrays, CSR matrices, plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if module == "collections" and name in _COLLECTIONS:
            return _COLLECTIONS[name]
        if module == "_codecs" and name == "encode":
            # A fresh object, as below: a BUILD instruction may set attributes of what it gets from here.
            return functools.partial(_bytes_of)
        if module in _NUMPY_MODULES:
            found = _numpy_globals().get(name)
            if found is not None:
                return found
        if module in _SPARSE_MODULES and name in ("csr_matrix", "csr_array"):
            # A class of its own per matrix, so that nothing that outlives the loading can be changed.
            return type("SparseParts", (SparseParts,), {})
        raise _Refused(f"{module}.{name}")


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read one pickle of numpy arrays, CSR matrices and plain containers, of Python 2 or 3.

    Args:
        path: the file. CSR matrices come back as :class:`SparseParts`; see :func:`to_csr`.

    Raises:
        DataError: the file is missing, empty, cut short, damaged, or names a global that is not on the list; the
            sentence names the file and the refused global, and nothing of the file has been run.

    Example:
        >>> import pickle, tempfile, numpy as np
        >>> with tempfile.NamedTemporaryFile(delete=False) as file:
        ...     _ = file.write(pickle.dumps({"a": np.arange(3)}))
        >>> load_pickle(file.name)
        {'a': array([0, 1, 2])}
    """
    return _guarded(Path(path), lambda file: _AllowList(file, encoding="latin1").load())


class _TorchAllowList(_AllowList):
    """The same list and tensors, whose values lie beside the pickle in a ``torch.save`` archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")), encoding="latin1")
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return functools.partial(_rebuild_tensor)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> torch.Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused(f"a stored {kind!r}")
        content = bytearray(self._archive.read(f"{self._folder}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _rebuild_tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    """Cut a tensor from its storage; ``as_strided`` checks the bounds."""
    return storage.as_strided(size, stride, offset).clone()


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


def _read_torch(file: io.BufferedReader) -> Any:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            members = set(archive.namelist())
            folder = next(name for name in members if name.endswith("/data.pkl")).removesuffix("/data.pkl")
            order = f"{folder}/byteorder"
            if order in members and archive.read(order) != b"little":
                raise ValueError("its numbers are big-endian")
            return _TorchAllowList(archive, folder).load()
    file.seek(0)
    # Before torch 1.6: magic number, version, system, the object, the list of its storages, each a pickle.
    magic, _version, _system, content, storages = (_AllowList(file, encoding="latin1").load() for _ in range(5))
    if magic != _LEGACY_TORCH_MAGIC or storages:
        raise ValueError("it is no torch file, or an old one that holds tensors")
    return content


def _guarded(path: Path, read: Callable[[io.BufferedReader], Any]) -> Any:
    """Run ``read`` on the open file and turn whatever a damaged pickle raises into one DataError."""
    try:
        with path.open("rb") as file:
            return read(file)
    except _Refused as refused:
        raise DataError(f"{path} asks for {refused}, which no data file needs; it was not loaded.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    except MemoryError as error:
        raise DataError(f"{path} is damaged: it claims more memory than there is.") from error
    except Exception as error:
        # A damaged pickle can raise almost anything: EOFError, KeyError, ValueError, TypeError, AttributeError ...
        raise DataError(f"{path} is damaged or no pickle ({type(error).__name__}: {error}).") from error


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
