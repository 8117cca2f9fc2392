"""Charts of a page in plotly's own words: lines with intervals, bars, points, degrees of a graph."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from graphsparse.report.parts import Chart, Trend

LEVELS = ("dense", "unpruned")  # groups that others are held against: drawn in the colour of the text
_LONGEST_NAME = 28


def lines(
    title: str,
    trends: Sequence[Trend],
    *,
    level: tuple[str, float, float | None] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    note: str = "",
) -> Chart:
    """Lines with their intervals, and a level with its interval as a dashed line and a band.

    Args:
        title: what is shown.
        trends: the lines, all with the same axes; each is a group of its label.
        level: name, mean and half width of what the lines are held against; a group of its name.
        notes: for a label, more words on each of its points, shown beside the pointer.
        note: a sentence below the chart.
    """
    traces: list[dict[str, Any]] = []
    inside = [x for trend in trends for x in trend.x]
    if level is not None and inside:
        traces += _level(*level, min(inside), max(inside))
    for trend in trends:
        halves = [half if half is not None and math.isfinite(half) else None for half in trend.half_width]
        halves += [None] * (len(trend.x) - len(halves))
        words = (notes or {}).get(trend.label, [""] * len(trend.x))
        said = [
            _hover(trend.label, f"{y:,.4g}" + ("" if half is None else f" ± {half:,.2g}"), f"{x:,.4g}", trend, word)
            for x, y, half, word in zip(trend.x, trend.y, halves, words, strict=True)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(trend.x) > 1 else "markers",
                "name": plain_text(trend.label),
                "x": list(trend.x),
                "y": list(trend.y),
                "error_y": {"type": "data", "array": halves, "thickness": 1.2, "width": 3},
                "hoverinfo": "text",
                "hovertext": said,
                "meta": {"group": trend.label, "role": "line"},
            }
        )
    first = trends[0] if trends else Trend("", "", "", (), ())
    layout = {"xaxis": axis(first.x_label), "yaxis": axis(first.y_label)}
    return Chart(title, traces, layout, note)


def _hover(label: str, y: str, x: str, trend: Trend, note: str) -> str:
    parts = [f"<b>{plain_text(label)}</b>", plain_text(f"{trend.y_label}: {y}"), plain_text(f"{trend.x_label}: {x}")]
    return "<br>".join([*parts, *([plain_text(note)] if note else [])])


def _level(name: str, mean: float, half: float | None, left: float, right: float) -> list[dict[str, Any]]:
    pad = (right - left) * 0.04 or 1.0
    ends = [left - pad, right + pad]
    shared = {"type": "scatter", "mode": "lines", "name": plain_text(name), "hoverinfo": "text"}
    said = f"<b>{plain_text(name)}</b><br>{mean:,.4g}" + ("" if not half else f" ± {half:,.2g}")
    drawn: list[dict[str, Any]] = []
    if half and math.isfinite(half):
        shape = {"x": [*ends, *ends[::-1]], "y": [mean - half, mean - half, mean + half, mean + half], "fill": "toself"}
        band = shared | shape | {"hoverinfo": "skip", "line": {"width": 0}}
        drawn.append(band | {"meta": {"group": name, "role": "band"}})
    return [
        *drawn,
        shared
        | {"x": ends, "y": [mean, mean], "hovertext": [said, said], "line": {"dash": "dash"}}
        | {"meta": {"group": name, "role": "level"}},
    ]


def bars(
    title: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    x_label: str,
    words: Mapping[str, Sequence[str]] | None = None,
    overlaid: bool = False,
    note: str = "",
) -> Chart:
    """Bars to the right, one for each name and series, the first name at the top.

    Args:
        title: what is shown.
        names: such as layers.
        series: group -> a value for each name.
        x_label: what the bars measure.
        words: group -> what is shown beside the pointer, for each name.
        overlaid: whether the later series lie on the earlier ones (what is left of what was there).
        note: a sentence below the chart.
    """
    places = [str(number) for number in range(len(names))]  # two names may look alike once they are shortened
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plain_text(group),
            "x": list(values),
            "y": places,
            "hoverinfo": "text",
            "hovertext": [
                f"<b>{plain_text(name)}</b><br>{plain_text(group)}: {plain_text(word)}"
                for name, word in zip(names, (words or {}).get(group) or [f"{v:,.4g}" for v in values], strict=True)
            ],
            "meta": {"group": group, "role": "bar"},
        }
        for group, values in series.items()
    ]
    each = 22 if overlaid else 12 * len(series) + 10
    layout = {
        "xaxis": axis(x_label) | {"rangemode": "tozero"},
        "yaxis": {
            "type": "category",
            "autorange": "reversed",
            "tickmode": "array",
            "tickvals": places,
            "ticktext": [plain_text(shortened(name)) for name in names],
            "automargin": True,
        },
        "barmode": "overlay" if overlaid else "group",
        "height": 90 + max(each, 26) * max(len(names), 2),
    }
    return Chart(title, traces, layout, note)


def points(
    title: str,
    groups: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[str]]],
    x: str,
    y: str,
    **axes: Any,
) -> Chart:
    """Points of named groups: name, x, y, and what is shown beside the pointer at each.

    ``axes`` holds ``x_axis``, ``y_axis`` (more of plotly's words on them) and ``note``.
    """
    traces = [
        {
            "type": "scatter",
            "mode": axes.get("mode", "markers"),
            "name": plain_text(name),
            "x": list(xs),
            "y": list(ys),
            "hoverinfo": "text",
            "hovertext": [f"<b>{plain_text(name)}</b><br>{plain_text(word)}" for word in words],
            "meta": {"group": name, "role": "line"},
        }
        for name, xs, ys, words in groups
    ]
    layout = {"xaxis": axis(x) | axes.get("x_axis", {}), "yaxis": axis(y) | axes.get("y_axis", {})}
    return Chart(title, traces, layout, axes.get("note", ""))


def axis(label: str) -> dict[str, Any]:
    """An axis with a title that may stand in the page."""
    return {"title": {"text": plain_text(label)}, "automargin": True}


def plain_text(text: str) -> str:
    """A text as plotly shows it letter by letter: its own tags and entities are escaped.

    Example:
        >>> plain_text("a < b & <b>")
        'a &lt; b &amp; &lt;b&gt;'
    """
    return html.escape(text, quote=False)


def shortened(name: str, most: int = _LONGEST_NAME) -> str:
    """A name without its middle, where it is long.

    Example:
        >>> shortened("encoder.layers.0.self_attention.out_proj.weight")
        'encoder.layer…ut_proj.weight'
    """
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"
