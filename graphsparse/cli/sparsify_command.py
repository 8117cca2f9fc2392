"""``graphsparse sparsify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from graphsparse.cli.groups import app


@app.command()
def sparsify(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="csv, tsv, txt, parquet, feather, npz, mtx, graphml, gexf or METIS file."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write; another suffix converts.")],
    method: Annotated[str, typer.Option(help="Edge score, such as teddy, random, dspar, jaccard.")] = "teddy",
    keep: Annotated[str | None, typer.Option(help="Fraction of edges to keep, in (0, 1].")] = None,
    per_node: Annotated[int | None, typer.Option(help="Instead of --keep: each node's best edges.")] = None,
    undirected: Annotated[
        bool | None, typer.Option("--undirected/--directed", help="How to read the edges.", show_default="look")
    ] = None,
    guard: Annotated[str | None, typer.Option(help="cover or isolated: against nodes that lose all edges.")] = None,
    forest: Annotated[bool, typer.Option(help="Keep a maximum spanning forest first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of ties and of random scores.")] = 0,
    weight: Annotated[
        str | None,
        typer.Option(help="Column, attribute or array of weights.", show_default="weight or edge_weight"),
    ] = None,
    src: Annotated[
        str | None, typer.Option(help="Column of a table with the first ends.", show_default="src or source")
    ] = None,
    dst: Annotated[str | None, typer.Option(help="Column with the second ends.", show_default="dst or target")] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line names the columns.", show_default="look"),
    ] = None,
    one_based: Annotated[bool, typer.Option("--one-based", help="Ids in the table count from 1.")] = False,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="Kind of both files, or module:class of your own.", show_default="by suffix"),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write an HTML page that shows the graph before and after.")
    ] = None,
) -> None:
    """Keep the most important edges of a graph in a file; everything else in the file stays.

    Text files may be packed (.gz, .zst). Tables have columns src and dst (or source and target), or those that --src
    and --dst name; without a header the columns are 1, 2 and so on.
    """
    from graphsparse.edges.files import sparsify_file
    from graphsparse.errors import DataError

    rules = {"keep": keep, "per_node": per_node, "guard": guard, "forest": forest}
    chosen: dict[str, Any] = {"weight": weight, "file_format": file_format, "report": report}
    chosen |= {"src": src, "dst": dst, "header": header, "one_based": one_based}
    try:
        said = sparsify_file(source, target, method, undirected=undirected, seed=seed, rules=rules, **chosen)
    except ModuleNotFoundError as error:  # of an extra that is not installed
        raise DataError(str(error)) from error
    Console().print(said, highlight=False, soft_wrap=True)
