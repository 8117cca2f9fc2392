"""Objectives: what a step of meta-training minimises for one network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphsparse.fit import Batch, Task
from graphsparse.fit.call import joined, with_state
from graphsparse.fit.measure import device_of
from graphsparse.metanet.channels import (
    Channels,
    Cost,
    batch_statistics,
    flop_cost,
    group_lasso,
    group_norm,
    keep_after,
    prefix_for,
    reconstruct,
    removal_order,
)
from graphsparse.metanet.features import group_rank
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.metanetwork import MetaNetwork, Mode
from graphsparse.registry import Registry

_SAMPLES = 2048  # per layer and step of meta-training: enough for least squares, and quick


class Member:
    """A data model in meta-training: a trained network, its graph, and what a step needs of it."""

    def __init__(
        self, net: nn.Module, task: Task, inputs: tuple[Any, ...], device: torch.device | str | None = None
    ) -> None:
        self.task = task
        self.device = device_of(net) if device is None else torch.device(device)
        self.graph = NetworkGraph.from_module(net, pytree.tree_map(_to(device_of(net)), inputs)).to(self.device)
        self.module = self.graph.to_module().eval()
        self.channels = Channels.of(self.graph)
        self.cost: Cost = flop_cost(self.graph, self.module, pytree.tree_map(_to(self.device), inputs))
        self.rank = group_rank(self.graph)
        self._logits: Tensor | None = None

    def teacher(self, batch: Batch) -> Tensor:
        """Outputs of the unpruned network on a batch; those of the whole training part are computed once."""
        if batch.rows is None or self.task.augment is not None:
            with torch.no_grad():
                return self.task.forward(self.module, batch.inputs)
        if self._logits is None:
            self._logits = self.task.predict(self.module, "train", self.device)
        return self._logits[batch.rows.to(self.device)]


class Objective(ABC):
    """What a step of meta-training minimises."""

    mode: ClassVar[Mode]
    batches: int

    @property
    def draws(self) -> int:
        """How many data batches a step is given."""
        return self.batches

    @abstractmethod
    def loss(self, metanet: MetaNetwork, member: Member, batches: Sequence[Batch]) -> Tensor:
        """The loss of one network, with gradients into the metanetwork."""


@dataclass(frozen=True)
class Repair(Objective):
    r"""Repair the channels that stay: cross-entropy of the masked, repaired network to labels and to the unpruned one.

    .. math:: (1 - \beta)\,\mathrm{CE}(f_{M(w, m)}(x), y) + \beta\,\mathrm{CE}(f_{M(w, m)}(x), \mathrm{softmax} f_w(x))

    The metanetwork works on what least squares make of the network and the mask (`graphsparse.metanet.reconstruct`), as
    it does in `prune`. Masks are drawn anew at each step: sets go in the order of their rank by group l2, jittered per
    channel and per group, until a speed-up is reached that is log-uniform in a range. Batch norms use the statistics of
    the batch.

    Args:
        speedups: range of the speed-up.
        teacher: the weight beta of the unpruned network's outputs.
        jitter: standard deviation of the jitter of a channel's rank, and of a group's (ranks lie in (-1/2, 1/2)).
        min_keep: the fraction of every group that stays.
        batches: data batches per step.
        calibration: further data batches per step, for least squares; with 0 the metanetwork gets the network as it is.
    """

    mode: ClassVar[Mode] = "repair"
    speedups: tuple[float, float] = (1.3, 6.0)
    teacher: float = 0.5
    jitter: tuple[float, float] = (0.15, 0.15)
    min_keep: float = 0.2
    batches: int = 1
    calibration: int = 2

    @property
    def draws(self) -> int:
        return self.batches + self.calibration

    def __post_init__(self) -> None:
        if not 1 <= self.speedups[0] <= self.speedups[1] or not 0 <= self.teacher <= 1:
            raise ValueError(
                f"repair needs two ascending speedups from 1 on and a teacher weight in [0, 1], "
                f"got {self.speedups} and {self.teacher}"
            )

    def loss(self, metanet: MetaNetwork, member: Member, batches: Sequence[Batch]) -> Tensor:
        keep, graph = self._mask(member), member.graph
        if self.calibration:
            seen = joined([batch.inputs for batch in batches[self.batches :]])
            graph = reconstruct(graph, keep, member.task, inputs=seen, samples=_SAMPLES)
        changed = metanet(graph, keep)

        def of_batch(outputs: Tensor, batch: Batch) -> Tensor:
            soft = functional.cross_entropy(outputs, member.teacher(batch).softmax(-1))
            return (1 - self.teacher) * member.task.loss(outputs, batch.targets) + self.teacher * soft

        return through(changed, member, batches[: self.batches], of_batch, batch_norms="batch")

    def _mask(self, member: Member) -> Tensor:
        channels, graph = member.channels, member.graph
        sets = torch.zeros(len(channels.group_of))
        sets[channels.set_of.cpu()] = member.rank.cpu()
        per_channel, per_group = self.jitter
        score = (
            sets
            + per_channel * torch.randn(len(sets))
            + per_group * torch.randn(len(channels.layers))[channels.group_of.cpu()]
        )
        low, high = (math.log(speed) for speed in self.speedups)
        allowed = member.cost.left(graph) / math.exp(low + (high - low) * float(torch.rand(())))
        steps = removal_order(channels, score, distribution="raw", min_keep=self.min_keep)
        count = prefix_for(len(steps), lambda k: member.cost.left(graph, keep_after(channels, steps[:k])), allowed)
        return keep_after(channels, steps[: min(count, len(steps))])


@dataclass(frozen=True)
class GroupNorm(Objective):
    """The paper's: cross-entropy of the changed network, batch norms in evaluation mode, and `regular.group_norm`.

    Args:
        strength: factor of the penalty.
        alpha: as in `regular.group_norm`; 4 lets the least important sets weigh 16 times the most important ones.
        batches: data batches per step.
    """

    mode: ClassVar[Mode] = "change"
    strength: float = 1e-3
    alpha: float = 4.0
    batches: int = 4

    def loss(self, metanet: MetaNetwork, member: Member, batches: Sequence[Batch]) -> Tensor:
        changed = metanet(member.graph)
        data = through(changed, member, batches, _task_loss(member), batch_norms="running")
        return data + self.strength * group_norm(changed, self.alpha)


@dataclass(frozen=True)
class GroupLasso(Objective):
    """Cross-entropy with the batch's statistics in batch norms, and the scale-free `regular.group_lasso`.

    Args:
        strength: factor of the penalty.
        batches: data batches per step.
    """

    mode: ClassVar[Mode] = "change"
    strength: float = 1.0
    batches: int = 1

    def loss(self, metanet: MetaNetwork, member: Member, batches: Sequence[Batch]) -> Tensor:
        changed = metanet(member.graph)
        data = through(changed, member, batches, _task_loss(member), batch_norms="batch")
        return data + self.strength * group_lasso(changed)


def _check(name: str, entry: Any) -> type[Objective]:
    if not (isinstance(entry, type) and issubclass(entry, Objective)):
        raise TypeError(f"the objective {name!r} is a subclass of graphsparse.metanet.Objective, got {entry!r:.80}")
    return entry


OBJECTIVES: Registry[type[Objective]] = Registry("objective", check=_check)
OBJECTIVES.register("repair", Repair)
OBJECTIVES.register("group-norm", GroupNorm)
OBJECTIVES.register("group-lasso", GroupLasso)


def through(
    changed: NetworkGraph,
    member: Member,
    batches: Sequence[Batch],
    loss_of: Callable[[Tensor, Batch], Tensor],
    *,
    batch_norms: str,
) -> Tensor:
    """The mean loss of a changed network over batches, with one backward pass into the metanetwork for all of them.

    The generated state is cut off from the metanetwork, gathers its gradient batch by batch, and the returned scalar
    hands that gradient on: value and gradient are those of the plain mean.

    Args:
        changed: what the metanetwork gave.
        member: the network that it was given.
        batches: batches of the training part.
        loss_of: from (outputs, batch) to a scalar.
        batch_norms: "batch": they use the statistics of each batch; "running": their stored ones.
    """
    state = changed.to_state_dict()
    distinct = {id(tensor): tensor for tensor in state.values()}  # tied parameters are one tensor under several names
    copies = {key: t.detach().clone().requires_grad_(t.requires_grad) for key, t in distinct.items()}
    leaves = {name: copies[id(tensor)] for name, tensor in state.items()}
    module = member.module.eval()
    if batch_norms == "batch":
        batch_statistics(module)
    value = 0.0
    for batch in batches:
        call = with_state(module, leaves)
        loss = loss_of(member.task.forward(call, batch.inputs), batch) / len(batches)
        loss.backward()  # type: ignore[no-untyped-call]
        value += float(loss.detach())
    module.eval()
    linear = torch.stack(
        [(distinct[key] * leaf.grad).sum() for key, leaf in copies.items() if leaf.grad is not None]
    ).sum()
    return linear - linear.detach() + value


def _to(device: torch.device) -> Callable[[Any], Any]:
    return lambda value: value.to(device) if isinstance(value, Tensor) else value


def _task_loss(member: Member) -> Callable[[Tensor, Batch], Tensor]:
    return lambda outputs, batch: member.task.loss(outputs, batch.targets)
