"""What every ticket finder starts from: a model, a graph or many, a task, and the dense run that teaches the sparse."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.edges.keep import Guard
from graphsparse.edges.score_table import score_edges
from graphsparse.edges.transform import edge_mask
from graphsparse.errors import TicketError
from graphsparse.fit import BaseTask, Distill, FitResult, GraphTask, LinkTask, MessageTask, NodeTask, fit
from graphsparse.fit.edge_probe import telling_once
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.measure import device_of, find_device
from graphsparse.graphs.interop import open_graph
from graphsparse.keep_rule import check_seed, whole_number
from graphsparse.params import DISTRIBUTIONS, Distribution
from graphsparse.registry import one_of
from graphsparse.tickets.memory_probe import check_forgets
from graphsparse.tickets.weights import L0, Weights, read_weights

T = TypeVar("T")

PATTERNS = ("weights", "units")
SHARES = ("global", "uniform")  # of units

KINDS: dict[str, type[MessageTask]] = {task.kind: task for task in (NodeTask, LinkTask, GraphTask)}


def task_class(kind: str) -> type[MessageTask]:
    """The task of a kind, as a ticket's config names it.

    Raises:
        TicketError: if there is no such kind.

    Example:
        >>> task_class("graph").__name__
        'GraphTask'
    """
    if kind not in KINDS:
        raise TicketError(f"there are tickets for {', '.join(KINDS)}, not for {kind!r}")
    return KINDS[kind]


def check_number(value: Any, name: str, what: str, above: float | None = None) -> None:
    """Refuse a setting that is no finite number, or is negative (or not above ``above``).

    Example:
        >>> check_number(-1.0, "lr", "a learning rate", above=0)
        Traceback (most recent call last):
        ...
        ValueError: lr is a learning rate, above 0 and finite, got -1.0
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, Fraction, np.integer, np.floating)):
        raise TypeError(f"{name} is {what}, a number, got {type(value).__name__}")
    if not (value >= 0 if above is None else value > above) or not value < math.inf:
        least = "at least 0" if above is None else f"above {above:g}"
        raise ValueError(f"{name} is {what}, {least} and finite, got {value}")


@dataclass(frozen=True)
class Training:
    """How the dense and the sparse model are trained; the defaults are the paper's.

    Attributes:
        epochs: training epochs of each run.
        lr: Adam's learning rate.
        weight_decay: Adam's l2 penalty.
        distill: weight lambda of the distillation from the dense model's outputs; 0 trains on labels alone.
        which: the weights that count: ``"all"``, ``"matrices"`` or parameter names.
        distribution: how many of them each tensor keeps, see :func:`graphsparse.params.allot`; of units, how they are
            shared out among layers, ``"global"`` or ``"uniform"``. None: ``"global"``, or as the method of ``weights``
            has it.
        pattern: ``"weights"`` are kept one by one, ``"units"`` as whole hidden units, see `graphsparse.params.Units`.
        device: where to train, ``"auto"`` takes a GPU if there is one; None is the CPU.
        weights: how they are made sparse where a finder leaves it open: ``"l0"``, TEDDY's projection, a name of
            :func:`graphsparse.params.methods`, or a recipe.

    Raises:
        ValueError: for fewer epochs than one, a learning rate that is not above 0, a negative weight of a penalty or a
            loss, a number that is not finite, or a device that there is not.
        TypeError: for what is no number.
    """

    epochs: int = 200
    lr: float = 0.01
    weight_decay: float = 5e-4
    distill: float = 1.0
    which: str | tuple[str, ...] = "all"
    distribution: Distribution | None = None
    device: str | torch.device | None = None
    pattern: str = "weights"
    weights: Weights = L0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", one_of(self.pattern, "pattern", PATTERNS))
        object.__setattr__(self, "weights", read_weights(self.weights))
        if self.weights != L0 and self.pattern == "units":
            raise ValueError("pattern='units' projects whole units, by weights='l0'; a method takes pattern='weights'")
        if self.weights == L0 and self.distribution is None:
            object.__setattr__(self, "distribution", "global")
        if self.pattern == "units" and (DISTRIBUTIONS.spelled(str(self.distribution)) or "") not in SHARES:
            raise ValueError(
                f"units are shared out {' or '.join(map(repr, SHARES))} among the layers, not {self.distribution!r:.50}"
            )
        object.__setattr__(self, "epochs", whole_number(self.epochs, "epochs"))
        if not 1 <= self.epochs < 2**31:
            raise ValueError(f"epochs must be at least 1 and below 2^31, got {self.epochs}")
        check_number(self.lr, "lr", "a learning rate", above=0)
        check_number(self.weight_decay, "weight_decay", "the weight of a penalty")
        check_number(self.distill, "distill", "the weight of a loss")
        if self.device is not None:
            object.__setattr__(self, "device", find_device(self.device))


