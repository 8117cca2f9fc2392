"""The page of ``graphsparse meta prune``: accuracy against speed-up, cost beside time, channels before and after."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsparse.report import interval
from graphsparse.report.charts import bars, lines, points
from graphsparse.report.parts import Block, Cell, Prose, Run, Section, Sheet, Trend, figure
from graphsparse.report.runs import RUNS, how_made, name_of, read_record

X_AXIS = "speed-up (FLOPs before / after)"
OPTIONS = {"speedups": "speedup", "criteria": "criterion"}  # fields of the study -> options of the command


@RUNS.register("meta prune")
def prune_run(folder: Path) -> Run | None:
    """The run of ``graphsparse meta prune`` in a folder; None where there is none."""
    record = read_record(folder / "metrics.json")
    if record.get("command") != "graphsparse meta prune":
        return None
    runs, summary = record["runs"], record["summary"]
    methods = list(dict.fromkeys(each["method"] for each in summary))
    y_label = f"test {record['metric']}, %"
    trends = [_trend(method, [s for s in summary if s["method"] == method], y_label) for method in methods]
    half = record["unpruned_ci95"]
    level = ("unpruned", 100 * record["unpruned"], None if half is None else 100 * half)
    count = len({each["network"] for each in runs})
    note = f"Bars are 95 % intervals over {count} networks." if count > 1 else "One network: there is no interval."
    blocks: list[Block] = [
        lines(f"{y_label} against speed-up", trends, level=level, note=note),
        _summary(record, y_label),
        Prose(_tested(record)),
        _cost_chart(summary, runs),
        _costs(summary, runs),
    ]
    sections = [
        Section("Accuracy against speed-up", blocks, ["unpruned", *methods]),
        _channels(runs, methods),
        _each(runs, methods, y_label),
        how_made(record, folder, _FILES, _command(record)),
    ]
    return Run(
        name=name_of(folder),
        kind="meta prune",
        lead=_lead(record, methods, count),
        sections=sections,
        figures=_headline(record, y_label),
        trends=trends,
    )


_FILES = (
    ("metrics.json", "every figure"),
    ("networks", "the pruned networks: graphsparse.metanet.restore"),
    ("accuracy.png", "the curve as a picture"),
)


def _at(summary: Sequence[Mapping[str, Any]], target: float) -> list[Mapping[str, Any]]:
    return sorted((s for s in summary if s["target"] == target), key=lambda s: s["accuracy"], reverse=True)


def _targets(summary: Sequence[Mapping[str, Any]]) -> list[float]:
    return sorted({each["target"] for each in summary})


def _lead(record: Mapping[str, Any], methods: Sequence[str], count: int) -> str:
    summary, metric = record["summary"], record["metric"]
    said = []
    for target in _targets(summary):
        best = _at(summary, target)[0]
        gap = 100 * (best["accuracy"] - record["unpruned"])
        side = "as much as" if gap == 0 else f"{abs(gap):.2f} points {'more' if gap > 0 else 'less'} than"
        reached = f"{best['method']} with {interval(best['accuracy'], best['accuracy_ci95'], scale=100)} %"
        said.append(f"{target:g} times fewer FLOPs, {reached} ({side} unpruned)")
    networks = "one network" if count == 1 else f"{count} networks"
    flattered = len(record.get("in_meta_training") or {})
    warning = f" {flattered} of them took part in the metanetwork's training, which flatters it." if flattered else ""
    return (
        f"{networks[:1].upper()}{networks[1:]}, {100 * record['unpruned']:.2f} % test {metric} unpruned, pruned by "
        f"{len(methods)} methods. Best mean at {'; at '.join(said)}.{warning}"
    )


def _tested(record: Mapping[str, Any]) -> str:
    base = next((each["difference"]["to"] for each in record["summary"] if each.get("difference")), None)
    if base is None:
        return "One method was run: there is nothing to compare it with."
    return (
        f"Differences are paired by network and taken to {base}, with 95 % t intervals; they are not corrected for the "
        "number of comparisons. An interval that excludes 0 says that chance over these networks does not explain the "
        "difference; one that holds 0 does not show that two methods are equal."
    )


def _trend(method: str, found: Sequence[Mapping[str, Any]], y_label: str) -> Trend:
    found = sorted(found, key=lambda each: each["target"])
    halves = [None if each["accuracy_ci95"] is None else 100 * each["accuracy_ci95"] for each in found]
    return Trend(
        method, X_AXIS, y_label, [each["speedup"] for each in found], [100 * each["accuracy"] for each in found], halves
    )


def _summary(record: Mapping[str, Any], y_label: str) -> Sheet:
    rows: list[list[Cell | str]] = []
    for each in record["summary"]:
        difference = each.get("difference") or {}
        wins = difference.get("wins")
        rows.append(
            [
                each["method"],
                figure(each["target"], digits=1),
                figure(each["accuracy"], each["accuracy_ci95"], scale=100),
                figure(difference.get("mean"), difference.get("ci95"), scale=100, sign=True),
                Cell(wins, "-" if wins is None else f"{wins} of {each['networks']}"),
                figure(each["accuracy_untuned"], each["accuracy_untuned_ci95"], scale=100),
                figure(each["val"], each["val_ci95"], scale=100),
            ]
        )
    base = next((e["difference"]["to"] for e in record["summary"] if e.get("difference")), "baseline")
    columns = ["method", "target", y_label, f"minus {base}", "better on", "before fine-tuning, %", "validation, %"]
    return Sheet("Methods at each speed-up", columns, rows, [each["method"] for each in record["summary"]])


def _share(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean share of what a figure was before."""
    shares = [run[key] / run[f"{key}_before"] for run in runs if run.get(f"{key}_before")]
    return math.fsum(shares) / len(shares) if shares else None


