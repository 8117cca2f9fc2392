"""Meta-training: a metanetwork learns over many networks; the choice of its weights is made on held-out networks."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.fit import BaseTask, Batch, ClipNorm, Evaluation, FitResult, Metric, Report, Task, cosine, fit
from graphsparse.fit.call import moved_to
from graphsparse.fit.fingerprint import model_hash, name_of, tree_hash
from graphsparse.fit.measure import device_of
from graphsparse.metanet.channels import Budget, arguments
from graphsparse.metanet.fine_tuning import FineTune, blind, example_of
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.jump import NotTakenWarning
from graphsparse.metanet.learn.member import Member
from graphsparse.metanet.learn.objectives import OBJECTIVES, Objective
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.pruning import Selection, carve


@dataclass(frozen=True)
class Validation:
    """How metanetworks are compared while they train: area under accuracy against speed-up, after a short fine-tune.

    Args:
        speedups: at least two, ascending; accuracy is averaged over their logarithm (trapezoids).
        fine_tune: the same small budget for every network.
        examples: how many training examples the fine-tuning sees (the first ones), None for all.
        selection: how channels are chosen.
    """

    speedups: tuple[float, ...] = (2.0, 4.0, 6.0)
    fine_tune: FineTune = field(default_factory=lambda: FineTune(epochs=1))
    examples: int | None = 2000
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if len(self.speedups) < 2 or list(self.speedups) != sorted(set(self.speedups)) or self.speedups[0] < 1:
            raise ValueError(f"speedups must be two or more ascending numbers from 1 on, got {self.speedups}")

    def area(self, metanet: MetaNetwork | None, networks: Sequence[nn.Module], task: Task) -> float:
        """The mean area over networks; the test part of the task is not read."""
        small = self._seen(task)
        fine_tune = self.fine_tune.with_metanetwork(metanet, small)
        areas = []
        for network in networks:
            device = device_of(network if metanet is None else metanet)
            net = copy.deepcopy(network).to(device)
            inputs = example_of(small, device)
            scores = []
            for speed in self.speedups:
                budget = Budget(speedup=speed)
                module, _ = carve(net, metanet, small, budget, self.selection, inputs, self.fine_tune)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", NotTakenWarning)  # an early metanetwork jumps badly
                    tuned = fine_tune.run(module, small, teacher=net, example_inputs=inputs)
                scores.append(small.score(module, "val", device) if tuned is None else tuned.val)
            x = [math.log(speed) for speed in self.speedups]
            pieces = [(b - a) * (s + t) / 2 for a, b, s, t in zip(x, x[1:], scores, scores[1:], strict=False)]
            areas.append(sum(pieces) / (x[-1] - x[0]))
        return math.fsum(areas) / len(areas)

    def _seen(self, task: Task) -> Task:
        """The task without its test part, and with as many examples as fine-tuning sees."""
        task, train = blind(task), task.parts["train"]
        if isinstance(train, tuple) and self.examples is not None:
            task.parts["train"] = pytree.tree_map(lambda part: part[: self.examples], train)
        return task


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
    tensorboard: str | Path | None = None,
) -> FitResult:
    """Train a metanetwork over networks, in place; it is left with the weights that were best on held-out networks.

    Each step takes one network at random. After every epoch (``steps`` steps) the held-out networks are pruned with
    the metanetwork, fine-tuned shortly and scored on the task's validation part (see `Validation`); the test part is
    never evaluated. AdamW with a cosine schedule. It runs where the metanetwork is; networks are copied there.

    Args:
        metanet: the metanetwork; its mode must be that of the objective.
        networks: trained networks of any architectures whose kernels the metanetwork knows.
        task: their task.
        objective: a name of ``OBJECTIVES``, "module:Class" of your own, or an `Objective`.
        val_networks: networks for the choice of weights; None holds out the last fifth (at least one) of ``networks``.
        validation: speed-ups, fine-tuning budget and criterion of that choice.
        epochs, steps: how long.
        lr, weight_decay, clip: of AdamW; ``clip`` bounds the norm of the gradient.
        seed: of everything that is drawn; not of the metanetwork's initial weights.
        example_inputs: as for `NetworkGraph.from_module`; None takes one example of the training part.
        checkpoint: a file, written after every epoch; an interrupted run goes on from it to the same result. The
            trajectories of the objective "nowcast" lie beside it, in a folder that ends in ``.trajectories``.
        progress, tensorboard: as for `graphsparse.fit.fit`.

    Returns:
        The figures of the best epoch: ``val`` is the area under accuracy against log speed-up; ``test`` repeats it.

    Raises:
        ValueError: objective and mode disagree, there are too few networks, or an argument is out of range.
        DivergedError: a loss or the validation figure is not finite.
        DataError: the checkpoint is damaged or of another run.

    Source: arXiv 2506.12041, section 3; the objective "repair", the detached state and the validation are ours.
    """
    found = objective if isinstance(objective, Objective) else OBJECTIVES.find(objective)()
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
    everyone = [*networks, *val_networks]
    for number, net in enumerate(everyone):
        graph = NetworkGraph.from_module(net, moved_to(inputs, device_of(net))).to(where)
        _check_readable(metanet, graph, number, len(everyone))
    folder = None if checkpoint is None else Path(checkpoint).with_suffix(".trajectories")
    members = found.members(networks, task, inputs, where, folder)
    learning = _MetaTask(members, list(val_networks), task, found, validation or Validation(), steps)
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
        tensorboard=tensorboard,
    )


def _check_readable(metanet: MetaNetwork, graph: NetworkGraph, number: int, count: int) -> None:
    try:
        metanet.check(graph)
    except ValueError as error:
        raise ValueError(f"network {number} of {count}: {error}") from error


class _MetaTask(BaseTask):
    """Meta-training as a task: the model is the metanetwork."""

    def __init__(
        self,
        members: Sequence[Member],
        held_out: Sequence[nn.Module],
        task: Task,
        objective: Objective,
        validation: Validation,
        steps: int,
    ) -> None:
        self.members = members
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
            "objective": _described(self.objective),
            "validation": repr(self.validation),
            "steps": str(self.steps),
        }


def _described(objective: Objective) -> str:
    """The objective in words that are the same in every process, whether or not it is a dataclass."""
    plain = type(objective).__repr__ is object.__repr__
    return f"{name_of(type(objective))} {sorted(vars(objective).items())}" if plain else repr(objective)


class _MetaSession:
    """`_MetaTask` bound to a metanetwork."""

    def __init__(self, task: _MetaTask, metanet: MetaNetwork) -> None:
        self.task, self.metanet = task, metanet

    def losses(self) -> Iterator[Tensor]:
        self.metanet.train()
        stream = self._stream()
        for _ in range(self.task.steps):
            self._number = int(torch.randint(len(self.task.members), ()))
            member = self.task.members[self._number]
            batches = list(islice(stream, self.task.objective.draws))
            yield self.task.objective.loss(self.metanet, member, batches)

    def saw(self) -> str:
        """What the last step looked at."""
        return f"network {self._number} of {len(self.task.members)}"

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
