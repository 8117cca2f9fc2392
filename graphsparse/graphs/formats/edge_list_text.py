"""Edge lists as plain text, separated by white space: SNAP's ``.txt``, ``.edgelist`` of networkx, KONECT's ``out.``."""

from __future__ import annotations

import ast
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_content import GraphContent, lost_in_a_list
from graphsparse.graphs.formats.graph_file import FORMATS, Mask
from graphsparse.graphs.formats.text_lines import NO_HEADER, TextLines, decoded, plain_cells

_COMMENTS = ("#", "%")
_DATA = "{"  # where networkx writes the attributes of an edge as a dictionary


@FORMATS.register("txt")
@FORMATS.register("edgelist")
@FORMATS.register("edges")
@FORMATS.register("el")
class EdgeListText(TextLines):
    """Two ids or words a line, and perhaps more; lines that begin with ``#`` or ``%`` are comments, and stay.

    There is a header where the first line names ``src`` and ``dst`` (or ``source`` and ``target``, or the columns that
    are asked for). A first line of two other words is one where all the other lines have whole numbers in their place,
    and it reads like names of columns (``FromNodeId ToNodeId``); its first two columns are the ends then. Where it does
    not, it is an edge. The report says which was found. Else the ends are in the columns 1 and 2, and weights where
    they are asked for by their column's number, or the ``weight`` of networkx's dictionaries (1 where one has
    none). After a line
    ``# no header`` there is none. Lines may be separated by commas or semicolons, too, if all are.
    """

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
        self.lines = list(io.StringIO(decoded(read_content(path)), newline="\n"))
        self.delimiter: str | None = None
        self.guessed = header is None and not (self.lines and self.lines[0].startswith(NO_HEADER))
        rows = self._rows()
        first, note = rows.row(0) if rows else [], ""
        if not rows:
            self.names = ["1", "2"]
        elif header or (self.guessed and _names_ends(first, src, dst)):
            self.names, rows = first, rows.after_first()
        elif self.guessed and src is None and dst is None and _words_above_numbers(rows):
            if _looks_like_names(first):
                self.names, rows = first, rows.after_first()
                src, dst = first[:2]
                note = f"the first line is a header, and {src} and {dst} are the ends (found so)"
            else:
                self.names = _numbered(first)
                note = "the first line is an edge and no header (found so)"
        else:
            self.names = _numbered(first)
        self.header = self.names is first
        if self.names and not self.header:
            src, dst = src or "1", dst or "2"
        self.at = end_columns(self.names, src, dst) if rows or self.header else (0, 1)
        rows.check_width(len(self.names), self._ragged)
        self.rows = rows
        self.starts = np.array(rows.places, np.int64)
        self.stops = self.starts + 1
        tails, heads = (rows.column(end) for end in self.at)
        data, unread = _dictionaries(rows, len(self.names))
        known = dict.fromkeys(key for entry in data for key in entry if isinstance(key, str))
        self.weight = name = weight_name([*self.names, *known], weight, "column")
        self.within = name is not None and name not in self.names
        weights = _values(data, name) if self.within else None
        if name is not None and not self.within:
            weights = rows.column(self.names.index(name))
        self.set_edges(tails, heads, weights, undirected, one_based)
        what = "the attribute" if self.within else "the column"
        self.weights = "" if name is None else f"{what} {name!r}"
        self.note = "; ".join(filter(None, [note, unread, self.note]))

    def _rows(self) -> _Rows:
        """The lines that are edges or a header, and their cells."""
        begin = next((at for at, line in enumerate(self.lines) if not _no_edge(line, at)), len(self.lines))
        if (fast := self._plain_rows(begin)) is not None:
            return fast
        lines = [line.removeprefix("\ufeff") if at == 0 else line for at, line in enumerate(self.lines)]
        places = [at for at, line in enumerate(lines) if not _no_edge(line, at)]
        lines = [lines[at] for at in places]
        first = lines[0].partition(_DATA)[0] if lines else ""
        self.delimiter = next((sign for sign in ",;|" if sign in first), None)
        plain = self.delimiter is None and not any(_DATA in line for line in lines)
        rows = list(map(str.split, lines)) if plain else [self._cells(line) for line in lines]
        for at, cells in zip(places, rows, strict=True):
            if len(cells) < 2 or not cells[0] or not cells[1]:
                raise ValueError(self._ragged(at, cells, 2))
        return _ListedRows(places, rows)

    def _plain_rows(self, begin: int) -> _Rows | None:
        """The same at once, where each line has as many cells as the first, with one tab or one blank between."""
        lines = self.lines[begin:]
        if not lines or lines[0].startswith("\ufeff"):
            return None
        sign = "\t" if "\t" in lines[0] else " "
        width = lines[0].count(sign) + 1
        cells = plain_cells(lines, sign, width, "".join(_COMMENTS)) if width > 1 else None
        if cells is None or "" in cells:
            return None
        text = "".join(lines)
        other = " " if sign == "\t" else "\t"
        if any(letter in text for letter in (other, _DATA, *",;|\v\f\x1c\x1d\x1e\x1f\x85\xa0")) or not text.isascii():
            return None
        return _PlainRows(range(begin, len(self.lines)), cells, width)

    def _cells(self, text: str) -> list[str]:
        plain, brace, data = text.partition(_DATA)
        if self.delimiter is None:
            cells = plain.split()
        else:
            cells = [cell.strip() for cell in plain.strip().split(self.delimiter)]
            if brace and not cells[-1]:
                cells.pop()
        return [*cells, brace + data.strip()] if brace else cells

    def _ragged(self, at: int, cells: list[str], width: int) -> str:
        sign = "white space" if self.delimiter is None else repr(self.delimiter)
        first = "an edge has two ends" if width == 2 and len(cells) < 2 else f"the first has {width}"
        return f"line {at + 1} has {len(cells)} cells, and {first}; they are separated by {sign} as in the first line"

    def mark(self, keep: Mask) -> str:
        """Above a first edge that would be taken for a header, a line that says that there is none."""
        if self.header or not self.guessed or not keep.any():
            return ""
        ends = (list(compress(self.rows.column(at), keep.tolist())) for at in (0, 1))
        return _mark(list(map(list, zip(*ends, strict=True))))

    def content(self) -> GraphContent:
        """All columns, as text; the attributes that networkx writes as a dictionary are not taken apart."""
        columns: dict[str, Any] = {}
        lost = []
        for at, name in enumerate(self.names):
            if at in self.at:
                continue
            values = self.rows.column(at)
            if values and all(value.startswith(_DATA) for value in values):
                lost.append("the dictionaries of the edges")
                if self.within:
                    columns[str(self.weight)] = _values(_dictionaries(self.rows, at + 1)[0], self.weight)
            else:
                columns[name if name != str(at + 1) else f"column{name}"] = values
        weight = None if self.weight is None else self.weight
        if weight is not None and weight not in columns:
            columns["weight"] = columns.pop(f"column{weight}")
            weight = "weight"
        return self.found(columns, weight, lost)

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """A comment that names the columns, and one line an edge, separated by tabs."""
        names = [str(name) for name in content.names()]
        blank = next((name for name in names if not name or name.split() != [name] or name.startswith(_COMMENTS)), None)
        if blank is not None:
            raise ValueError(f"the label {blank!r:.60} cannot stand in a list that white space separates: write csv")
        lost, columns = lost_in_a_list(content), {}
        for name, values in content.columns.items():
            cells = [str(value) for value in values]
            if all(cell.split() == [cell] and _DATA not in cell for cell in cells):
                columns[name] = cells
            else:
                lost.append(f"the column {name!r}, which holds blanks")
        head = "\t".join(["# src", "dst", *(name.replace("\t", " ") for name in columns)])
        ends = [names[at] for at in content.ends[0]], [names[at] for at in content.ends[1]]
        rows = list(zip(*ends, *columns.values(), strict=True))
        lines = ["\t".join(row) for row in rows]
        mark = _mark([list(row[:2]) for row in rows])
        write_content(path, [f"{mark}{head}\n".encode(), "".join(f"{line}\n" for line in lines).encode()])
        return lost


