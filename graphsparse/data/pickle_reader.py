"""Pickles of others, followed instruction by instruction with an allow-list, so that none of their code runs.

Python's own unpickler calls whatever an allowed global is (``bytearray(3e9)``), hashes whatever is used as a key (a
tuple of shared tuples takes for ever), and sets the state of NumPy arrays unchecked (objects laid over bytes crash the
process). Here ``pickletools`` reads the instructions, containers are the only objects that they build, and everything
else is a note of what was asked for until it has been checked against the bytes that are there.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch

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
_NUMPY = ("numpy", "numpy.core.multiarray", "numpy.core.numeric", "numpy._core.multiarray", "numpy._core.numeric")
_BUILTIN = ("builtins", "__builtin__")
_SPARSE = ("scipy.sparse", "scipy.sparse.csr", "scipy.sparse._csr")
_FACTORIES: dict[str, Callable[[], Any]] = {
    f"{module}.{kind.__name__}": kind for module in _BUILTIN for kind in (list, dict, set, tuple, int, float, str, bool)
}
_PLAIN_DTYPE = re.compile(r"[<>=|]?(?:[biufcSU]\d{0,9}|\?)")
_DEPTH = 200  # containers within containers; data sets need three


class SparseParts:
    """What a pickled CSR matrix consists of: its attributes, and none of its methods.

    SciPy's compiled code trusts ``indices``; a damaged file would make it write out of bounds. So a pickled matrix
    stays a bag of attributes until :func:`to_csr` has checked them.
    """


class Refused(pickle.UnpicklingError):
    """A global, or a use of one, that is not on the list."""


class _Global:
    """A name that the pickle asked for. Nothing of that name is imported."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Made:
    """An array, a matrix, a dtype or a storage that the pickle describes: the maker, its arguments, and its state."""

    def __init__(self, maker: str, arguments: tuple[Any, ...]) -> None:
        self.maker, self.arguments = maker, arguments
        self.state: Any = None


class _Mark:
    """Where a sequence on the stack begins."""


_MARK = _Mark()


