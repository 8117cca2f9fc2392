"""Which input features a network needs: beside edges and weights the third thing of a graph to make sparse."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit import BaseTask, steps_of
from graphsparse.keep_rule import whole_number
from graphsparse.params import DropGrow, Rows
from graphsparse.params.scores import Score
from graphsparse.sparse.layers import layer_weights
from graphsparse.sparse.training import SparseResult, train


@dataclass(frozen=True)
class FeaturesResult:
    """The features that were chosen, and the network that reads them alone.

    Attributes:
        features: their numbers ``[keep]``, the strongest first.
        training: the sparse training behind it, with the module, its masks and figures.
    """

    features: Tensor
    training: SparseResult = field(repr=False)


def features(
    task: BaseTask,
    net: nn.Module,
    keep: int = 100,
    *,
    matrix: str | None = None,
    grow: str | Score = "gradient",
    fraction: float = 0.3,
    every: int | None = None,
    until: float = 0.75,
    **training: Any,
) -> FeaturesResult:
    """Rotate the inputs of a network while it is trained: the weakest features go, others come at random.

    The first matrix reads ``keep`` features at a time. Every few steps those whose weights have the least norm are
    exchanged for others, which start at zero; towards the end fewer, then none. Validation data choose the epoch only.

    Args:
        task: nodes, links, graphs, images, or one's own.
        net: a network whose first matrix reads the features along dimension 1; it is not changed.
        keep: how many features.
        matrix: the name of the matrix that reads them; None: the first one. Of layers that read features by several
            matrices (GraphSAGE, GAT) only this one is made sparse.
        grow: by what features come: ``"gradient"``, or ``"random"``, as published, which tries each one sooner or later
            and found half as many of those that mattered (8 of 30 read, 4 planted: 18 of 32 beside 32 of 32).
        fraction, every, until: of the exchange, as for :class:`graphsparse.params.DropGrow`; ``every`` None: 20
            exchanges in all. At first two features go at least.
        **training: ``epochs``, ``lr``, ``seed`` and others of :func:`graphsparse.sparse.train`.

    Raises:
        ValueError: for an unknown matrix, more features than it reads or a single one, of which nothing can be
            exchanged, and what :func:`graphsparse.sparse.train` refuses.

    Source: after Zimmer, "RelChaNet: neural network feature selection using relative change scores", 2024; here the
    features that go are those of least weight, not those of least relative change.

    Example:
        >>> from graphsparse.fit import Task
        >>> x = torch.randn(80, 12, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 3] > 0).long()
        >>> net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = features(Task((x, y), (x, y), (x, y)), net, keep=2, epochs=100, lr=0.05)
        >>> int(found.features[0])
        3
    """
    matrices = layer_weights(net)
    name = next(iter(matrices), None) if matrix is None else matrix
    if name not in matrices:
        raise ValueError(f"matrix must be one of {list(matrices)[:8]}, got {matrix!r}")
    width = matrices[name].size(1)
    keep = whole_number(keep, "keep", least=1)
    if keep > width:
        raise ValueError(f"keep={keep} is more than the {width} features that {name!r} reads")
    if keep == 1 < width:
        raise ValueError(
            "keep=1 would never be exchanged, since a share of it is none: ask for 2, the first of which is stronger"
        )
    epochs = whole_number(training.pop("epochs", 200), "epochs", least=1)
    steps = epochs * steps_of(task, net)
    every = max(1, int(until * steps) // 20) if every is None else every
    rule = DropGrow(grow, max(fraction, min(1.0, 2 / keep)), every, until)  # of few features one at least
    axes = {"pattern": Rows(1), "distribution": "uniform", "rule": rule}
    result = train(net, task, keep=Fraction(keep, width), which=(name,), axes=axes, epochs=epochs, **training)
    weight = result.module.get_parameter(name).detach()
    norms = torch.linalg.vector_norm(weight.double().transpose(0, 1).reshape(width, -1), dim=1)
    kept = result.masks[name].transpose(0, 1).reshape(width, -1).any(1)
    order = torch.argsort(norms.masked_fill(~kept, -1), descending=True, stable=True)
    return FeaturesResult(order[:keep].cpu(), result)
