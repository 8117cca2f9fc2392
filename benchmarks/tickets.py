"""The comparison of ticket finders: the full plan in sittings, and the tables of docs/tickets.md from its rows.

    python benchmarks/tickets.py run [--part 0:4] [--jobs 2]    # resumes; one line a run in results/tickets/rows.jsonl
    python benchmarks/tickets.py table    # results/tickets.json and docs/tickets.md below its mark

A part is a slice of `graphsparse.tickets.compare.plan.full()`. Hyper-parameters are chosen on validation data only.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, provenance, read_rows, write_json
from rich.console import Console

from graphsparse.fit import mean_ci
from graphsparse.report import interval, markdown
from graphsparse.tickets.compare.bench import Bench, asked_rows
from graphsparse.tickets.compare.plan import KEY, full
from graphsparse.tickets.compare.runs import ROWS
from graphsparse.tickets.compare.verdict import pages, shown_as, verdicts

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
    plan = [experiment.setting for experiment in full()]
    return sorted(verdicts(asked_rows(full(), rows)), key=lambda verdict: plan.index(verdict["setting"]))


def tables(rows: Sequence[dict[str, Any]], found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of all that the rows say, and of what is concluded from them."""
    return "\n\n".join([summary(found), released(rows), pages(found)]) + "\n"


def summary(found: Iterable[Mapping[str, Any]]) -> str:
    """Ours beside TEDDY in every setting."""
    lines = []
    for verdict in found:
        setting = verdict["setting"]
        methods = {method["method"]: method for method in verdict["methods"]}
        if not {OURS, THEIRS} <= set(methods):
            continue
        scale, digits = shown_as(verdict["metric"])
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
                and (row["protocol"], row["features"]) == ("transductive", features)
                and (row["method"] == "dense" or (row["method"] == THEIRS and row["trial"] == {"distill": weight}))
            ]
            by_level = {level: [row["test"] for row in own if row["level"] == level] for level in (0, 5, 10, 20)}
            if all(by_level.values()):
                cells = [interval(*mean_ci(tests), scale=100, digits=1) for tests in by_level.values()]
                lines.append(["", f"ours, {features} features", *cells])
    text = "### TEDDY as released, and ours\n\nGCN 512, transductive, test accuracy in %.\n\n"
    return text + markdown(["", "", "dense", "level 5", "level 10", "level 20"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--part", default=":", help="START:STOP of the plan's experiments")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.what == "run":
        start, _, stop = arguments.part.partition(":")
        part = full()[int(start or 0) : int(stop) if stop else None]
        Bench(part, arguments.jobs).run(OUT, Console())
        return
    rows = read_rows(OUT / ROWS, KEY)
    found = compared(rows)
    write_json(RESULTS / "tickets.json", {**provenance("tickets"), "rows": len(rows), "settings": found})
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(MARK)] + MARK + "\n\n" + tables(rows, found))
    Console().print(f"{len(rows)} rows; {RESULTS / 'tickets.json'}, {PAGE}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
