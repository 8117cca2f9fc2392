"""How a metric is written: its unit, its decimals."""

from __future__ import annotations

from graphsparse.report.parts import Cell, figure
from graphsparse.report.tables import interval


def shown_as(maximize: bool) -> tuple[int, int]:
    """The factor that a metric is shown with, and its decimals: an error as it is, everything else in per cent.

    Args:
        maximize: whether larger is better; where smaller is, the metric is an error.
    """
    return (100, 1) if maximize else (1, 3)


class Unit:
    """How a metric is written.

    Args:
        metric: its name.
        maximize: whether larger is better.

    Example:
        >>> Unit("accuracy").words, Unit("accuracy").text(0.81234)
        ('test accuracy, %', '81.23 %')
        >>> Unit("mae", maximize=False).words, Unit("mae", maximize=False).text(0.81234)
        ('test mae', '0.812')
    """

    def __init__(self, metric: str, maximize: bool = True) -> None:
        self.metric, self.maximize = metric, maximize
        self.scale, self.digits = shown_as(maximize)
        self.digits = max(self.digits, 2)
        self.words = f"test {metric}" + (", %" if self.scale == 100 else "")
        self.points = "points" if self.scale == 100 else metric

    def cell(self, value: float | None, half: float | None = None, sign: bool = False) -> Cell:
        """A figure of the metric."""
        return figure(value, half, scale=self.scale, digits=self.digits, sign=sign)

    def text(self, value: float, half: float | None = None) -> str:
        """The same in words."""
        return interval(value, half, scale=self.scale, digits=self.digits) + (" %" if self.scale == 100 else "")
