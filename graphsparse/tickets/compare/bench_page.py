"""The page of ``graphsparse bench tickets``: methods beside each other in every setting, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsparse.compare import FEWEST, ROWS, SUMMARY, TABLES
from graphsparse.report import Unit
from graphsparse.report.charts import lines, points
from graphsparse.report.graph_parts import degree_chart, graph_section, short
from graphsparse.report.parts import Block, Cell, Prose, Run, Section, Sheet, Trend, figure
from graphsparse.report.runs import RECORD, RUNS, how_made, name_of, read_record
from graphsparse.tickets.compare.comparison import TICKETS, verdicts
from graphsparse.tickets.compare.plan import SETTING
from graphsparse.tickets.compare.runs import GRAPHS, graph_file
from graphsparse.tickets.compare.search import level_keeps

DRAWN = 3  # settings of which the graph is shown: more would make the page slow
LEVEL_AXIS = "weights removed by level, %"
CONTROLS = ("no-edges", "all-edges", "dense-student")  # they ignore a keep: no tickets of that sparsity

Verdict = Mapping[str, Any]


@RUNS.register("bench")
def bench_run(folder: Path) -> Run | None:
    """The comparison of ``graphsparse bench tickets`` in a folder; None where there is none."""
    summary, rows = read_record(folder / SUMMARY), TICKETS.read_runs(folder / ROWS)
    if summary.get("command") == "graphsparse bench tickets":
        found, runs = summary["settings"], summary["runs"]
    elif rows:
        found, runs = verdicts(rows), len(rows)
    else:
        return None
    if not found:
        raise ValueError("none of its runs is of a dense model, to which the others are held")
    record = {"versions": summary.get("versions"), **read_record(folder / RECORD)}
    sections = [*([_overview(found)] if len(found) > 1 else [])]
    count, degrees = len(found), {_key(row, row): row["degrees"] for row in rows if "degrees" in row}
    sections += [
        _setting(each, degrees, folded=count > 2 and at > 0, alone=count == 1) for at, each in enumerate(found)
    ]
    if len(found) <= DRAWN:
        sections += [part for each in found for part in _graph(folder, each)]
    return Run(
        name=name_of(folder),
        kind="bench tickets",
        lead=_lead(found, runs),
        sections=[*sections, how_made(record, folder, _FILES)],
        figures={"settings": figure(len(found), digits=0), "runs": figure(runs, digits=0), **_headline(found)},
        trends=_trends(found[0]) if len(found) == 1 else (),  # many settings in one chart would be a tangle
    )


_FILES = (
    (ROWS, "every run, a JSON object in a line"),
    (GRAPHS, "what the page draws of graphs"),
    (SUMMARY, "means, intervals, differences and p values"),
    (TABLES, "the same as Markdown"),
)


def title(verdict: Verdict) -> str:
    """A setting in words."""
    setting = verdict["setting"]
    words = [setting["dataset"], f"{setting['model']} {setting['hidden']}", setting["protocol"]]
    words += [] if setting["features"] == "raw" else [f"{setting['features']} features"]
    words += [] if setting["split"] is None else [f"{setting['split']} splits"]
    return ", ".join(words)


def _unit(verdict: Verdict) -> Unit:
    return Unit(verdict["metric"], verdict["maximize"])


def _sparsest(verdict: Verdict) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and figures of each method at the sparsest level of the setting, the best mean first."""
    levels = [cell["level"] for method in verdict["methods"] for cell in method["levels"]]
    found = [
        (method["method"], cell)
        for method in verdict["methods"]
        for cell in method["levels"]
        if cell["level"] == max(levels)
    ]
    return sorted(found, key=lambda each: each[1]["test"], reverse=bool(verdict["maximize"]))


def _tickets(verdict: Verdict) -> list[tuple[str, Mapping[str, Any]]]:
    """The same without the controls that ignore what is asked."""
    return [each for each in _sparsest(verdict) if each[0].partition("+")[0] not in CONTROLS]


