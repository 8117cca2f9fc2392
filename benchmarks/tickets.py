"""The comparison of ticket finders: its plans in sittings, and the tables of docs/tickets.md from their rows.

    python benchmarks/tickets.py run [--plan declared | full] [--part 0:2] [--only teddy,random] [--jobs 2]
    python benchmarks/tickets.py table    # results/tickets.json and docs/tickets.md below its mark

A run resumes; each is one line in results/tickets/rows.jsonl. "declared" is the study on random splits of
`graphsparse.tickets.compare.declared`, whose family of tests was fixed before it was run; "full" the plan on the data
sets' own splits, `graphsparse.tickets.compare.plan.full()`. A part is a slice of a plan's experiments. Hyper-parameters
are chosen on validation data only.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, provenance, write_json
from rich.console import Console

from graphsparse.compare import ROWS, Bench, asked_rows
from graphsparse.fit import mean_ci
from graphsparse.report import interval, markdown, shown_as
from graphsparse.tickets.compare.comparison import TICKETS, verdicts
from graphsparse.tickets.compare.declared import SPLITS, family, outcomes, study
from graphsparse.tickets.compare.plan import Experiment, full
from graphsparse.tickets.compare.verdict import pages

OUT = RESULTS / "tickets"
PAGE = Path(__file__).parent.parent / "docs" / "tickets.md"
MARK = "<!-- tables: python benchmarks/tickets.py table -->"
OURS, THEIRS = "reliance", "teddy"
# TEDDY's released code, GCN, three seeds, mean accuracy: (data, weight of the distillation): dense, levels 5, 10, 20
RELEASED = {
    ("cora", 0.1): (81.3, 80.2, 78.7, 74.5),
    ("cora", 10.0): (81.3, 81.5, 80.6, 80.6),
    ("citeseer", 0.1): (71.3, 70.0, 69.3, 68.2),
    ("citeseer", 10.0): (71.3, 72.3, 72.2, 73.2),
}


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is concluded of each setting of the plan, in the plan's order."""
    plan = [*study(), *full()]
    settings = [experiment.setting for experiment in plan]
    return sorted(verdicts(asked_rows(plan, rows)), key=lambda verdict: settings.index(verdict["setting"]))


