"""What the commands ``graphsparse meta zoo``, ``train`` and ``prune`` do: work that can be resumed, a table, a plot."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from graphsparse.errors import DataError
from graphsparse.fit import Bars, FitResult, Task, finite_or_none, mean_ci, paired_difference
from graphsparse.fit.fingerprint import model_hash
from graphsparse.fit.measure import find_device
from graphsparse.locking import only_one
from graphsparse.metanet.channels import CRITERIA
from graphsparse.metanet.fine_tuning import FineTune, example_of
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.learn import (
    HEADER,
    OBJECTIVES,
    Images,
    Nowcast,
    Objective,
    Recipe,
    Trajectories,
    Validation,
    ZooNetwork,
    load_network,
    load_zoo,
    meta_train,
    read_header,
    save_pruned,
    train_zoo,
)
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.page import prune_run
from graphsparse.metanet.pruning import Selection, prune
from graphsparse.registry import spelling
from graphsparse.report import Curve, interval, plain, plot_curves, provenance, say, table, write_json
from graphsparse.report.runs import PAGE, write_report

METANETWORK = "metanetwork"


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
        seen = {"learned": hashes(learned), "judged": hashes(judged)}
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


def hashes(networks: Sequence[ZooNetwork]) -> list[str]:
    """What the networks are known by, whatever they are called."""
    return [model_hash(each.module) for each in networks]


@dataclass(frozen=True)
class PruneStudy:
    """What ``graphsparse meta prune`` is asked for.

    Args:
        zoo: folder of networks, or the folder of one.
        metanet: a file, the name of a pretrained metanetwork, or "none".
        speedups: targets.
        criteria: of the baselines, with ``+least-squares`` where the weights that stay are refitted; the first is the
            one that differences are taken to.
        epochs: of fine-tuning in all, for every method alike: methods that train before they prune spend half there.
        lr: of fine-tuning.
        seed: of random choices and fine-tuning.
        device: where networks are pruned and fine-tuned, and timed.
        tensorboard: a folder for TensorBoard's logs, one below it for each pruned network; None writes none.
    """

    zoo: Path
    metanet: str
    speedups: Sequence[float]
    criteria: Sequence[str]
    epochs: int
    lr: float
    seed: int
    device: str = "cpu"
    tensorboard: Path | None = None

    def run(self, out: Path, console: Console) -> dict[str, Any]:
        """Prune every network by every method to every speed-up, below ``out``; print the table and write the figures.

        What is there already, from the same networks and settings, is not done again.
        """
        metanet, networks, methods = self._start()
        todo = list(itertools.product(networks, self.speedups, methods))
        runs: list[dict[str, Any]] = []
        task_of = functools.cache(Images.task)
        with only_one(out, files=("metrics.json", PAGE)), Bars() as bars:
            bar = bars.add("pruning")
            bar(0, len(todo), {})
            for network, speedup, method in todo:
                runs.append(self._once(network, speedup, method, metanet, task_of(network.images), out))
                bar(len(runs), len(todo), {"accuracy": runs[-1]["accuracy"]})
            return self._publish(runs, methods, _took_part(metanet, networks), out, console)

    def cost(self, out: Path) -> dict[str, Any]:
        """How many ``runs`` below ``out`` are missing, how many are ``made``, and the ``epochs`` of fine-tuning.

        Raises:
            ValueError, DataError: as `run`.
        """
        metanet, networks, methods = self._start()
        all_runs = list(itertools.product(networks, self.speedups, methods))
        made = 0
        for network, speedup, method in all_runs:
            place, asked = self._asked(network, speedup, method, metanet)
            made += _done(out / "networks" / place, asked)
        return {"runs": len(all_runs) - made, "made": made, "epochs": self.epochs * (len(all_runs) - made)}

    def _start(self) -> tuple[MetaNetwork | None, list[ZooNetwork], list[str]]:
        """The metanetwork, the networks and the methods, once the options are known to be possible."""
        self._check()
        device = find_device(self.device)
        metanet = find_metanet(self.metanet)
        if metanet is not None:
            metanet.to(device)
        networks = [load_network(self.zoo)] if (self.zoo / HEADER).exists() else load_zoo(self.zoo)
        return metanet, networks, [METANETWORK, *self.criteria] if metanet is not None else list(self.criteria)

    def _check(self) -> None:
        if not self.criteria or not self.speedups:
            raise ValueError("pruning needs at least one criterion and one speed-up")
        for criterion in self.criteria:
            _criterion(criterion)
        for speedup in self.speedups:
            if not 1 < speedup < math.inf:
                raise ValueError(f"a speed-up must be a number above 1, got {speedup}")
        FineTune(self.epochs, self.lr)

    def _asked(
        self, network: ZooNetwork, speedup: float, method: str, metanet: MetaNetwork | None
    ) -> tuple[Path, dict[str, Any]]:
        """Where a pruned network lies below ``networks``, and what it is made of."""
        used = metanet if method == METANETWORK else None
        asked = {
            "network": model_hash(network.module),
            "images": dataclasses.asdict(network.images),
            "metanet": None if used is None else model_hash(used),
            "method": method,
            "speedup": speedup,
            "epochs": self.epochs,
            "lr": self.lr,
            "seed": self.seed,
        }
        if (kind := find_device(self.device).type) != "cpu":  # its sums, and its times, are others
            asked["device"] = kind
        source = None if used is not None else CRITERIA.source_hash(_criterion(method)[0])
        if source is not None:  # an edited criterion of one's own is another
            asked["source"] = source
        return Path(network.recipe.name, f"{method.replace(':', '.')}-x{speedup:g}"), asked

    def _once(
        self, network: ZooNetwork, speedup: float, method: str, metanet: MetaNetwork | None, task: Task, out: Path
    ) -> dict[str, Any]:
        """The figures of one pruned network, from its folder or made now."""
        place, asked = self._asked(network, speedup, method, metanet)
        used, folder = metanet if method == METANETWORK else None, out / "networks" / place
        if not _done(folder, asked):
            criterion, least_squares = ("group-l2", None) if used is not None else _criterion(method)
            trains = hasattr(CRITERIA.find(criterion), "penalty") or (used is not None and used.mode == "change")
            before = self.epochs // 2 if trains else 0
            result = prune(
                network.module.to(find_device(self.device)),
                used,
                task,
                speedup=speedup,
                criterion=criterion,
                reconstruct=least_squares,
                fine_tune=FineTune(self.epochs - before, self.lr),
                prepare=FineTune(before, self.lr),
                seed=self.seed,
                tensorboard=None if self.tensorboard is None else self.tensorboard / place,
            )
            result.module.cpu()
            save_pruned(folder, result, {"asked": asked})
        header = read_header(folder)
        named = {"network": network.recipe.name, "method": method, "target": speedup}
        return {**named, **header["figures"], "widths": header.get("widths")}

    def _publish(
        self, runs: list[dict[str, Any]], methods: list[str], seen: Mapping[str, str], out: Path, console: Console
    ) -> dict[str, Any]:
        chosen = {
            (method, target): [run for run in runs if (run["method"], run["target"]) == (method, target)]
            for method, target in itertools.product(methods, self.speedups)
        }
        base = self.criteria[0]
        summary = [_summary(found, chosen[base, target]) for (_, target), found in chosen.items()]
        dense = {run["network"]: run["accuracy_before"] for run in runs}
        unpruned, half = mean_ci(list(dense.values()))
        figures = {
            **provenance("meta prune", self),
            "metric": runs[0]["metric"],
            "unpruned": unpruned,
            "unpruned_ci95": finite_or_none(half),
            "in_meta_training": dict(seen),
            "summary": summary,
            "runs": runs,
        }
        written = write_json(out / "metrics.json", figures)
        curves = [_curve(method, [s for s in summary if s["method"] == method]) for method in methods]
        plot = plot_curves(
            out / "accuracy.png",
            curves,
            level=("unpruned", unpruned, half),
            title=f"{len(dense)} networks, {self.epochs} epochs of fine-tuning",
            x_label="speed-up (FLOPs before / after)",
            y_label=f"test {runs[0]['metric']}",
        )
        say(
            console,
            f"{len(dense)} networks, {interval(unpruned, half, scale=100)} unpruned; {self.epochs} epochs of "
            f"fine-tuning for every method; mean ± 95 % interval over networks",
        )
        title = f"test {runs[0]['metric']} (%) at each speed-up"
        columns = ["", *(f"{speed:g}x" for speed in self.speedups)]
        console.print(table(title, columns, _table_rows(summary, methods, base)))
        if seen:
            say(console, f"{len(seen)} of {len(dense)} networks took part in meta-training: they flatter it")
        page = write_report(out, prune_run)
        say(console, f"networks: {out / 'networks'}  plot: {plot}  figures: {written}  page: {page}")
        return figures


def _done(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a network that was pruned just so lies there."""
    return (folder / HEADER).exists() and read_header(folder).get("asked") == asked