def _of(runs: Sequence[Mapping[str, Any]], each: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [run for run in runs if (run["method"], run["target"]) == (each["method"], each["target"])]


def _cost_chart(summary: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> Block:
    groups = []
    for method in dict.fromkeys(each["method"] for each in summary):
        found = [each for each in summary if each["method"] == method]
        shares = [(_share(_of(runs, e), "flops"), _share(_of(runs, e), "latency_ms"), e) for e in found]
        there = [(100 * a, 100 * b, each) for a, b, each in shares if a is not None and b is not None]
        words = [
            f"target {e['target']:g}: {e['flops'] / 1e6:,.3g} million FLOPs, {e['latency_ms']:,.3g} ms"
            for *_, e in there
        ]
        groups.append((method, [a for a, *_ in there], [b for _, b, _ in there], words))
    note = "Times are of up to 32 examples on this machine; small networks gain less time than FLOPs."
    axes = ("FLOPs, % of unpruned", "measured time, % of unpruned")
    return points("FLOPs beside measured time", groups, *axes, note=note)


def _costs(summary: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> Sheet:
    rows: list[list[Cell | str]] = [
        [
            each["method"],
            figure(each["target"], digits=1),
            figure(each["speedup"], each["speedup_ci95"]),
            figure(each["flops"], each["flops_ci95"], scale=1e-6),
            figure(each["params"], each["params_ci95"], digits=0),
            figure(each["latency_ms"], each["latency_ms_ci95"]),
            figure(_share(_of(runs, each), "latency_ms"), scale=100, digits=1),
        ]
        for each in summary
    ]
    columns = ["method", "target", "speed-up", "FLOPs, million", "parameters", "time, ms", "time of unpruned, %"]
    return Sheet("FLOPs and parameters beside measured time", columns, rows, [each["method"] for each in summary])


def _channels(runs: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> Section:
    """Channels of each layer of the first network, at each target by every method."""
    known = [run for run in runs if run.get("widths")]
    if not known:
        note = "This run was made by a version that did not write the channels of each layer."
        return Section("Channels per layer", [Prose(note)])
    first = known[0]["network"]
    mine = [run for run in known if run["network"] == first]
    blocks: list[Block] = [Prose(f"The network {first}; the others are in the table of all networks.")]
    for target in _targets(mine):
        at = {run["method"]: run["widths"] for run in mine if run["target"] == target}
        names = list(next(iter(at.values())))
        before = [next(iter(at.values()))[name][0] for name in names]
        series = {
            "unpruned": before,
            **{method: [at[method][name][1] for name in names] for method in methods if method in at},
        }
        blocks.append(
            bars(f"Channels per layer, {target:g} times fewer FLOPs", names, series, x_label="output channels")
        )
        rows = [[name, *(figure(values[i], digits=0) for values in series.values())] for i, name in enumerate(names)]
        blocks.append(Sheet(f"Channels at target {target:g}", ["layer", *series], rows))
    return Section("Channels per layer, before and after", blocks, ["unpruned", *methods])


def _each(runs: Sequence[Mapping[str, Any]], methods: Sequence[str], y_label: str) -> Section:
    rows: list[list[Cell | str]] = []
    for run in runs:
        widths = (run.get("widths") or {}).values()
        kept = f"{sum(b for _, b in widths):,} of {sum(a for a, _ in widths):,}" if widths else "-"
        rows.append(
            [
                run["network"],
                run["method"],
                figure(run["target"], digits=1),
                figure(run["accuracy_before"], scale=100),
                figure(run["accuracy"], scale=100),
                figure(run["speedup"]),
                figure(run["latency_ms_before"]),
                figure(run["latency_ms"]),
                kept,
            ]
        )
    columns = [
        "network",
        "method",
        "target",
        "unpruned, %",
        y_label,
        "speed-up",
        "time before, ms",
        "time, ms",
        "channels",
    ]
    sheet = Sheet("Every pruned network", columns, rows, [run["method"] for run in runs])
    return Section("Every network", [sheet], ["unpruned", *methods], folded=len(rows) > 30)


def _headline(record: Mapping[str, Any], y_label: str) -> dict[str, Cell]:
    found = {f"unpruned {y_label}": figure(record["unpruned"], record["unpruned_ci95"], scale=100)}
    for target in _targets(record["summary"]):
        best = _at(record["summary"], target)[0]
        found[f"best at {target:g}x, %"] = figure(best["accuracy"], best["accuracy_ci95"], scale=100)
    return found


def _command(record: Mapping[str, Any]) -> str | None:
    """The command with all its options, where none was typed."""
    words = ["graphsparse", "meta", "prune"]
    for name, value in (record.get("options") or {}).items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [f"--{OPTIONS.get(name, name)}", text]
    return shlex.join(words) if record.get("options") else None
