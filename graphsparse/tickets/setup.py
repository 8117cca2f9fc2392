"""From names to a problem: a data set, a backbone and a protocol."""

from __future__ import annotations

from typing import Any, cast

from graphsparse.data import load
from graphsparse.fit import NodeTask
from graphsparse.nn import make
from graphsparse.tickets.problem import Problem, Training


def open_problem(dataset: str, model: str, hidden: int, seed: int, protocol: str, features: str = "raw") -> Problem:
    """The problem of a backbone on a data set that is known by name."""
    data = load(dataset, normalize_features=features != "raw")
    net = make(model, data.num_features, data.num_classes, hidden, seed=seed)
    about = {"task": "node", "protocol": protocol, "split": 0, "dataset": dataset}
    return Problem(net, data, NodeTask(data, protocol=cast(Any, protocol)), Training(), seed=seed, about=about)
