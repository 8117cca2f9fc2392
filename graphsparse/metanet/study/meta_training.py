"""What the command ``graphsparse meta train`` does: a metanetwork, its figures and its plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from graphsparse.errors import DataError
from graphsparse.fit import Bars, FitResult, Task
from graphsparse.fit.fingerprint import model_hash
from graphsparse.fit.measure import find_device
from graphsparse.locking import only_one
from graphsparse.metanet.fine_tuning import example_of
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.learn import (
    OBJECTIVES,
    Nowcast,
    Objective,
    Trajectories,
    Validation,
    ZooNetwork,
    load_zoo,
    meta_train,
)
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.report import Curve, interval, plot_curves, provenance, say, table, write_json


@dataclass(frozen=True)
class TrainStudy:
    """What ``graphsparse meta train`` is asked for.

    Args:
        zoo: folder of networks, all trained on the same images.
        objective: a name of `OBJECTIVES`, or "module:Class" of your own.
        hidden, layers: of the metanetwork.
        epochs, steps, lr, seed: as in `meta_train`; the seed is also that of the initial weights.
        val_count: the networks of the highest seeds that are held out to choose the best epoch.
        device: where the metanetwork is trained.
        tensorboard: a folder for TensorBoard's logs; None writes none.
        trajectories: how many the objective "nowcast" learns from.
    """

    zoo: Path
    objective: str
    hidden: int
    layers: int
    epochs: int
    steps: int
    lr: float
    seed: int
    val_count: int
    device: str = "cpu"
    tensorboard: Path | None = None
    trajectories: int = 100

    def run(self, out: Path, console: Console) -> MetaNetwork:
        """Train the metanetwork and write it to ``out``, its figures and plot beside it; print the table.

        A run that was interrupted and is called again resumes from the checkpoint beside ``out``.
        """
        OBJECTIVES.find(self.objective)
        find_device(self.device)
        written = [out.name, *(out.with_suffix(suffix).name for suffix in (".checkpoint", ".json", ".png"))]
        folders = [out.with_suffix(".trajectories").name]
        with only_one(out.parent, lock=f".{out.name}.lock", files=written, folders=folders):
            return self._run(out, console)

    def _run(self, out: Path, console: Console) -> MetaNetwork:
        learned, judged, task = self._networks()
        metanet, validation = self._start([*learned, *judged], task), Validation()
        metanet.to(find_device(self.device))
        with Bars() as bars:
            untrained = validation.area(metanet, [each.module for each in judged], task)
            objective: Objective = OBJECTIVES.find(self.objective)()
            if isinstance(objective, Nowcast):
                bar = bars.add("trajectories")
                objective = Nowcast(Trajectories(self.trajectories, report=lambda done, total: bar(done, total, {})))
            result = meta_train(
                metanet,
                [each.module for each in learned],
                task,
                objective=objective,
                val_networks=[each.module for each in judged],
                validation=validation,
                epochs=self.epochs,
                steps=self.steps,
                lr=self.lr,
                seed=self.seed,
                checkpoint=out.with_suffix(".checkpoint"),
                progress=bars.add("meta-training"),
                tensorboard=self.tensorboard,
            )
        seen = {"learned": _hashes(learned), "judged": _hashes(judged)}
        metanet.cpu()
        metanet.save(out, objective=self.objective, area=result.val, untrained_area=untrained, **seen)
        self._publish(out, result, untrained, seen, validation, console)
        return metanet

    def _networks(self) -> tuple[list[ZooNetwork], list[ZooNetwork], Task]:
        zoo = sorted(load_zoo(self.zoo), key=lambda each: (each.recipe.seed, each.recipe.name))
        if not 1 <= self.val_count < len(zoo):
            raise ValueError(
                f"{self.zoo} holds {len(zoo)} networks: val-count must be at least 1 and leave one to learn from, "
                f"got {self.val_count}"
            )
        other = next((each for each in zoo if each.images != zoo[0].images), None)
        if other is not None:
            raise DataError(f"networks of {self.zoo} learned different images: {zoo[0].images} and {other.images}")
        return zoo[: -self.val_count], zoo[-self.val_count :], zoo[0].images.task()

    def _start(self, networks: Sequence[ZooNetwork], task: Task) -> MetaNetwork:
        inputs = example_of(task)
        graphs = [NetworkGraph.from_module(each.module, inputs) for each in networks]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            mode = OBJECTIVES.find(self.objective).mode
            return MetaNetwork.for_graph(*graphs, mode=mode, hidden=self.hidden, layers=self.layers)

    def _publish(
        self,
        out: Path,
        result: FitResult,
        untrained: float,
        seen: Mapping[str, Any],
        validation: Validation,
        console: Console,
    ) -> None:
        figures = {
            **provenance("meta train", self),
            "metric": result.metric.name,
            "speedups": list(validation.speedups),
            "untrained_area": untrained,
            "area": result.val,
            "best_epoch": result.best_epoch,
            "history": result.history,
            "networks": seen,
        }
        written = write_json(out.with_suffix(".json"), figures)
        curve = Curve(
            self.objective,
            [0, *(each["epoch"] + 1 for each in result.history)],
            [untrained, *(each["val"] for each in result.history)],
            [math.nan] * (1 + len(result.history)),
        )
        plot = plot_curves(
            out.with_suffix(".png"),
            [curve],
            level=("untrained", untrained, math.nan),
            title=f"{len(seen['learned'])} networks to learn from, {len(seen['judged'])} held out",
            x_label=f"epochs of {self.steps} steps",
            y_label="area under accuracy against log speed-up",
        )
        rows = [
            ["untrained", interval(untrained, None, scale=100), ""],
            ["best", interval(result.val, None, scale=100), str(result.best_epoch + 1)],
            ["gain", f"{100 * (result.val - untrained):+.2f}", ""],
        ]
        speeds = ", ".join(f"{speed:g}x" for speed in validation.speedups)
        say(
            console,
            f"mean validation accuracy of {len(seen['judged'])} held-out networks, pruned {speeds} and fine-tuned for "
            f"{validation.fine_tune.epochs} epoch (area under accuracy against log speed-up)",
        )
        console.print(table(f"objective {self.objective} (%)", ["", "validation", "epoch"], rows))
        say(console, f"metanetwork: {out}  plot: {plot}  figures: {written}")


def _hashes(networks: Sequence[ZooNetwork]) -> list[str]:
    """What the networks are known by, whatever they are called."""
    return [model_hash(each.module) for each in networks]
