"""The page of ``graphsparse bench sparse``: methods beside each other in every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsparse.compare import FEWEST, ROWS, SUMMARY, TABLES, verdicts_of
from graphsparse.compare.comparison import Verdict
from graphsparse.report import Unit
from graphsparse.report.charts import lines
from graphsparse.report.parts import Block, Cell, Prose, Run, Section, Sheet, Trend, figure
from graphsparse.report.runs import RECORD, RUNS, how_made, name_of, read_record
from graphsparse.sparse.compare.comparison import SPARSE, title
from graphsparse.sparse.compare.plan import CONTROLS, share_of

_AXIS = "weights of matrices removed, %"
_FILES = (
    (ROWS, "every run, a JSON object in a line"),
    (SUMMARY, "means, intervals, differences and p values"),
    (TABLES, "the same as Markdown"),
)
_TEST = (
    "The test: every method is held against the dense model, against random ERK masks of the same keep, against the "
    "random search and against itself with random scores, by a two-sided paired t test over the seeds. The p values "
    "are corrected by Holm for all comparisons of this setting with the same reference. With fewer than three pairs "
    "nothing is tested. Of each method the trial with the best validation mean is shown; of the random search the draw "
    "that is best on validation data, for each seed."
)
_REFERENCES = {"dense": "dense", "random-erk": "random-erk", "random-search": "random search", "random": "own random"}


@RUNS.register("sparse bench")
def bench_run(folder: Path) -> Run | None:
    """The comparison of ``graphsparse bench sparse`` in a folder; None where there is none."""
    summary = read_record(folder / SUMMARY)
    if summary.get("command") != f"graphsparse {SPARSE.command}":
        if read_record(folder / RECORD).get("command") != f"graphsparse {SPARSE.command}":
            return None
        rows = SPARSE.read_runs(folder / ROWS)
        summary = {"settings": verdicts_of(SPARSE, rows), "runs": len(rows)}
    found = summary["settings"]
    if not found:
        raise ValueError("none of its runs is of a dense model, to which the others are held")
    record = {"versions": summary.get("versions"), **read_record(folder / RECORD)}
    return Run(
        name=name_of(folder),
        kind=SPARSE.command,
        lead=" ".join(_sentence(verdict) for verdict in found[:3]),
        sections=[*map(_setting, found), how_made(record, folder, _FILES)],
        figures={"settings": figure(len(found), digits=0), "runs": figure(summary["runs"], digits=0)},
        trends=_trends(found[0]) if len(found) == 1 else (),
    )


def _sentence(verdict: Verdict) -> str:
    """What came out at the sparsest keep."""
    unit = Unit(verdict["metric"], verdict["maximize"])
    cells = [(m["method"], cell) for m in verdict["methods"] for cell in m["levels"]]
    own = [each for each in cells if each[0] not in CONTROLS and "+" not in each[0]] or cells
    sparsest = max(SPARSE.order(cell["keep"]) for _, cell in own)
    name, cell = max(
        (each for each in own if SPARSE.order(each[1]["keep"]) == sparsest),
        key=lambda each: each[1]["test"] * (1 if verdict["maximize"] else -1),
    )
    dense = verdict["dense"]
    against = cell.get("minus_random-erk")
    gap = unit.cell(against["mean"], against["ci95"], sign=True).text if against else ""
    beside = f", {gap} {unit.points} beside random-erk" if against else ""
    return (
        f"{title(verdict['setting'])}: at keep {cell['keep']}, {name} has the best mean test {unit.metric}, "
        f"{unit.text(cell['test'], cell['test_ci95'])}{beside}; dense {unit.text(dense['test'], dense['test_ci95'])}."
    )


def _trends(verdict: Verdict) -> list[Trend]:
    unit = Unit(verdict["metric"], verdict["maximize"])
    return [
        Trend(
            method["method"],
            _AXIS,
            unit.words,
            [100 * (1 - float(share_of(cell["keep"]))) for cell in method["levels"]],
            [unit.scale * cell["test"] for cell in method["levels"]],
            [unit.scale * cell["test_ci95"] if len(cell["seeds"]) >= FEWEST else None for cell in method["levels"]],
        )
        for method in verdict["methods"]
    ]


def _setting(verdict: Verdict) -> Section:
    unit, dense = Unit(verdict["metric"], verdict["maximize"]), verdict["dense"]
    half = dense["test_ci95"]
    level = ("dense", unit.scale * dense["test"], None if half is None else unit.scale * half)
    seeds = "1 seed" if dense["seeds"] == 1 else f"{dense['seeds']} seeds"
    blocks: list[Block] = [
        lines(
            f"{unit.words} against sparsity", _trends(verdict), level=level, note=f"{seeds}; bars are 95 % intervals."
        ),
        _methods(verdict, unit),
        Prose(_TEST),
    ]
    return Section(title(verdict["setting"]), blocks, ["dense", *(method["method"] for method in verdict["methods"])])


def _methods(verdict: Verdict, unit: Unit) -> Sheet:
    dense, empty = verdict["dense"], Cell(None, "-")
    cells = [cell for method in verdict["methods"] for cell in method["levels"]]
    references = [name for name in _REFERENCES if any(f"minus_{name}" in cell for cell in cells)]
    first: list[Cell | str] = ["dense", empty, unit.cell(dense["test"], half_of(dense)), unit.cell(dense["val"])]
    rows = [
        [*first, *[empty] * (2 * len(references)), empty, figure(dense["seconds"], digits=1), _count(dense["seeds"])]
    ]
    groups = ["dense"]
    for method in verdict["methods"]:
        for cell in method["levels"]:
            rows.append(
                [method["method"], Cell(float(share_of(cell["keep"])), cell["keep"]), *_row(cell, references, unit)]
            )
            groups.append(method["method"])
    named = [words for name in references for words in (f"minus {_REFERENCES[name]}", f"p, {_REFERENCES[name]}")]
    columns = ["method", "keep", unit.words, "validation", *named, "ever kept, %", "training, s", "seeds"]
    return Sheet(f"Methods on {title(verdict['setting'])}", columns, rows, groups)


def _row(cell: Mapping[str, Any], references: Sequence[str], unit: Unit) -> list[Cell | str]:
    differences = [cell.get(f"minus_{reference}") or {} for reference in references]
    return [
        unit.cell(cell["test"], half_of(cell)),
        unit.cell(cell["val"]),
        *(
            each
            for found in differences
            for each in (
                unit.cell(found.get("mean"), found.get("ci95"), sign=True),
                figure(found.get("p"), digits=4),
            )
        ),
        figure(cell.get("seen"), scale=100, digits=1),
        figure(cell.get("seconds"), digits=1),
        _count(len(cell["seeds"])),
    ]


def half_of(cell: Mapping[str, Any]) -> float | None:
    """The half width of a cell's interval."""
    half: float | None = cell["test_ci95"]
    return half


def _count(seeds: int) -> Cell:
    return figure(seeds, digits=0)
