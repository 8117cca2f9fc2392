"""An edge list in files: its parts in the order of their names, pieces of them that are read one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsparse.atomic_write import atomic_write
from graphsparse.errors import DataError
from graphsparse.graphs.columns import end_columns
from graphsparse.graphs.formats.arrow_file import rows_kept
from graphsparse.graphs.formats.parquet import compression_of
from graphsparse.untrusted import reading

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
MaskOf = Callable[["Batch"], Mask]

KIND = "a Parquet file of edges"
BUFFER = 1 << 20  # bytes that are read at once of a column
NEVER_PACKED = 0.9  # of its plain size: a column that a dictionary did not make smaller is written without one


@dataclass(frozen=True, eq=False)
class Batch:
    """Some consecutive edges.

    Attributes:
        first: the position of the first one in the whole list.
        tails: int32 or int64 ``[n]``.
        heads: the same.
    """

    first: int
    tails: Array
    heads: Array


@dataclass(frozen=True)
class Part:
    """One file of the list.

    Attributes:
        name: below the folder, with ``/``; the part that is written has the same.
        path: where it lies.
        shown: what errors call it: its path, or that of the table that it was made from.
        first: the position of its first edge in the whole list.
        groups: rows of each group of rows.
        row_bytes: bytes that a row takes in memory, about.
    """

    name: str
    path: str
    shown: str
    first: int
    groups: tuple[int, ...]
    row_bytes: int

    @property
    def rows(self) -> int:
        """The number of its edges."""
        return sum(self.groups)


@dataclass(frozen=True)
class Piece:
    """Some consecutive groups of rows of a part.

    Attributes:
        part: its number.
        groups: the first group, and the one after the last.
        first: the position of the first edge in the whole list.
        rows: the number of edges.
    """

    part: int
    groups: tuple[int, int]
    first: int
    rows: int


class Parts(ABC):
    """An edge list in files; it travels to workers, which read the files themselves.

    Attributes:
        parts: in the order of their names, which is that of the list.
    """

    parts: tuple[Part, ...]

    @property
    def num_rows(self) -> int:
        """The number of edges."""
        return sum(part.rows for part in self.parts)

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes in memory, about: of the widest part."""
        return max((part.row_bytes for part in self.parts), default=0)

    def pieces(self) -> list[Piece]:
        """All groups of rows, in order."""
        found = []
        for number, part in enumerate(self.parts):
            first = part.first
            for group, rows in enumerate(part.groups):
                found.append(Piece(number, (group, group + 1), first, rows))
                first += rows
        return found

    def place(self, position: int) -> str:
        """Where an edge stands: the part and its row, from 0."""
        part = next(part for part in self.parts if part.first <= position < part.first + part.rows)
        return f"{part.shown}: row {position - part.first}"

    @abstractmethod
    def known_ids(self) -> tuple[int, int] | None:
        """The smallest and the largest id, where the files tell without being read through."""

    @abstractmethod
    def batches(self, piece: Piece, rows: int) -> Iterator[Batch]:
        """Read the ends of a piece, at most so many rows at once.

        Raises:
            DataError: the file is damaged, or an end is missing or no whole number.
        """

    @abstractmethod
    def write(self, part: Part, target: Path, mask_of: MaskOf, rows: int) -> int:
        """Write a part with the edges that a mask leaves, whole or not at all; returns how many these are."""


