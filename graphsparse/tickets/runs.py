"""The runs of a comparison, a seed of a setting at a time: each is a line, and one that fails stops no other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from graphsparse.data import load
from graphsparse.fit import FitResult
from graphsparse.report import append_row, commit, plain, unchanged, versions
from graphsparse.tickets.anatomy import anatomy
from graphsparse.tickets.make import as_ticket
from graphsparse.tickets.problem import Problem, Training, train_dense
from graphsparse.tickets.protocol import Experiment, Trial, base_of, method_of, row_key
from graphsparse.tickets.registry import source_of
from graphsparse.tickets.search import level_keeps
from graphsparse.tickets.setup import problem_of

ROWS = "rows.jsonl"
Run = tuple[str, Trial, int]  # method, trial, level
Work = tuple[Experiment, int, list[Run]]  # experiment, seed, its missing runs


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that raised an error.

    Attributes:
        run: which, in words.
        error: what it said.
        trace: where.
    """

    run: str
    error: str
    trace: str

    @staticmethod
    def of(run: str, error: Exception) -> Failure:
        """The failure that an error is."""
        trace = "".join(traceback.format_exception(error))
        return Failure(run, f"{type(error).__name__}: {error}", trace)


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
        if row_key(shared | {"method": method, "trial": trial, "level": level} | made_by(method)) not in done
    ]


def made_by(method: str) -> dict[str, str]:
    """Of a finder of one's own: what it was made by; such rows are not those of another source."""
    source = None if method == "dense" else source_of(base_of(method))
    return {} if source is None else {"source": source}


def run_seed(experiment: Experiment, seed: int, missing: Sequence[Run], out: Path) -> Iterator[Failure | None]:
    """Train the dense model of a seed and make its missing runs; after each, how it failed, or None."""
    name = f"{experiment.name}, seed {seed}"
    digest = _short([experiment.setting, seed])
    folder = out / "checkpoints" / f"{experiment.name}-{seed}-{digest}"
    try:
        problem = _problem(experiment, seed, folder)
        dense = train_dense(problem)
    except Exception as error:
        yield from [Failure.of(f"{name}, the dense model", error)] * len(missing)
        shutil.rmtree(folder, ignore_errors=True)
        return
    trials: dict[str, Problem] = {}
    for method, trial, level in missing:
        row = experiment.setting | {"seed": seed, "method": method, "trial": dict(trial), "level": level}
        own = _short([method, trial, made_by(method)])
        try:
            if method == "dense":
                figures = _dense_figures(problem, dense)
            else:
                if own not in trials:  # the one before is not needed again
                    trials = {own: _of_trial(problem, method, trial, folder / own)}
                figures = sparse_figures(trials[own], dense, method, trial, level)
        except Exception as error:
            yield Failure.of(f"{name}, {method} at level {level}", error)
            continue
        about = {"commit": commit(), "clean": unchanged(), "versions": versions()}
        append_row(out / ROWS, row | figures | about | made_by(method))
        yield None
    shutil.rmtree(folder, ignore_errors=True)  # what failed fails again, with its checkpoints or without


def _short(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _problem(experiment: Experiment, seed: int, folder: Path) -> Problem:
    folder.mkdir(parents=True, exist_ok=True)
    return problem_of(
        load(experiment.dataset, normalize_features=experiment.features != "raw"),
        model=experiment.model,
        hidden=experiment.hidden,
        seed=seed,
        training=Training(epochs=experiment.epochs, lr=experiment.lr, weight_decay=experiment.weight_decay),
        protocol=experiment.protocol,
        folder=folder,
        progress=False,
    )


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