class PickleReader:
    """Follows the instructions of one pickle.

    Args:
        source: stands where the pickle begins, and stands behind it afterwards.
        size: of the file in bytes; what the pickle builds may not be much larger.
    """

    def __init__(self, source: io.BytesIO, size: int) -> None:
        self._source = source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._settled: dict[int, tuple[Any, Any, int]] = {}  # by id: a part, what became of it, and its size
        self._largest = self._budget = 2 * size + 65536  # text that stands for bytes is counted twice

    def load(self) -> Any:
        """The object, with arrays for notes."""
        return self._settle(self._follow(), 0)[0]

    # -- the instructions

    def _follow(self) -> Any:
        push, pop = self._stack.append, self._stack.pop
        argument: Any
        for opcode, argument, _ in pickletools.genops(self._source):
            name = opcode.name
            if name in _LITERALS:
                push(argument)
            elif name in _CONSTANTS:
                push(_CONSTANTS[name])
            elif name in ("PROTO", "FRAME"):
                continue
            elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
                push({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}[name]())
            elif name == "EMPTY_TUPLE":
                push(())
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
                push(tuple(reversed([pop() for _ in range(int(name[-1]))])))
            elif name in ("TUPLE", "LIST", "FROZENSET"):
                items = self._to_mark()
                push(tuple(items) if name == "TUPLE" else items if name == "LIST" else frozenset(map(_key, items)))
            elif name == "DICT":
                push(self._fill({}, self._to_mark()))
            elif name in ("APPEND", "APPENDS"):
                items = [pop()] if name == "APPEND" else self._to_mark()
                self._top(list).extend(items)
            elif name == "ADDITEMS":
                items = self._to_mark()
                self._top(set).update(map(_key, items))
            elif name in ("SETITEM", "SETITEMS"):
                items = [pop(), pop()][::-1] if name == "SETITEM" else self._to_mark()
                self._fill(self._top(dict), items)
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                self._memo[argument] = self._stack[-1]
            elif name == "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                push(self._memo[argument])
            elif name == "POP":
                pop()
            elif name == "POP_MARK":
                self._to_mark()
            elif name == "DUP":
                push(self._stack[-1])
            elif name == "GLOBAL":
                module, _, attribute = argument.partition(" ")
                push(self._global(module, attribute))
            elif name == "STACK_GLOBAL":
                attribute, module = pop(), pop()
                push(self._global(module, attribute))
            elif name in ("REDUCE", "NEWOBJ"):
                arguments, maker = pop(), pop()
                if not isinstance(maker, _Global) or not isinstance(arguments, tuple):
                    raise ValueError("it calls what is no constructor")
                push(self._call(maker.name, arguments))
            elif name == "BUILD":
                state, note = pop(), self._stack[-1]
                if not isinstance(note, _Made) or note.state is not None:
                    raise ValueError("it gives a state to what takes none")
                note.state = state
            elif name == "BINPERSID":
                push(self._stored(pop()))
            elif name == "STOP":
                return pop()
            else:
                raise Refused(f"the instruction {name}")
        raise ValueError("it has no end")

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"it fills a {type(self._stack[-1]).__name__} as if it were a {kind.__name__}")
        return self._stack[-1]

    @staticmethod
    def _fill(into: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
        if len(items) % 2:
            raise ValueError("a key has no value")
        into.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
        return into

    def _global(self, module: Any, name: Any) -> _Global:
        full = f"{module}.{name}"
        if full in _MAKERS or full in _FACTORIES:
            return _Global(full)
        raise Refused(full)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name not in _MAKERS:
            raise Refused(f"{name}(...)")
        self._spend(
            sum(len(part) for part in arguments if isinstance(part, (str, bytes, bytearray, list, dict, tuple)))
        )
        maker = _MAKERS[name]
        return _Made(maker, arguments) if isinstance(maker, str) else maker(*arguments)

    def _stored(self, pid: Any) -> Any:
        raise Refused("data that lies outside the file")

    # -- from notes to arrays

    def _settle(self, value: Any, depth: int) -> tuple[Any, int]:
        """The value with every note replaced by what it describes, and its size if all that is shared were copied."""
        if not isinstance(value, (list, tuple, dict, _Made, _Global)):
            return value, 1
        if id(value) in self._settled:
            _, found, size = self._settled[id(value)]
            if found is _MARK:
                raise ValueError("a container holds itself")
            return found, size
        if depth > _DEPTH:
            raise ValueError(f"it is nested more than {_DEPTH} deep")
        if isinstance(value, _Global):
            raise Refused(f"{value.name} as a value")
        self._settled[id(value)] = value, _MARK, 0
        if isinstance(value, _Made):
            found = _BUILDERS[value.maker](self, value, depth)
            size = getattr(found, "nbytes", 1)
        else:
            places = value if isinstance(value, dict) else range(len(value))
            settled = {place: self._settle(value[place], depth + 1) for place in places}
            size = 1 + sum(size for _, size in settled.values())
            parts = {place: part for place, (part, _) in settled.items()}
            found = tuple(parts.values()) if isinstance(value, tuple) else value
            if not isinstance(value, tuple):
                for place, part in parts.items():
                    value[place] = part
        if size > self._largest:
            raise ValueError("what it shares would fill more memory than the file has bytes")
        self._settled[id(value)] = value, found, size
        return found, size

    def _part(self, value: Any, depth: int) -> Any:
        return self._settle(value, depth + 1)[0]

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError("its arrays have more bytes than the file")

    def _array(self, note: _Made, depth: int) -> Any:
        """NumPy's state of an array: (version, shape, dtype, column-major, bytes)."""
        _, shape, dtype, by_column, content = note.state
        return self._array_of(content, self._part(dtype, depth), shape, "F" if by_column else "C")

    def _buffer_array(self, note: _Made, depth: int) -> Any:
        """Protocol 5: (bytes, dtype, shape, order)."""
        content, dtype, shape, order = note.arguments
        return self._array_of(content, self._part(dtype, depth), shape, order)

    def _array_of(self, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
        if isinstance(content, str):  # Python 2 wrote bytes as text
            content = content.encode("latin1")
        if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, np.dtype):
            raise ValueError("an array is not made of bytes and a plain type")
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"an array has the shape {shape!r}"[:80])
        if len(shape) > 32 or math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"{len(content):,} bytes do not fill an array of shape {shape} and type {dtype}"[:200])
        self._spend(len(content))
        if not content:
            return np.zeros(shape, dtype)
        if dtype == np.bool_:  # a byte that is neither 0 nor 1 is no bool
            content = (np.frombuffer(content, np.uint8) != 0).tobytes()
        return np.frombuffer(content, dtype).reshape(shape, order=order).copy(order="K")

    def _dtype(self, note: _Made, depth: int) -> Any:
        """A plain type: (text, aligned, copied), and its byte order as the second part of the state."""
        text, order = note.arguments[0], "="
        if note.state is not None:
            order = note.state[1]
            if any(part is not None for part in note.state[2:5]) or order not in tuple("<>=|"):
                raise ValueError("it has a type with fields")
        if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
            raise Refused(f"arrays of type {text!r}"[:80])
        found = np.dtype(text)
        return found.newbyteorder(order) if order in "<>" else found  # type: ignore[arg-type]

    def _scalar(self, note: _Made, depth: int) -> Any:
        dtype, content = note.arguments
        return self._array_of(content, self._part(dtype, depth), (1,), "C")[0]

    def _matrix(self, note: _Made, depth: int) -> Any:
        parts = SparseParts()
        if isinstance(note.state, dict):
            parts.__dict__.update({str(name): self._part(part, depth) for name, part in note.state.items()})
        return parts

    def _tensor(self, note: _Made, depth: int) -> Any:
        storage, offset, size, stride = (self._part(part, depth) for part in note.arguments[:4])
        sizes = (offset, *size, *stride)
        if not isinstance(storage, torch.Tensor) or not all(type(number) is int and number >= 0 for number in sizes):
            raise ValueError("a tensor is not made of a storage and sizes")
        self._spend(math.prod(size) * storage.element_size())
        return storage.as_strided(size, stride, offset).clone()  # as_strided checks the bounds


