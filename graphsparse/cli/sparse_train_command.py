"""``graphsparse sparse train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import sparse
from graphsparse.cli.options import Device, Tensorboard


@command(
    sparse,
    "train",
    examples=(
        "graphsparse sparse train --data digits --method rigl --keep 0.05",
        "graphsparse sparse train --data cora --method nm-sr-ste --keep 2:4",
    ),
    writes="out",
)
def train_sparse(
    output: Output,
    data: Annotated[str, typer.Option(help="{images}, or a graph (graphsparse list datasets).")] = "digits",
    method: Annotated[str, typer.Option(help="{methods}.")] = "rigl",
    keep: Annotated[str, typer.Option(help="Kept share of the matrices' weights, or N:M such as 2:4.")] = "0.05",
    model: Annotated[
        str | None,
        typer.Option(help="mlp, or a CNN such as resnet8; for graphs {backbones}.", show_default="mlp, resnet8 or gcn"),
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, help="Hidden units; of a CNN channels.", show_default="256")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of training.", show_default="20; of a graph 200")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="0.002; of a graph 0.01")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial weights, masks and training.")] = 0,
    init: Annotated[str | None, typer.Option(help="scaled: kept weights scaled by their fan-in.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for weights, masks and figures.")] = Path("sparse"),
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> None:
    """Train a sparse network by any method; an interrupted run goes on from its checkpoint."""
    from graphsparse.sparse.study import RESULT, SparseStudy

    study = SparseStudy(
        data=data,
        method=method,
        keep=keep,
        model=model,
        hidden=hidden,
        epochs=epochs,
        lr=lr,
        seed=seed,
        init=init,
        device=device,
        tensorboard=tensorboard,
    )
    study.run(out, output.console)
    output.give(out / RESULT)
