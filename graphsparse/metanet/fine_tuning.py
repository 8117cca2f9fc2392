"""Training after a change: one recipe for every method, and how it is chosen on validation data."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.fit import Distill, FitResult, Report, Task, cosine, fit, milestones
from graphsparse.fit.distill import Outputs
from graphsparse.fit.measure import device_of
from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import arguments
from graphsparse.metanet.jump import Jump, Landing
from graphsparse.metanet.metanetwork import MetaNetwork


@dataclass(frozen=True)
class FineTune:
    r"""How a network is trained after a change: SGD with Nesterov momentum 0.9 and a schedule.

    With a teacher, the unpruned network, the loss is :math:`L_{task} + \lambda T^2\,\mathrm{KL}(teacher \| student)`
    of outputs softened by T: see `graphsparse.fit.Distill`. Outputs of a task with cross-entropy are taken as classes,
    of one with binary cross-entropy as labels, of any other as values (mean squared error, without T).

    Args:
        epochs: passes over the training part; 0 only recalibrates batch norms.
        lr: the rate at the start.
        weight_decay: L2 penalty.
        milestones: epochs from which on the rate is a tenth of what it was; without any it falls as a cosine.
        batch_size: examples per step; None leaves the task its own.
        distill: :math:`\lambda`, at least 0; above 0 the run needs a teacher.
        temperature: T, above 0.
        jump: a jump of the weights to where they are foreseen to go (`Jump`); None for none.

    Raises:
        ValueError: an option is out of range.
    """

    epochs: int = 4
    lr: float = 0.05
    weight_decay: float = 5e-4
    milestones: tuple[int, ...] = ()
    batch_size: int | None = None
    distill: float = 0.0
    temperature: float = 1.0
    jump: Jump | None = None

    def __post_init__(self) -> None:
        if self.epochs < 0 or not self.lr > 0:
            raise ValueError(f"fine-tuning needs epochs >= 0 and lr > 0, got {self.epochs} and {self.lr}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"the batch size of fine-tuning must be at least 1, got {self.batch_size}")
        if not 0 <= self.distill < math.inf or not 0 < self.temperature < math.inf:
            raise ValueError(
                f"distillation needs a weight of at least 0 and a temperature above 0, got {self.distill} and "
                f"{self.temperature}"
            )

    def with_metanetwork(self, metanet: MetaNetwork | None, task: Task) -> FineTune:
        """This recipe with a jump, if the metanetwork is of mode "nowcast" and there is none yet.

        It comes after 8 steps, or after half of all steps if these are fewer than 16.
        """
        if metanet is None or metanet.mode != "nowcast" or self.jump is not None:
            return self
        steps = self.epochs * sum(1 for _ in self.batched(task).batches("train"))
        return replace(self, jump=Jump(metanet, after=(min(8, steps // 2),)))

    def run(
        self,
        module: nn.Module,
        task: Task,
        *,
        teacher: nn.Module | None = None,
        seed: int = 0,
        progress: bool | Report | None = None,
        callbacks: tuple[Any, ...] = (),
        checkpoint: str | Path | None = None,
        tensorboard: str | Path | None = None,
        example_inputs: Any = None,
        landings: list[Landing] | None = None,
    ) -> FitResult | None:
        """Recalibrate batch norms and train in place; the best epoch on validation data stays. None without epochs.

        With ``checkpoint``, a file, an interrupted run that is repeated goes on from there, as in `fit`, which also
        says what ``tensorboard`` is.

        Args:
            module: the network.
            task: trains, validates and tests.
            teacher: the unpruned network, read where ``distill`` is above 0; it is not changed.
            seed, progress, callbacks, checkpoint, tensorboard: as for `graphsparse.fit.fit`.
            example_inputs: what the module is traced with for a jump, as in `prune`.
            landings: what became of the jumps is appended here.

        Raises:
            ValueError: ``distill`` is above 0 without a teacher, or ``batch_size`` is given for a loader.
        """
        if self.distill and teacher is None:
            raise ValueError("distillation needs the unpruned network: give teacher=")
        task = self.batched(task)
        recalibrate(module, task)
        if self.epochs == 0:
            return None
        jumping = None
        if self.jump is not None:
            inputs = example_of(task, device_of(module)) if example_inputs is None else arguments(example_inputs)
            jumping = self.jump.callback(module, task, inputs)
            callbacks = (jumping, *callbacks)  # what holds weights at zero has the last word
        steps = sum(1 for _ in task.batches("train"))
        falling = milestones([epoch * steps for epoch in self.milestones]) if self.milestones else None
        sgd = functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True)
        result = fit(
            module,
            task,
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            seed=seed,
            distill=self._distillation(teacher, task, device_of(module)),
            optimizer=sgd,
            callbacks=[*callbacks, falling or cosine(self.epochs * steps)],
            checkpoint=checkpoint,
            progress=progress,
            tensorboard=tensorboard,
        )
        if landings is not None and jumping is not None:
            landings += jumping.landings
        return result

    def batched(self, task: Task) -> Task:
        """The task with this recipe's batches.

        Raises:
            ValueError: ``batch_size`` is given for a loader.
        """
        if self.batch_size is None or self.batch_size == task.batch_size:
            return task
        if isinstance(task.parts["train"], torch.utils.data.DataLoader):
            raise ValueError("the training part is a loader, which makes its own batches: leave batch_size out")
        task = copy.copy(task)
        task.batch_size = self.batch_size
        return task

    def _distillation(self, teacher: nn.Module | None, task: Task, device: torch.device) -> Distill | None:
        """The teacher's outputs, computed once where the inputs of an example are the same in every epoch."""
        if teacher is None or not self.distill:
            return None
        kind, teacher = outputs_of(task.loss), copy.deepcopy(teacher).to(device)
        logits = None
        if isinstance(task.parts["train"], tuple) and task.augment is None:
            logits = task.predict(teacher, "train", device)
        if logits is not None and logits.dim() == 2:
            return Distill(logits, self.distill, temperature=self.temperature, outputs=kind)
        return Distill(None, self.distill, temperature=self.temperature, outputs=kind, teacher=teacher)


