"""``graphsparse meta prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import meta
from graphsparse.cli.options import Device, DryRun, Tensorboard, numbers, words


@command(
    meta,
    "prune",
    examples=(
        "graphsparse meta prune --zoo runs/zoo --speedup 2,4 --out runs/pruned",
        "graphsparse meta prune --zoo runs/zoo --metanet none --speedup 3",
    ),
    writes="out",
)
def prune_networks(
    output: Output,
    zoo: Annotated[Path, typer.Option(help="Folder of networks, or of one network.")] = Path("zoo"),
    metanet: Annotated[str, typer.Option(help="A file, a pretrained metanetwork's name, or none.")] = "resnet-tiny",
    speedup: Annotated[
        list[str] | None, typer.Option(help="FLOPs before over after; several are fine.", show_default="2,4,6")
    ] = None,
    criterion: Annotated[
        list[str] | None,
        typer.Option(
            help="Baselines: {criteria}, or module:function; each also as NAME+least-squares; differences are to the "
            "first.",
            show_default="group-l2,group-l2+least-squares,taylor",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning in all; 0: batch norms only.")] = 4,
    lr: Annotated[float, typer.Option(help="Learning rate of fine-tuning.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random choices and fine-tuning.")] = 0,
    dry_run: DryRun = False,
    out: Annotated[Path, typer.Option(help="Folder for the networks, the plot and the figures.")] = Path("pruned"),
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> None:
    """Prune networks with a metanetwork and by plain criteria; what is done already is not done again."""
    from graphsparse.metanet.study import PruneStudy

    study = PruneStudy(
        zoo=zoo,
        metanet=metanet,
        speedups=numbers("--speedup", speedup, "2,4,6", float),
        criteria=words(criterion, "group-l2,group-l2+least-squares,taylor"),
        epochs=epochs,
        lr=lr,
        seed=seed,
        device=device,
        tensorboard=tensorboard,
    )
    if dry_run:
        cost = study.cost(out)
        said = f"{cost['runs']} networks to prune and fine-tune, {cost['made']} made before"
        output.plan([f"{said}; {cost['epochs']} epochs in all, and as many choices of channels"], cost)
        return
    study.run(out, output.console)
    output.give(out / "metrics.json")
