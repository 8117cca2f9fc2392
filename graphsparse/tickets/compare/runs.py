"""A seed of a setting in a comparison of ticket finders: its dense model, and the tickets that are made beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from graphsparse.compare import digest_of
from graphsparse.data import load
from graphsparse.fit import FitResult
from graphsparse.graphs.anatomy import anatomy
from graphsparse.graphs.interop import open_graph
from graphsparse.graphs.picture import degree_counts, picture
from graphsparse.report import plain, write_json
from graphsparse.tickets.compare.plan import SETTING, Experiment, Trial, marks_of, method_of, plain_name
from graphsparse.tickets.compare.search import level_keeps
from graphsparse.tickets.compare.setup import node_classes, problem_of
from graphsparse.tickets.make import as_ticket
from graphsparse.tickets.problem import Problem, Training, train_dense

GRAPHS = "graphs"


class TicketSeat:
    """A seed of a setting, whose dense model is trained.

    Args:
        experiment: of which setting.
        seed: which seed.
        out: the folder of the comparison.
        device: where networks are trained.
        tensorboard: where TensorBoard's logs go, if they do.
    """

    def __init__(self, experiment: Experiment, seed: int, out: Path, device: str, tensorboard: Path | None) -> None:
        self.experiment, self.seed, self.out = experiment, seed, out
        self.problem = dataclasses.replace(_problem(experiment, seed, device), tensorboard=tensorboard)
        self.dense = train_dense(self.problem)
        self._trials: dict[Path, Problem] = {}

    def figures(self, method: str, trial: Trial, step: int, folder: Path, *, last: bool) -> dict[str, Any]:
        """The figures of a run; of the sparsest of the first seed the graph is drawn, too."""
        if method == "dense":
            return _dense_figures(self.problem, self.dense)
        if folder not in self._trials:  # levels of a trial share what a finder remembers
            self._trials = {folder: _of_trial(self.problem, method, trial, folder)}
        found = sparse_figures(self._trials[folder], self.dense, method, trial, step)
        mask = found.pop("edge_mask")
        if self.seed == 0 and last:
            _draw(self.problem, mask, graph_file(self.out, self.experiment.setting, method, trial, step))
        return found


def graph_file(out: Path, setting: Mapping[str, Any], method: str, trial: Trial, level: int) -> Path:
    """Where a comparison keeps what its page draws of a graph: what a method left of it at its sparsest level."""
    named = [*(setting[name] for name in SETTING), method, dict(trial), level]
    return out / GRAPHS / f"{digest_of(named)}.json"


def _draw(problem: Problem, mask: Tensor, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    drawn = picture(open_graph(problem.data).edges, mask, y=node_classes(problem.data))
    write_json(file, plain(drawn), dense=True)


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
