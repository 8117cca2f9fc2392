"""The comparison of sparse training: what makes its runs, and what is said of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from graphsparse.compare import Comparison, differs
from graphsparse.compare.comparison import Trial, Verdict
from graphsparse.data import DATASETS
from graphsparse.fit import Callback, cosine, fit, steps_of
from graphsparse.fit.measure import find_device
from graphsparse.params import METHODS, NofM
from graphsparse.report import Curve, interval, markdown, plot_curves, shown_as
from graphsparse.report.parts import Run
from graphsparse.sparse.compare.plan import RANDOM, SEARCH, SETTING, Experiment, axes_of, base_of, share_of, trials_of
from graphsparse.sparse.study import SparseStudy
from graphsparse.sparse.training import train


class SparseSeat:
    """A seed of a setting, whose dense model is trained.

    Args:
        experiment: of which setting.
        seed: which seed.
        device: where networks are trained.
        tensorboard: where TensorBoard's logs go, if they do.
    """

    def __init__(self, experiment: Experiment, seed: int, device: str, tensorboard: Path | None) -> None:
        self.experiment, self.seed, self.device, self.tensorboard = experiment, seed, find_device(device), tensorboard
        e = experiment
        study = SparseStudy(e.dataset, model=e.model, hidden=e.hidden, epochs=e.epochs, lr=e.lr, seed=seed)
        self.task, self.net, self.epochs, self.lr = study.problem()
        self.steps = self.epochs * steps_of(self.task, self.net)
        self.dense = fit(copy.deepcopy(self.net), self.task, callbacks=self._callbacks(), **self._options(self.lr))

    def figures(self, method: str, trial: Trial, step: str, folder: Path, *, last: bool) -> dict[str, Any]:
        """The figures of a run."""
        metric = self.task.metric
        about = {"metric": metric.name, "maximize": metric.maximize}
        if method == "dense":
            whole = {"weights_kept": 1.0, "weights_kept_matrices": 1.0, "seconds": self.dense.seconds}
            return about | {"val": self.dense.val, "test": self.dense.test, "steps": self.steps} | whole
        folder.mkdir(parents=True, exist_ok=True)
        result = train(
            self.net,
            self.task,
            base_of(method),
            keep=step,
            axes=axes_of(method, trial, self.steps, step),
            init=self._init(method, step),
            callbacks=self._callbacks(),
            checkpoint=folder / step.replace(":", "of"),
            **self._options(self.lr * trial.get("lr_factor", 1.0)),
        )
        return about | result.metrics | {"seconds": result.fit.seconds}

    def _options(self, lr: float) -> dict[str, Any]:
        sgd = partial(torch.optim.SGD, momentum=0.9) if self.experiment.optimizer == "sgd" else None
        return {
            "epochs": self.epochs,
            "lr": lr,
            "weight_decay": self.experiment.weight_decay,
            "seed": self.seed,
            "optimizer": sgd,
            "device": self.device,
            "tensorboard": self.tensorboard,
            "progress": False,
        }

    def _callbacks(self) -> list[Callback]:
        return [cosine(self.steps)] if self.experiment.optimizer == "sgd" else []

    def _init(self, method: str, keep: str) -> str | None:
        """The setting's, for methods whose masks hold from the start."""
        pattern = NofM.read(keep) if ":" in keep else None
        axes = METHODS.find(base_of(method)).axes(base_of(method), self.steps, pattern)
        dense = getattr(axes.get("rule"), "dense", False) or "schedule" in axes
        return None if dense else self.experiment.init


