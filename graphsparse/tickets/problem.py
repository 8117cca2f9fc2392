"""What every ticket finder starts from: a model, a graph or many, a task, and the dense run that teaches the sparse."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.edges.transform import edge_mask
from graphsparse.fit import BaseTask, Distill, FitResult, MessageTask, fit
from graphsparse.fit.features import clear_graph_caches
from graphsparse.graphs.interop import open_graph
from graphsparse.params import Distribution

T = TypeVar("T")


@dataclass(frozen=True)
class Training:
    """How the dense and the sparse model are trained; the defaults are the paper's.

    Attributes:
        epochs: training epochs of each run.
        lr: Adam's learning rate.
        weight_decay: Adam's l2 penalty.
        distill: weight lambda of the distillation from the dense model's outputs; 0 trains on labels alone.
        which: the weights that count: ``"all"``, ``"matrices"`` or parameter names.
        distribution: how many of them each tensor keeps, see :func:`graphsparse.params.allot`.
        device: where to train; None is the CPU.

    Raises:
        ValueError: if ``distill`` is negative or no finite number.
    """

    epochs: int = 200
    lr: float = 0.01
    weight_decay: float = 5e-4
    distill: float = 1.0
    which: str | tuple[str, ...] = "all"
    distribution: Distribution = "global"
    device: str | torch.device | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.distill < math.inf:
            raise ValueError(f"distill is the weight of a loss, at least 0 and finite, got {self.distill}")


@dataclass(frozen=True)
class Found:
    """What a finder returns: the edges and weights that stay, and the training run that the ticket reports.

    Attributes:
        edge_mask: bool ``[E]`` over the caller's edges.
        weight_masks: bool mask of each pruned parameter, by name.
        result: the sparse run at its best validation epoch.
        metrics: what the ticket's metrics say besides the figures, such as the size that the finder ignores.
        seconds: of all training behind it, where that is more than its own run's; else None.
    """

    edge_mask: Tensor
    weight_masks: Mapping[str, Tensor]
    result: FitResult
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True)
class Problem:
    """A model with its initial weights, a graph and a task; makes fresh copies and sparse graphs for finders.

    Attributes:
        model: the initial model (theta0); never trained, only copied.
        data: the dense graph, or many as one disjoint union.
        task: what is learned on it.
        training: how.
        seed: drives dropout, ties and random scores.
        edge_options: how edges are chosen beyond the score: ``guard``, ``forest``, score options.
        folder: where checkpoints go, or None to keep none.
        progress: show progress bars.
        about: what the ticket records of the task: its name, protocol and split.
        memory: what finders found in earlier calls and need again, by names of their own; a replaced problem has none.
    """

    model: nn.Module
    data: Data
    task: MessageTask
    training: Training
    seed: int = 0
    edge_options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    progress: bool | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fresh_model(self) -> nn.Module:
        """A copy of the initial model; a graph that its layers have cached stays behind."""
        model = copy.deepcopy(self.model)
        clear_graph_caches(model)
        return model

    def trained_model(self, result: FitResult) -> nn.Module:
        """A copy of the model, in evaluation mode, with the weights that a run found."""
        model = self.fresh_model().eval()
        model.load_state_dict(result.state)
        return model

    def edge_mask(self, method: str | Callable[..., Tensor], keep: Fraction) -> Tensor:
        """The exact mask ``[E]`` that keeps the fraction ``keep`` of each graph's edges by the score ``method``."""
        options = dict(self.edge_options)
        rules = {"keep": keep} | {name: options.pop(name) for name in ("guard", "forest") if name in options}
        return edge_mask(open_graph(self.data).edges, method, self.seed, rules, options, self.task.graph_of)

    def train(self, model: nn.Module, task: BaseTask, name: str, **options: Any) -> FitResult:
        """Train ``model`` in place on ``task`` with the problem's settings; ``name`` labels its checkpoint."""
        checkpoint = None if self.folder is None else self.folder / name
        return fit(
            model,
            task,
            epochs=self.training.epochs,
            lr=self.training.lr,
            weight_decay=self.training.weight_decay,
            seed=self.seed,
            device=self.training.device,
            checkpoint=checkpoint,
            progress=self.progress,
            **options,
        )

    def teach(self, dense: FitResult) -> Distill | None:
        """The distillation term from the dense run's outputs, or None when its weight is zero."""
        if not self.training.distill > 0:
            return None
        teacher = self.trained_model(dense)
        if self.training.device is not None:
            teacher.to(self.training.device)
        return self.task.teach(teacher, dense.logits, self.training.distill)


class Finder(Protocol):
    """Finds a ticket: chooses edges and weights for a problem, given its dense run and what to keep.

    One that has no use for a guard, a forest or score options says so by `unguarded`.
    """

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Return the edges and weights that stay and the sparse training run."""


def unguarded(finder: T) -> T:
    """Mark a finder whose edges are not chosen by a score, so that guards and their like are refused.

    Args:
        finder: a class or a function (of an instance, mark the class).

    Example:
        >>> from graphsparse.tickets import Reliance
        >>> Reliance().guarded
        False
    """
    finder.guarded = False  # type: ignore[attr-defined]
    return finder


def train_dense(problem: Problem) -> FitResult:
    """Train the dense teacher: the whole graph, all weights, no distillation."""
    return problem.train(problem.fresh_model(), problem.task, "dense")
