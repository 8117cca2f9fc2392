"""An edge list in one array on the disk: ``.npy`` files, memory maps, and the binary files of OGB."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.atomic_write import atomic_write
from graphsparse.edges.outofcore.parts import Array, Batch, MaskOf, Part, Parts, Piece
from graphsparse.errors import DataError
from graphsparse.untrusted import reading

KIND = "an edge list [2, E] or [E, 2] of whole numbers in NumPy's format"
MEMBER = "edge_index.npy"  # what OGB's binary files (raw/data.npz) call it
GROUP = 1 << 20  # edges of a piece
HEADER = 128  # bytes, more than the longest one of two lengths needs


@dataclass(frozen=True)
class ArrayList(Parts):
    """One array, of which a worker reads the ends that it needs.

    Attributes:
        dtype: of the ids.
        offset: where the ids begin in the file, in bytes.
        pairs: whether the two ends of an edge lie side by side, or all tails before all heads.
        wide: whether the shape is ``[2, E]``.
    """

    parts: tuple[Part, ...]
    dtype: str
    offset: int
    pairs: bool
    wide: bool

    @classmethod
    def open(cls, path: Path, begin: int = 0) -> ArrayList:
        """Look at the header of an array that begins at a byte of a file.

        Raises:
            DataError: it is no such array.
        """
        with reading(path, DataError, KIND):
            with path.open("rb") as file:
                file.seek(begin)
                version = np.lib.format.read_magic(file)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"it has the format {version}")
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, turned, dtype = read(file)
                offset = file.tell()
            return cls.of(path, offset, shape, dtype, turned)

    @classmethod
    def of(cls, path: Path, offset: int, shape: tuple[int, ...], dtype: Any, turned: bool) -> ArrayList:
        """An array of which everything is known; ``turned`` if it is stored by columns."""
        if len(shape) != 2 or 2 not in shape or dtype.kind not in "iu":
            raise ValueError(f"it holds {dtype} {list(shape)}")
        wide = shape[0] == 2
        count = shape[1] if wide else shape[0]
        there = path.stat().st_size - offset
        if count < 0 or there < 2 * count * dtype.itemsize:
            raise ValueError(f"it claims {2 * count * dtype.itemsize:,} bytes of ids and has {there:,}")
        groups = tuple(min(GROUP, count - start) for start in range(0, count, GROUP))
        part = Part(path.name, str(path), str(path), 0, groups, 2 * dtype.itemsize)
        return cls((part,), dtype.str, offset, wide == turned, wide)

    @classmethod
    def mapped(cls, array: np.memmap[Any, Any]) -> ArrayList:
        """The file behind a memory map.

        Raises:
            ValueError: it is a part of one, or of no file.
        """
        flat = array.flags.c_contiguous or array.flags.f_contiguous
        if not flat or isinstance(array.base, np.ndarray) or array.filename is None:
            raise ValueError("a memory map must be that of a whole array: give the path of its .npy file")
        turned = not array.flags.c_contiguous
        return cls.of(Path(array.filename), int(array.offset), array.shape, array.dtype, turned)

    @classmethod
    def packed(cls, path: Path, folder: Path) -> ArrayList:
        """The edges in a binary file of OGB; packed ones are unpacked into a folder, piece by piece."""
        with reading(path, DataError, f"OGB's binary file, with {MEMBER} in it"), zipfile.ZipFile(path) as archive:
            about = archive.getinfo(MEMBER)
            if about.compress_type == zipfile.ZIP_STORED:
                return cls.open(path, _data_offset(path, about))
            target = folder / MEMBER
            with archive.open(MEMBER) as member, atomic_write(target) as partial, partial.open("wb") as file:
                shutil.copyfileobj(member, file, 1 << 24)
            return cls.open(target)

    def known_ids(self) -> tuple[int, int] | None:
        return None

    def batches(self, piece: Piece, rows: int) -> Iterator[Batch]:
        for start in range(piece.first, piece.first + piece.rows, rows):
            yield self._batch(start, min(rows, piece.first + piece.rows - start))

    def write(self, part: Part, target: Path, mask_of: MaskOf, rows: int) -> int:
        """All tails go before all heads, whose place is known at the end: they wait in a file of their own."""
        kept, dtype = 0, np.dtype(self.dtype).newbyteorder("=")
        with atomic_write(target) as partial, partial.open("wb") as file:
            file.seek(HEADER)
            heads = partial.with_name(f"{partial.name}.heads")
            try:
                with heads.open("wb+") as later:
                    for piece in self.pieces():
                        for batch in self.batches(piece, rows):
                            mask = mask_of(batch)
                            ends = [end[mask].astype(dtype, copy=False) for end in (batch.tails, batch.heads)]
                            kept += len(ends[0])
                            if self.wide:
                                ends[0].tofile(file)
                                ends[1].tofile(later)
                            else:
                                np.stack(ends, axis=1).tofile(file)
                    later.seek(0)
                    shutil.copyfileobj(later, file, 1 << 24)
            finally:
                heads.unlink(missing_ok=True)
            file.seek(0)
            file.write(_header(dtype, (2, kept) if self.wide else (kept, 2)))
        return kept

    def _batch(self, start: int, count: int) -> Batch:
        part, dtype = self.parts[0], np.dtype(self.dtype)
        with reading(part.path, DataError, KIND):
            if self.pairs:
                both = self._read(2 * start, 2 * count).reshape(-1, 2)
                ends = both[:, 0], both[:, 1]
            else:
                ends = self._read(start, count), self._read(part.rows + start, count)
            wanted = np.int32 if dtype.itemsize == 4 and dtype.kind == "i" else np.int64
            tails, heads = (np.ascontiguousarray(end, wanted) for end in ends)
        return Batch(start, tails, heads)

    def _read(self, start: int, count: int) -> Array:
        dtype = np.dtype(self.dtype)
        found = np.fromfile(self.parts[0].path, dtype, count, offset=self.offset + start * dtype.itemsize)
        if len(found) != count:
            raise ValueError("it ends too early")
        return found


def _data_offset(path: Path, about: zipfile.ZipInfo) -> int:
    """Where the bytes of a member that is not packed begin."""
    with path.open("rb") as file:
        file.seek(about.header_offset)
        head = file.read(30)
    if head[:4] != b"PK\x03\x04":
        raise ValueError("its directory points to no member")
    return about.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")


def _header(dtype: np.dtype[Any], shape: tuple[int, int]) -> bytes:
    """The head of a ``.npy`` file, of one length for all shapes."""
    words = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    start = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
    return start + words.ljust(HEADER - 11) + b"\n"