@dataclass(frozen=True)
class Found:
    """What a finder returns: the edges and weights that stay, and the training run that the ticket reports.

    Attributes:
        edge_mask: bool ``[E]`` over the caller's edges.
        weight_masks: bool mask of each pruned parameter, by name.
        result: the sparse run at its best validation epoch.
        metrics: what the ticket's metrics say besides the figures.
        seconds: of all training behind it, where that is more than its own run's; else None.
        ignores: the keeps that it does not obey, ``"edge_keep"``, ``"weight_keep"``: the controls' alone, see
            `graphsparse.tickets.finders.controls`; the ticket's metric ``ignores`` says so.
    """

    edge_mask: Tensor
    weight_masks: Mapping[str, Tensor]
    result: FitResult
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    ignores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A model with its initial weights, a graph and a task; makes fresh copies and sparse graphs for finders.

    Attributes:
        model: the initial model (theta0); never trained, only copied.
        data: the dense graph, or many as one disjoint union; a copy on the CPU, where edges are chosen.
        task: what is learned on it.
        training: how.
        seed: drives dropout, ties and random scores.
        edge_options: how edges are chosen beyond the score: ``guard``, ``forest``, score options.
        folder: where checkpoints go, or None to keep none.
        progress: show progress bars.
        tensorboard: where TensorBoard's logs go, a folder for each training run; None writes none.
        about: what the ticket records of the task: its name, protocol and split.
        told: what was said of the model's use of the data; a replaced problem has the same set, so it is said once.
        memory: what finders found in earlier calls and need again, by names of their own; a replaced problem has none.

    Raises:
        ValueError: for a seed that is no whole number from 0 to 2^63 - 1.
    """

    model: nn.Module
    data: Data
    task: MessageTask
    training: Training
    seed: int = 0
    edge_options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    progress: bool | None = None
    tensorboard: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    told: set[str] = field(default_factory=set, repr=False, compare=False)
    memory: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _on_cpu(self.data))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if "guard" in self.edge_options:
            guard = one_of(self.edge_options["guard"], "guard", get_args(Guard), none=True)
            object.__setattr__(self, "edge_options", {**self.edge_options, "guard": guard})
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, got {self.seed}")

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
        """The exact mask ``[E]`` that keeps the fraction ``keep`` of each graph's edges by the score ``method``.

        Edges are scored once, for all levels that are tried.
        """
        options = dict(self.edge_options)
        rules = {"keep": keep} | {name: options.pop(name) for name in ("guard", "forest") if name in options}
        name = f"edge scores by {method if isinstance(method, str) else id(method)}"
        if name not in self.memory:
            edges = open_graph(self.data).edges
            scores, _ = score_edges(edges, method, self.seed, options)
            self.memory[name] = edges, scores, method  # the method, so that no other one gets its id
        edges, scores, _ = self.memory[name]
        return edge_mask(edges, scores, self.seed, rules, {}, self.task.graph_of)

    def train(self, model: nn.Module, task: BaseTask, name: str, **options: Any) -> FitResult:
        """Train ``model`` in place on ``task`` with the problem's settings; ``name`` labels its checkpoint."""
        checkpoint = None if self.folder is None else self.folder / name
        with telling_once(self.told):
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
                tensorboard=None if self.tensorboard is None else self.tensorboard / name,
                **options,
            )

    def check_without_edges(self, who: str) -> None:
        """Raise an error if the model cannot be run on its graph without edges, self-loops excepted, as ``who`` must.

        Raises:
            ValueError: naming the model, and what it said.
        """
        edge_index = self.task.edge_index
        model = self.fresh_model().eval()
        arguments = self.task.with_mask(edge_index[0] == edge_index[1]).arguments(model).to(device_of(model))
        try:
            with torch.no_grad():
                arguments.run(model)
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} cannot be run without edges, as {who} needs it "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); another method can do without"
            ) from error

    def teach(self, dense: FitResult) -> Distill | None:
        """The distillation term from the dense run's outputs, or None when its weight is zero."""
        if not self.training.distill > 0:
            return None
        teacher = self.trained_model(dense)
        if self.training.device is not None:
            teacher.to(self.training.device)
        return self.task.teach(teacher, dense.logits, self.training.distill)


def _on_cpu(data: Data) -> Data:
    tensors = [value for value in data.to_dict().values() if isinstance(value, Tensor)]
    return data if all(value.device.type == "cpu" for value in tensors) else copy.copy(data).cpu()


class Finder(Protocol):
    """Finds a ticket: chooses edges and weights for a problem, given its dense run and what to keep.

    What it may be told of its edges it lists in an attribute ``takes``: ``"guard"``, ``"forest"``, names of options,
    all of which it finds in ``problem.edge_options`` (`Problem.edge_mask` obeys them). Without the attribute it takes
    none, and whatever is given is refused. An attribute ``whole_graph`` that is True says that it cannot do with a task
    in mini-batches; ``any_weights`` that is True, that its weights are made sparse by ``problem.training.weights``.
    Hyper-parameters to be tried in a comparison go into ``trials``. A method ``check(problem)`` may refuse a problem
    before anything is trained.
    """

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Return the edges and weights that stay and the sparse training run."""


def unguarded(finder: T) -> T:
    """Mark a finder whose edges are not chosen by a score, so that guards and their like are refused.

    Args:
        finder: a class or a function (of an instance, mark the class).

    Example:
        >>> from graphsparse.tickets import Reliance
        >>> Reliance().takes
        ()
    """
    finder.takes = ()  # type: ignore[attr-defined]
    return finder


def train_dense(problem: Problem) -> FitResult:
    """Train the dense teacher: the whole graph, all weights, no distillation.

    Raises:
        TicketError: before training, if the model keeps a graph, see `graphsparse.tickets.memory_probe`.
    """
    check_forgets(problem.model, problem.task.excerpt())
    return problem.train(problem.fresh_model(), problem.task, "dense")
