"""The one door for pickles of others: an allow-list, so that nothing that is loaded can run code."""

from __future__ import annotations

import collections
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.errors import DataError

_BUILTINS = {
    builtin.__name__: builtin
    for builtin in (list, dict, set, frozenset, tuple, int, float, complex, bool, str, bytes, bytearray, slice)
}
_COLLECTIONS = {"defaultdict": collections.defaultdict, "OrderedDict": collections.OrderedDict}
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
    return {"_reconstruct": reconstruct, "scalar": scalar, "ndarray": np.ndarray, "dtype": np.dtype}


class _AllowList(pickle.Unpickler):
    """An unpickler that knows numpy arrays, CSR matrices, plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if module == "collections" and name in _COLLECTIONS:
            return _COLLECTIONS[name]
        if module == "_codecs" and name == "encode":
            return _bytes_of
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            found = _numpy_globals().get(name)
            if found is not None:
                return found
        if module in _SPARSE_MODULES and name in ("csr_matrix", "csr_array"):
            # A class of its own per matrix: a BUILD instruction that sets attributes of the class changes nothing else.
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
        matrix = scipy.sparse.csr_matrix((held["data"], held["indices"], held["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path} holds a damaged CSR matrix ({error}).") from error
    return matrix
