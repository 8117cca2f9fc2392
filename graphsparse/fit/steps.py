"""A training rehearsed on a copy: its steps are counted, and a network is seen at work, with nothing changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from graphsparse.fit import rng
from graphsparse.fit.measure import device_of
from graphsparse.fit.task import BaseTask, Task


def steps_of(task: BaseTask, net: nn.Module) -> int:
    """Steps of the optimizer in one epoch: where the task does not say it, they are counted on a copy of the network.

    Example:
        >>> x, y = torch.zeros(10, 2), torch.zeros(10, dtype=torch.long)
        >>> steps_of(Task((x, y), (x, y), (x, y), batch_size=4), nn.Linear(2, 2))
        3
    """
    if type(task) is Task:
        part = task.parts["train"]
        if isinstance(part, torch.utils.data.DataLoader):
            return len(part)
        return math.ceil(len(part[1] if isinstance(part, tuple) else part) / task.batch_size)
    with rehearsed(task, net) as (_, losses):
        return sum(1 for _ in losses)


@contextmanager
def rehearsed(task: BaseTask, net: nn.Module) -> Iterator[tuple[nn.Module, Iterable[Tensor]]]:
    """A copy of the network and its losses in an epoch, without gradients; generators stay as they are."""
    twin = copy.deepcopy(net)
    device = device_of(twin)
    session = task.start(twin, device)
    with rng.preserved(device, session.generators()), torch.no_grad():
        yield twin, session.losses()
