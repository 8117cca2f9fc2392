"""The page of ``graphsparse ticket``: what the ticket keeps, how it stands to the dense model, and what was cut."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsparse.compare import FEWEST
from graphsparse.fit import paired_difference
from graphsparse.report import Unit
from graphsparse.report.charts import bars, lines
from graphsparse.report.graph_parts import graph_section
from graphsparse.report.parts import Block, Cell, Prose, Run, Section, Sheet, Trend, figure
from graphsparse.report.runs import RECORD, RUNS, how_made, name_of, read_record
from graphsparse.tickets.shown import layer_rows, layer_sheet, unit_rows, unit_sheet
from graphsparse.tickets.standing import ADVICE
from graphsparse.tickets.ticket import Ticket

WEIGHTS_AXIS = "weights removed, %"


@RUNS.register("ticket")
def ticket_run(folder: Path) -> Run | None:
    """The run of ``graphsparse ticket`` in a folder, or the ticket that was saved there; None where there is none."""
    if not (folder / "ticket.json").is_file():
        return None
    ticket = Ticket.load(folder)
    summary, record = read_record(folder / "metrics.json"), read_record(folder / RECORD)
    summary = summary if "ticket_hash" in summary else {**ticket.metrics, "seeds": []}
    seeds = [each for each in summary["seeds"] if "dense_test" in each]
    unit = Unit(summary["metric"], ticket.config.get("direction", "max") != "min")
    blocks = [_curve(record, summary, unit), *_figures(summary, unit), Prose(tested(seeds, unit))]
    if summary.get("standing", {}).get("is_below"):
        blocks.append(Prose(f"{ADVICE[:1].upper()}{ADVICE[1:]}."))
    sections = [Section("Accuracy against sparsity", [b for b in blocks if b is not None], _groups(record, ticket))]
    if record.get("graph"):
        sections.append(graph_section(record["graph"]))
    sections += [*_units(ticket), _layers(ticket), _costs(summary, ticket.metrics.get("cut") is True)]
    if len(seeds) > 1:
        sections.append(_seeds(seeds, unit))
    config = {**ticket.config, "method": ticket.method, "ticket hash": ticket.hash, "graph hash": ticket.graph_hash}
    made = {"versions": ticket.versions, "options": config, **record}
    sections.append(how_made(made, folder, _FILES, _command(record)))
    return Run(
        name=name_of(folder),
        kind="ticket",
        lead=_lead(summary, ticket, seeds, unit),
        sections=sections,
        figures=_headline(summary, unit),
        trends=_trends(record, unit),
    )


_FILES = (
    ("ticket.json, tensors-*.safetensors", "the ticket: graphsparse.Ticket.load(folder)"),
    ("metrics.json", "its figures, with those of every seed"),
    (RECORD, "what this page shows besides"),
    ("accuracy.png", "the curve as a picture"),
)


def _lead(summary: Mapping[str, Any], ticket: Ticket, seeds: Sequence[Mapping[str, Any]], unit: Unit) -> str:
    where = ticket.config.get("dataset") or "the graph"
    kept = f"{100 * summary['edges_kept']:.1f} % of the edges and {100 * summary['weights_kept']:.1f} % of the weights"
    over = f"; mean of {len(seeds)} seeds" if len(seeds) > 1 else ""
    first = (
        f"On {where}, the ticket found by {ticket.method} keeps {kept} and reaches {unit.text(summary['test'])} "
        f"test {unit.metric}, where the dense model has {unit.text(summary['dense_test'])}{over}."
    )
    ignores = f" (It is a control and ignores {summary['ignores']}.)" if summary.get("ignores") else ""
    return f"{first} {_standing(summary, seeds, unit)}{ignores}{in_batches(ticket)}"


def in_batches(ticket: Ticket) -> str:
    """How it was trained and evaluated in mini-batches, in a sentence; nothing if it was not."""
    size, neighbors = ticket.config.get("batch_size"), ticket.config.get("neighbors")
    if size is None:
        return ""
    drawn = "all" if neighbors and max(neighbors) < 0 else ", ".join(map(str, neighbors or []))
    around = f" with {drawn} neighbours at each layer" if drawn else ""
    what = {"node": "nodes", "link": "links", "graph": "graphs"}.get(ticket.config.get("kind", "node"), "nodes")
    evaluated = ticket.config.get("evaluated", "on the whole graph")
    return f" It was trained in mini-batches of {size:,} {what}{around}, and evaluated {evaluated}."


def _standing(summary: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]], unit: Unit) -> str:
    """Where the ticket stands to the dense model, in one sentence."""
    gap = summary["test"] - summary["dense_test"]
    better = (gap > 0) == unit.maximize
    size = f"{abs(unit.scale * gap):.{unit.digits}f} {unit.points}"
    if abs(gap) < 1e-12:
        return "That is the same as the dense model."
    side = "better" if better else "worse"
    if len(seeds) < FEWEST:
        return f"That is {size} {side} than the dense model; with fewer than {FEWEST} seeds nothing is tested."
    half = paired_difference([s["test"] for s in seeds], [s["dense_test"] for s in seeds]).half_width
    if abs(gap) > half:
        return f"That is {size} {side} than the dense model, more than the spread over the seeds explains."
    return f"That is {size} {side} than the dense model, which the spread over the seeds may explain."


def tested(seeds: Sequence[Mapping[str, Any]], unit: Unit) -> str:
    """The test that was made of ticket against dense model, in words."""
    if len(seeds) < FEWEST:
        count = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        return f"No test is made: there are figures of {count}, and a paired test needs at least {FEWEST}."
    ours, theirs = [each["test"] for each in seeds], [each["dense_test"] for each in seeds]
    found = paired_difference(ours, theirs)
    scale, digits = unit.scale, unit.digits
    low, high = (scale * (found.mean + side * found.half_width) for side in (-1, 1))
    said = (
        f"The test: over {found.pairs} seeds, each with its own dense model, the ticket differs from the dense one by "
        f"{scale * found.mean:+.{digits}f} {unit.points} (95 % interval {low:+.{digits}f} to {high:+.{digits}f}; "
    )
    if len({round(a - b, 9) for a, b in zip(ours, theirs, strict=True)}) == 1:
        return f"{said}all differences are alike, so no t test is made)."
    from scipy.stats import ttest_rel

    p = float(ttest_rel(ours, theirs).pvalue)
    reaches = low <= 0 <= high
    verdict = (
        "The interval holds 0: these seeds do not tell the two apart, which does not show that they are equal."
        if reaches
        else "The interval excludes 0: chance over the seeds does not explain the difference."
    )
    return f"{said}two-sided paired t test, p = {p:.2g}). {verdict}"


def _figures(summary: Mapping[str, Any], unit: Unit) -> list[Sheet]:
    def row(words: str, dense: str | float, key: str, **style: Any) -> list[Cell | str]:
        whole = figure(dense, **style) if isinstance(dense, float) else both(dense, **style)
        return [words, whole, both(key, **style)]

    def both(key: str, **style: Any) -> Cell:
        return figure(summary.get(key), summary.get(f"{key}_ci95"), **style)

    metric: dict[str, Any] = {"scale": unit.scale, "digits": unit.digits}
    suffix = ", %" if unit.scale == 100 else ""
    rows = [
        row(f"test {unit.metric}{suffix}", "dense_test", "test", **metric),
        row(f"validation {unit.metric}{suffix}", "dense_val", "val", **metric),
        row("edges kept, %", 1.0, "edges_kept", scale=100),
        row("weights kept, %", 1.0, "weights_kept", scale=100),
        row("weights kept, matrices only, %", 1.0, "weights_kept_matrices", scale=100),
        row("nodes without a neighbour", "dense_isolated_nodes", "isolated_nodes", digits=1),
    ]
    return [Sheet("The ticket beside the dense model", ["figure", "dense", "ticket"], rows)]


def _groups(record: Mapping[str, Any], ticket: Ticket) -> list[str]:
    return ["dense", *(line["label"] for line in record.get("curve") or [{"label": ticket.method}])]


def _trends(record: Mapping[str, Any], unit: Unit) -> list[Trend]:
    return [
        Trend(
            line["label"],
            WEIGHTS_AXIS,
            unit.words,
            [100 * (1 - point["weights_kept"]) for point in line["points"]],
            [unit.scale * point["test"] for point in line["points"]],
            [None if point["ci95"] is None else unit.scale * point["ci95"] for point in line["points"]],
        )
        for line in record.get("curve") or []
    ]


def _curve(record: Mapping[str, Any], summary: Mapping[str, Any], unit: Unit) -> Block | None:
    trends = _trends(record, unit)
    if not trends:
        return None
    half = summary.get("dense_test_ci95")
    level = ("dense", unit.scale * summary["dense_test"], None if half is None else unit.scale * half)
    notes = {
        line["label"]: [f"edges removed: {100 * (1 - point['edges_kept']):.1f} %" for point in line["points"]]
        for line in record["curve"]
    }
    words = "Bars are 95 % intervals over the seeds; the dashed line is the dense model."
    return lines(f"{unit.words} against sparsity", trends, level=level, notes=notes, note=words)


def _layers(ticket: Ticket) -> Section:
    rows = layer_rows(ticket)
    kept = [100 * left / max(total, 1) for _, _, total, left in rows]
    words = [f"{left:,} of {total:,} weights, {100 * left / max(total, 1):.2f} %" for _, _, total, left in rows]
    chart = bars(
        "Weights kept in each tensor",
        [name for name, *_ in rows],
        {"kept": kept},
        x_label="kept, %",
        words={"kept": words},
    )
    return Section("Weights kept per layer", [chart, layer_sheet(ticket)])


def _units(ticket: Ticket) -> list[Section]:
    """What is left of each layer of a ticket of units."""
    rows = unit_rows(ticket)
    if not rows:
        return []
    words = [f"{left:,} of {total:,} units, {100 * left / max(total, 1):.2f} %" for _, total, left in rows]
    kept = [100 * left / max(total, 1) for _, total, left in rows]
    names = [name for name, *_ in rows]
    chart = bars("Units kept in each layer", names, {"kept": kept}, x_label="kept, %", words={"kept": words})
    refused = ticket.metrics.get("cut_refused")
    said = (
        f"The network keeps its widths and holds zeros where units are out: {refused}."
        if refused
        else "The units that are out were cut out: the layers are smaller, and the outputs the same."
    )
    return [Section("Units kept per layer", [chart, unit_sheet(ticket), Prose(said)])]


def _costs(summary: Mapping[str, Any], cut: bool) -> Section:
    names, shares, words = ["multiply-accumulates", "measured time"], [], []
    for key, scale, unit in (("macs", 1e-6, "million"), ("inference_ms", 1.0, "ms")):
        ours, theirs, share = summary[key], summary[f"dense_{key}"], _ratio(summary, key)
        shares.append(None if share is None else 100 * share)
        words.append(f"{scale * ours:,.3g} of {scale * theirs:,.3g} {unit}")

    def row(title: str, key: str, **style: Any) -> list[Cell | str]:
        dense, sparse = (figure(summary[k], summary.get(f"{k}_ci95"), **style) for k in (f"dense_{key}", key))
        return [title, dense, sparse, figure(_ratio(summary, key), scale=100, digits=1)]

    rows = [row("MACs, million", "macs", scale=1e-6), row("one forward pass, ms", "inference_ms")]
    times = summary.get("compiled")
    if times:
        ours, theirs = times["ms"], times["dense_ms"]
        names.append("measured time, compiled")
        shares.append(100 * ours / theirs if theirs else None)
        words.append(f"{ours:,.3g} of {theirs:,.3g} ms")
        cells: list[Cell | str] = ["one forward pass, compiled, ms", figure(theirs), figure(ours)]
        rows.append([*cells, figure(ours / theirs if theirs else None, scale=100, digits=1)])
    smaller = (
        "on the smaller network that is left once units are cut out" if cut else "which skip edges but not weights"
    )
    note = (
        "MACs count what a kernel that skips absent edges and zero weights would do. The time is that of plain dense "
        f"kernels on this machine, {smaller}."
    )
    chart = bars(
        "Cost of the ticket, in per cent of the dense model",
        names,
        {"ticket": shares},
        x_label="of the dense model, %",
        words={"ticket": words},
        note=note,
    )
    sheet = Sheet("MACs beside measured time", ["cost", "dense", "ticket", "of dense, %"], rows)
    plan = [Prose(f"Compiled: {'; '.join(times['plan'])}.")] if times else []
    return Section("MACs beside measured time", [chart, sheet, *plan])


def _ratio(summary: Mapping[str, Any], key: str) -> float | None:
    """A cost over that of the dense model."""
    dense: float = summary[f"dense_{key}"]
    return summary[key] / dense if dense else None


def _seeds(seeds: Sequence[Mapping[str, Any]], unit: Unit) -> Section:
    rows: list[list[Cell | str]] = [
        [
            figure(each["seed"], digits=0),
            unit.cell(each["dense_test"]),
            unit.cell(each["test"]),
            unit.cell(each["test"] - each["dense_test"], sign=True),
            unit.cell(each["val"]),
            figure(each["edges_kept"], scale=100),
            figure(each["weights_kept"], scale=100),
            each["ticket_hash"][:12],
        ]
        for each in seeds
    ]
    columns = ["seed", "dense test", "ticket test", "difference", "ticket validation"]
    columns += ["edges kept, %", "weights kept, %", "ticket hash"]
    note = "The ticket that is saved is the one with the best validation figure; the test part plays no role in that."
    return Section("Every seed", [Sheet(f"Every seed ({unit.words})", columns, rows), Prose(note)])


def _headline(summary: Mapping[str, Any], unit: Unit) -> dict[str, Cell]:
    return {
        unit.words: unit.cell(summary["test"], summary.get("test_ci95")),
        f"dense {unit.words}": unit.cell(summary["dense_test"], summary.get("dense_test_ci95")),
        "edges kept, %": figure(summary["edges_kept"], scale=100),
        "weights kept, %": figure(summary["weights_kept"], scale=100),
        "MACs, of dense, %": figure(_ratio(summary, "macs"), scale=100),
    }


def _command(record: Mapping[str, Any]) -> str | None:
    """The command with all its options, where none was typed."""
    if not record.get("options"):
        return None
    given = {name: value for name, value in record["options"].items() if value is not None and value is not False}
    words = [(f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])) for name, value in given.items()]
    return " ".join(["graphsparse ticket", *(shlex.join(pair) for pair in words)])
