"""``graphsparse meta zoo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import meta
from graphsparse.cli.options import Device, DryRun, Tensorboard, numbers, words


@command(
    meta,
    "zoo",
    examples=(
        "graphsparse meta zoo --count 12 --out runs/zoo",
        "graphsparse meta zoo --dataset cifar10 --train 5000 --arch resnet8,vgg8",
    ),
    writes="out",
    beside=True,
)
def zoo(
    output: Output,
    dataset: Annotated[str, typer.Option(help="{images}, or module:function of your own.")] = "digits",
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the resized images.", show_default="as they are")
    ] = None,
    train: Annotated[int | None, typer.Option(min=1, help="Number of training images.", show_default="all")] = None,
    val: Annotated[int, typer.Option(min=1, help="Number of validation images (digits: always 359).")] = 5000,
    arch: Annotated[
        list[str] | None,
        typer.Option(help="A family, {cnns}, and a depth: resnet8, vgg8 ...; several cycle.", show_default="resnet8"),
    ] = None,
    width: Annotated[
        list[str] | None, typer.Option(help="Channels of the first stage; several cycle.", show_default="8")
    ] = None,
    epochs: Annotated[
        list[str] | None, typer.Option(help="Epochs of training; several cycle.", show_default="16")
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    speedup: Annotated[float | None, typer.Option(help="Prune mildly at the end, to this speed-up.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of networks.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first network; the others follow.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    dry_run: DryRun = False,
    out: Annotated[Path, typer.Option(help="Folder of the networks.")] = Path("zoo"),
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
) -> None:
    """Train data models: small networks that a metanetwork learns from. Those that are there are not trained again."""
    from graphsparse.metanet import Images
    from graphsparse.metanet.study import ZooStudy, zoo_summary

    study = ZooStudy(
        images=Images(dataset, size, train, val),
        archs=words(arch, "resnet8"),
        widths=numbers("--width", width, "8", int),
        epochs=numbers("--epochs", epochs, "16", int),
        lr=lr,
        speedup=speedup,
        count=count,
        seed=seed,
        jobs=jobs,
        device=device,
        tensorboard=tensorboard,
    )
    if dry_run:
        cost = study.cost(out)
        kinds = [f"{each['network']}: {each['epochs']} epochs" for each in cost["missing"]]
        in_all = f"{len(kinds)} networks to train, {cost['made']} made before; {cost['epochs']} epochs in all"
        output.plan([*kinds, in_all], cost)
        return
    output.give(zoo_summary(study.run(out, output.console)))
