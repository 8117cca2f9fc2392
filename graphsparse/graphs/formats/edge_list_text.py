"""Edge lists as plain text, separated by white space: SNAP's ``.txt``, ``.edgelist`` of networkx, KONECT's ``out.``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_content import GraphContent, lost_in_a_list
from graphsparse.graphs.formats.graph_file import FORMATS
from graphsparse.graphs.formats.text_lines import TextLines, decoded

_COMMENTS = ("#", "%")
_DATA = "{"  # where networkx writes the attributes of an edge as a dictionary


@FORMATS.register("txt")
@FORMATS.register("edgelist")
@FORMATS.register("edges")
@FORMATS.register("el")
class EdgeListText(TextLines):
    """Two ids or words a line, and perhaps more; lines that begin with ``#`` or ``%`` are comments, and stay.

    There is a header where the first line names ``src`` and ``dst`` (or ``source`` and ``target``, or the columns that
    are asked for), and where it alone has words among whole numbers: then its first two columns are the ends. Else the
    ends are in the columns 1 and 2, and weights where they are asked for by their column's number. Lines may be
    separated by commas or semicolons, too, if all are.
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
        places, rows = self._rows()
        if not rows:
            self.names = ["1", "2"]
        elif header or (header is None and _names_ends(rows[0], src, dst)):
            self.names = rows.pop(0)
            del places[0]
        elif header is None and src is None and dst is None and _names_over_numbers(rows):
            self.names = rows.pop(0)
            del places[0]
            src, dst = self.names[:2]
            self.note = f"the first line is a header, and {src} and {dst} are the ends (found so)"
        else:
            self.names = [str(at + 1) for at in range(len(rows[0]))]
            src, dst = src or "1", dst or "2"
        self.at = end_columns(self.names, src, dst) if rows or self.names != ["1", "2"] else (0, 1)
        self.weight = weight_name(self.names, weight, "column")
        width = len(self.names)
        for at, cells in zip(places, rows, strict=True):
            if len(cells) != width:
                raise ValueError(self._ragged(at, cells, width))
        self.rows = rows
        self.starts = np.array(places, np.int64)
        self.stops = self.starts + 1
        tails, heads = ([cells[end] for cells in self.rows] for end in self.at)
        value = None if self.weight is None else self.names.index(self.weight)
        weights = None if value is None else [cells[value] for cells in self.rows]
        self.set_edges(tails, heads, weights, undirected, one_based)
        self.weights = "" if self.weight is None else f"the column {self.weight!r}"

    def _rows(self) -> tuple[list[int], list[list[str]]]:
        """The lines that are edges or a header, and their cells."""
        lines = [line.removeprefix("\ufeff") if at == 0 else line for at, line in enumerate(self.lines)]
        places = [at for at, line in enumerate(lines) if not (line.startswith(_COMMENTS) or line.isspace())]
        lines = [lines[at] for at in places]
        first = lines[0].partition(_DATA)[0] if lines else ""
        self.delimiter = next((sign for sign in ",;|" if sign in first), None)
        plain = self.delimiter is None and not any(_DATA in line for line in lines)
        rows = list(map(str.split, lines)) if plain else [self._cells(line) for line in lines]
        for at, cells in zip(places, rows, strict=True):
            if len(cells) < 2 or not cells[0] or not cells[1]:
                raise ValueError(self._ragged(at, cells, 2))
        return places, rows

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

    def content(self) -> GraphContent:
        """All columns, as text; the attributes that networkx writes as a dictionary are not taken apart."""
        columns: dict[str, Any] = {}
        lost = []
        for at, name in enumerate(self.names):
            if at in self.at:
                continue
            values = [cells[at] for cells in self.rows]
            if values and all(value.startswith(_DATA) for value in values):
                lost.append("the dictionaries of the edges")
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
        lines = ["\t".join(row) for row in zip(*ends, *columns.values(), strict=True)]
        write_content(path, ["".join(f"{line}\n" for line in [head, *lines]).encode()])
        return lost


def _names_over_numbers(rows: list[list[str]]) -> bool:
    """Whether the first line has words where all the others have whole numbers."""
    first, others = rows[0][:2], rows[1:]
    words = len(set(first)) == 2 and not any(word.lstrip("-").isdecimal() for word in first)
    return words and bool(others) and all(cell.isdecimal() for cells in others for cell in cells[:2])


def _names_ends(cells: list[str], src: str | None, dst: str | None) -> bool:
    """Whether a first line is a header, for certain: it names the columns of the ends."""
    try:
        end_columns(cells, src, dst)
    except ValueError:
        return False
    return True
