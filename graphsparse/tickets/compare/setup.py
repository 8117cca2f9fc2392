"""From names to a problem: a backbone that suits a data set, and the task that the data set sets."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.fit import Batches
from graphsparse.nn import make, make_link_net, make_molecule_net
from graphsparse.tickets.canonical import with_ordered_copies
from graphsparse.tickets.problem import Problem, Training, task_class


def problem_of(
    data: Data,
    *,
    model: str,
    hidden: int,
    seed: int,
    training: Training,
    protocol: str | None = None,
    batches: Batches | None = None,
    **options: Any,
) -> Problem:
    """The problem of a backbone, by name, on a data set that `graphsparse.data.load` gave.

    Args:
        data: names its task and itself.
        model: a backbone's name, of those for the task.
        hidden: hidden units.
        seed: of the initial weights and of the problem.
        training: how.
        protocol: None is the task's usual one.
        batches: how it is trained in mini-batches, if it is.
        **options: other fields of the problem.

    Raises:
        ValueError: the task has no such backbone or protocol.
    """
    data = with_ordered_copies(data)
    task = task_class(data.task).of(data, protocol=protocol)
    if batches is not None:
        task = task.in_batches(batches)
    about = {"task": task.kind, "protocol": task.protocol, "split": 0, "dataset": data.name}
    net = _network(model, data, hidden, seed)
    return Problem(net, data, task, training, seed=seed, about=about, **options)


def _network(name: str, data: Data, hidden: int, seed: int) -> nn.Module:
    if data.task == "link":
        return make_link_net(name, int(data.num_nodes or 0), data.num_features, hidden, seed=seed)
    if data.task == "graph":
        return make_molecule_net(name, data.y.size(1), hidden, seed=seed)
    return make(name, data.num_features, data.num_classes, hidden, seed=seed)


def node_classes(data: Data) -> Tensor | None:
    """The class of each node ``[N]``; None where there are none."""
    y = getattr(data, "y", None)
    return y if isinstance(y, Tensor) and y.dim() == 1 and len(y) == data.num_nodes else None
