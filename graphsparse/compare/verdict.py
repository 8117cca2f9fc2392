"""What rows say: trials chosen on validation data, paired differences, p values that hold for a whole table."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphsparse.compare.comparison import Comparison, Row
from graphsparse.fit import finite_or_none, mean_ci, paired_difference

FEWEST = 3  # pairs that a test or an interval may rest on: with two, t is 12.7


def verdicts_of(comparison: Comparison, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A verdict for each setting among the rows of a comparison.

    For every method and step the trial with the best mean validation metric is taken (among those with the most seeds);
    the test part plays no role. Differences from the references are paired by seed, with p values of the paired t test,
    corrected (Holm) for all comparisons of the setting with the same reference. Fewer than three pairs are no test and
    do not enter that family, nor does a difference that is the same in all seeds; what is the same run at several steps
    enters it once.

    Returns:
        For each setting: ``setting``, ``metric``, ``maximize``, ``dense`` (figures of the dense model) and ``methods``:
        for each its ``levels`` (figures at each step) and what `Comparison.of_method` adds.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings[json.dumps([row[name] for name in comparison.setting])].append(row)
    whole = [members for members in settings.values() if any(row["method"] == "dense" for row in members)]
    return [_verdict(comparison, members) for members in whole]


def _verdict(comparison: Comparison, rows: Sequence[Row]) -> dict[str, Any]:
    dense = {row["seed"]: row for row in rows if row["method"] == "dense"}
    first = next(iter(dense.values()))
    sign = 1 if first["maximize"] else -1
    chosen = {key: _chosen(comparison, key[0], runs, sign) for key, runs in _by_cell(comparison, rows).items()}
    cells = {key: _cell(comparison, key, runs) for key, runs in chosen.items()}
    by_order = {(name, comparison.order(step)): runs for (name, step), runs in chosen.items()}
    for reference in comparison.references:
        compared = {}
        for name, step in chosen:
            other = comparison.reference(reference, name)
            if other == "dense":
                compared[name, step] = dense
            elif other != name:
                theirs = by_order.get((other, comparison.order(step)), [])
                compared[name, step] = {row["seed"]: row for row in theirs}
        _compare(cells, chosen, compared, reference, sign)
    steps = sorted({step for _, step in cells}, key=comparison.order)
    found = []
    for name in dict.fromkeys(method for method, _ in cells):
        own = [cells[name, step] for step in steps if (name, step) in cells]
        whole = len(own) == len(steps)
        found.append({"method": name, "levels": own, **comparison.of_method(own, whole, sign)})
    return {
        "setting": {name: first[name] for name in comparison.setting},
        "metric": first["metric"],
        "maximize": first["maximize"],
        "dense": _means(comparison, list(dense.values())) | comparison.of_dense(rows) | {"seeds": len(dense)},
        "methods": found,
    }


def _by_cell(comparison: Comparison, rows: Sequence[Row]) -> dict[tuple[str, Any], list[Row]]:
    cells: dict[tuple[str, Any], list[Row]] = defaultdict(list)
    for row in rows:
        if row["method"] != "dense":
            cells[row["method"], row[comparison.step]].append(row)
    return cells


def _chosen(comparison: Comparison, method: str, runs: Sequence[Row], sign: int) -> list[Row]:
    """The runs, by seed, of the trial that is best on validation data."""
    if comparison.picks_each_seed(method):
        best: dict[int, Row] = {}
        for row in runs:
            before = best.get(row["seed"])
            if before is None or sign * row["val"] > sign * before["val"]:
                best[row["seed"]] = row
        return [best[seed] for seed in sorted(best)]
    trials: dict[str, list[Row]] = defaultdict(list)
    for row in runs:
        trials[json.dumps(row["trial"], sort_keys=True)].append(row)
    most = max(map(len, trials.values()))
    whole = [members for members in trials.values() if len(members) == most]
    chosen = max(whole, key=lambda members: sign * math.fsum(row["val"] for row in members))
    return sorted(chosen, key=lambda row: row["seed"])


def _means(comparison: Comparison, rows: Sequence[Row]) -> dict[str, Any]:
    test, half = mean_ci([row["test"] for row in rows])
    found: dict[str, Any] = {"test": test, "test_ci95": finite_or_none(half)}
    found["val"] = mean_ci([row["val"] for row in rows])[0]
    for name in comparison.figures:
        found[name] = mean_of([row[name] for row in rows if row.get(name) is not None])
    return found | comparison.means(rows)


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return mean_ci(values)[0] if values else None


def _cell(comparison: Comparison, key: tuple[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    about = {comparison.step: key[1], "trial": rows[0]["trial"], "seeds": [row["seed"] for row in rows]}
    return about | _means(comparison, rows)


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


def differs(difference: Mapping[str, Any] | None) -> bool:
    """Whether a difference is one, by its corrected p value.

    Example:
        >>> differs({"p": 0.01}), differs({"p": None}), differs(None)
        (True, False, False)
    """
    return difference is not None and difference["p"] is not None and difference["p"] < 0.05