class SparseComparison(Comparison):
    """Methods of sparse training at kept shares, on any network."""

    command: ClassVar[str] = "bench sparse"
    setting: ClassVar[tuple[str, ...]] = SETTING
    step: ClassVar[str] = "keep"
    figures: ClassVar[tuple[str, ...]] = ("weights_kept", "weights_kept_matrices", "seen", "seconds", "steps")
    references: ClassVar[tuple[str, ...]] = ("dense", "random-erk", SEARCH, RANDOM)

    def seat(self, experiment: Experiment, seed: int, out: Path, device: str, tensorboard: Path | None) -> SparseSeat:
        """Train the dense model of a seed."""
        return SparseSeat(experiment, seed, device, tensorboard)

    def trials_of(self, method: str) -> Sequence[Trial]:
        """What is tried of a method."""
        return trials_of(method)

    def made_by(self, method: str, dataset: str) -> dict[str, str]:
        """Of a method or a data set of one's own: what it was made by."""
        own = [] if method == "dense" else [METHODS.source_hash(base_of(method))]
        known = [source for source in (*own, DATASETS.source_hash(dataset)) if source is not None]
        return {"source": "+".join(known)} if known else {}

    def order(self, step: Any) -> Any:
        """From the densest on; 1:16 is compared with 0.0625."""
        return 0 if step == 0 else -share_of(step)

    def picks_each_seed(self, method: str) -> bool:
        """The trials of the random search are draws."""
        return method == SEARCH

    def reference(self, reference: str, method: str) -> str:
        """The same method with random scores is another one for each."""
        return f"{method}+{RANDOM}" if reference == RANDOM else reference

    def pages(self, found: Sequence[Verdict]) -> str:
        """For each setting the metric by method and keep."""
        return "\n\n".join(map(_page, found))

    def plot(self, out: Path, verdict: Verdict) -> None:
        """The metric against the kept share."""
        dense, name = verdict["dense"], name_of(verdict)
        curves = [
            Curve(
                method["method"],
                [100 * (1 - float(share_of(cell["keep"]))) for cell in method["levels"]],
                [cell["test"] for cell in method["levels"]],
                [cell["test_ci95"] if len(cell["seeds"]) > 2 else float("nan") for cell in method["levels"]],
            )
            for method in verdict["methods"]
            if "+" not in method["method"]
        ]
        plot_curves(
            out / f"{name}.png",
            curves,
            level=("dense", dense["test"], float("nan") if dense["test_ci95"] is None else dense["test_ci95"]),
            title=f"{name}: mean and 95 % interval over {dense['seeds']} seeds",
            x_label="weights of matrices removed, %",
            y_label=f"test {verdict['metric']}",
        )

    def page(self, folder: Path) -> Run | None:
        """Methods beside each other in every setting."""
        from graphsparse.sparse.compare.page import bench_run  # which reads what is compared here

        return bench_run(folder)


def name_of(verdict: Verdict) -> str:
    """A setting as a word for a file."""
    s = verdict["setting"]
    return f"{s['dataset']}-{s['model']}{s['hidden']}-{s['optimizer']}" + ("" if s["init"] is None else f"-{s['init']}")


def title(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    init = "" if setting["init"] is None else f", {setting['init']} init"
    words = f"{setting['dataset']}, {setting['model']} {setting['hidden']}, {setting['epochs']} epochs of"
    return f"{words} {setting['optimizer']}{init}"


MARKS = {"dense": "†", "random-erk": "*", RANDOM: "‡"}


def _page(verdict: Verdict) -> str:
    dense, (scale, digits) = verdict["dense"], shown_as(verdict["maximize"])
    keeps = sorted({cell["keep"] for method in verdict["methods"] for cell in method["levels"]}, key=SPARSE.order)
    unit = f"test {verdict['metric']}" + (", %" if scale == 100 else "")
    rows = [["dense", *[interval(dense["test"], dense["test_ci95"], scale=scale, digits=digits)] * len(keeps), "", ""]]
    for method in verdict["methods"]:
        cells = {cell["keep"]: cell for cell in method["levels"]}
        seen, seconds = ([c[k] for c in cells.values() if c.get(k) is not None] for k in ("seen", "seconds"))
        texts = [_text(cells.get(keep), dense["seeds"], scale, digits) for keep in keeps]
        rows.append([method["method"], *texts, f"{100 * seen[-1]:.1f}" if seen else "-", f"{max(seconds):.1f}"])
    count = "1 seed" if dense["seeds"] == 1 else f"{dense['seeds']} seeds"
    note = (
        f"{count}; columns are the kept share of the matrices' weights. * differs from random-erk, † from dense, "
        "‡ from the same method with random scores (Holm over this table, p < 0.05)"
    )
    columns = [unit, *(f"keep {keep}" for keep in keeps), "ever kept, %", "training, s"]
    return "\n\n".join([f"### {title(verdict['setting'])}", note, markdown(columns, rows)])


def _text(cell: Mapping[str, Any] | None, seeds: int, scale: int, digits: int) -> str:
    if cell is None:
        return "-"
    marks = "".join(mark for name, mark in MARKS.items() if differs(cell.get(f"minus_{name}")))
    fewer = "" if len(cell["seeds"]) == seeds else f" (n={len(cell['seeds'])})"
    return interval(cell["test"], cell["test_ci95"], scale=scale, digits=digits) + marks + fewer


SPARSE = SparseComparison()