def find_metanet(name: str) -> MetaNetwork | None:
    """The metanetwork of a file or of a pretrained name; None for "none".

    Raises:
        DataError: the file is damaged or no metanetwork.
        ValueError: there is neither a file nor a pretrained metanetwork of that name.
    """
    if spelling(name, ["none"]):
        return None
    if Path(name).suffix == ".safetensors" or Path(name).exists():
        return MetaNetwork.load(name).eval()
    return MetaNetwork.from_pretrained(name).eval()


def _criterion(method: str) -> tuple[str, bool]:
    """The criterion behind a baseline's name, and whether least squares follow.

    Raises:
        ValueError: there is no such criterion, or something else follows the plus.
    """
    criterion, plus, more = method.partition("+")
    if plus and spelling(more, ["least-squares"]) is None:
        raise ValueError(f"a criterion may be followed by +least-squares, not by {plus + more!r}")
    return Selection(criterion).criterion, bool(plus)


def _summary(found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the networks of one method and target, and the paired difference to the baseline."""
    figures: dict[str, Any] = {"method": found[0]["method"], "target": found[0]["target"], "networks": len(found)}
    for key in ("accuracy", "accuracy_untuned", "val", "speedup", "flops", "params", "latency_ms"):
        mean, half = mean_ci([float(run[key]) for run in found])
        figures |= {key: mean, f"{key}_ci95": finite_or_none(half)}
    if found is not base:
        difference = paired_difference([run["accuracy"] for run in found], [run["accuracy"] for run in base])
        figures["difference"] = {
            "to": base[0]["method"],
            "mean": difference.mean,
            "ci95": finite_or_none(difference.half_width),
            "wins": difference.wins,
        }
    return figures


def _table_rows(summary: Sequence[Mapping[str, Any]], methods: Sequence[str], base: str) -> list[list[str]]:
    rows, differences = [], []
    for method in methods:
        mine = [each for each in summary if each["method"] == method]
        rows.append([method, *(interval(each["accuracy"], each["accuracy_ci95"], scale=100) for each in mine)])
        if method != base:
            cells = [each["difference"] for each in mine]
            label = f"{method} - {base}"
            differences.append(
                [label, *("+" * (c["mean"] >= 0) + interval(c["mean"], c["ci95"], scale=100) for c in cells)]
            )
    return [*rows, *differences]


def _curve(method: str, points: Sequence[Mapping[str, Any]]) -> Curve:
    points = sorted(points, key=lambda each: each["target"])
    halves = [math.nan if each["accuracy_ci95"] is None else each["accuracy_ci95"] for each in points]
    return Curve(method, [each["speedup"] for each in points], [each["accuracy"] for each in points], halves)


def _took_part(metanet: MetaNetwork | None, networks: Sequence[ZooNetwork]) -> dict[str, str]:
    """Which of the networks the metanetwork has learned from or was chosen by: name -> "learned" or "judged"."""
    if metanet is None:
        return {}
    roles = {found: role for role in ("judged", "learned") for found in metanet.notes.get(role, ())}
    hashes = {each.recipe.name: model_hash(each.module) for each in networks}
    return {name: roles[found] for name, found in hashes.items() if found in roles}
