"""What the command ``graphsparse meta prune`` does: networks pruned by several methods, a table, a plot, a page."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from graphsparse.fit import Bars, Task, finite_or_none, mean_ci, paired_difference
from graphsparse.fit.fingerprint import model_hash
from graphsparse.fit.measure import find_device
from graphsparse.locking import only_one
from graphsparse.metanet.channels import CRITERIA
from graphsparse.metanet.fine_tuning import FineTune
from graphsparse.metanet.learn import HEADER, Images, ZooNetwork, load_network, load_zoo, read_header, save_pruned
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.page import prune_run
from graphsparse.metanet.pruning import Selection, prune
from graphsparse.registry import spelling
from graphsparse.report import Curve, interval, plot_curves, provenance, say, table, write_json
from graphsparse.report.runs import PAGE, write_report

METANETWORK = "metanetwork"


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
