"""The command ``graphsparse``: find a ticket, sparsify a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make graphs, and the networks that learn on them, sparse.",
)


@app.command()
def ticket(
    dataset: Annotated[str, typer.Option(help="A name of graphsparse.data.names().")] = "digits-knn",
    model: Annotated[str, typer.Option(help="gcn, gin, gat, sage or transformer.")] = "gcn",
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 64,
    method: Annotated[str, typer.Option(help="teddy, random (the control), or another edge score.")] = "teddy",
    edge_keep: Annotated[str | None, typer.Option(help="Fraction of edges to keep.  [default: 0.6]")] = None,
    weight_keep: Annotated[str | None, typer.Option(help="Fraction of weights to keep.  [default: 0.1]")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Instead of the keeps: take the sparsest level this close to dense on validation."),
    ] = None,
    distill: Annotated[float, typer.Option("--distill", "--lambda", help="Weight of the distillation term.")] = 1.0,
    protocol: Annotated[str, typer.Option(help="transductive or inductive.")] = "transductive",
    split: Annotated[int | None, typer.Option(help="Which split, where a data set has several.")] = None,
    guard: Annotated[str | None, typer.Option(help="cover or isolated: against nodes that lose all edges.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training run.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    points: Annotated[int, typer.Option(min=1, help="Points of the plotted curve; the ticket is the last.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the ticket, the plot and the figures.")] = Path("ticket"),
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Find a graph lottery ticket: a sparse graph and a sparse network as accurate as the dense one."""
    from graphsparse.tickets.study import Study

    if tolerance is None:
        edge_keep, weight_keep = edge_keep or "0.6", weight_keep or "0.1"
    study = Study(
        dataset=dataset,
        model=model,
        hidden=hidden,
        method=method,
        edge_keep=edge_keep,
        weight_keep=weight_keep,
        tolerance=tolerance,
        distill=distill,
        protocol=protocol,
        split=split,
        guard=guard,
        epochs=epochs,
        seeds=seeds,
        points=points,
        device=device,
    )
    study.run(out, Console(stderr=as_json))
    if as_json:
        print((out / "metrics.json").read_text(), end="")


@app.command()
def sparsify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="npz, csv, parquet, graphml or mtx file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write; the same kind of file.")],
    method: Annotated[str, typer.Option(help="Edge score, such as teddy, random, dspar, jaccard.")] = "teddy",
    keep: Annotated[str | None, typer.Option(help="Fraction of edges to keep, in (0, 1].")] = None,
    per_node: Annotated[int | None, typer.Option(help="Instead of --keep: each node's best edges.")] = None,
    undirected: Annotated[
        bool | None, typer.Option("--undirected/--directed", help="How to read the edges.  [default: look]")
    ] = None,
    guard: Annotated[str | None, typer.Option(help="cover or isolated: against nodes that lose all edges.")] = None,
    forest: Annotated[bool, typer.Option(help="Keep a maximum spanning forest first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of ties and of random scores.")] = 0,
) -> None:
    """Keep the most important edges of a graph in a file; everything else in the file stays."""
    from graphsparse.edges.files import sparsify_file

    rules = {"keep": keep, "per_node": per_node, "guard": guard, "forest": forest}
    report = sparsify_file(source, target, method, undirected=undirected, seed=seed, rules=rules)
    Console().print(report, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command; an error that a user can mend is one sentence, not a traceback."""
    from graphsparse.errors import GraphsparseError

    try:
        app()
    except (GraphsparseError, ValueError, TypeError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command resumes where it stopped", highlight=False)
        sys.exit(130)
