"""``graphsparse meta train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import meta
from graphsparse.cli.options import Device, Tensorboard


@command(
    meta,
    "train",
    examples=(
        "graphsparse meta train --zoo runs/zoo --out runs/metanet.safetensors",
        "graphsparse meta train --zoo runs/zoo --objective group-norm --epochs 32",
        "graphsparse meta train --objective nowcast --out ahead.safetensors",
    ),
    writes="out",
)
def train_metanetwork(
    output: Output,
    zoo: Annotated[Path, typer.Option(help="Folder of networks, from 'graphsparse meta zoo'.")] = Path("zoo"),
    objective: Annotated[str, typer.Option(help="{objectives}, or module:Class of your own.")] = "repair",
    hidden: Annotated[int, typer.Option(min=2, help="Width of the metanetwork, even.")] = 32,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the metanetwork.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs; after each one the held-out networks judge.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of an epoch.")] = 50,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial weights and training.")] = 0,
    val_count: Annotated[int, typer.Option(min=1, help="Held-out networks: those of the highest seeds.")] = 2,
    out: Annotated[Path, typer.Option(help="File of the metanetwork.")] = Path("metanet.safetensors"),
    trajectories: Annotated[
        int, typer.Option(min=1, help="Pruned networks whose fine-tuning the objective nowcast learns from.")
    ] = 100,
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> None:
    """Train a metanetwork over the networks of a zoo; an interrupted run goes on from its checkpoint."""
    from graphsparse.metanet.study import TrainStudy

    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"the metanetwork is written as safetensors: {out} must end so", param_hint="--out")
    TrainStudy(
        zoo=zoo,
        objective=objective,
        hidden=hidden,
        layers=layers,
        epochs=epochs,
        steps=steps,
        lr=lr,
        seed=seed,
        val_count=val_count,
        device=device,
        tensorboard=tensorboard,
        trajectories=trajectories,
    ).run(out, output.console)
    output.give(out.with_suffix(".json"))
