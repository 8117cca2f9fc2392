"""What a comparison says: trials chosen on validation data, paired differences, extreme tickets, tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graphsparse.compare import FEWEST, differs
from graphsparse.report import interval, markdown, shown_as

Row = Mapping[str, Any]

FIGURES = (
    "edges_kept",
    "weights_kept",
    "macs",
    "inference_ms",
    "seconds",
    "isolated_nodes",
    "components",
    "largest_component",
    "clustering",
    "homophily",
)
REFERENCES = ("dense", "teddy", "dense-student")
BARS = ("dense", "dense-student")  # what an extreme ticket is told by


def of_method(cells: Sequence[Mapping[str, Any]], whole: bool, sign: int) -> dict[str, Any]:
    """What a verdict says of a method beside the figures at its levels."""
    extreme, by_student = (
        max((cell["level"] for cell in cells if _reaches(cell.get(f"minus_{bar}"), sign)), default=None) for bar in BARS
    )
    return {
        "extreme": extreme,
        "extreme_by_student": by_student,
        "area": _area([cell["level"] for cell in cells], [cell["test"] for cell in cells]) if whole else None,
        "ignores": next((cell["ignores"] for cell in cells if cell["ignores"]), ""),
    }


def _reaches(difference: Mapping[str, Any] | None, sign: int) -> bool:
    if difference is None:
        return False
    margin = (difference["ci95"] or 0.0) if difference["pairs"] >= FEWEST else 0.0
    return bool(sign * difference["mean"] + margin >= 0)


def _area(levels: Sequence[int], values: Sequence[float]) -> float:
    if len(levels) == 1:
        return values[0]
    steps = zip(levels, levels[1:], values, values[1:], strict=False)
    return math.fsum((b - a) * (x + y) / 2 for a, b, x, y in steps) / (levels[-1] - levels[0])


def pages(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: for each setting the metric by method and level, and what it costs at the sparsest level."""
    return "\n\n".join(_page(verdict) for verdict in found)


def _page(verdict: Mapping[str, Any]) -> str:
    setting, dense = verdict["setting"], verdict["dense"]
    scale, digits = shown_as(verdict["maximize"])
    features = "" if setting["features"] == "raw" else f", {setting['features']} features"
    splits = "" if setting["split"] is None else f", {setting['split']} splits"
    title = f"### {setting['dataset']}, {setting['model']} {setting['hidden']}, {setting['protocol']}{features}{splits}"
    levels = sorted({cell["level"] for method in verdict["methods"] for cell in method["levels"]})
    unit = f"test {verdict['metric']}" + (", %" if scale == 100 else "")
    columns = [unit, *(f"level {level}" for level in levels), "extreme", "by student", "area"]
    rows = [["dense", *[interval(dense["test"], dense["test_ci95"], scale=scale, digits=digits)] * len(levels)]]
    rows[0] += [""] * 3
    for method in verdict["methods"]:
        by_level = {cell["level"]: cell for cell in method["levels"]}
        area = "-" if method["area"] is None else f"{scale * method['area']:.{digits}f}"
        cells = [_text(by_level.get(level), dense["seeds"], scale, digits) for level in levels]
        extremes = [str(method[name] or "-") for name in ("extreme", "extreme_by_student")]
        rows.append([_named(method), *cells, *extremes, area])
    last = [(method["method"], method["levels"][-1]) for method in verdict["methods"]]
    count = dense["seeds"]
    seeds = ("1 seed" if count == 1 else f"{count} seeds") + (
        "" if setting["split"] is None else ", each its own split"
    )
    note = f"{seeds}; * differs from TEDDY, † from dense (Holm over this table, p < 0.05)"
    parts = [
        title,
        note,
        markdown(columns, rows),
        markdown(_COSTS, [_costs("dense", dense), *(_costs(*each) for each in last)]),
    ]
    return "\n\n".join(parts)


def _named(method: Mapping[str, Any]) -> str:
    """The method's name, and of a control what it was asked to keep and did not."""
    return f"{method['method']} (ignores {method['ignores']})" if method["ignores"] else str(method["method"])


def _text(cell: Mapping[str, Any] | None, seeds: int, scale: int, digits: int) -> str:
    if cell is None:
        return "-"
    marks = "".join(mark for mark, name in (("*", "teddy"), ("†", "dense")) if differs(cell.get(f"minus_{name}")))
    fewer = "" if len(cell["seeds"]) == seeds else f" (n={len(cell['seeds'])})"
    return interval(cell["test"], cell["test_ci95"], scale=scale, digits=digits) + marks + fewer


_COSTS = [
    "sparsest level",
    "edges, %",
    "weights, %",
    "MACs, M",
    "training, s",
    "inference, ms (of dense)",
    "components",
    "clustering",
    "homophily",
    "isolated",
]


def _costs(name: str, cell: Mapping[str, Any]) -> list[str]:
    def text(key: str, scale: float = 1.0, digits: int = 1) -> str:
        return "-" if cell.get(key) is None else f"{scale * cell[key]:.{digits}f}"

    whole = name == "dense"
    return [
        name,
        "100.0" if whole else text("edges_kept", 100),
        "100.0" if whole else text("weights_kept", 100),
        text("macs", 1e-6),
        text("seconds"),
        text("inference_ms") + ("" if cell["inference_of_dense"] is None else f" ({cell['inference_of_dense']:.2f})"),
        text("components", digits=0),
        text("clustering", digits=3),
        text("homophily", digits=3),
        text("isolated_nodes", digits=0),
    ]
