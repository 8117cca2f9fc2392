"""Tables of edges as text: every cell is read as written, and every line that stays is written as it was read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress, islice
from pathlib import Path

import numpy as np
import torch

from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_file import (
    FORMATS,
    GraphFile,
    Mask,
    end_columns,
    labelled_edges,
    number,
    weight_name,
)

DELIMITERS = ",\t;| "  # in this order; the first one by which the header names both ends is the table's
WHOLE = re.compile(r"0|-?[1-9][0-9]*")  # whole numbers in the one way that Python writes them


@FORMATS.register("csv")
@FORMATS.register("tsv")
class TextTable(GraphFile):
    """An edge list with a header that names ``src`` and ``dst`` (or ``source`` and ``target``), one edge a record.

    Labels are equal where their text is: ``1``, ``01`` and ``1.0`` are three nodes. The delimiter is read from the
    header; cells may be quoted. Blank lines and lines that begin with ``#`` are no edges and stay.
    """

    packed = True

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        text = _decoded(read_content(path))
        ends = "\r" if "\r" in text and "\n" not in text else "\n"
        self.lines = list(io.StringIO(text, newline=ends))
        del text
        with _long_cells():
            first, delimiter, names = self._header()
            name = weight_name(names, weight, "column")
            self._read(first, delimiter, names, name)
        values = None if name is None else torch.tensor([number(cell) for cell in self.cells], dtype=torch.float64)
        tails, heads = self.ends
        if all(map(WHOLE.fullmatch, tails)) and all(map(WHOLE.fullmatch, heads)):
            tails, heads = list(map(int, tails)), list(map(int, heads))  # named by their values, as ids in memory are
        self.edges, labels = labelled_edges(tails, heads, undirected, values)
        del self.cells, self.ends
        alike = len(labels) - len({label.strip() if isinstance(label, str) else label for label in labels})
        self.weights = "" if name is None else f"the column {name!r}"
        self.note = f"{alike:,} labels differ from others by blanks only, and are nodes of their own" if alike else ""

    def _header(self) -> tuple[int, str, list[str]]:
        """The line after the header, the delimiter, and the names of the columns."""
        errors: list[ValueError] = []
        for delimiter in DELIMITERS:
            try:
                for _, stop, names in _records(self.lines, 0, delimiter):
                    if not _blank(names):
                        end_columns(names)
                        return stop, delimiter, [name.strip() for name in names]
                raise ValueError("it is empty: a first line must name the columns, src and dst among them")
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def _read(self, first: int, delimiter: str, names: list[str], weight: str | None) -> None:
        """Collect the ends, weights and lines of the records."""
        (src, dst), width = end_columns(names), len(names)
        value = None if weight is None else names.index(weight)
        tails: list[str] = []
        heads: list[str] = []
        starts: list[int] = []
        stops: list[int] = []
        self.cells: list[str] = []
        for start, stop, cells in _records(self.lines, first, delimiter, width):
            if len(cells) != width:
                if _blank(cells):
                    continue
                raise ValueError(f"line {start + 1} has {len(cells)} cells, and the header has {width}")
            tail, head = cells[src], cells[dst]
            if not tail or not head:
                raise ValueError(f"line {start + 1} lacks an end: both ends of an edge must be given")
            tails.append(tail)
            heads.append(head)
            starts.append(start)
            stops.append(stop)
            if value is not None:
                self.cells.append(cells[value])
        self.ends = tails, heads
        self.starts, self.stops = np.array(starts, np.int64), np.array(stops, np.int64)

    def write(self, keep: Mask, path: Path) -> None:
        """The header, comments, blank lines and kept records, byte for byte."""
        gone = np.zeros(len(self.lines) + 1, np.int8)
        gone[self.starts[~keep]] += 1
        gone[self.stops[~keep]] -= 1
        stay = np.cumsum(gone[:-1], dtype=np.int8) == 0
        write_content(path, ["".join(compress(self.lines, stay.tolist())).encode()])

    def place(self, edge: int) -> str:
        """The first line of the edge's record."""
        return f"line {self.starts[edge] + 1}"


def _decoded(content: bytes) -> str:
    if (nul := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise ValueError(f"line {line} holds a NUL byte: it is no text, or not in UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(f"line {line} is not in UTF-8 (byte {byte:#04x}); save the table in UTF-8") from error


def _records(
    lines: list[str], first: int, delimiter: str, width: int | None = None
) -> Iterator[tuple[int, int, list[str]]]:
    """(first line, line after the last, cells) of each record from a line on; comments are left out.

    With the header's ``width``, a comment that could be an edge is refused.
    """
    start = at = first
    fresh = True  # whether the next line begins a record: within quotes a # is a part of a cell

    def feed() -> Iterator[str]:
        nonlocal start, at, fresh
        for line in islice(lines, first, None):
            at += 1
            if at == 1:
                line = line.removeprefix("\ufeff")
            if fresh:
                if line.startswith("#"):
                    if width is not None:
                        _check_comment(line, at, delimiter, width)
                    continue
                start, fresh = at - 1, False
            yield line

    try:
        for cells in csv.reader(feed(), delimiter=delimiter, strict=True):
            yield start, at, cells
            fresh = True
    except csv.Error as error:
        open_quote = "end of data" in str(error)
        reason = "a quoted cell that begins here does not end" if open_quote else str(error)
        raise ValueError(f"line {start + 1} cannot be split into cells: {reason}") from error


def _check_comment(line: str, at: int, delimiter: str, width: int) -> None:
    """Refuse a comment that could be an edge: to drop it, or to count it, might be wrong."""
    if width == len(next(csv.reader([line], delimiter=delimiter))):
        raise ValueError(
            f'line {at} begins with # and has as many cells as the header: a label is to be quoted ("#..."), and a '
            "comment must have another number of cells or stand above the header"
        )


def _blank(cells: list[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


@contextmanager
def _long_cells() -> Iterator[None]:
    """Read cells of any length: the usual limit of the csv module is 131,072 characters."""
    before = csv.field_size_limit((1 << 31) - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