def outputs_of(loss: Any) -> Outputs:
    """What the outputs of a network are, by the loss that it is trained with: what can be distilled of them.

    Example:
        >>> outputs_of(functional.cross_entropy), outputs_of(nn.BCEWithLogitsLoss()), outputs_of(nn.MSELoss())
        ('classes', 'labels', 'values')
    """
    loss = loss.func if isinstance(loss, functools.partial) else loss
    if loss is functional.cross_entropy or isinstance(loss, nn.CrossEntropyLoss):
        return "classes"
    labels = loss is functional.binary_cross_entropy_with_logits or isinstance(loss, nn.BCEWithLogitsLoss)
    return "labels" if labels else "values"


def standard(task: Task) -> FineTune:
    """The recipe that `prune` takes where none is given: what won on validation data for group-l2 and least squares.

    Four epochs from a rate of 0.02 with at most 32 examples a step, and distillation where outputs are classes. A
    loader keeps its own batches, and a rate of 0.05.
    """
    distill = 1.0 if outputs_of(task.loss) == "classes" else 0.0
    if isinstance(task.parts["train"], torch.utils.data.DataLoader):
        return FineTune(distill=distill)
    return FineTune(lr=0.02, batch_size=min(32, task.batch_size), distill=distill)


def blind(task: Task) -> Task:
    """The same task with its validation part in the place of the test part: nothing can be chosen by the latter."""
    task = copy.copy(task)
    task.parts = {**task.parts, "test": task.parts["val"]}
    return task


def example_of(task: Task, device: torch.device | str = "cpu") -> tuple[Any, ...]:
    """One example of the training part, as the arguments of a module.

    Raises:
        ValueError: its inputs are no plain tensors.
    """
    found = next(task.batches("train", device)).inputs
    parts = tuple(found) if type(found) in (tuple, list) else (found,)
    if not all(isinstance(part, Tensor) for part in parts):
        raise ValueError("give example_inputs: the training part's inputs are no plain tensors")
    return tuple(part[:1] for part in parts)