def tables(rows: Sequence[dict[str, Any]], found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of all that the rows say, and of what is concluded from them."""
    random, own = ([v for v in found if (v["setting"]["split"] is None) == kind] for kind in (False, True))
    return "\n\n".join([declared(rows), pages(random), summary(own), released(rows), pages(own)]) + "\n"


def declared(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tests of the declared family, each with its p value before and after Holm's correction for all of them."""
    lines = []
    for one in outcomes(rows):
        difference = "-" if one["mean"] is None else _difference(one, *shown_as(maximize=True))
        p, corrected = ("-" if one["p"] is None else _p(one[name]) for name in ("p", "p_holm"))
        lines.append([one["dataset"], str(one["level"]), f"{one['ours']} - {one['theirs']}", difference, p, corrected])
    note = (
        f"GCN 64, inductive, {SPLITS} random splits: difference of the test accuracy in points, 95 % interval, wins of "
        f"pairs; two-sided paired t test, p by itself and after Holm's correction for the {len(family())} tests of the "
        "family, which was fixed before the runs. A dash: not made, for want of splits; it counts as p = 1."
    )
    columns = ["data set", "level", "methods", "difference", "p", "p, Holm"]
    return f"### The declared tests\n\n{note}\n\n{markdown(columns, lines)}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def summary(found: Iterable[Mapping[str, Any]]) -> str:
    """Ours beside TEDDY in every setting."""
    lines = []
    for verdict in found:
        setting = verdict["setting"]
        methods = {method["method"]: method for method in verdict["methods"]}
        if not {OURS, THEIRS} <= set(methods):
            continue
        scale, digits = shown_as(verdict["maximize"])
        line = [f"{setting['dataset']}, {setting['model']} {setting['hidden']}, {setting['protocol']}"]
        line.append(interval(verdict["dense"]["test"], verdict["dense"]["test_ci95"], scale=scale, digits=digits))
        for level in (10, 20):
            cells = [_cell(methods[name], level) for name in (OURS, THEIRS)]
            line += [
                "-" if cell is None else interval(cell["test"], cell["test_ci95"], scale=scale, digits=digits)
                for cell in cells
            ]
            difference = None if cells[0] is None else cells[0].get("minus_teddy")
            line.append("-" if difference is None else _difference(difference, scale, digits))
        line.append(f"{methods[OURS]['extreme'] or '-'} / {methods[THEIRS]['extreme'] or '-'}")
        lines.append(line)
    columns = ["setting", "dense", f"{OURS}, level 10", THEIRS, "difference", f"{OURS}, level 20", THEIRS, "difference"]
    note = f"Test metric as in the tables below; differences are paired by seed, with wins; extreme: {OURS} / TEDDY."
    return f"### {OURS.capitalize()} beside TEDDY\n\n{note}\n\n{markdown([*columns, 'extreme'], lines)}"


def _cell(method: Mapping[str, Any], level: int) -> Mapping[str, Any] | None:
    return next((cell for cell in method["levels"] if cell["level"] == level), None)


def _difference(difference: Mapping[str, Any], scale: int, digits: int) -> str:
    half = "" if difference["ci95"] is None else f" ± {scale * difference['ci95']:.{digits}f}"
    return f"{scale * difference['mean']:+.{digits}f}{half} ({difference['wins']}/{difference['pairs']})"


def released(rows: Sequence[Mapping[str, Any]]) -> str:
    """TEDDY as released beside ours, at equal weights of the distillation."""
    lines = []
    for (dataset, weight), figures in RELEASED.items():
        lines.append([f"{dataset}, weight {weight:g}", "released code", *(f"{figure:.1f}" for figure in figures)])
        for features in ("raw", "row-normalised"):
            own = [
                row
                for row in rows
                if (row["dataset"], row["model"], row["hidden"]) == (dataset, "gcn", 512)
                and (row["protocol"], row["features"], row["split"]) == ("transductive", features, None)
                and (row["method"] == "dense" or (row["method"] == THEIRS and row["trial"] == {"distill": weight}))
            ]
            by_level = {level: [row["test"] for row in own if row["level"] == level] for level in (0, 5, 10, 20)}
            if all(by_level.values()):
                cells = [interval(*mean_ci(tests), scale=100, digits=1) for tests in by_level.values()]
                lines.append(["", f"ours, {features} features", *cells])
    text = "### TEDDY as released, and ours\n\nGCN 512, transductive, test accuracy in %.\n\n"
    return text + markdown(["", "", "dense", "level 5", "level 10", "level 20"], lines)


def limited(plan: Sequence[Experiment], only: str | None) -> list[Experiment]:
    """The experiments with some of their methods, in the order given, so that what matters most is run first."""
    if only is None:
        return list(plan)
    names = only.split(",")
    own = [(experiment, tuple(name for name in names if name in experiment.methods)) for experiment in plan]
    return [dataclasses.replace(experiment, methods=methods) for experiment, methods in own if methods]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--plan", choices=("declared", "full"), default="declared")
    parser.add_argument("--only", help="methods of the plan's, separated by commas")
    parser.add_argument("--part", default=":", help="START:STOP of the plan's experiments")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.what == "run":
        start, _, stop = arguments.part.partition(":")
        plan = study() if arguments.plan == "declared" else full()
        part = limited(plan[int(start or 0) : int(stop) if stop else None], arguments.only)
        Bench(part, arguments.jobs).run(OUT, Console())
        return
    rows = TICKETS.read_runs(OUT / ROWS)
    found = compared(rows)
    write_json(RESULTS / "tickets.json", {**provenance("tickets"), "rows": len(rows), "settings": found})
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(MARK)] + MARK + "\n\n" + tables(rows, found))
    Console().print(f"{len(rows)} rows; {RESULTS / 'tickets.json'}, {PAGE}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
