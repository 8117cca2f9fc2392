"""The runs of a comparison, a seed of a setting at a time: each is a line, and one that fails stops no other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from graphsparse.atomic_write import DISK
from graphsparse.data import DATASETS, load
from graphsparse.fit import FitResult
from graphsparse.graphs.anatomy import anatomy
from graphsparse.graphs.interop import open_graph
from graphsparse.graphs.picture import degree_counts, picture
from graphsparse.params import METHODS
from graphsparse.report import append_row, commit, plain, unchanged, versions, write_json
from graphsparse.tickets.compare.plan import (
    SETTING,
    Experiment,
    Trial,
    base_of,
    marks_of,
    method_of,
    plain_name,
    row_key,
)
from graphsparse.tickets.compare.search import level_keeps
from graphsparse.tickets.compare.setup import node_classes, problem_of
from graphsparse.tickets.finders.table import FINDERS
from graphsparse.tickets.make import as_ticket
from graphsparse.tickets.problem import Problem, Training, train_dense

ROWS, GRAPHS = "rows.jsonl", "graphs"
Run = tuple[str, Trial, int]  # method, trial, level


@dataclasses.dataclass(frozen=True)
class Work:
    """Runs that one process makes.

    Attributes:
        experiment: of which setting.
        seed: which seed.
        runs: which are missing.
    """

    experiment: Experiment
    seed: int
    runs: list[Run]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.experiment.name}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Where the checkpoints of the setting and seed go, a folder for each trial of a method."""
        digest = _short([self.experiment.setting, self.seed])
        return out / "checkpoints" / f"{self.experiment.name}-{self.seed}-{digest}"


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
    def of(run: str, error: Exception, said: str | None = None) -> Failure:
        """The failure that an error is, in its own words or in others."""
        return Failure(run, said or f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def missing_work(experiments: Sequence[Experiment], done: set[str]) -> list[Work]:
    """What is not done, by setting and seed: experiments of one setting share its dense model."""
    work: dict[str, Work] = {}
    for experiment in experiments:
        for seed in range(experiment.seeds):
            name = json.dumps([experiment.setting, seed])
            runs = work.setdefault(name, Work(experiment, seed, [])).runs
            runs += [run for run in missing_runs(experiment, seed, done) if run not in runs]
    return [item for item in work.values() if item.runs]


def shared_out(work: Sequence[Work], jobs: int) -> list[Work]:
    """Work for so many processes: where seeds are fewer, their methods are shared out, each part with its dense model.

    Example:
        >>> runs = [("dense", {}, 0), ("teddy", {}, 5), ("random", {}, 5), ("teddy", {}, 9)]
        >>> [[run[::2] for run in part.runs] for part in shared_out([Work(Experiment("cora"), 0, runs)], 2)]
        [[('dense', 0), ('teddy', 5), ('teddy', 9)], [('random', 5)]]
    """
    parts = -(-jobs // max(len(work), 1))
    shares = []
    for item in work:
        methods = dict.fromkeys(method for method, *_ in item.runs if method != "dense")
        part_of = {method: place % parts for place, method in enumerate(methods)} | {"dense": 0}
        shares += [
            dataclasses.replace(item, runs=[run for run in item.runs if part_of[run[0]] == part])
            for part in sorted({part_of[method] for method, *_ in item.runs})
        ]
    return shares


def missing_runs(experiment: Experiment, seed: int, done: set[str]) -> list[Run]:
    """The runs of a seed that are not done, the dense one's row among them."""
    shared = experiment.setting | {"seed": seed}
    runs = [("dense", {}, 0), *experiment.runs()]
    return [
        (method, trial, level)
        for method, trial, level in runs
        if row_key(shared | {"method": method, "trial": trial, "level": level} | made_by(method, experiment.dataset))
        not in done
    ]


def made_by(method: str, dataset: str) -> dict[str, str]:
    """Of a finder or a data set of one's own: what it was made by; such rows are not those of another source."""
    sources = [DATASETS.source_hash(dataset)]
    if method != "dense":
        sources = [FINDERS.source_hash(base_of(method)), METHODS.source_hash(marks_of(method).weights), *sources]
    known = [source for source in sources if source is not None]
    return {"source": "+".join(known)} if known else {}


def make_runs(work: Work, out: Path, device: str = "cpu", tensorboard: Path | None = None) -> Iterator[Failure | None]:
    """Train the dense model of a seed and make its missing runs; after each, how it failed, or None.

    Trials have checkpoints, which go once all their runs are made; the dense model has none, because it is not alone in
    needing one: other processes train it, too.

    Args:
        work: which runs.
        out: the folder of the comparison.
        device: where the networks are trained.
        tensorboard: a folder for TensorBoard's logs; None writes none.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        logs = None if tensorboard is None else tensorboard / work.folder(Path()).name
        problem = dataclasses.replace(_problem(work.experiment, work.seed, device), tensorboard=logs)
        dense = train_dense(problem)
    except Exception as error:
        yield from [Failure.of(f"{work.name}, the dense model", error)] * len(work.runs)
        return
    folder, trials, failed = work.folder(out), dict[str, Problem](), set[str]()
    about = {"commit": commit(), "clean": unchanged(), "versions": versions()}
    for method, trial, level in work.runs:
        row = work.experiment.setting | {"seed": work.seed, "method": method, "trial": dict(trial), "level": level}
        source = made_by(method, work.experiment.dataset)
        own = _short([method, trial, source])
        try:
            if method == "dense":
                figures = _dense_figures(problem, dense)
            else:
                if own not in trials:
                    _forget(folder, trials.keys() - failed)
                    trials = {own: _of_trial(problem, method, trial, folder / own)}  # the one before has done its work
                figures = sparse_figures(trials[own], dense, method, trial, level)
                mask = figures.pop("edge_mask")
                if work.seed == 0 and level == max(run[2] for run in work.runs if run[:2] == (method, trial)):
                    _draw(problem, mask, graph_file(out, work.experiment.setting, method, trial, level))
            append_row(out / ROWS, plain(row | figures | about | source))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise  # no later run could be written down either
            failed.add(own)
            yield Failure.of(f"{work.name}, {method} {dict(trial)} at level {level}", error)
        else:
            yield None
    _forget(folder, trials.keys() - failed)


def graph_file(out: Path, setting: Mapping[str, Any], method: str, trial: Trial, level: int) -> Path:
    """Where a comparison keeps what its page draws of a graph: what a method left of it at its sparsest level."""
    named = [*(setting[name] for name in SETTING), method, dict(trial), level]
    return out / GRAPHS / f"{_short(named)}.json"


def _draw(problem: Problem, mask: Tensor, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    drawn = picture(open_graph(problem.data).edges, mask, y=node_classes(problem.data))
    write_json(file, plain(drawn), dense=True)


def _forget(folder: Path, trials: Iterable[str]) -> None:
    """Remove the checkpoints of trials, and the folder if no others are left in it."""
    for name in trials:
        shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _short(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _problem(experiment: Experiment, seed: int, device: str = "cpu") -> Problem:
    data = load(
        experiment.dataset,
        split=experiment.split,
        seed=0 if experiment.split is None else seed,
        normalize_features=experiment.features != "raw",
    )
    return problem_of(
        data,
        model=experiment.model,
        hidden=experiment.hidden,
        seed=seed,
        training=Training(
            epochs=experiment.epochs, lr=experiment.lr, weight_decay=experiment.weight_decay, device=device
        ),
        protocol=experiment.protocol,
        progress=False,
    )


def _of_trial(problem: Problem, method: str, trial: Trial, folder: Path) -> Problem:
    _, options = method_of(method, trial)
    marks, distill = marks_of(method), trial.get("distill", problem.training.distill)
    training = dataclasses.replace(
        problem.training, distill=distill, pattern=marks.pattern, weights=marks.weights, distribution=None
    )
    folder.mkdir(parents=True, exist_ok=True)
    logs = None if problem.tensorboard is None else problem.tensorboard / f"{method.replace(':', '.')}-{folder.name}"
    return dataclasses.replace(problem, training=training, edge_options=options, folder=folder, tensorboard=logs)


def sparse_figures(problem: Problem, dense: FitResult, method: str, trial: Trial, level: int) -> dict[str, Any]:
    """Run a finder at a level: the ticket's figures, the time, what is left of the graph, and ``edge_mask`` ``[E]``."""
    finder, _ = method_of(method, trial)
    keeps = level_keeps(level)
    found = finder(problem, dense, *keeps)
    seconds = found.result.seconds if found.seconds is None else found.seconds
    ticket = as_ticket(problem, dense, plain_name(method), *keeps, found)
    left = _left(problem, problem.data.edge_index[:, found.edge_mask])
    return (
        dict(ticket.metrics)
        | left
        | {"seconds": seconds, "ticket": ticket.hash, "maximize": problem.task.metric.maximize}
        | {"edge_mask": found.edge_mask}
    )


def _dense_figures(problem: Problem, dense: FitResult) -> dict[str, Any]:
    whole = _left(problem, problem.data.edge_index)
    metric = problem.task.metric
    figures = {"metric": metric.name, "maximize": metric.maximize, "val": dense.val, "test": dense.test}
    return figures | {"seconds": dense.seconds} | whole


def _left(problem: Problem, edge_index: Tensor) -> dict[str, Any]:
    """What some edges of the graph make of it; of the first seed also the degrees, which the page draws."""
    data = problem.data
    found: dict[str, Any] = anatomy(edge_index, int(data.num_nodes), node_classes(data))
    if problem.seed == 0:
        ends = edge_index[:, edge_index[0] != edge_index[1]].cpu().numpy()
        both = 2 if open_graph(data).edges.mirrored else 1  # arcs of an edge
        found["degrees"] = degree_counts(np.bincount(ends.ravel(), minlength=int(data.num_nodes)) // both)
    return found
