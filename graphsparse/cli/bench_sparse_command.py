"""``graphsparse bench sparse``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import bench
from graphsparse.cli.options import Device, DryRun, Tensorboard, words
from graphsparse.cores import usable_cores


@command(
    bench,
    "sparse",
    examples=(
        "graphsparse bench sparse --quick",
        "graphsparse bench sparse --data digits --method rigl,set --keep 0.05,0.02",
    ),
    writes="out",
)
def bench_sparse(
    output: Output,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="{images}, or graphs (graphsparse list datasets); without any, the whole comparison: hours of a core."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Digits, small, every method: a few minutes.")] = False,
    model: Annotated[
        str | None,
        typer.Option(help="mlp, or a CNN such as resnet8; for graphs {backbones}.", show_default="mlp, for graphs gcn"),
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, help="Hidden units; of a CNN channels.", show_default="256")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="{methods}; NAME+random with random scores; random-search. Those that are named are joined by the "
            "controls, and each by itself with random scores.",
            show_default="all but blocks",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Kept shares of the matrices' weights, or N:M.", show_default="0.1,0.05,0.02"),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.", show_default="5")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each run.", show_default="20, for graphs 200")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.", show_default="0.002, for graphs 0.01; of sgd 0.1")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="adam, or sgd: momentum 0.9, a cosine.", show_default="adam"),
    ] = None,
    init: Annotated[str | None, typer.Option(help="scaled: kept weights scaled by their fan-in.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=3, help="Trials of each method.", show_default="3")] = None,
    dry_run: DryRun = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.", show_default="one for each core")] = usable_cores(),
    out: Annotated[Path, typer.Option(help="Folder for rows, tables, summary and plots.")] = Path("bench-sparse"),
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> Exception | None:
    """Compare methods of sparse training fairly: seeds, keeps, trials chosen on validation data; it resumes."""
    from graphsparse.compare import Bench
    from graphsparse.errors import GraphsparseError
    from graphsparse.sparse.compare import plan as plans

    figures: dict[str, Any] = {"model": model, "hidden": hidden, "seeds": seeds, "epochs": epochs, "lr": lr}
    figures |= {"optimizer": optimizer, "init": init, "trials": trials}
    figures = {name: value for name, value in figures.items() if value is not None}
    lists = {name: value for name, value in {"method": method, "keep": keep}.items() if value}
    if quick and data:
        raise ValueError("--quick is a comparison of its own: give it, or --data")
    beside = [f"--{name}" for name in (*lists, *figures)]
    if beside and not data:
        raise ValueError(f"{beside[0]} goes with --data; --quick and the whole comparison are run as planned")
    if data:
        asked_for = plans.with_controls(words(method, ",".join(plans.default_methods())))
        keeps = tuple(words(keep, "0.1,0.05,0.02"))
        asked = [plans.Experiment(name, methods=asked_for, keeps=keeps, **figures) for name in words(data, "")]
    else:
        asked = list(plans.quick() if quick else plans.full())
    if dry_run:
        from graphsparse.sparse.compare.estimate import estimate, told

        cost = estimate(asked, jobs, out)
        output.plan(told(cost), cost)
        return None
    failed: GraphsparseError | None = None
    try:
        Bench(asked, jobs, device, tensorboard).run(out, output.console)
    except GraphsparseError as error:  # some runs failed, of which the summary says nothing
        failed = error
    if (out / "summary.json").exists():
        output.give(out / "summary.json")
    return failed
