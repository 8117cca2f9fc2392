"""Meta-training: a metanetwork learns over many networks; the choice of its weights is made on held-out networks."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphsparse.fit import BaseTask, Batch, ClipNorm, Evaluation, FitResult, Metric, Report, Task, cosine, fit
from graphsparse.fit.fingerprint import model_hash, tree_hash
from graphsparse.fit.measure import device_of
from graphsparse.metanet.channels import Channels, keep_after, removal_order
from graphsparse.metanet.cost import Cost, arguments, flop_cost, prefix_for
from graphsparse.metanet.features import group_rank
from graphsparse.metanet.metanetwork import MetaNetwork, Mode
from graphsparse.metanet.network_graph import NetworkGraph
from graphsparse.metanet.prune import FineTune, Plan, Target, carve, example_of
from graphsparse.metanet.reconstruct import batch_statistics, reconstruct
from graphsparse.metanet.regular import group_lasso, group_norm

_ROWS = 2048  # per layer and step of meta-training: enough for least squares, and quick


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
            seen = torch.cat([batch.inputs for batch in batches[self.batches :]])
            graph = reconstruct(graph, keep, member.task, inputs=seen, rows=_ROWS)
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


OBJECTIVES: dict[str, type[Objective]] = {"repair": Repair, "group-norm": GroupNorm, "group-lasso": GroupLasso}


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
        call: Any = lambda inputs: functional_call(module, leaves, (inputs,))  # noqa: E731
        loss = loss_of(member.task.forward(call, batch.inputs), batch) / len(batches)
        loss.backward()  # type: ignore[no-untyped-call]
        value += float(loss.detach())
    module.eval()
    linear = torch.stack(
        [(distinct[key] * leaf.grad).sum() for key, leaf in copies.items() if leaf.grad is not None]
    ).sum()
    return linear - linear.detach() + value


@dataclass(frozen=True)
class Validation:
    """How metanetworks are compared while they train: area under accuracy against speed-up, after a short fine-tune.

    Args:
        speedups: at least two, ascending; accuracy is averaged over their logarithm (trapezoids).
        fine_tune: the same small budget for every network.
        examples: how many training examples the fine-tuning sees (the first ones), None for all.
        plan: how channels are chosen.
    """

    speedups: tuple[float, ...] = (2.0, 4.0, 6.0)
    fine_tune: FineTune = field(default_factory=lambda: FineTune(epochs=1))
    examples: int | None = 2000
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        if len(self.speedups) < 2 or list(self.speedups) != sorted(set(self.speedups)) or self.speedups[0] < 1:
            raise ValueError(f"speedups must be two or more ascending numbers from 1 on, got {self.speedups}")

    def area(self, metanet: MetaNetwork | None, networks: Sequence[nn.Module], task: Task) -> float:
        """The mean area over networks; the test part of the task is not read."""
        small = self._without_test(task)
        areas = []
        for network in networks:
            device = device_of(network if metanet is None else metanet)
            net = copy.deepcopy(network).to(device)
            inputs = example_of(small, device)
            scores = []
            for speed in self.speedups:
                target = Target(speedup=speed)
                module, _ = carve(net, metanet, small, target, self.plan, inputs, self.fine_tune)
                tuned = self.fine_tune.run(module, small)
                scores.append(small.score(module, "val", device) if tuned is None else tuned.val)
            x = [math.log(speed) for speed in self.speedups]
            pieces = [(b - a) * (s + t) / 2 for a, b, s, t in zip(x, x[1:], scores, scores[1:], strict=False)]
            areas.append(sum(pieces) / (x[-1] - x[0]))
        return math.fsum(areas) / len(areas)

    def _without_test(self, task: Task) -> Task:
        train, val = task.parts["train"], task.parts["val"]
        if isinstance(train, tuple) and self.examples is not None:
            train = (train[0][: self.examples], train[1][: self.examples])
        return Task(
            train,
            val,
            val,
            loss=task.loss,
            metric=task.metric,
            forward=task.forward,
            batch_size=task.batch_size,
            augment=task.augment,
        )


def meta_train(
    metanet: MetaNetwork,
    networks: Sequence[nn.Module],
    task: Task,
    *,
    objective: str | Objective = "repair",
    val_networks: Sequence[nn.Module] | None = None,
    validation: Validation | None = None,
    epochs: int = 16,
    steps: int = 100,
    lr: float = 3e-3,
    weight_decay: float = 5e-4,
    clip: float = 1.0,
    seed: int = 0,
    example_inputs: Any = None,
    checkpoint: str | Path | None = None,
    progress: bool | Report | None = None,
) -> FitResult:
    """Train a metanetwork over networks, in place; it is left with the weights that were best on held-out networks.

    Each step takes one network at random. After every epoch (``steps`` steps) the held-out networks are pruned with
    the metanetwork, fine-tuned shortly and scored on the task's validation part (see `Validation`); the test part is
    never evaluated. AdamW with a cosine schedule. It runs where the metanetwork is; networks are copied there.

    Args:
        metanet: the metanetwork; its mode must be that of the objective.
        networks: trained networks of any architectures whose kernels the metanetwork knows.
        task: their task.
        objective: a name of ``OBJECTIVES`` or an `Objective`.
        val_networks: networks for the choice of weights; None holds out the last fifth (at least one) of ``networks``.
        validation: speed-ups, fine-tuning budget and criterion of that choice.
        epochs, steps: how long.
        lr, weight_decay, clip: of AdamW; ``clip`` bounds the norm of the gradient.
        seed: of everything that is drawn; not of the metanetwork's initial weights.
        example_inputs: as for `NetworkGraph.from_module`; None takes one example of the training part.
        checkpoint: a file, written after every epoch; an interrupted run goes on from it to the same result.
        progress: as for `graphsparse.fit.fit`.

    Returns:
        The figures of the best epoch: ``val`` is the area under accuracy against log speed-up; ``test`` repeats it.

    Raises:
        ValueError: objective and mode disagree, there are too few networks, or an argument is out of range.
        DivergedError: a loss or the validation figure is not finite.
        DataError: the checkpoint is damaged or of another run.

    Source: arXiv 2506.12041, section 3; the objective "repair", the detached state and the validation are ours.
    """
    found = OBJECTIVES[objective]() if isinstance(objective, str) and objective in OBJECTIVES else objective
    if not isinstance(found, Objective):
        raise ValueError(f"there is no objective {objective!r}; there are {', '.join(OBJECTIVES)}")
    if found.mode != metanet.mode:
        raise ValueError(f"the objective trains mode {found.mode!r}, and the metanetwork is of mode {metanet.mode!r}")
    if epochs < 1 or steps < 1:
        raise ValueError(f"epochs and steps must be at least 1, got {epochs} and {steps}")
    if found.batches < 1:
        raise ValueError(f"a step of meta-training needs at least one batch, got {found.batches}")
    networks = list(networks)
    if val_networks is None:
        held = max(1, len(networks) // 5)
        networks, val_networks = networks[:-held], networks[-held:]
    if not networks or not val_networks:
        raise ValueError("meta-training needs at least one network to learn from and one to be judged on")
    inputs, where = example_of(task) if example_inputs is None else arguments(example_inputs), device_of(metanet)
    learning = _MetaTask(networks, list(val_networks), task, found, validation or Validation(), steps, inputs, where)
    return fit(
        metanet,
        learning,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        callbacks=[ClipNorm(clip), cosine(epochs * steps)],
        optimizer=torch.optim.AdamW,
        checkpoint=checkpoint,
        checkpoint_every=1,
        progress=progress,
    )


class _MetaTask(BaseTask):
    """Meta-training as a task: the model is the metanetwork."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        held_out: Sequence[nn.Module],
        task: Task,
        objective: Objective,
        validation: Validation,
        steps: int,
        inputs: Any,
        device: torch.device,
    ) -> None:
        self.members = [Member(net, task, inputs, device) for net in networks]
        self.held_out, self.task, self.objective = held_out, task, objective
        self.validation, self.steps = validation, steps
        name = f"area of {task.metric.name}"
        self.metric = Metric(name, lambda outputs, targets: float(outputs), task.metric.maximize)

    def start(self, model: nn.Module, device: torch.device, distill: Any = None) -> _MetaSession:
        assert isinstance(model, MetaNetwork)
        return _MetaSession(self, model)

    def fingerprint(self) -> dict[str, str]:
        states = [*(member.module for member in self.members), *self.held_out]
        return {
            **self.task.fingerprint(),
            "networks": tree_hash([model_hash(module) for module in states]),
            "objective": repr(self.objective),
            "validation": repr(self.validation),
            "steps": str(self.steps),
        }


