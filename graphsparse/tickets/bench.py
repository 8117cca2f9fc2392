"""Runs a comparison of ticket finders: in parallel, one JSON line a run, resumed where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from graphsparse.data import load
from graphsparse.fit import Bars, FitResult
from graphsparse.report import (
    Curve,
    append_row,
    commit,
    plain,
    plot_curves,
    read_rows,
    say,
    unchanged,
    versions,
    write_json,
)
from graphsparse.tickets.anatomy import anatomy
from graphsparse.tickets.make import as_ticket
from graphsparse.tickets.problem import Problem, Training, train_dense
from graphsparse.tickets.protocol import KEY, SETTING, Experiment, Trial, base_of, method_of, row_key, trials_of
from graphsparse.tickets.registry import source_of
from graphsparse.tickets.search import level_keeps
from graphsparse.tickets.setup import problem_of
from graphsparse.tickets.verdict import pages, verdicts
from graphsparse.whole import written_whole

ROWS = "rows.jsonl"
Run = tuple[str, Trial, int]  # method, trial, level
Work = tuple[Experiment, int, list[Run]]  # experiment, seed, its missing runs


@dataclasses.dataclass(frozen=True)
class Bench:
    """What ``graphsparse bench tickets`` is asked for.

    Args:
        experiments: what is compared.
        jobs: processes of one thread each.
    """

    experiments: Sequence[Experiment]
    jobs: int = os.cpu_count() or 1

    def run(self, out: Path, console: Console) -> list[dict[str, Any]]:
        """Make the runs that ``out`` lacks, write summary, tables and plots there, and print the tables.

        Every run appends one line to ``rows.jsonl`` in ``out``: an interrupted comparison goes on from there, and
        another one may share the folder.
        """
        rows = out / ROWS
        done = {row_key(row) for row in read_rows(rows, KEY)}
        work = missing_work(self.experiments, done)
        total = sum(len(missing) for *_, missing in work)
        say(console, f"{total} runs to make, {len(done)} made before; rows: {rows}")
        self._make(work, total, out)
        return self._publish(out, console)

    def _make(self, work: Sequence[Work], total: int, out: Path) -> None:
        with Bars() as bars:
            bar, made = bars.add("runs"), 0
            bar(0, total, {})
            for count in self._counts(work, out):
                made += count
                bar(made, total, {})

    def _counts(self, work: Sequence[Work], out: Path) -> Iterator[int]:
        """Do the work; how many runs each part of it made."""
        # Without huge pages the activations of a graph like PubMed's are mapped anew every step, a third of its time.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch, read at a process's first tensor
        if self.jobs <= 1 or len(work) <= 1:
            threads = torch.get_num_threads()
            _one_thread()  # figures of time are those of one thread, however many runs there are at once
            try:
                yield from (run_seed(*item, out) for item in work)
            finally:
                torch.set_num_threads(threads)
            return
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            futures = [pool.submit(run_seed, *item, out) for item in work]
            try:
                yield from (future.result() for future in as_completed(futures))
            finally:  # after an error, what has not begun does not begin
                pool.shutdown(wait=False, cancel_futures=True)

    def _publish(self, out: Path, console: Console) -> list[dict[str, Any]]:
        rows = asked_rows(self.experiments, read_rows(out / ROWS, KEY))
        found = verdicts(rows)
        content = {"command": "graphsparse bench tickets", "versions": versions(), "runs": len(rows)}
        summary = write_json(out / "summary.json", {**content, "settings": found})
        text = pages(found)
        tables = out / "tables.md"
        with written_whole(tables) as partial:
            partial.write_text(text + "\n")
        for verdict in found:
            _plot(out, verdict)
        from rich.markdown import Markdown

        console.print(Markdown(text))
        say(console, f"rows: {out / ROWS}  summary: {summary}  tables: {tables}  plots: {out}/*.png")
        return found


def asked_rows(experiments: Sequence[Experiment], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the experiments' settings, whatever their method, level and seed; of every method as many trials.

    Where experiments of a setting differ in their trials, the fewest count. Rows of a finder that is not at hand, or
    whose source has changed since, are left out.
    """
    count: dict[str, int] = {}
    for experiment in experiments:
        name = json.dumps(experiment.setting)
        count[name] = min(count.get(name, experiment.trials), experiment.trials)
    known = {method: _at_hand(method) for method in {row["method"] for row in rows}}
    asked = []
    for row in rows:
        trials, source = known[row["method"]]
        tried = trials[: count.get(json.dumps({name: row[name] for name in SETTING}), 0)]
        if row["trial"] in tried and row.get("source") == source.get("source"):
            asked.append(row)
    return asked


def _at_hand(method: str) -> tuple[Sequence[Trial], dict[str, str]]:
    """The trials of a method and where it comes from; no trials where it cannot be had."""
    if method == "dense":
        return [{}], {}
    try:
        return trials_of(base_of(method)), _source(method)
    except (ValueError, ImportError):
        return [], {}


def _one_thread() -> None:
    torch.set_num_threads(1)  # two processes of one thread each finish more runs than one of two


