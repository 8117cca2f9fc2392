"""What the claims of docs/sparse.md share: digits and networks for it, how they are trained."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from graphsparse.fit import Task, cosine
from graphsparse.sparse.study import SparseStudy

Lines = dict[str, dict[str, float]]  # method -> figure -> value; what comes first is the one the others are held to
SGD = partial(torch.optim.SGD, momentum=0.9)
STEPS = 9  # of an epoch of digits


def digits(seed: int, model: str = "mlp", width: int | None = None) -> tuple[Task, nn.Module]:
    """The task and a network with its initial weights."""
    task, net, _, _ = SparseStudy("digits", model=model, hidden=width, seed=seed).problem()
    assert isinstance(task, Task)
    return task, net


def trained(epochs: int, seed: int, *, lr: float = 0.1) -> dict[str, Any]:
    """Arguments of `train` and `fit`: SGD with a cosine, as in the comparison of methods."""
    falling = {"optimizer": SGD, "callbacks": [cosine(epochs * STEPS)], "progress": False}
    return {"epochs": epochs, "lr": lr, "weight_decay": 5e-4, "seed": seed, **falling}
