"""``graphsparse report``."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import app

PAGES = (  # the modules that register a kind of run
    "graphsparse.edges.advice_page",
    "graphsparse.edges.page",
    "graphsparse.metanet.page",
    "graphsparse.sparse.compare.page",
    "graphsparse.sparse.page",
    "graphsparse.tickets.compare.bench_page",
    "graphsparse.tickets.compare.ticket_page",
)


@command(
    app,
    "report",
    examples=(
        "graphsparse report runs/cora",
        "graphsparse report runs/cora runs/citeseer --out both.html",
    ),
)
def report(
    output: Output,
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of graphsparse ticket, sparse train, bench, meta prune or advise, and pages of sparsify "
            "--report.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file.", show_default="report.html in the folder of a single run, else here"),
    ] = None,
) -> None:
    """Show one run, or several beside each other, as a single HTML page that needs no network."""
    from graphsparse.report.html import write_page
    from graphsparse.report.runs import PAGE, read_run

    know_runs()
    if out is None:
        out = runs[0] / PAGE if len(runs) == 1 and runs[0].is_dir() else Path(PAGE)
    _check_out(out, runs)
    found = [read_run(path) for path in runs]
    names = [run.name for run in found]
    if len(set(names)) < len(names):  # folders of the same name are told apart by the way to them
        found = [replace(run, name=str(path)) for run, path in zip(found, runs, strict=True)]
    page = write_page(out, found)
    shown = found[0].lead if len(found) == 1 else f"{len(found)} runs compared."
    output.console.print(f"{shown}\npage: {page}", highlight=False, soft_wrap=True, markup=False)
    output.give({"page": str(page), "runs": [run.name for run in found]})


def know_runs() -> None:
    """Import what registers the kinds of run."""
    for module in PAGES:
        importlib.import_module(module)


def _check_out(out: Path, runs: list[Path]) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"the page is HTML: --out must end in .html, got {out}")
    if not out.parent.is_dir():
        raise ValueError(f"the folder of {out} does not exist")
    if any(path.is_file() and out.exists() and path.samefile(out) for path in runs):
        raise ValueError(f"{out} is one of the runs that are read; give another name by --out")