def missing_work(experiments: Sequence[Experiment], done: set[str]) -> list[Work]:
    """What is not done, by setting and seed: experiments of one setting share its dense model and its checkpoints."""
    work: dict[str, Work] = {}
    for experiment in experiments:
        for seed in range(experiment.seeds):
            name = json.dumps([experiment.setting, seed])
            _, _, runs = work.setdefault(name, (experiment, seed, []))
            runs += [run for run in missing_runs(experiment, seed, done) if run not in runs]
    return [item for item in work.values() if item[2]]


def missing_runs(experiment: Experiment, seed: int, done: set[str]) -> list[Run]:
    """The runs of a seed that are not done, the dense one's row among them."""
    shared = experiment.setting | {"seed": seed}
    runs = [("dense", {}, 0), *experiment.runs()]
    return [
        (method, trial, level)
        for method, trial, level in runs
        if row_key(shared | {"method": method, "trial": trial, "level": level} | _source(method)) not in done
    ]


def _source(method: str) -> dict[str, str]:
    source = None if method == "dense" else source_of(base_of(method))
    return {} if source is None else {"source": source}


def run_seed(experiment: Experiment, seed: int, missing: Sequence[Run], out: Path) -> int:
    """Train the dense model of a seed and make its missing runs; returns how many."""
    shared = experiment.setting | {"seed": seed}
    digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]
    folder = out / "checkpoints" / f"{experiment.name}-{seed}-{digest}"
    made_by = {"commit": commit(), "clean": unchanged(), "torch": torch.__version__}
    data = load(experiment.dataset, normalize_features=experiment.features != "raw")
    problem = problem_of(
        data,
        model=experiment.model,
        hidden=experiment.hidden,
        seed=seed,
        training=Training(epochs=experiment.epochs, lr=experiment.lr, weight_decay=experiment.weight_decay),
        protocol=experiment.protocol,
        folder=folder,
        progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    dense = train_dense(problem)
    trials: dict[str, Problem] = {}
    for method, trial, level in missing:
        row = shared | {"method": method, "trial": dict(trial), "level": level}
        if method == "dense":
            append_row(out / ROWS, row | _dense_figures(problem, dense) | made_by)
            continue
        name = hashlib.sha256(json.dumps([method, trial], sort_keys=True).encode()).hexdigest()[:12]
        if name not in trials:
            trials = {name: _of_trial(problem, method, trial, folder / name)}  # the one before is not needed again
        figures = sparse_figures(trials[name], dense, method, trial, level)
        append_row(out / ROWS, row | figures | made_by | _source(method))
    shutil.rmtree(folder, ignore_errors=True)
    return len(missing)


def _of_trial(problem: Problem, method: str, trial: Trial, folder: Path) -> Problem:
    _, options = method_of(method, trial)
    training = dataclasses.replace(problem.training, distill=trial.get("distill", problem.training.distill))
    folder.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(problem, training=training, edge_options=options, folder=folder)


def sparse_figures(problem: Problem, dense: FitResult, method: str, trial: Trial, level: int) -> dict[str, Any]:
    """Run a finder at a level: the ticket's figures, the time, and what is left of the graph."""
    finder, _ = method_of(method, trial)
    keeps = level_keeps(level)
    found = finder(problem, dense, *keeps)
    seconds = found.result.seconds if found.seconds is None else found.seconds
    ticket = as_ticket(problem, dense, method, *keeps, found)
    left = anatomy(problem.data.edge_index[:, found.edge_mask], int(problem.data.num_nodes), _classes(problem))
    figures: dict[str, Any] = plain(ticket.metrics)
    return figures | left | {"seconds": seconds, "ticket": ticket.hash, "maximize": problem.task.metric.maximize}


def _dense_figures(problem: Problem, dense: FitResult) -> dict[str, Any]:
    whole = anatomy(problem.data.edge_index, int(problem.data.num_nodes), _classes(problem))
    metric = problem.task.metric
    figures = {"metric": metric.name, "maximize": metric.maximize, "val": dense.val, "test": dense.test}
    return figures | {"seconds": dense.seconds} | whole


def _classes(problem: Problem) -> Any:
    y = getattr(problem.data, "y", None)
    return y if isinstance(y, torch.Tensor) and y.dim() == 1 and len(y) == problem.data.num_nodes else None


def _plot(out: Path, verdict: dict[str, Any]) -> None:
    dense = verdict["dense"]
    half = dense["test_ci95"]
    curves = [
        Curve(
            method["method"],
            [cell["level"] for cell in method["levels"]],
            [cell["test"] for cell in method["levels"]],
            [float("nan") if cell["test_ci95"] is None else cell["test_ci95"] for cell in method["levels"]],
        )
        for method in verdict["methods"]
    ]
    name = "-".join(str(verdict["setting"][key]) for key in ("dataset", "model", "hidden", "protocol"))
    plot_curves(
        out / f"{name}.png",
        curves,
        level=("dense", dense["test"], float("nan") if half is None else half),
        title=f"{name}: mean and 95 % interval over {dense['seeds']} seeds",
        x_label="level i: 0.95^i of the edges, 0.9^i of the weights",
        y_label=f"test {verdict['metric']}",
    )
