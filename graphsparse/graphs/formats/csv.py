"""Tables of edges as text: every cell is read as written, and every line that stays is written as it was read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_content import GraphContent, lost_in_a_list, number
from graphsparse.graphs.formats.graph_file import FORMATS, Mask
from graphsparse.graphs.formats.text_lines import NO_HEADER, TextLines, decoded, plain_cells

DELIMITERS = ",\t;| "  # in this order; the first one by which the header names both ends is the table's


@FORMATS.register("csv")
class TextTable(TextLines):
    """An edge list with a header that names ``src`` and ``dst`` (or ``source`` and ``target``), one edge a record.

    Labels are equal where their text is: ``1``, ``01`` and ``1.0`` are three nodes. The delimiter is read from the
    header; cells may be quoted. Blank lines and lines that begin with ``#`` are no edges and stay. A first line of
    numbers alone is no header: the ends are then in the columns 1 and 2.
    """

    cells: list[str]  # of the weights
    ends: tuple[list[str], list[str]]
    delimiter: ClassVar[str] = ","  # of new files

    def __init__(
        self,
        path: Path,
        undirected: bool | None,
        weight: str | None,
        src: str | None = None,
        dst: str | None = None,
        header: bool | None = None,
        one_based: bool = False,
    ) -> None:
        text = decoded(read_content(path))
        ends = "\r" if "\r" in text and "\n" not in text else "\n"
        self.lines = list(io.StringIO(text, newline=ends))
        del text
        with _long_cells():
            self.first, self.separator, self.names = self._header(src, dst, header)
            if self.headless:
                src, dst = src or "1", dst or "2"
            self.at = end_columns(self.names, src, dst)
            self.weight = weight_name(self.names, weight, "column")
            self._read(self.first, self.separator, self.names, self.weight)
        self.set_edges(*self.ends, None if self.weight is None else self.cells, undirected, one_based)
        del self.cells, self.ends
        labels = self.labels
        if not isinstance(labels, np.ndarray):
            self._check_blank([str(label) for label in labels])
        alike = 0 if isinstance(labels, np.ndarray) else len(labels) - len({str(label).strip() for label in labels})
        self.weights = "" if self.weight is None else f"the column {self.weight!r}"
        notes = ["the first line is an edge and no header (found so)"] if self.headless and header is None else []
        notes += self._header_again()
        notes += [f"{alike:,} labels differ from others by blanks only, and are nodes of their own"] if alike else []
        self.note = "; ".join([*notes, *filter(None, [self.note])])

    def _header(self, src: str | None, dst: str | None, header: bool | None) -> tuple[int, str, list[str]]:
        """The line of the first record, the delimiter, and the names of the columns."""
        errors: list[ValueError] = []
        self.headless = False
        self.guessed = header is None
        if header is None and self.lines and self.lines[0].startswith(NO_HEADER):
            header = self.guessed = False
        for delimiter in DELIMITERS:
            with _collected(errors):
                for start, stop, names in _records(self.lines, 0, delimiter):
                    if _blank(names):
                        continue
                    if len(names) > 1 and (header is False or (header is None and _is_edge(names))):
                        self.headless = True
                        return start, delimiter, [str(at + 1) for at in range(len(names))]
                    if header is not False:
                        end_columns(names, src, dst)
                        return stop, delimiter, [name.strip() for name in names]
                    raise ValueError(f"line {start + 1} has one cell, and an edge has two ends")
                raise ValueError("it is empty: a first line must name the columns, src and dst among them")
        hint = "; if the first line is an edge, say header=False (--no-header)" if header is None else ""
        raise ValueError(f"{errors[0]}{hint}") from errors[0]

    def _read(self, first: int, delimiter: str, names: list[str], weight: str | None) -> None:
        """Collect the ends, weights and lines of the records."""
        (src, dst), width = self.at, len(names)
        value = None if weight is None else names.index(weight)
        cells = plain_cells(self.lines[first:], delimiter, width)
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
                what = "first record" if self.headless else "header"
                raise ValueError(
                    f"line {start + 1} has {len(cells)} cells, and the {what} has {width} (separated by {delimiter!r})"
                )
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

    def _check_blank(self, labels: list[str]) -> None:
        blank = [at for at, label in enumerate(labels) if not label.strip()]
        if blank:
            line = self.starts[np.isin(self.codes, blank).any(axis=0).argmax()]
            raise ValueError(f"line {line + 1} lacks an end: both ends of an edge must be given")

    def _header_again(self) -> list[str]:
        """What to say of tables that were put together header and all."""
        ends = [self.names[at] for at in self.at]
        labels = self.labels
        if self.headless or isinstance(labels, np.ndarray) or not {*ends} <= {*labels}:
            return []
        again = [list(labels).index(end) for end in ends]
        lines = self.starts[(self.codes == np.array(again)[:, None]).all(axis=0)] + 1
        return [f"line {lines[0]} is the header again, and counts as an edge"] if len(lines) else []

    def mark(self, keep: Mask) -> str:
        """Above a first edge that could be taken for a header, a line that says that there is none."""
        if not (self.headless and self.guessed) or not keep.any():
            return ""
        first = self.starts[keep.argmax()], self.stops[keep.argmax()]
        with _long_cells():
            cells = next(cells for _, _, cells in _records(self.lines[: first[1]], int(first[0]), self.separator))
        return "" if _is_edge(cells) else f"{NO_HEADER}\n"

    def content(self) -> GraphContent:
        """All columns, as text."""
        with _long_cells():
            rows = [
                cells
                for _, _, cells in _records(self.lines, self.first, self.separator, len(self.names))
                if not _blank(cells)
            ]
        others = [at for at in range(len(self.names)) if at not in self.at]
        columns = {self.names[at]: [row[at] for row in rows] for at in others}
        twice = len(others) - len(columns)
        return self.found(columns, self.weight, [f"{twice} columns of one name with another"] if twice else [])

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """A header ``src,dst,...`` and one line an edge."""
        taken = {"src", "dst"} & {name.strip().lower() for name in content.columns}
        columns = {name: values for name, values in content.columns.items() if name.strip().lower() not in taken}
        out = io.StringIO()
        writer = csv.writer(out, delimiter=cls.delimiter, lineterminator="\n")
        writer.writerow(["src", "dst", *columns])
        names = list(content.names())
        lines = [names[at] for at in content.ends[0]], [names[at] for at in content.ends[1]], *columns.values()
        writer.writerows(zip(*lines, strict=True))
        text = out.getvalue()
        write_content(path, [text.encode()])
        return [*lost_in_a_list(content), *(f"the column {name!r}" for name in sorted(taken))]


@FORMATS.register("tsv")
class TabTable(TextTable):
    """The same, separated by tabs when it is made anew."""

    delimiter = "\t"


def _is_edge(cells: list[str]) -> bool:
    """Whether a first record cannot be a header: it is an edge of whole numbers, with numbers beside."""
    ends = cells[:2]
    return all(cell.strip().isdecimal() for cell in ends) and not any(math.isnan(number(cell)) for cell in cells[2:])


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
