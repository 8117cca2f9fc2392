"""What the command ``graphsparse meta zoo`` does: a folder of trained networks, and their table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from graphsparse.fit import Bars, mean_ci
from graphsparse.fit.measure import find_device
from graphsparse.locking import only_one
from graphsparse.metanet.learn import HEADER, Images, Recipe, ZooNetwork, train_zoo
from graphsparse.report import interval, plain, say, table


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
        device: where they are trained.
        tensorboard: a folder for TensorBoard's logs; None writes none.
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
    device: str = "cpu"
    tensorboard: Path | None = None

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

    def cost(self, out: Path) -> dict[str, Any]:
        """What is missing in ``out``: each ``network`` with its ``epochs``, how many are ``made``, all ``epochs``.

        Raises:
            ValueError: an option is out of range.
        """
        recipes = list(dict.fromkeys(self.recipes()))
        missing = [each for each in recipes if not (out / each.name / HEADER).exists()]
        for recipe in missing:
            recipe.check()
        plan = [{"network": each.name, "epochs": each.all_epochs} for each in missing]
        return {"missing": plan, "made": len(recipes) - len(plan), "epochs": sum(each.all_epochs for each in missing)}

    def run(self, out: Path, console: Console) -> list[ZooNetwork]:
        """Train what is missing in ``out`` and print the table of accuracies."""
        recipes = self.recipes()
        find_device(self.device)
        with only_one(out), Bars() as bars:
            bar = bars.add("data models")
            zoo = train_zoo(
                out,
                recipes,
                self.images,
                jobs=self.jobs,
                report=lambda done, total, text: bar(done, total, {}),
                device=self.device,
                tensorboard=self.tensorboard,
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


def zoo_summary(networks: Sequence[ZooNetwork]) -> dict[str, Any]:
    """The figures of a zoo: means with 95 % half widths (None for one network), and those of each network."""
    summary: dict[str, Any] = {"images": dataclasses.asdict(networks[0].images)}
    for part in ("val", "test"):
        mean, half = mean_ci([network.figures[part] for network in networks])
        summary |= {part: mean, f"{part}_ci95": half}
    each = [{"name": n.recipe.name, **dataclasses.asdict(n.recipe), **n.figures} for n in networks]
    found: dict[str, Any] = plain(summary | {"networks": each})
    return found


def _zoo_row(label: str, networks: Sequence[ZooNetwork]) -> list[str]:
    figures = [interval(*mean_ci([net.figures[part] for net in networks]), scale=100) for part in ("val", "test")]
    return [label, str(len(networks)), *figures]
