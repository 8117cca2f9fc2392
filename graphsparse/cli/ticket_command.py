"""``graphsparse ticket``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphsparse.cli.groups import app
from graphsparse.cli.state import STATE


@app.command()
def ticket(
    dataset: Annotated[str, typer.Option(help="A name of graphsparse.data.names().")] = "digits-knn",
    model: Annotated[str, typer.Option(help="gcn, gin, gat, sage or transformer; molecules: gin or gcn.")] = "gcn",
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 64,
    method: Annotated[
        str, typer.Option(help="A name of graphsparse.tickets.finders(), or module:finder of your own.")
    ] = "teddy",
    edge_keep: Annotated[str | None, typer.Option(help="Fraction of edges to keep.", show_default="0.6")] = None,
    weight_keep: Annotated[str | None, typer.Option(help="Fraction of weights to keep.", show_default="0.1")] = None,
    weight_distribution: Annotated[
        str, typer.Option(help="How many weights each tensor keeps: global, uniform, er, erk, or module:function.")
    ] = "global",
    tolerance: Annotated[
        float | None,
        typer.Option(help="Instead of the keeps: take the sparsest level this close to dense on validation."),
    ] = None,
    distill: Annotated[float, typer.Option("--distill", "--lambda", help="Weight of the distillation term.")] = 1.0,
    protocol: Annotated[
        str | None,
        typer.Option(help="Of nodes: transductive or inductive.", show_default="transductive; of graphs: inductive"),
    ] = None,
    split: Annotated[int | None, typer.Option(help="Which split, where a data set has several.")] = None,
    guard: Annotated[str | None, typer.Option(help="cover or isolated: against nodes that lose all edges.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training run.")] = 200,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty of the weights.")] = 5e-4,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    points: Annotated[int, typer.Option(min=1, help="Points of the plotted curve; the ticket is the last.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the ticket, the plot and the figures.")] = Path("ticket"),
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Find a graph lottery ticket: a sparse graph (or molecules) and a sparse network as good as the dense one."""
    from graphsparse.tickets.compare.study import Study

    if tolerance is None:
        edge_keep, weight_keep = edge_keep or "0.6", weight_keep or "0.1"
    study = Study(
        dataset=dataset,
        model=model,
        hidden=hidden,
        method=method,
        edge_keep=edge_keep,
        weight_keep=weight_keep,
        weight_distribution=weight_distribution,
        tolerance=tolerance,
        distill=distill,
        protocol=protocol,
        split=split,
        guard=guard,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        seeds=seeds,
        points=points,
        device=device,
    )
    study.run(out, Console(stderr=as_json), spare_threads=STATE.threads_are_ours)
    if as_json:
        print((out / "metrics.json").read_text(), end="")
