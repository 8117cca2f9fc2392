"""Tables of edges as text: every cell is read as written, and every line that stays is written as it was read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress, islice
from operator import methodcaller
from pathlib import Path

import numpy as np
import torch

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_file import (
    FORMATS,
    Array,
    GraphFile,
    Mask,
    number,
)
from graphsparse.graphs.inner_form import coded_edges
from graphsparse.graphs.labels import label_codes

DELIMITERS = ",\t;| "  # in this order; the first one by which the header names both ends is the table's


@FORMATS.register("csv")
@FORMATS.register("tsv")
class TextTable(GraphFile):
    """An edge list with a header that names ``src`` and ``dst`` (or ``source`` and ``target``), one edge a record.

    Labels are equal where their text is: ``1``, ``01`` and ``1.0`` are three nodes. The delimiter is read from the
    header; cells may be quoted. Blank lines and lines that begin with ``#`` are no edges and stay.
    """

    packed = True
    cells: list[str]  # of the weights
    ends: tuple[list[str], list[str]]

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
        codes, labels = _whole_codes(*self.ends) or label_codes(*self.ends)
        self.edges, self.labels = coded_edges(codes, labels, undirected, values), labels
        del self.cells, self.ends
        alike = 0 if isinstance(labels, np.ndarray) else len(labels) - len({str(label).strip() for label in labels})
        self.weights = "" if name is None else f"the column {name!r}"
        self.note = f"{alike:,} labels differ from others by blanks only, and are nodes of their own" if alike else ""

    def _header(self) -> tuple[int, str, list[str]]:
        """The line after the header, the delimiter, and the names of the columns."""
        errors: list[ValueError] = []
        for delimiter in DELIMITERS:
            with _collected(errors):
                for _, stop, names in _records(self.lines, 0, delimiter):
                    if not _blank(names):
                        end_columns(names)
                        return stop, delimiter, [name.strip() for name in names]
                raise ValueError("it is empty: a first line must name the columns, src and dst among them")
        raise errors[0]

    def _read(self, first: int, delimiter: str, names: list[str], weight: str | None) -> None:
        """Collect the ends, weights and lines of the records."""
        (src, dst), width = end_columns(names), len(names)
        value = None if weight is None else names.index(weight)
        cells = _plain_cells(self.lines[first:], delimiter, width)
        if cells is not None and "" not in (tails := cells[src::width]) and "" not in (heads := cells[dst::width]):
            self.ends, self.cells = (tails, heads), [] if value is None else cells[value::width]
            self.starts = np.arange(first, len(self.lines))
            self.stops = self.starts + 1
            return
        self._read_records(first, delimiter, width, src, dst, value)

    def _read_records(self, first: int, delimiter: str, width: int, src: int, dst: int, value: int | None) -> None:
        tails: list[str] = []
        heads: list[str] = []
        starts: list[int] = []
        stops: list[int] = []
        self.cells = []
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


def _plain_cells(lines: list[str], delimiter: str, width: int) -> list[str] | None:
    """All cells, row by row, of lines that are records without quotes; None where there is anything else."""
    text = "".join(lines)
    if '"' in text or text.startswith("#") or "\n#" in text:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            return None
    if {*map(methodcaller("count", delimiter), lines)} - {width - 1}:
        return None
    return text.removesuffix("\n").replace("\n", delimiter).split(delimiter) if lines else []


def _whole_codes(tails: list[str], heads: list[str]) -> tuple[Array, Array] | None:
    """Ends ``[2, E]`` and labels as `label_codes` finds them, where all are whole numbers of 64 bits; else None."""
    texts = [*tails, *heads]
    try:
        values = np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError):
        return None
    digits = np.searchsorted(10 ** np.arange(1, 19), np.abs(values), side="right") + 1 + (values < 0)
    if sum(map(len, texts)) != digits.sum() or not all(map(str.isascii, texts)):
        return None  # any other spelling of a number, such as 01, is longer
    labels, first, codes = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)  # nodes in the order in which they appear
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[codes].reshape(2, -1), labels[order]


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
        for text in islice(lines, first, None):
            at += 1
            line = text.removeprefix("\ufeff") if at == 1 else text
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
        reason = str(error)
        if "end of data" in reason:
            reason = "a quoted cell that begins here does not end"
        elif "new-line" in reason:
            reason = "a carriage return stands within it, not in quotes"
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
def _collected(errors: list[ValueError]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        errors.append(error)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Read cells of any length: the usual limit of the csv module is 131,072 characters."""
    before = csv.field_size_limit((1 << 31) - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
