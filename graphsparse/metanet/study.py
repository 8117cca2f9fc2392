"""What the commands ``graphsparse meta zoo`` and ``train`` do: work that can be resumed, a table, a plot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from graphsparse.errors import DataError
from graphsparse.fit import Bars, FitResult, Task, mean_ci
from graphsparse.fit.fingerprint import model_hash
from graphsparse.metanet.graph.network_graph import NetworkGraph
from graphsparse.metanet.learn.objectives import OBJECTIVES
from graphsparse.metanet.learn.training import Validation, meta_train
from graphsparse.metanet.learn.zoo import Images, Recipe, ZooNetwork, load_zoo, train_zoo
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.pruning import example_of
from graphsparse.report import Curve, interval, plot_curves, provenance, say, table, write_json


@dataclass(frozen=True)
class ZooStudy:
    """What ``graphsparse meta zoo`` is asked for.

    Args:
        images: what the networks learn.
        archs, widths, epochs: options that the networks cycle through, all combinations in turn.
        lr, speedup: as in `Recipe`.
        count: how many networks.
        seed: of the first network; the others have the seeds after it.
        jobs: processes.
    """

    images: Images
    archs: Sequence[str]
    widths: Sequence[int]
    epochs: Sequence[int]
    lr: float
    speedup: float | None
    count: int
    seed: int
    jobs: int

    def recipes(self) -> list[Recipe]:
        """What is trained.

        Raises:
            ValueError: an option is out of range, or nothing is given to choose from.
        """
        if not (self.archs and self.widths and self.epochs):
            raise ValueError("a zoo needs at least one architecture, one width and one number of epochs")
        turns = itertools.cycle(itertools.product(self.archs, self.widths, self.epochs))
        return [
            Recipe(arch, width, self.seed + number, epochs, self.lr, self.speedup)
            for number, (arch, width, epochs) in zip(range(self.count), turns, strict=False)
        ]

    def run(self, out: Path, console: Console) -> list[ZooNetwork]:
        """Train what is missing in ``out`` and print the table of accuracies."""
        recipes = self.recipes()
        with Bars() as bars:
            bar = bars.add("data models")
            zoo = train_zoo(
                out, recipes, self.images, jobs=self.jobs, report=lambda done, total, text: bar(done, total, {})
            )
        kinds: dict[Any, list[ZooNetwork]] = {
            kind: [] for kind in dict.fromkeys((r.arch, r.width, r.epochs) for r in recipes)
        }
        for network in zoo:
            kinds[network.recipe.arch, network.recipe.width, network.recipe.epochs].append(network)
        rows = [_zoo_row(f"{arch}, width {w}, {e} epochs", found) for (arch, w, e), found in kinds.items()]
        if len(rows) > 1:
            rows.append(_zoo_row("all", zoo))
        say(console, f"{len(zoo)} networks; mean ± 95 % interval over networks")
        console.print(table(f"accuracy (%) on {self.images.name}", ["", "networks", "validation", "test"], rows))
        say(console, f"networks: {out}")
        return zoo


def _zoo_row(label: str, networks: Sequence[ZooNetwork]) -> list[str]:
    figures = [interval(*mean_ci([net.figures[part] for net in networks]), scale=100) for part in ("val", "test")]
    return [label, str(len(networks)), *figures]


@dataclass(frozen=True)
class TrainStudy:
    """What ``graphsparse meta train`` is asked for.

    Args:
        zoo: folder of networks, all trained on the same images.
        objective: a name of `OBJECTIVES`.
        hidden, layers: of the metanetwork.
        epochs, steps, lr, seed: as in `meta_train`; the seed is also that of the initial weights.
        val_count: the networks of the highest seeds that are held out to choose the best epoch.
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

    def run(self, out: Path, console: Console) -> MetaNetwork:
        """Train the metanetwork and write it to ``out``, its figures and plot beside it; print the table.

        A run that was interrupted and is called again resumes from the checkpoint beside ``out``.
        """
        if self.objective not in OBJECTIVES:
            raise ValueError(f"there is no objective {self.objective!r}; there are {', '.join(OBJECTIVES)}")
        learned, judged, task = self._networks()
        metanet, validation = self._start([*learned, *judged], task), Validation()
        with Bars() as bars:
            untrained = validation.area(metanet, [each.module for each in judged], task)
            result = meta_train(
                metanet,
                [each.module for each in learned],
                task,
                objective=self.objective,
                val_networks=[each.module for each in judged],
                validation=validation,
                epochs=self.epochs,
                steps=self.steps,
                lr=self.lr,
                seed=self.seed,
                checkpoint=out.with_suffix(".checkpoint"),
                progress=bars.add("meta-training"),
            )
        seen = {"learned": hashes(learned), "judged": hashes(judged)}
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
            mode = OBJECTIVES[self.objective].mode
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
            [each["epoch"] + 1 for each in result.history],
            [each["val"] for each in result.history],
            [math.nan] * len(result.history),
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


def hashes(networks: Sequence[ZooNetwork]) -> list[str]:
    """What the networks are known by, whatever they are called."""
    return [model_hash(each.module) for each in networks]
