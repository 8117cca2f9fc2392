"""Tables: the same rows for a terminal (rich) and for a page (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table


def interval(mean: float, half_width: float | None, *, scale: float = 1.0, digits: int = 2) -> str:
    """Write a mean and the half width of its interval; a single run (no half width) shows the mean alone.

    Example:
        >>> interval(0.8123, 0.0042, scale=100)
        '81.23 ± 0.42'
        >>> interval(0.8123, None, digits=3)
        '0.812'
    """
    text = f"{scale * mean:.{digits}f}"
    if half_width is None or math.isnan(half_width):
        return text
    return f"{text} ± {scale * half_width:.{digits}f}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a rich table; the first column is a label, the others are right-aligned figures."""
    drawn = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        drawn.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write the same rows as a Markdown table.

    Example:
        >>> print(markdown(["data", "accuracy"], [["Cora", "81.0"]]))
        | data | accuracy |
        |---|---:|
        | Cora | 81.0 |
    """
    rule = "|---|" + "---:|" * (len(columns) - 1)
    lines = ["| " + " | ".join(cells) + " |" for cells in [columns, *rows]]
    return "\n".join([lines[0], rule, *lines[1:]])
