"""``graphsparse sparsify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import app
from graphsparse.cli.options import Dst, Header, OneBased, Src, Undirected, Weight
from graphsparse.cli.state import STATE
from graphsparse.free_memory import free_memory, memory_size


@command(
    app,
    "sparsify",
    examples=(
        "graphsparse sparsify edges.csv fewer.csv --keep 50% --undirected",
        "graphsparse sparsify a.graphml b.graphml --method local-degree --keep 0.3",
    ),
    writes="out",
    beside=True,
)
def sparsify(
    output: Output,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A graph in a file: {formats}; text files also packed (.gz, .zst). Or a folder of Parquet parts.",
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The file to write; another suffix converts. A new folder for a folder."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Score of the edges: {scores}; or module:function of your own.")
    ] = "teddy",
    keep: Annotated[
        str | None,
        typer.Option(help="Edges to keep: 0.5, 50% or 1/2.", show_default="required, or --per-node"),
    ] = None,
    per_node: Annotated[int | None, typer.Option(help="Instead of --keep: each node's best edges.")] = None,
    undirected: Undirected = None,
    guard: Annotated[str | None, typer.Option(help="{guards}: against nodes that lose all edges.")] = None,
    forest: Annotated[bool, typer.Option("--forest", help="Keep a maximum spanning forest first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of ties and of random scores.")] = 0,
    weight: Weight = None,
    src: Src = None,
    dst: Dst = None,
    header: Header = None,
    one_based: OneBased = False,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Kind of both files: {formats}, or module:class of your own.", show_default="by suffix"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write, instead of OUT; the options that were used are written beside it."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write an HTML page that shows the graph before and after.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory to take, such as 4GB: a larger IN is read part by part, out of core.",
            show_default="half of what is free",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Out of core, in so many processes.", show_default="threads, one a core")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Out of core, on a dask cluster: tcp://host:8786.")
    ] = None,
) -> None:
    """Keep the most important edges of a graph in a file; everything else in the file stays.

    Text files may be packed (.gz, .zst). Tables have columns src and dst (or source and target), or those that --src
    and --dst name; without a header the columns are 1, 2 and so on.

    A folder of Parquet parts, and a file that is larger than --memory, are read part by part and never held whole; the
    edges that stay are the same. Methods there are teddy, dspar and random. Killed, the same command goes on.
    """
    if keep is None and per_node is None:
        raise typer.BadParameter(
            "say how much to keep: --keep 0.5 keeps half of the edges (or --per-node 3)", param_hint="--keep"
        )
    if (target is None) == (out is None):
        raise typer.BadParameter("name one file to write, as OUT or as --out", param_hint="OUT")
    from graphsparse.edges.files import sparsify_file
    from graphsparse.edges.outofcore import sparsify_files, works_on
    from graphsparse.errors import DataError

    goal = target or out or Path()
    by_parts = works_on(source, goal) or any(given is not None for given in (memory, workers, scheduler))
    rules = {"keep": keep, "per_node": per_node, "guard": guard, "forest": forest}
    chosen: dict[str, Any] = {"weight": weight, "file_format": file_format, "report": report}
    chosen |= {"src": src, "dst": dst, "header": header, "one_based": one_based}
    why = _why_by_parts(source, memory, workers, scheduler) if by_parts else ""
    if why:
        output.console.print(f"{source} {why}: out of core, part by part", highlight=False, soft_wrap=True)
    try:
        if why:
            STATE.resumes = True
            ends = _without_others(chosen)
            how: dict[str, Any] = {"memory": memory, "workers": workers, "client": scheduler, "ends": ends, **rules}
            shown = False if output.quiet else None
            said = sparsify_files(source, goal, method, undirected=undirected, seed=seed, progress=shown, **how)
        else:
            said = sparsify_file(source, goal, method, undirected=undirected, seed=seed, rules=rules, **chosen)
    except ModuleNotFoundError as error:  # of an extra that is not installed
        raise DataError(str(error)) from error
    output.console.print(said, highlight=False, soft_wrap=True)
    output.give(said.figures)


def _why_by_parts(source: Path, memory: str | None, workers: int | None, scheduler: str | None) -> str:
    """Why a file is not read whole, in words; empty where it is."""
    if source.is_dir():
        return "is a folder"
    if workers is not None or scheduler is not None:
        return "is given to workers"
    limit = free_memory() // 2 if memory is None else memory_size(memory)
    size = source.stat().st_size if source.is_file() else 0
    if size <= limit:
        return ""
    what = "half of what is free; a larger --memory reads it whole" if memory is None else "--memory"
    return f"has {size / 1e9:,.3g} GB, more than {limit / 1e9:,.3g} GB ({what})"


def _without_others(chosen: dict[str, Any]) -> tuple[str, str] | None:
    """The columns of the ends; other options of reading are refused."""
    for name, value in chosen.items():
        if name not in ("src", "dst", "weight") and value not in (None, False):
            raise ValueError(f"--{name.replace('file_', '').replace('_', '-')} does not work out of core: leave it out")
    src, dst = chosen["src"], chosen["dst"]
    if (src is None) != (dst is None):
        raise ValueError("name both columns of the ends, --src and --dst")
    return None if src is None else (src, dst)
