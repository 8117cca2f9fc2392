"""Advice for a terminal: its table, and the curve of what it recommends as bars of letters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphsparse.edges.choice import in_points
from graphsparse.edges.trials import WHOLE, Trial

WIDTH = 30  # of the longest bar, in letters
_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(rows: Sequence[Trial], metric: str | None) -> list[str]:
    """All rows under their heads, in columns."""
    heads = ["method", "keep", "isolated", "components", "largest", "degrees off", "clustering", "homophily"]
    heads += ([] if metric is None else [f"val {metric}, %", "minus whole"]) + ["score, ms"]
    cells = [heads, *(_cells(row, metric is not None) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in cells)
    ]
    return [line.rstrip() for line in lines]


def drawn_curve(curve: Sequence[Trial], whole: Trial, metric: str | None) -> list[str]:
    """A bar for the whole graph and for each keep: of the validation metric, or of the largest component's share.

    The bars begin at a round number below the smallest value, which the first line names.

    Example:
        >>> made = lambda keep, share: Trial("teddy", keep, 5, 0.0, 3, 2, share, 0.0, 0.0)
        >>> print("\\n".join(drawn_curve([made(0.5, 0.75)], made(1.0, 1.0), None)))
          nodes in the largest component, %; bars begin at 60
          whole  ██████████████████████████████ 100.00
          0.5    ███████████▎                   75.00, 3 isolated
    """
    shares = [row.largest_component if metric is None or row.mean is None else row.mean for row in (whole, *curve)]
    values, high = [100 * share for share in shares], 100 * max(shares)
    low = max(0, math.floor((min(values) - 0.25 * (high - min(values)) - 1) / 10) * 10)  # no bar is empty
    what = "nodes in the largest component" if metric is None else f"validation {metric}"
    lines = [f"  {what}, %; bars begin at {low:g}"]
    wide = max(len("whole"), *(len(f"{row.keep:g}") for row in curve))
    for row, value in zip((whole, *curve), values, strict=True):
        name = "whole" if row is whole else f"{row.keep:g}"
        if metric is not None and row.mean is None:
            lines.append(f"  {name:<{wide}}  {'':<{WIDTH}} not trained")
            continue
        said = f"{value:.2f}"
        if metric is None:
            said += f", {row.isolated_nodes:,} isolated" if row is not whole else ""
        elif row is not whole and row.difference is not None:
            said += f" ({in_points(row.difference)})"
        lines.append(f"  {name:<{wide}}  {_bar((value - low) / ((high - low) or 1)):<{WIDTH}} {said}")
    return lines


def _bar(share: float) -> str:
    eighths = round(8 * WIDTH * share)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _cells(row: Trial, trained: bool) -> list[str]:
    """A row of the table."""
    whole = row.method == WHOLE
    cells = [row.method, f"{row.keep:g}", f"{row.isolated_nodes:,}", f"{row.components:,}"]
    cells += [f"{100 * row.largest_component:.1f} %", f"{row.degree_distance:.3f}", f"{row.clustering:.3f}"]
    cells += ["-" if row.homophily is None else f"{row.homophily:.3f}"]
    if trained:
        cells += ["-" if row.mean is None else f"{100 * row.mean:.2f}"]
        cells += ["-" if whole or row.difference is None else in_points(row.difference)]
    return [*cells, "-" if whole else f"{1000 * row.seconds:,.1f}"]
