"""What a comparison says: trials chosen on validation data, paired differences, extreme tickets, tables."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphsparse.fit import finite_or_none, mean_ci, paired_difference
from graphsparse.report import interval, markdown
from graphsparse.tickets.compare.plan import SETTING
from graphsparse.tickets.shown import shown_as

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
FEWEST = 3  # pairs that a test or an interval may rest on: with two, t is 12.7


def verdicts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A verdict for each setting (data set, model, protocol) among the rows of a comparison.

    For every method and level the trial with the best mean validation metric is taken (among those with the most
    seeds); the test part plays no role. Differences from the dense model, from TEDDY and from the dense student are
    paired by seed, with p values of the paired t test, corrected (Holm) for all comparisons of the setting with the
    same reference. Fewer than three pairs are no test and do not enter that family, nor does a difference that is the
    same in all seeds; what is the same run at several levels enters it once.

    Returns:
        For each setting: ``setting``, ``metric``, ``dense`` (figures of the dense model) and ``methods``: for each its
        ``levels`` (figures at each; ``inference_of_dense`` is the share of the dense model's time in the same run),
        ``extreme`` (the sparsest level whose mean difference from dense, or with three seeds or more its 95 % interval,
        reaches 0; None if none does), ``extreme_by_student`` (the same by the difference from the dense student),
        ``area`` (mean metric over levels, by trapezoids; None if levels are missing) and ``ignores`` (the keeps that a
        control does not obey; "" for all others).

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings[json.dumps([row[name] for name in SETTING])].append(row)
    return [_verdict(members) for members in settings.values() if any(row["method"] == "dense" for row in members)]


def _verdict(rows: Sequence[Row]) -> dict[str, Any]:
    dense = {row["seed"]: row for row in rows if row["method"] == "dense"}
    first = next(iter(dense.values()))
    sign = 1 if first["maximize"] else -1
    chosen = {key: _best_trial(runs, sign) for key, runs in _by_cell(rows).items()}
    cells = {key: _cell(key, runs) for key, runs in chosen.items()}
    for reference in REFERENCES:
        compared = {
            key: dense if reference == "dense" else {row["seed"]: row for row in chosen.get((reference, key[1]), [])}
            for key in chosen
            if key[0] != reference
        }
        _compare(cells, chosen, compared, reference, sign)
    levels = sorted({level for _, level in cells})
    names = list(dict.fromkeys(method for method, _ in cells))
    whole = _means(list(dense.values()))
    for name in ("macs", "inference_ms"):  # a sparse run measures the dense model beside its own
        whole[name] = _mean([row[f"dense_{name}"] for row in rows if f"dense_{name}" in row])
    return {
        "setting": {name: first[name] for name in SETTING},
        "metric": first["metric"],
        "maximize": first["maximize"],
        "dense": whole | {"seeds": len(dense)},
        "methods": [
            _method(name, [cells[name, lv] for lv in levels if (name, lv) in cells], levels, sign) for name in names
        ],
    }


def _by_cell(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    cells: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["method"] != "dense":
            cells[row["method"], row["level"]].append(row)
    return cells


def _best_trial(runs: Sequence[Row], sign: int) -> list[Row]:
    """The runs, by seed, of the trial that is best on validation data."""
    trials: dict[str, list[Row]] = defaultdict(list)
    for row in runs:
        trials[json.dumps(row["trial"], sort_keys=True)].append(row)
    most = max(map(len, trials.values()))
    whole = [members for members in trials.values() if len(members) == most]
    best = max(whole, key=lambda members: sign * math.fsum(row["val"] for row in members))
    return sorted(best, key=lambda row: row["seed"])


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    test, half = mean_ci([row["test"] for row in rows])
    found: dict[str, Any] = {"test": test, "test_ci95": finite_or_none(half)}
    found["val"] = mean_ci([row["val"] for row in rows])[0]
    for name in FIGURES:
        found[name] = _mean([row[name] for row in rows if row.get(name) is not None])
    timed = [row for row in rows if row.get("dense_inference_ms")]
    found["inference_of_dense"] = _mean([row["inference_ms"] / row["dense_inference_ms"] for row in timed])
    return found


def _mean(values: Sequence[float]) -> float | None:
    return mean_ci(values)[0] if values else None


def _cell(key: tuple[str, int], rows: Sequence[Row]) -> dict[str, Any]:
    about = {"level": key[1], "trial": rows[0]["trial"], "seeds": [row["seed"] for row in rows]}
    return about | {"ignores": next((row["ignores"] for row in rows if row.get("ignores")), "")} | _means(rows)


def _compare(
    cells: Mapping[Any, dict[str, Any]],
    chosen: Mapping[Any, Sequence[Row]],
    compared: Mapping[Any, Mapping[int, Row]],
    reference: str,
    sign: int,
) -> None:
    """Write the paired differences from a reference into the cells, with Holm's p values."""
    from scipy.stats import ttest_rel

    p_values: dict[Any, float] = {}
    alike: dict[Any, list[Any]] = defaultdict(list)
    for key, others in compared.items():
        pairs = [(row["test"], others[row["seed"]]["test"]) for row in chosen[key] if row["seed"] in others]
        if not pairs:
            continue
        ours, theirs = zip(*pairs, strict=True)
        difference = paired_difference(ours, theirs)
        cells[key][f"minus_{reference}"] = {
            "mean": difference.mean,
            "ci95": finite_or_none(difference.half_width),
            "wins": sum(sign * (a - b) > 0 for a, b in pairs),
            "pairs": difference.pairs,
            "p": None,
        }
        if len(pairs) >= FEWEST and len({round(a - b, 9) for a, b in pairs}) > 1:  # else the test has no answer
            once = (key[0], *pairs)
            alike[once].append(key)
            p_values[once] = float(ttest_rel(ours, theirs).pvalue)
    for once, p in zip(p_values, holm(list(p_values.values())), strict=True):
        for key in alike[once]:
            cells[key][f"minus_{reference}"]["p"] = p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p values that may each be held against the level of the whole family.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _method(name: str, cells: Sequence[dict[str, Any]], levels: Sequence[int], sign: int) -> dict[str, Any]:
    extreme, by_student = (
        max((cell["level"] for cell in cells if _reaches(cell.get(f"minus_{bar}"), sign)), default=None) for bar in BARS
    )
    whole = len(cells) == len(levels)
    return {
        "method": name,
        "levels": list(cells),
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
    scale, digits = shown_as(verdict["metric"])
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
    marks = "".join(mark for mark, name in (("*", "teddy"), ("†", "dense")) if _differs(cell.get(f"minus_{name}")))
    fewer = "" if len(cell["seeds"]) == seeds else f" (n={len(cell['seeds'])})"
    return interval(cell["test"], cell["test_ci95"], scale=scale, digits=digits) + marks + fewer


def _differs(difference: Mapping[str, Any] | None) -> bool:
    return difference is not None and difference["p"] is not None and difference["p"] < 0.05


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
