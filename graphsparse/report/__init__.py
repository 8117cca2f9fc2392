"""Report: tables, plots and files of results."""

from graphsparse.report.plot import Curve, plot_curves, plot_sparsity
from graphsparse.report.record import (
    commit,
    plain,
    provenance,
    say,
    unchanged,
    versions,
    write_json,
)
from graphsparse.report.rows import append_row, read_rows
from graphsparse.report.tables import interval, markdown, table
from graphsparse.report.unit import Unit, shown_as

__all__ = [
    "Curve",
    "Unit",
    "append_row",
    "commit",
    "interval",
    "markdown",
    "plain",
    "plot_curves",
    "plot_sparsity",
    "provenance",
    "read_rows",
    "say",
    "shown_as",
    "table",
    "unchanged",
    "versions",
    "write_json",
]


def __dir__() -> list[str]:
    return sorted(__all__)
