"""``graphsparse ticket``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import app
from graphsparse.cli.options import Device, DryRun, Tensorboard
from graphsparse.cli.state import STATE

if TYPE_CHECKING:
    from graphsparse.fit import Batches


@command(
    app,
    "ticket",
    examples=(
        "graphsparse ticket --dataset cora --tolerance 1% --seeds 5 --out runs/cora",
        "graphsparse ticket --dataset ogbn-arxiv --batch-size 1024 --neighbors 15,10",
    ),
    writes="out",
)
def ticket(
    output: Output,
    dataset: Annotated[
        str, typer.Option(help="A graph by name (graphsparse list datasets), or module:function of your own.")
    ] = "digits-knn",
    model: Annotated[
        str, typer.Option(help="{backbones}; of molecules gin or gcn; or module:class of your own.")
    ] = "gcn",
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 64,
    method: Annotated[
        str, typer.Option(help="{finders}; a score of edges: {scores}; or module:finder of your own.")
    ] = "teddy",
    edge_keep: Annotated[str | None, typer.Option(help="Edges to keep: 0.6, 60% or 3/5.", show_default="0.6")] = None,
    weight_keep: Annotated[
        str | None, typer.Option(help="Weights to keep, in the same way.", show_default="0.1")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="How weights are made sparse: l0 as in the paper, {methods}; or module:recipe.")
    ] = "l0",
    weight_distribution: Annotated[
        str | None,
        typer.Option(
            help="How many weights each tensor keeps: {distributions}, or module:function.",
            show_default="that of --weights, of l0 global",
        ),
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(help="{patterns}: kept one by one, or whole hidden units, cut out of the network at the end."),
    ] = "weights",
    tolerance: Annotated[
        str | None,
        typer.Option(help="Instead of the keeps: the sparsest level this close to dense on validation, 0.01 or 1%."),
    ] = None,
    distill: Annotated[float, typer.Option("--distill", "--lambda", help="Weight of the distillation term.")] = 1.0,
    protocol: Annotated[
        str | None,
        typer.Option(help="Of nodes: {protocols}.", show_default="transductive; of graphs: inductive"),
    ] = None,
    split: Annotated[int | None, typer.Option(help="Which split, where a data set has several.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Train in mini-batches of so many nodes, links or graphs; under torchrun, in each process.",
            show_default="none",
        ),
    ] = None,
    neighbors: Annotated[
        list[str] | None,
        typer.Option(help="Neighbours that a batch draws at each layer: 15,10; -1 is all.", show_default="none"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Draw neighbours with replacement.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that draw batches; the result is the same.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Steps of an epoch in batches.", show_default="so many that all nodes come")
    ] = None,
    guard: Annotated[str | None, typer.Option(help="{guards}: against nodes that lose all edges.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training run.")] = 200,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty of the weights.")] = 5e-4,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    points: Annotated[int, typer.Option(min=1, help="Points of the plotted curve; the ticket is the last.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the ticket, the plot and the figures.")] = Path("ticket"),
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the best ticket, too, and tell how long a pass takes then.")
    ] = False,
    dry_run: DryRun = False,
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> None:
    """Find a graph lottery ticket: a sparse graph (or molecules) and a sparse network as good as the dense one."""
    from graphsparse import ranks
    from graphsparse.keep_rule import exact_fraction
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
        weights=weights,
        weight_distribution=weight_distribution,
        pattern=pattern,
        tolerance=None if tolerance is None else float(exact_fraction(tolerance, "tolerance")),
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
        tensorboard=tensorboard,
        compile=compile,
        batches=_batches(batch_size, neighbors, replace, workers, steps),
    )
    if dry_run:
        cost = study.cost()
        time = f"about {cost['seconds'] / 60:.1f} minutes and {cost['memory_mb']:,.0f} MB"
        most = "at most " if tolerance is not None else ""
        output.plan([f"{most}{cost['runs']} trainings of {epochs} epochs, one after the other: {time}"], cost)
        return
    study.run(out, output.console, spare_threads=STATE.threads_are_ours)
    if ranks.is_first():
        output.give(out / "metrics.json")


def _batches(
    size: int | None, neighbors: list[str] | None, replace: bool, workers: int, steps: int | None
) -> Batches | None:
    """What the options say of mini-batches; an error for one that belongs to them, where there is no batch size."""
    from graphsparse.fit import Batches

    if size is None:
        given = {"--neighbors": neighbors, "--replace": replace, "--workers": workers, "--steps": steps}
        first = next((name for name, value in given.items() if value), None)
        if first is not None:
            raise ValueError(f"{first} says how mini-batches are made: give --batch-size, too")
        return None
    try:
        hops = tuple(int(word) for part in neighbors or [] for word in part.split(",")) or None
    except ValueError:
        raise ValueError(f"--neighbors takes whole numbers, as 15,10; got {','.join(neighbors or [])}") from None
    return Batches(size, hops, replace=replace, workers=workers, steps=steps)
