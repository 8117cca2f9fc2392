"""Plots: a metric against sparsity or speed-up, with intervals, beside a level such as the dense figure."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphsparse.atomic_write import atomic_write


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        label: its name in the legend.
        x: positions, such as sparsities in [0, 1].
        mean: the metric at each x.
        half_width: half widths of the 95 % intervals, NaN where there is none.
        notes: a few words on each point, drawn above the axes.
    """

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    half_width: Sequence[float]
    notes: Sequence[str] = ()


def plot_sparsity(
    path: str | os.PathLike[str],
    curves: Sequence[Curve],
    *,
    dense: tuple[float, float],
    title: str,
    x_label: str = "weight sparsity",
    y_label: str = "test accuracy",
) -> Path:
    """Draw ``curves`` with their 95 % intervals, and the dense mean and interval as a line and a band.

    Args:
        path: where to write; the suffix (``.png``, ``.svg``, ``.pdf``) chooses the format. Written atomically.
        curves: lines to draw.
        dense: mean and half width of the dense model.
        title: heading of the plot.
        x_label: what the x axis shows.
        y_label: what the y axis shows.

    Returns:
        The path that was written.
    """
    return plot_curves(path, curves, level=("dense", *dense), title=title, x_label=x_label, y_label=y_label)


def plot_curves(
    path: str | os.PathLike[str],
    curves: Sequence[Curve],
    *,
    level: tuple[str, float, float],
    title: str,
    x_label: str,
    y_label: str,
) -> Path:
    """Draw ``curves`` with their 95 % intervals, and a level with its interval as a line and a band.

    Args:
        path: where to write; the suffix (``.png``, ``.svg``, ``.pdf``) chooses the format. Written atomically.
        curves: lines to draw.
        level: name, mean and half width (NaN: none) of what the curves are held against.
        title: heading of the plot.
        x_label: what the x axis shows.
        y_label: what the y axis shows.

    Returns:
        The path that was written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    figure = Figure(figsize=(6.4 if len(curves) <= 5 else 8.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    name, mean, half = level
    axes.axhline(mean, color="black", linewidth=1, linestyle="--", label=name)
    if not math.isnan(half):
        axes.axhspan(mean - half, mean + half, color="black", alpha=0.08, linewidth=0)
    for number, curve in enumerate(curves):
        half_width = [0.0 if math.isnan(h) else h for h in curve.half_width]
        marker = "osD"[number // 10 % 3]  # after ten curves the colours begin again
        axes.errorbar(curve.x, curve.mean, yerr=half_width, marker=marker, capsize=3, linewidth=1.5, label=curve.label)
    for curve in curves:
        for x, note in zip(curve.x, curve.notes, strict=False):
            axes.annotate(note, (x, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes.set_title(title, pad=18)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(curves) > 5 else {}  # many would cover the data
    axes.legend(frameon=False, **beside)
    with atomic_write(path) as partial:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png", dpi=150)
    return path
