"""Report: tables and plots of results."""

from graphsparse.report.plot import Curve, plot_curves, plot_sparsity
from graphsparse.report.table import interval, markdown, table

__all__ = ["Curve", "interval", "markdown", "plot_curves", "plot_sparsity", "table"]
