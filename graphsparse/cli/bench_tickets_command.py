"""``graphsparse bench tickets``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import bench
from graphsparse.cli.options import Device, DryRun, Tensorboard, numbers, words
from graphsparse.cores import usable_cores


@command(
    bench,
    "tickets",
    examples=(
        "graphsparse bench tickets --quick --dry-run",
        "graphsparse bench tickets --dataset cora --method teddy,random --seeds 5",
    ),
    writes="out",
)
def bench_tickets(
    output: Output,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Data sets (graphsparse list datasets); without any, the whole comparison: about 8 hours of 2 cores."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Cora, small, at two levels: minutes on 2 cores.")] = False,
    model: Annotated[list[str] | None, typer.Option(help="Backbones: {backbones}.", show_default="gcn")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Hidden units.", show_default="512")] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Protocols: {protocols}.",
            show_default="the usual",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="{finders}; scores of edges: {scores}; NAME+cover or NAME+isolated for a guard, NAME+units for whole "
            "units; or module:finder.",
            show_default="the one-shot methods and controls",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="How weights are made sparse, for each method that leaves it open: l0, {methods}; or module:recipe.",
            show_default="l0",
        ),
    ] = None,
    level: Annotated[list[str] | None, typer.Option(help="Levels 1 to 20.", show_default="5,10,15,20")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.", show_default="5")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each run.", show_default="200")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", show_default="0.01")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Adam's l2 penalty.", show_default="0.0005")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="'random': every seed draws a split of its own.", show_default="the data set's own"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=3, help="Trials of each method's hyper-parameters.", show_default="3")
    ] = None,
    dry_run: DryRun = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.", show_default="one for each core")] = usable_cores(),
    out: Annotated[Path, typer.Option(help="Folder for rows, tables, summary and plots.")] = Path("bench-tickets"),
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> Exception | None:
    """Compare ticket finders fairly: seeds, levels, trials chosen on validation data; an interrupted run resumes."""
    from graphsparse.compare import Bench
    from graphsparse.errors import TicketError
    from graphsparse.tickets.compare import plan as plans

    figures: dict[str, Any] = {"hidden": hidden, "seeds": seeds, "epochs": epochs, "lr": lr}
    figures |= {"weight_decay": weight_decay, "split": split, "trials": trials}
    figures = {name: value for name, value in figures.items() if value is not None}
    lists = {"model": model, "protocol": protocol, "method": method, "weights": weights, "level": level}
    beside = [f"--{name.replace('_', '-')}" for name in [*(name for name, words in lists.items() if words), *figures]]
    if quick and dataset:
        raise ValueError("--quick is a comparison of its own: give it, or --dataset")
    fixed = [option for option in beside if not quick or option[2:] in lists]
    if fixed and not dataset:
        raise ValueError(f"{fixed[0]} goes with --dataset; --quick and the whole comparison are run as planned")
    if dataset:
        experiments = tuple(
            plans.Experiment(
                dataset=name,
                model=backbone,
                protocol=kind,
                methods=tuple(plans.by_weights(words(method, ",".join(plans.ONE_SHOT)), words(weights, "l0"))),
                levels=tuple(numbers("--level", level, "5,10,15,20", int)),
                **figures,
            )
            for name in words(dataset, "")
            for backbone in words(model, "gcn")
            for kind in words(protocol, "inductive" if name.startswith("ogbg-") else "transductive")
        )
    else:
        experiments = tuple(replace(each, **figures) for each in plans.quick()) if quick else plans.full()
    if dry_run:
        from graphsparse.tickets.compare.estimate import estimate, told

        cost = estimate(experiments, jobs, out)
        output.plan(told(cost), cost)
        return None
    failed: TicketError | None = None
    try:
        Bench(experiments, jobs, device, tensorboard).run(out, output.console)
    except TicketError as error:  # some runs failed, of which the summary says nothing
        failed = error
    output.give(out / "summary.json")
    return failed
