"""What the claims of docs/sparse.md share: digits and networks for it, how they are trained, what is watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

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


class Watch:
    """A callback of training that looks on after every step.

    Args:
        look: called with the number of steps done.
    """

    def __init__(self, look: Callable[[int], object]) -> None:
        self.look, self.step, self._handle = look, 0, None

    def attach(self, optimizer: Optimizer) -> None:
        """Begin to look; callbacks that were attached before have acted by then."""
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def detach(self) -> None:
        """Stop."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Any]:
        """How far it came."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.step = state["step"]

    def _after_step(self, *_: object) -> None:
        self.step += 1
        self.look(self.step)