class _Rows(ABC):
    """Lines and their cells."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @abstractmethod
    def row(self, at: int) -> list[str]:
        """The cells of a line."""

    @abstractmethod
    def column(self, at: int) -> list[str]:
        """The cells that stand in the same place of all lines."""

    @abstractmethod
    def after_first(self) -> _Rows:
        """All lines but the first."""

    @abstractmethod
    def check_width(self, width: int, error: Callable[[int, list[str], int], str]) -> None:
        """Raise a ValueError unless every line has so many cells."""


class _ListedRows(_Rows):
    """Cells of each line by itself."""

    def __init__(self, places: Sequence[int], rows: list[list[str]]) -> None:
        super().__init__(places)
        self.rows = rows

    def row(self, at: int) -> list[str]:
        return self.rows[at]

    def column(self, at: int) -> list[str]:
        return [cells[at] for cells in self.rows]

    def after_first(self) -> _ListedRows:
        return _ListedRows(self.places[1:], self.rows[1:])

    def check_width(self, width: int, error: Callable[[int, list[str], int], str]) -> None:
        for at, cells in zip(self.places, self.rows, strict=True):
            if len(cells) != width:
                raise ValueError(error(at, cells, width))


class _PlainRows(_Rows):
    """All cells in one list, ``width`` of them a line."""

    def __init__(self, places: Sequence[int], cells: list[str], width: int) -> None:
        super().__init__(places)
        self.cells, self.width = cells, width

    def row(self, at: int) -> list[str]:
        return self.cells[at * self.width : (at + 1) * self.width]

    def column(self, at: int) -> list[str]:
        return self.cells[at :: self.width]

    def after_first(self) -> _PlainRows:
        return _PlainRows(self.places[1:], self.cells[self.width :], self.width)

    def check_width(self, width: int, error: Callable[[int, list[str], int], str]) -> None:
        if len(self) and width != self.width:
            raise ValueError(error(self.places[0], self.row(0), width))


def _dictionaries(rows: _Rows, width: int) -> tuple[list[dict[Any, Any]], str]:
    """The attributes that networkx writes behind the ends of each edge, and what to say if they cannot be read."""
    cells = rows.column(width - 1) if rows and width > 2 else []
    if not cells or not all(cell.startswith(_DATA) for cell in cells):
        return [], ""
    found = []
    for cell in cells:
        try:
            found.append(ast.literal_eval(cell))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found.append(None)
        if not isinstance(found[-1], dict):
            return [], f"what stands behind the ends, such as {cell[:40]}, is not read"
    return found, ""


def _values(data: list[dict[Any, Any]], name: Any) -> list[str]:
    """An attribute of each edge, 1 where it has none, as in networkx."""
    return ["1" if (value := entry.get(name)) is None else str(value) for entry in data]


def _no_edge(line: str, at: int) -> bool:
    """Whether a line is a comment or blank; the first one may begin with a byte order mark."""
    text = line.removeprefix("\ufeff") if at == 0 else line
    return text.startswith(_COMMENTS) or not text.strip()


def _numbered(first: list[str]) -> list[str]:
    """Names of columns that have none: 1, 2 and so on."""
    return [str(at + 1) for at in range(len(first))]


def _words_above_numbers(rows: _Rows) -> bool:
    """Whether the first line has two words, and all the others whole numbers in their place."""
    first, others = rows.row(0)[:2], rows.after_first()
    if len(set(first)) < 2 or any(word.lstrip("-").isdecimal() for word in first):
        return False
    return bool(others) and all(cell.isdecimal() for at in (0, 1) for cell in others.column(at))


def _mark(edges: list[list[str]]) -> str:
    """What must stand above edges without a header, whose first would else be taken for one."""
    if not edges:
        return ""
    rows = _ListedRows(range(len(edges)), edges)
    alike = _names_ends(edges[0], None, None) or (_words_above_numbers(rows) and _looks_like_names(edges[0]))
    return f"{NO_HEADER}\n" if alike else ""


def _looks_like_names(cells: list[str]) -> bool:
    """Whether two words are what columns of ends are called: the sides of an edge, or an id of each."""
    return all(_COLUMN.fullmatch(cell.lower().strip("\"'")) for cell in cells[:2])


_COLUMN = re.compile(
    r"(from|to|source|target|src|dst|head|tail|start|end|left|right|origin|destination|parent|child|citing|cited|"
    r"follower|followee|[uvijab]|[xy]|n[12]|.*node.*|.*vertex.*|.*(^|[^a-z])id[12]?|.*_id.*|id.*|.*id|user.*|item.*)"
)


def _names_ends(cells: list[str], src: str | None, dst: str | None) -> bool:
    """Whether a first line is a header, for certain: it names the columns of the ends."""
    try:
        end_columns(cells, src, dst)
    except ValueError:
        return False
    return True