class _MetaSession:
    """`_MetaTask` bound to a metanetwork."""

    def __init__(self, task: _MetaTask, metanet: MetaNetwork) -> None:
        self.task, self.metanet = task, metanet

    def losses(self) -> Iterator[Tensor]:
        self.metanet.train()
        stream = self._stream()
        for _ in range(self.task.steps):
            member = self.task.members[int(torch.randint(len(self.task.members), ()))]
            batches = list(islice(stream, self.task.objective.draws))
            yield self.task.objective.loss(self.metanet, member, batches)

    def evaluate(self) -> Evaluation:
        self.metanet.eval()
        area = self.task.validation.area(self.metanet, self.task.held_out, self.task.task)
        return Evaluation(area, lambda: (area, torch.tensor([area])))

    def generators(self) -> list[torch.Generator]:
        # a model without weights: making some would draw random numbers whenever a checkpoint is written
        return self.task.task.start(nn.Identity(), torch.device("cpu")).generators()

    def _stream(self) -> Iterator[Batch]:
        while True:
            yield from self.task.task.batches("train", device_of(self.metanet), shuffle=True)


def _to(device: torch.device) -> Callable[[Any], Any]:
    return lambda value: value.to(device) if isinstance(value, Tensor) else value


def _task_loss(member: Member) -> Callable[[Tensor, Batch], Tensor]:
    return lambda outputs, batch: member.task.loss(outputs, batch.targets)