def _lead(found: Sequence[Verdict], runs: int) -> str:
    methods = {method["method"] for verdict in found for method in verdict["methods"]}
    count = f"{len(methods)} methods in {len(found)} settings" if len(found) > 1 else f"{len(methods)} methods"
    if len(found) == 1:
        return f"{count}, {runs:,} runs. {_sentence(found[0])}"
    best = [(verdict, _tickets(verdict)[0][1]) for verdict in found if _tickets(verdict)]
    tested = [cell["minus_dense"] for _, cell in best if cell.get("minus_dense") and cell["minus_dense"]["ci95"]]
    reach = sum(_below(verdict, cell) is False for verdict, cell in best)
    return (
        f"{count}, {runs:,} runs. In {reach} of {len(best)} settings the best ticket at the sparsest level is not "
        "below the dense model beyond the 95 % interval of their paired difference "
        f"({len(tested)} settings have an interval; the best is the one with the best mean on test data, "
        "which flatters it)."
    )


def _below(verdict: Verdict, cell: Mapping[str, Any]) -> bool | None:
    """Whether a method is worse than the dense model beyond the interval; None where nothing can be said."""
    difference = cell.get("minus_dense")
    if difference is None or difference["ci95"] is None or difference["pairs"] < FEWEST:
        return None
    gap = difference["mean"] if verdict["maximize"] else -difference["mean"]
    return bool(gap + difference["ci95"] < 0)


def _sentence(verdict: Verdict) -> str:
    """What came out in a setting."""
    unit, dense, ranked = _unit(verdict), verdict["dense"], _tickets(verdict)
    if not ranked:
        return f"On {title(verdict)}, only the dense model and controls were run."
    name, cell = ranked[0]
    edges, weights = (100 * float(keep) for keep in level_keeps(cell["level"]))
    words = {
        None: "with too few seeds to say more",
        True: "below it beyond the interval of the paired difference",
        False: "not below it beyond the interval of the paired difference",
    }[_below(verdict, cell)]
    return (
        f"On {title(verdict)}, at the sparsest level ({edges:.1f} % of the edges, {weights:.1f} % of the weights), "
        f"{name} has the best mean test {unit.metric} of {len(ranked)} methods, "
        f"{unit.text(cell['test'], cell['test_ci95'])}; "
        f"the dense model has {unit.text(dense['test'], dense['test_ci95'])}: {words}."
    )


def _trends(verdict: Verdict) -> list[Trend]:
    unit, found = _unit(verdict), []
    for method in verdict["methods"]:
        cells = method["levels"]
        found.append(
            Trend(
                method["method"],
                LEVEL_AXIS,
                unit.words,
                [100 * (1 - float(level_keeps(cell["level"])[1])) for cell in cells],
                [unit.scale * cell["test"] for cell in cells],
                # of two seeds an interval is as wide as the page (t is 12.7), and hides all others
                [unit.scale * cell["test_ci95"] if len(cell["seeds"]) >= FEWEST else None for cell in cells],
            )
        )
    return found


def _overview(found: Sequence[Verdict]) -> Section:
    """The settings in one table."""
    rows: list[list[Cell | str]] = []
    for verdict in found:
        unit, ranked = _unit(verdict), _tickets(verdict)
        name, cell = ranked[0] if ranked else ("-", {})
        difference = cell.get("minus_dense") or {}
        rows.append(
            [
                title(verdict),
                unit.words,
                unit.cell(verdict["dense"]["test"], verdict["dense"]["test_ci95"]),
                figure(cell.get("level"), digits=0),
                name,
                unit.cell(cell.get("test"), cell.get("test_ci95")),
                unit.cell(difference.get("mean"), difference.get("ci95"), sign=True),
                figure(difference.get("p"), digits=4),
            ]
        )
    columns = ["setting", "metric", "dense", "sparsest level", "best method there", "its figure"]
    columns += ["minus dense", "p (Holm)"]
    return Section("All settings", [Sheet("Settings, and the best method at the sparsest level", columns, rows)])