class TorchReader(PickleReader):
    """The same list and tensors, whose values lie beside the pickle in a ``torch.save`` archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, size: int) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")), size)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, torch.Tensor] = {}

    def _global(self, module: Any, name: Any) -> _Global:
        if module == "torch" and name in _STORAGES:
            return _Global(f"torch.{name}")
        return super()._global(module, name)

    def _stored(self, pid: Any) -> Any:
        kind, storage, key, _, _ = pid
        dtype = _STORAGES.get(storage.name.removeprefix("torch.")) if isinstance(storage, _Global) else None
        if kind != "storage" or dtype is None or not isinstance(key, str):
            raise Refused(f"a stored {kind!r}")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._folder}/data/{key}"))
            found = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[key] = found
        return self._storages[key]


def _key(value: Any) -> Hashable:
    """A key of a dict or a set: a plain value or a flat tuple of them, so that hashing it takes no time."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(part is None or isinstance(part, (str, bytes, int, float, complex)) for part in parts):
        raise ValueError("a key is neither a plain value nor a tuple of plain values")
    return value  # type: ignore[no-any-return]


def _bytes_of(text: Any, encoding: Any = "latin1") -> bytes:
    """Protocol 2's way of writing bytes, without its other codecs."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")  # type: ignore[no-any-return]


def _defaultdict(factory: Any = None, items: Any = ()) -> Any:
    if factory is not None and not (isinstance(factory, _Global) and factory.name in _FACTORIES):
        raise Refused("a defaultdict of anything but lists, dicts, sets and numbers")
    made = None if factory is None else _FACTORIES[factory.name]
    return collections.defaultdict(made, _pairs(items))


def _ordered(items: Any = ()) -> Any:
    return collections.OrderedDict(_pairs(items))


def _pairs(items: Any) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    return {_key(key): value for key, value in pairs}


def _set_of(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda items=(): kind(map(_key, items))


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise ValueError("a complex number is not made of two numbers")
    return complex(real, imaginary)


def _slice(*bounds: Any) -> slice:
    if not 1 <= len(bounds) <= 3 or not all(bound is None or type(bound) is int for bound in bounds):
        raise ValueError("a slice is not made of whole numbers")
    return slice(*bounds)


def _raw_bytes(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def make(content: Any = b"", encoding: Any = "latin-1") -> Any:
        if isinstance(content, list) and all(type(byte) is int for byte in content):
            return kind(content)
        if not isinstance(content, (str, bytes, bytearray)):
            raise ValueError(f"bytes are made of a {type(content).__name__}")
        return kind(_bytes_of(content, encoding) if isinstance(content, str) else content)

    return make


def _makers() -> dict[str, Any]:
    """What may be called: functions of this file, and names of :data:`_BUILDERS` for what is built later."""
    made: dict[str, Any] = {
        "_codecs.encode": _bytes_of,
        "collections.defaultdict": _defaultdict,
        "collections.OrderedDict": _ordered,
        "torch._utils._rebuild_tensor_v2": "tensor",
    }
    for module in _BUILTIN:
        made |= {f"{module}.set": _set_of(set), f"{module}.frozenset": _set_of(frozenset)}
        made |= {f"{module}.complex": _complex, f"{module}.slice": _slice}
        made |= {f"{module}.bytes": _raw_bytes(bytes), f"{module}.bytearray": _raw_bytes(bytearray)}
    for module in _NUMPY:
        made |= {f"{module}._reconstruct": "array", f"{module}._frombuffer": "buffer array"}
        made |= {f"{module}.scalar": "scalar", f"{module}.dtype": "dtype", f"{module}.ndarray": "array"}
    for module in _SPARSE:
        made |= {f"{module}.csr_matrix": "matrix", f"{module}.csr_array": "matrix"}
    return made


_MAKERS = _makers()
_BUILDERS: dict[str, Callable[[PickleReader, _Made, int], Any]] = {
    "array": PickleReader._array,
    "buffer array": PickleReader._buffer_array,
    "scalar": PickleReader._scalar,
    "dtype": PickleReader._dtype,
    "matrix": PickleReader._matrix,
    "tensor": PickleReader._tensor,
}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_LITERALS = {*_NUMBERS, *_TEXTS, "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK, "EMPTY_TUPLE": ()}