@dataclass(frozen=True)
class ParquetParts(Parts):
    """Parquet files of one schema.

    Attributes:
        ends: the names of the two columns of ends.
    """

    parts: tuple[Part, ...]
    ends: tuple[str, str]

    @classmethod
    def open(
        cls, files: Sequence[tuple[str, Path, Path]], src: str | None = None, dst: str | None = None
    ) -> ParquetParts:
        """Look at the footers of files.

        Args:
            files: for each part its name, its path, and the path that errors name.
            src: the column of the tails, if it is not called as usual.
            dst: that of the heads.

        Raises:
            DataError: a file is damaged, or of another schema than the first.
        """
        parts, first, ends, schema = [], 0, ("", ""), None
        for name, path, shown in files:
            with reading(shown, DataError, KIND), _opened(path) as file:
                if schema is None:
                    schema = file.schema_arrow
                    names = [str(name) for name in schema.names]
                    at = end_columns(names, src, dst)
                    ends = names[at[0]], names[at[1]]
                    _check_types(schema, ends)
                elif not schema.equals(file.schema_arrow):
                    other = files[0][2].name
                    raise ValueError(
                        f"its columns are {_columns(file.schema_arrow)}, and those of {other} are {_columns(schema)}; "
                        "all parts must have the same"
                    )
                about = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
                groups = tuple(group.num_rows for group in about)
                width = max((group.total_byte_size // max(1, group.num_rows) for group in about), default=0)
                parts.append(Part(name, str(path), str(shown), first, groups, width))
                first += sum(groups)
        return cls(tuple(parts), ends)

    def known_ids(self) -> tuple[int, int] | None:
        low, high = 0, -1
        for part in self.parts:
            with reading(part.shown, DataError, KIND), _opened(part.path) as file:
                at = [file.schema_arrow.names.index(end) for end in self.ends]
                if len(file.metadata.schema.names) != len(file.schema_arrow.names):
                    return None  # nested columns shift the numbers
                for group in range(file.metadata.num_row_groups):
                    for column in at:
                        found = file.metadata.row_group(group).column(column).statistics
                        if not file.metadata.row_group(group).num_rows:
                            continue
                        if found is None or not found.has_min_max:
                            return None
                        low, high = min(low, int(found.min)), max(high, int(found.max))
        return low, high

    def batches(self, piece: Piece, rows: int) -> Iterator[Batch]:
        part, first = self.parts[piece.part], piece.first
        with reading(part.shown, DataError, KIND), _opened(part.path) as file:
            for batch in _read(file, range(*piece.groups), rows, list(self.ends)):
                yield self._ends(batch, first, part)
                first += len(batch)

    def write(self, part: Part, target: Path, mask_of: MaskOf, rows: int) -> int:
        from pyarrow import parquet

        first, kept = part.first, 0
        with _damage_of(part.shown), _opened(part.path) as file, atomic_write(target) as partial:
            schema = file.schema_arrow
            how = {"compression": compression_of(file.metadata), "use_dictionary": _packed(file)}
            with parquet.ParquetWriter(partial, schema, **how) as writer:
                for group, length in enumerate(part.groups):
                    for batch in _read(file, [group], rows, None):
                        mask = mask_of(self._ends(batch.select(list(self.ends)), first, part))
                        stay = rows_kept(batch, mask)
                        writer.write_table(stay, row_group_size=max(1, length))
                        first += len(batch)
                        kept += len(stay)
        return kept

    def _ends(self, batch: Any, first: int, part: Part) -> Batch:
        ends = []
        for name, column in zip(self.ends, batch.columns, strict=True):
            if column.null_count:
                row = first - part.first + column.is_null().to_pylist().index(True)
                raise DataError(f"{part.shown}: row {row} lacks an end: {name} is null, and both ends must be given")
            ends.append(_as_ids(column, f"{part.shown}: {name}"))
        return Batch(first, *ends)


@contextmanager
def _damage_of(path: str) -> Iterator[None]:
    """Damage of the file that is read becomes a `DataError` with its name; errors of writing pass as they are."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        with reading(path, DataError, KIND):
            raise error
    except OSError as error:
        if error.errno is not None:
            raise
        with reading(path, DataError, KIND):  # pyarrow's, of a page that is none
            raise ValueError(str(error)) from error


def find_files(folder: Path, suffixes: Sequence[str]) -> list[tuple[str, Path]]:
    """The files in a folder and those below it, by name; hidden ones, and those that begin with ``_``, are no parts."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if any(word.startswith((".", "_")) for word in name.parts) or not path.is_file():
            continue
        if any(path.name.lower().endswith(suffix) for suffix in suffixes):
            found.append((name.as_posix(), path))
    return sorted(found)


def shares(pieces: Sequence[Piece], count: int) -> list[list[Piece]]:
    """Cut pieces into at most so many runs of about as many edges each."""
    total = sum(piece.rows for piece in pieces)
    runs: list[list[Piece]] = [[] for _ in range(max(1, count))]
    done = 0
    for piece in pieces:
        runs[min(len(runs) - 1, (done + piece.rows // 2) * len(runs) // max(1, total))].append(piece)
        done += piece.rows
    return [run for run in runs if run]


def _opened(path: str | Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


def _read(file: Any, groups: Sequence[int], rows: int, columns: list[str] | None) -> Iterator[Any]:
    """Batches of at most so many rows; a column is decoded as it is read, however long a group of rows is."""
    for group in groups:
        if file.metadata.row_group(group).num_rows:
            for batch in file.iter_batches(rows, [group], columns, use_threads=False):
                yield batch if columns is None else batch.select(columns)


def _check_types(schema: Any, ends: tuple[str, str]) -> None:
    from pyarrow import types

    for end in ends:
        kind = schema.field(end).type
        if not types.is_integer(kind):
            raise ValueError(
                f"the column {end!r} holds {kind}: out of core ids are whole numbers 0, 1, 2 ..., positions of nodes"
            )


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)[:300]


def _as_ids(column: Any, name: str) -> Array:
    """int32 or int64 without a copy; narrower and unsigned ones as int64."""
    import pyarrow

    if column.type not in (pyarrow.int32(), pyarrow.int64()):
        try:
            column = column.cast(pyarrow.int64())
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{name} holds an id beyond 64 bits with a sign ({error})") from error
    ids: Array = column.to_numpy()
    return ids


def _packed(file: Any) -> list[str] | bool:
    """The columns that a dictionary makes smaller, as it did in the source."""
    if not file.metadata.num_row_groups:
        return True
    group = file.metadata.row_group(0)
    named = []
    for at in range(group.num_columns):
        column = group.column(at)
        width = {"INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8}.get(column.physical_type)
        plain = width is not None and column.total_uncompressed_size >= NEVER_PACKED * width * column.num_values
        has_dictionary = any("DICTIONARY" in encoding for encoding in column.encodings)
        if has_dictionary and not plain:
            named.append(column.path_in_schema)
    return named
