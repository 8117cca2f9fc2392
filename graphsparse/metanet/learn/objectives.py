"""Objectives: what a step of meta-training minimises for one network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.fit import Batch, Task
from graphsparse.fit.call import joined, with_state
from graphsparse.metanet.channels import batch_statistics, group_lasso, group_norm, reconstruct
from graphsparse.metanet.features import tensor_scale
from graphsparse.metanet.foresight import tensors_of, values_of
from graphsparse.metanet.graph import Kernel, NetworkGraph
from graphsparse.metanet.learn.member import Member
from graphsparse.metanet.learn.trajectories import Trajectories, Trajectory
from graphsparse.metanet.metanetwork import MetaNetwork, Mode
from graphsparse.registry import Registry

_LEAST_UNIT = 0.1  # of a tensor of zeros, such as fresh shifts of norms
_SAMPLES = 2048  # per layer and step of meta-training: enough for least squares, and quick


class Objective(ABC):
    """What a step of meta-training minimises."""

    mode: ClassVar[Mode]
    batches: int

    @property
    def draws(self) -> int:
        """How many data batches a step is given."""
        return self.batches

    def members(
        self,
        networks: Sequence[nn.Module],
        task: Task,
        inputs: tuple[Any, ...],
        device: torch.device,
        folder: Path | None = None,
    ) -> Sequence[Member]:
        """What a step draws from: the networks, with what a step needs of them.

        Args:
            networks, task, inputs, device: what is learned from, and where.
            folder: for what takes long to make and should outlive an interrupted run; None where there is none.
        """
        return [Member(net, task, inputs, device) for net in networks]

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
        keep, graph = member.random_mask(self.speedups, self.jitter, self.min_keep), member.graph
        if self.calibration:
            seen = joined([batch.inputs for batch in batches[self.batches :]])
            graph = reconstruct(graph, keep, member.task, inputs=seen, samples=_SAMPLES)
        changed = metanet(graph, keep)

        def of_batch(outputs: Tensor, batch: Batch) -> Tensor:
            soft = functional.cross_entropy(outputs, member.teacher(batch).softmax(-1))
            return (1 - self.teacher) * member.task.loss(outputs, batch.targets) + self.teacher * soft

        return through(changed, member, batches[: self.batches], of_batch, batch_norms="batch")


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


@dataclass(frozen=True)
class Nowcast(Objective):
    r"""Foresee fine-tuning: from a pruned network's weights after a few steps, those after one or more epochs.

    .. math:: \frac{1}{K} \sum_k \frac{\| M(w_t)_k - w^*_k \|^2}{\| w_{t,k} - w^*_k \|^2 + \| w_{t,k} - w_{0,k} \|^2}
        + \beta\,\mathrm{CE}(f_{M(w_t)}(x), y)

    Here :math:`w_t` are the weights after t steps, :math:`w^*` those at the end of a later epoch, and k runs over the
    sizes of kernels and the kinds of node features, each tensor in units of its own scale. The way so far stands below
    the line, lest a short way to go outweigh all others. Networks, t and the epoch are drawn anew at each step from
    `Trajectories`. Cross-entropy is that of training batches, with their statistics in batch norms.

    Args:
        trajectories: what it learns from, and how they are collected.
        epochs: ends of epochs that are foreseen.
        data: the weight beta of the cross-entropy.
        batches: data batches per step.

    Source: after "Accelerating training with neuron interaction and nowcasting networks" (Knyazev et al., ICLR 2025),
    which does so for training from scratch; pruned networks, gates on the way so far and the cross-entropy are ours.
    """

    mode: ClassVar[Mode] = "nowcast"
    trajectories: Trajectories = field(default_factory=Trajectories)
    epochs: tuple[int, ...] = (1, 2, 4)
    data: float = 0.0
    batches: int = 1

    def __post_init__(self) -> None:
        last = self.trajectories.fine_tune.epochs
        if not self.epochs or any(not 1 <= epoch <= last for epoch in self.epochs) or not self.data >= 0:
            raise ValueError(
                f"epochs that are foreseen lie between 1 and the {last} of a trajectory, and data is 0 or more; "
                f"got {self.epochs} and {self.data}"
            )

    def members(
        self,
        networks: Sequence[nn.Module],
        task: Task,
        inputs: tuple[Any, ...],
        device: torch.device,
        folder: Path | None = None,
    ) -> Sequence[Member]:
        """Trajectories of the networks, collected now unless they lie in the trajectories' own folder, or this."""
        source = self.trajectories
        if source.folder is None and folder is not None:
            source = replace(source, folder=folder)
        return source.collect(networks, task, inputs, device)

    def loss(self, metanet: MetaNetwork, member: Member, batches: Sequence[Batch]) -> Tensor:
        assert isinstance(member, Trajectory)
        cases = [(k, e) for k in self.trajectories.after for e in self.epochs if e * member.epoch > k]
        if not cases:
            raise ValueError(f"an epoch of {member.epoch} steps ends before {min(self.trajectories.after)} steps")
        now, past, later = member.case(*cases[int(torch.randint(len(cases), ()))])
        foreseen = metanet(now, past=past)
        missed = unexplained(now, foreseen, later, past.earlier[0])
        if not self.data:
            return missed
        return missed + self.data * through(foreseen, member, batches, _task_loss(member), batch_norms="batch")


def unexplained(
    now: NetworkGraph, foreseen: NetworkGraph, later: NetworkGraph, oldest: NetworkGraph | None = None
) -> Tensor:
    """The share of the change from ``now`` to ``later`` that is not foreseen: 1 for no change at all.

    Squares are taken in units of each tensor's scale now, and shares are averaged over kernel sizes and kinds of node
    features that change. With ``oldest`` it is a share of that change and the one from there to ``now`` together.
    """
    found = list(shares(now, foreseen, later, oldest).values())
    return torch.stack(found).mean() if found else torch.zeros((), requires_grad=True)


def shares(
    now: NetworkGraph, foreseen: NetworkGraph, later: NetworkGraph, oldest: NetworkGraph | None = None
) -> dict[Kernel | str, Tensor]:
    """`unexplained` of each kernel size and kind of node features that changes."""
    found: dict[Kernel | str, Tensor] = {}
    for key, _, number in tensors_of(now):
        before, guess, after = (values_of(graph, key) for graph in (now, foreseen, later))
        unit = tensor_scale(before, number).clamp(min=_LEAST_UNIT).unsqueeze(1)
        change = ((after - before) / unit).square().sum()
        if oldest is not None:
            change = change + ((before - values_of(oldest, key)) / unit).square().sum()
        if float(change) > 0:
            found[key] = ((guess - after) / unit).square().sum() / change
    return found


def _check(name: str, entry: Any) -> type[Objective]:
    if not (isinstance(entry, type) and issubclass(entry, Objective)):
        raise TypeError(f"the objective {name!r} is a subclass of graphsparse.metanet.Objective, got {entry!r:.80}")
    return entry


OBJECTIVES: Registry[type[Objective]] = Registry("objective", check=_check)
OBJECTIVES.register("repair", Repair)
OBJECTIVES.register("group-norm", GroupNorm)
OBJECTIVES.register("group-lasso", GroupLasso)
OBJECTIVES.register("nowcast", Nowcast)


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


def _task_loss(member: Member) -> Callable[[Tensor, Batch], Tensor]:
    return lambda outputs, batch: member.task.loss(outputs, batch.targets)