def _graph(folder: Path, verdict: Verdict) -> list[Section]:
    """What the best ticket's method leaves of the graph at the sparsest level, where the folder holds it."""
    for name, cell in _tickets(verdict):
        record = read_record(graph_file(folder, verdict["setting"], name, cell.get("trial") or {}, cell["level"]))
        if record:
            heading = f"The graph before and after: {title(verdict)}, {name} at the sparsest level, first seed"
            return [graph_section(record, heading)]
    return []


def _key(setting: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """Names the runs of a method at a level of a setting."""
    named = [cell.get(name) for name in ("method", "level", "trial")]
    return json.dumps([*(setting[name] for name in SETTING), *named], sort_keys=True)


def _setting(verdict: Verdict, degrees: Mapping[str, Any], *, folded: bool, alone: bool) -> Section:
    unit, dense = _unit(verdict), verdict["dense"]
    trends, half = _trends(verdict), dense["test_ci95"]
    level = ("dense", unit.scale * dense["test"], None if half is None else unit.scale * half)
    notes = {method["method"]: [_note(cell, unit) for cell in method["levels"]] for method in verdict["methods"]}
    seeds = "1 seed" if dense["seeds"] == 1 else f"{dense['seeds']} seeds"
    splits = "" if verdict["setting"]["split"] is None else ", each with a split of its own"
    below = (
        f"{seeds}{splits}; bars are 95 % intervals. Every level i keeps 0.95^i of the edges and 0.9^i of the weights."
    )
    blocks: list[Block] = [
        *([] if alone else [Prose(_sentence(verdict))]),  # else it is the lead of the page
        lines(f"{unit.words} against sparsity", trends, level=level, notes=notes, note=below),
        _methods(verdict, unit),
        Prose(_TEST),
        _cost_chart(verdict),
        _costs(verdict),
    ]
    dense_run = {"method": "dense", "level": 0, "trial": {}}
    members = [("dense", dense_run), *((name, {**cell, "method": name}) for name, cell in _sparsest(verdict))]
    drawn = {name: degrees.get(_key(verdict["setting"], cell)) for name, cell in members}
    there = {name: pairs for name, pairs in drawn.items() if pairs}
    if there:
        blocks.append(degree_chart(there, "The graph of the first seed, whole (dense) and at the sparsest level. "))
    groups = ["dense", *(method["method"] for method in verdict["methods"])]
    return Section(title(verdict), blocks, groups, folded)


_TEST = (
    "The test: every method is held against the dense model, against TEDDY and against the dense student at its level "
    "by a two-sided paired t test over the seeds. The p values are corrected by Holm for all comparisons of this "
    "setting with the same reference, so that 0.05 bounds the chance of a single false finding among them. With fewer "
    "than three pairs nothing is tested. Of each method the trial with the best validation mean is shown."
)


def _note(cell: Mapping[str, Any], unit: Unit) -> str:
    edges, weights = (100 * cell[key] for key in ("edges_kept", "weights_kept"))
    kept = f"level {cell['level']}: edges kept {edges:.1f} %, weights kept {weights:.1f} %"
    difference = cell.get("minus_dense")
    if not difference:
        return kept
    return f"{kept}; minus dense {unit.cell(difference['mean'], difference['ci95'], sign=True).text}"


_REFERENCES = {"dense": "dense", "teddy": "TEDDY", "dense-student": "dense student"}


def _methods(verdict: Verdict, unit: Unit) -> Sheet:
    dense, empty = verdict["dense"], Cell(None, "-")
    cells = [cell for method in verdict["methods"] for cell in method["levels"]]
    references = [name for name in _REFERENCES if any(f"minus_{name}" in cell for cell in cells)]
    rows: list[list[Cell | str]] = [
        [
            "dense",
            empty,
            unit.cell(dense["test"], dense["test_ci95"]),
            *[empty] * (2 * len(references)),
            unit.cell(dense["val"]),
            figure(1.0, scale=100, digits=1),
            figure(1.0, scale=100, digits=1),
            figure(dense["seeds"], digits=0),
        ]
    ]
    groups = ["dense"]
    for method in verdict["methods"]:
        for cell in method["levels"]:
            differences: list[Cell | str] = []
            for reference in references:
                found = cell.get(f"minus_{reference}") or {}
                differences += [
                    unit.cell(found.get("mean"), found.get("ci95"), sign=True),
                    figure(found.get("p"), digits=4),
                ]
            rows.append(
                [
                    method["method"],
                    figure(cell["level"], digits=0),
                    unit.cell(cell["test"], cell["test_ci95"]),
                    *differences,
                    unit.cell(cell["val"]),
                    figure(cell["edges_kept"], scale=100, digits=1),
                    figure(cell["weights_kept"], scale=100, digits=1),
                    figure(len(cell["seeds"]), digits=0),
                ]
            )
            groups.append(method["method"])
    differences_of = [
        words for name in references for words in (f"minus {_REFERENCES[name]}", f"p, {_REFERENCES[name]}")
    ]
    columns = ["method", "level", unit.words, *differences_of]
    columns += ["validation", "edges kept, %", "weights kept, %", "seeds"]
    return Sheet(f"Methods on {title(verdict)}", columns, rows, groups)


def _cost_chart(verdict: Verdict) -> Block:
    groups = []
    dense = verdict["dense"]["macs"]
    for method in verdict["methods"]:
        cells = [c for c in method["levels"] if dense and c.get("macs") and c.get("inference_of_dense")]
        groups.append(
            (
                method["method"],
                [100 * cell["macs"] / dense for cell in cells],
                [100 * cell["inference_of_dense"] for cell in cells],
                [
                    f"level {cell['level']}: {cell['macs'] / 1e6:,.3g} million MACs, {cell['inference_ms']:,.3g} ms"
                    for cell in cells
                ],
            )
        )
    note = (
        "MACs count what a kernel that skips absent edges and zero weights would do; times are those of plain kernels."
    )
    axes = ("MACs, % of the dense model", "measured time, % of the dense model")
    return points("MACs beside measured time", groups, *axes, note=note)


_COSTS = (
    ("macs", "MACs, million", 1e-6, 2),
    ("inference_ms", "inference, ms", 1, 2),
    ("inference_of_dense", "of dense, %", 100, 0),
    ("seconds", "training, s", 1, 1),
    ("components", short("components"), 1, 0),
    ("largest_component", short("largest_component"), 100, 1),
    ("clustering", short("clustering"), 1, 3),
    ("homophily", short("homophily"), 100, 1),
    ("isolated_nodes", short("isolated_nodes"), 1, 0),
)


def _costs(verdict: Verdict) -> Sheet:
    members = [("dense", verdict["dense"]), *((name, cell) for name, cell in _sparsest(verdict))]
    rows: list[list[Cell | str]] = [
        [name, *(figure(cell.get(key), scale=scale, digits=digits) for key, _, scale, digits in _COSTS)]
        for name, cell in members
    ]
    columns = ["method", *(words for _, words, *_ in _COSTS)]
    return Sheet("Cost, and what is left of the graph, at the sparsest level", columns, rows, [n for n, _ in members])


def _headline(found: Sequence[Verdict]) -> dict[str, Cell]:
    """Figures to compare runs by, where there is one setting."""
    if len(found) != 1 or not _tickets(found[0]):
        return {}
    unit, dense = _unit(found[0]), found[0]["dense"]
    name, cell = _tickets(found[0])[0]
    return {
        unit.words: unit.cell(cell["test"], cell["test_ci95"]),
        f"dense {unit.words}": unit.cell(dense["test"], dense["test_ci95"]),
        "best method": Cell(name, name),
        "edges kept, %": figure(cell["edges_kept"], scale=100),
        "weights kept, %": figure(cell["weights_kept"], scale=100),
    }
