"""The page of ``graphsparse advise``: what was measured on a graph, and which sparsifier is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsparse.report.charts import lines
from graphsparse.report.graph_parts import FIGURES, short
from graphsparse.report.parts import Block, Cell, Command, Prose, Run, Section, Sheet, Trend, figure
from graphsparse.report.runs import RUNS, how_made, name_of, read_record

KIND, FILE = "advise", "advice.json"
KEEP_AXIS = "edges kept, %"
WHOLE = "whole graph"

Row = Mapping[str, Any]


@RUNS.register(KIND)
def advice_run(folder: Path) -> Run | None:
    """The advice in a folder of ``graphsparse advise --out``; None where there is none."""
    record = read_record(folder / FILE) if folder.is_dir() else {}
    if record.get("command") != "graphsparse advise":
        return None
    best, whole, metric = record["recommended"], record["whole"], record["metric"]
    lead = (
        f"Recommended for {Path(record['graph']).name}: {best['method']} at keep {best['keep']:g}. {record['reason']}"
    )
    blocks: list[Block] = [Command(record["call"]), Prose("One line of Python does it.")]
    blocks += [Prose(f"{note[:1].upper()}{note[1:]}.") for note in record["notes"]]
    if record["not_measured"]:
        blocks.append(Prose(f"Not measured, for the seconds were over: {'; '.join(record['not_measured'])}."))
    methods = list(dict.fromkeys(row["method"] for row in record["rows"]))
    charts = [_chart(record["rows"], whole, methods, about) for about in _CHARTS if metric is not None or about[0]]
    measured = Section("What was measured", [*charts, _sheet(record, metric)], [WHOLE, *methods])
    return Run(
        name=name_of(folder),
        kind=KIND,
        lead=lead,
        sections=[Section("What to do", blocks), measured, how_made(record, folder, ((FILE, "all figures"),))],
        figures={
            "recommended": Cell(best["method"], best["method"]),
            KEEP_AXIS: figure(best["keep"], scale=100),
            FIGURES["isolated_nodes"][0]: figure(best["isolated_nodes"], digits=0),
            "components": figure(best["components"], digits=0),
            "clustering": figure(best["clustering"], digits=4),
            **({} if metric is None else {f"validation {metric}, %": figure(best["mean"], scale=100)}),
        },
        trends=[_trend(record["rows"], method, *_CHARTS[0 if metric is not None else 1][1:]) for method in methods],
    )


_CHARTS = (  # whether it needs no network, the figure, its name
    (False, "mean", "validation metric, %"),
    (True, "largest_component", FIGURES["largest_component"][0]),
)


def _trend(rows: Sequence[Row], method: str, key: str, words: str) -> Trend:
    there = sorted(_of(rows, method, key), key=_keep)
    halves = [(row["difference"] or {}).get("half_width") if key == "mean" else None for row in there]
    return Trend(
        method,
        KEEP_AXIS,
        words,
        [100 * row["keep"] for row in there],
        [100 * row[key] for row in there],
        [None if half is None else 100 * half for half in halves],
    )


def _chart(rows: Sequence[Row], whole: Row, methods: Sequence[str], about: tuple[bool, str, str]) -> Block:
    plain, key, words = about
    note = "" if plain else "Bars are 95 % intervals of the difference from the whole graph, paired by seeds."
    level = None if whole[key] is None else (WHOLE, 100 * whole[key], None)
    trends = [_trend(rows, method, key, words) for method in methods]
    notes = {
        method: [f"{row['isolated_nodes']:,} nodes isolated" for row in sorted(_of(rows, method, key), key=_keep)]
        for method in methods
    }
    return lines(f"{words} against what is kept", trends, level=level, notes=notes, note=note)


def _of(rows: Sequence[Row], method: str, key: str) -> list[Row]:
    return [row for row in rows if row["method"] == method and row[key] is not None]


def _keep(row: Row) -> float:
    return float(row["keep"])


def _sheet(record: Mapping[str, Any], metric: str | None) -> Sheet:
    rows: list[list[Cell | str]] = []
    for row in (record["whole"], *record["rows"]):
        gap = row["difference"] if row["method"] != WHOLE else None
        trained = [figure(row["mean"], scale=100), _gap(gap)] if metric is not None else []
        rows.append(
            [
                row["method"],
                figure(row["keep"], scale=100, digits=1),
                *trained,
                figure(row["isolated_nodes"], digits=0),
                figure(row["components"], digits=0),
                figure(row["largest_component"], scale=100),
                figure(row["degree_distance"], digits=3),
                figure(row["clustering"], digits=3),
                figure(row["homophily"], scale=100, digits=1),
                figure(None if row["method"] == WHOLE else 1000 * row["seconds"], digits=1),
            ]
        )
    trained_heads = [] if metric is None else [f"validation {metric}, %", "minus whole"]
    heads = ["method", KEEP_AXIS, *trained_heads, *map(short, ("isolated_nodes", "components", "largest_component"))]
    heads += ["degrees off", short("clustering"), short("homophily"), "score, ms"]
    return Sheet("Sparsifiers", heads, rows, [WHOLE, *(row["method"] for row in record["rows"])])


def _gap(gap: Mapping[str, Any] | None) -> Cell:
    return figure(None) if gap is None else figure(gap["mean"], gap["half_width"], scale=100, sign=True)
