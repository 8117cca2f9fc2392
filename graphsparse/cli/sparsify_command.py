"""``graphsparse sparsify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import app
from graphsparse.cli.options import Dst, Header, OneBased, Src, Undirected, Weight


@command(
    app,
    "sparsify",
    examples=(
        "graphsparse sparsify edges.csv fewer.csv --keep 50% --undirected",
        "graphsparse sparsify a.graphml b.graphml --method local-degree --keep 0.3",
    ),
    writes="out",
)
def sparsify(
    output: Output,
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A graph in a file: {formats}; text files also packed (.gz, .zst).")
    ],
    target: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The file to write; another suffix converts.")
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
) -> None:
    """Keep the most important edges of a graph in a file; everything else in the file stays.

    Text files may be packed (.gz, .zst). Tables have columns src and dst (or source and target), or those that --src
    and --dst name; without a header the columns are 1, 2 and so on.
    """
    if keep is None and per_node is None:
        raise typer.BadParameter(
            "say how much to keep: --keep 0.5 keeps half of the edges (or --per-node 3)", param_hint="--keep"
        )
    if (target is None) == (out is None):
        raise typer.BadParameter("name one file to write, as OUT or as --out", param_hint="OUT")
    from graphsparse.edges.files import sparsify_file
    from graphsparse.errors import DataError

    rules = {"keep": keep, "per_node": per_node, "guard": guard, "forest": forest}
    chosen: dict[str, Any] = {"weight": weight, "file_format": file_format, "report": report}
    chosen |= {"src": src, "dst": dst, "header": header, "one_based": one_based}
    try:
        said = sparsify_file(
            source, target or out or "", method, undirected=undirected, seed=seed, rules=rules, **chosen
        )
    except ModuleNotFoundError as error:  # of an extra that is not installed
        raise DataError(str(error)) from error
    output.console.print(said, highlight=False, soft_wrap=True)
    output.give(said.figures)
