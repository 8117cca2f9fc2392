"""A network in meta-training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.fit import Batch, Task
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep
from graphsparse.metanet.channels import Channels, Cost, flop_cost, keep_after, prefix_for, removal_order
from graphsparse.metanet.features import group_rank
from graphsparse.metanet.graph import NetworkGraph


class Member:
    """A data model in meta-training: a trained network, its graph, and what a step needs of it."""

    def __init__(
        self, net: nn.Module, task: Task, inputs: tuple[Any, ...], device: torch.device | str | None = None
    ) -> None:
        self.task = task
        self.device = device_of(net) if device is None else torch.device(device)
        self.graph = NetworkGraph.from_module(net, pytree.tree_map(_to(device_of(net)), inputs)).to(self.device)
        self.module = self.graph.to_module().eval()
        self._inputs = pytree.tree_map(_to(self.device), inputs)
        self._logits: Tensor | None = None

    @functools.cached_property
    def channels(self) -> Channels:
        """Its sets of coupled channels."""
        return Channels.of(self.graph)

    @functools.cached_property
    def cost(self) -> Cost:
        """FLOPs of a mask."""
        return flop_cost(self.graph, self.module, self._inputs)

    def teacher(self, batch: Batch) -> Tensor:
        """Outputs of the unpruned network on a batch; those of the whole training part are computed once."""
        if batch.rows is None or self.task.augment is not None:
            with torch.no_grad():
                return self.task.forward(self.module, batch.inputs)
        if self._logits is None:
            self._logits = self.task.predict(self.module, "train", self.device)
        return self._logits[batch.rows.to(self.device)]

    def random_mask(self, speedups: tuple[float, float], jitter: tuple[float, float], min_keep: Keep) -> Tensor:
        """A mask, bool ``[num_nodes]``, drawn from torch's generator; `Repair` says how."""
        channels, graph = self.channels, self.graph
        sets = torch.zeros(len(channels.group_of))
        sets[channels.set_of.cpu()] = group_rank(graph).cpu()
        per_channel, per_group = jitter
        score = (
            sets
            + per_channel * torch.randn(len(sets))
            + per_group * torch.randn(len(channels.layers))[channels.group_of.cpu()]
        )
        low, high = (math.log(speed) for speed in speedups)
        allowed = self.cost.left(graph) / math.exp(low + (high - low) * float(torch.rand(())))
        steps = removal_order(channels, score, distribution="raw", min_keep=min_keep)
        count = prefix_for(len(steps), lambda k: self.cost.left(graph, keep_after(channels, steps[:k])), allowed)
        return keep_after(channels, steps[: min(count, len(steps))])


def _to(device: torch.device) -> Callable[[Any], Any]:
    return lambda value: value.to(device) if isinstance(value, Tensor) else value
