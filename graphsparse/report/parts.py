"""What a page is made of: plain parts that know nothing of what was run, and of how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A cell of a `Sheet`.

    Attributes:
        value: what the column is sorted by and the CSV holds; None is empty and sorts last.
        text: what is shown.
        half_width: of the value's 95 % interval; the CSV gives it a column of its own.
    """

    value: str | float | None
    text: str
    half_width: float | None = None


def figure(
    value: float | None, half_width: float | None = None, *, scale: float = 1.0, digits: int = 2, sign: bool = False
) -> Cell:
    """A cell with a number and, where there is one, the half width of its interval.

    Example:
        >>> figure(0.8123, 0.0042, scale=100).text, figure(None).text, figure(0.5, sign=True).text
        ('81.23 ± 0.42', '-', '+0.50')
    """
    if value is None or not math.isfinite(value):
        return Cell(None, "-")
    half = None if half_width is None or not math.isfinite(half_width) else scale * half_width
    text = f"{scale * value:{'+' if sign else ''},.{digits}f}"
    return Cell(scale * value, text if half is None else f"{text} ± {half:,.{digits}f}", half)


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Command:
    """A command, to be copied."""

    text: str


@dataclass(frozen=True)
class Facts:
    """A short list of names and values."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Sheet:
    """A table that readers can sort and save as CSV.

    Attributes:
        title: what it shows; its CSV file is named after it.
        columns: their names, with units.
        rows: a cell for each column; a text is a cell, too.
        groups: of each row the group (a method, say) with which it is hidden and shown; empty without groups.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """A chart: traces and layout in the words of plotly, without colours, which are those of the page.

    ``meta`` of a trace holds its ``group``, with which it is hidden and shown.
    """

    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Neighbourhoods:
    """A drawing of one node's neighbourhood, whose node the reader chooses.

    Attributes:
        title: what it shows.
        graph: as `graphsparse.graphs.picture.drawing` gives it.
        directed: whether edges have a direction.
    """

    title: str
    graph: Mapping[str, Any]
    directed: bool = False


Block = Prose | Command | Facts | Sheet | Chart | Neighbourhoods


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading.

    Attributes:
        title: the heading.
        blocks: what stands below it.
        groups: what its charts and tables show beside each other (methods, say): the legend, in the order of colours.
        folded: whether it is closed until a reader opens it.
    """

    title: str
    blocks: Sequence[Block]
    groups: Sequence[str] = ()
    folded: bool = False


@dataclass(frozen=True)
class Trend:
    """A line that runs can be compared by: a metric against what is removed or gained.

    Attributes:
        label: its name within the run.
        x_label, y_label: the axes; lines of the same axes are drawn together.
        x, y: the points; ``y`` in the unit that is shown.
        half_width: half widths of the 95 % intervals, None where there is none.
    """

    label: str
    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]
    half_width: Sequence[float | None] = ()


@dataclass(frozen=True)
class Run:
    """What a page says of one run.

    Attributes:
        name: of the run, such as its folder's.
        kind: such as "ticket".
        lead: what came out, in one or two sentences.
        sections: the parts.
        figures: by name, those that runs are compared by.
        trends: lines that runs are compared by.
        record: plain values that the page holds for `graphsparse report` to read again, where the run left no folder.
    """

    name: str
    kind: str
    lead: str
    sections: Sequence[Section]
    figures: Mapping[str, Cell] = field(default_factory=dict)
    trends: Sequence[Trend] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
