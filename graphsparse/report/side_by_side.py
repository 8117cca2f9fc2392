"""Several runs beside each other: their figures in one table, and lines of the same axes in one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphsparse.report.charts import lines
from graphsparse.report.parts import Block, Cell, Prose, Run, Section, Sheet, Trend


def comparison(runs: Sequence[Run]) -> list[Section]:
    """The part of a page that compares its runs.

    Example:
        >>> runs = [Run(name, "ticket", "", (), {"accuracy, %": Cell(81.0, "81.0")}) for name in "ab"]
        >>> [sheet] = [block for block in comparison(runs)[0].blocks if isinstance(block, Sheet)]
        >>> sheet.columns
        ['run', 'kind', 'accuracy, %']
    """
    names = [run.name for run in runs]
    columns = list(dict.fromkeys(name for run in runs for name in run.figures))
    rows: list[list[Cell | str]] = [
        [run.name, run.kind, *(run.figures.get(column, Cell(None, "-")) for column in columns)] for run in runs
    ]
    blocks: list[Block] = [
        Prose(
            "Figures with an interval are means with the half width of their 95 % interval. Runs of different data "
            "sets, models or settings are not paired here: no test is made between them."
        ),
        Sheet("The runs", ["run", "kind", *columns], rows, names),
    ]
    parts = [Section("The runs beside each other", blocks, names)]
    axes = dict.fromkeys((trend.x_label, trend.y_label) for run in runs for trend in run.trends)
    for x_label, y_label in axes:
        drawn = [
            replace(trend, label=run.name if _only(run, trend) else f"{run.name}: {trend.label}")
            for run in runs
            for trend in run.trends
            if (trend.x_label, trend.y_label) == (x_label, y_label)
        ]
        chart = lines(f"{y_label} against {x_label}", drawn)
        parts.append(Section(f"{y_label[:1].upper()}{y_label[1:]}", [chart], [trend.label for trend in drawn]))
    return parts


def _only(run: Run, trend: Trend) -> bool:
    return sum((other.x_label, other.y_label) == (trend.x_label, trend.y_label) for other in run.trends) == 1
