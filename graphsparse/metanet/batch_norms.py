"""Statistics of batch norms after weights have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from graphsparse.fit import Task
from graphsparse.fit.measure import device_of
from graphsparse.metanet.channels import batch_statistics

_CALIBRATION_BATCHES = 16


def recalibrate(module: nn.Module, task: Task, batches: int = _CALIBRATION_BATCHES) -> None:
    """Set the running statistics of batch norms to those of training batches, in place; other state stays as it is.

    Example:
        >>> import torch
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
        >>> recalibrate(net, Task((x, y), (x, y), (x, y)))
        >>> torch.allclose(net[0].running_mean, x.mean(0), atol=1e-6)
        True
    """
    inputs = (batch.inputs for batch in islice(task.batches("train", device_of(module)), batches))
    with modes_kept(module):
        update_bn(((part,) for part in inputs), _Called(module, task))  # it takes the first of a tuple or a list


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Whatever is switched inside, each part of the module is afterwards in training or evaluation mode as before."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _Called(nn.Module):
    """A module that is called as its task calls it, with only its batch norms in training mode."""

    def __init__(self, module: nn.Module, task: Task) -> None:
        super().__init__()
        self.module, self.task = module, task

    def train(self, mode: bool = True) -> _Called:
        """Dropout stays off: statistics are those of evaluation."""
        batch_statistics(self.module.eval()) if mode else self.module.eval()
        return self

    def forward(self, inputs: Any) -> Tensor:
        return self.task.forward(self.module, inputs)
