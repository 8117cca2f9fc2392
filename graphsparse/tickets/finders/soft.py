"""Soft masks on an untouched model: one number for each edge and each weight, learned together with the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import MessagePassing

from graphsparse.fit import clear_graph_caches
from graphsparse.fit.distill import Distill
from graphsparse.fit.measure import device_of
from graphsparse.fit.rng import preserved, seed_all
from graphsparse.fit.task import BaseTask, Evaluation, Session
from graphsparse.tickets.finders.soft_product import MaskedProducts
from graphsparse.tickets.problem import Problem


@dataclass(frozen=True)
class MaskedGraph:
    """A graph that the model is called with, and which mask each of its arcs belongs to.

    Attributes:
        edge_index: ``[2, E]``, self-loops last.
        unit: for each arc the position of its mask; both arcs of a pair share one. ``-1``: an arc without a mask.
    """

    edge_index: Tensor
    unit: Tensor


class _WeightMask(nn.Module):
    """Parametrization of a weight: its product with a mask."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = nn.Parameter(mask)
        self.kept: Tensor
        self.register_buffer("kept", mask != 0, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (self.mask * self.kept)


class SoftMasks(nn.Module):
    """A model whose messages and weights are multiplied by masks that are parameters.

    Weights are masked by ``torch.nn.utils.parametrize`` (under every name of a tied weight), messages by PyG's
    ``set_masks``, which any ``MessagePassing`` layer obeys. Where one of our own backbones aggregates by a matrix on
    the CPU, that is masked instead, which gives the same numbers faster. A weight mask that starts at zero stays there.

    Args:
        model: the model, which is changed: pass a copy.
        weights: initial masks, by the parameter's name.
        edges: initial masks of the units ``[m]``.
        graphs: the graphs that the model will be called with.

    Raises:
        ValueError: in the forward pass, for an ``edge_index`` that is none of the graphs.

    Example:
        >>> import graphsparse as gs
        >>> net, pair = gs.nn.GCN(3, 4, 2), torch.tensor([[0, 1], [1, 0]])
        >>> soft = SoftMasks(net, {}, torch.ones(1), [MaskedGraph(pair, torch.tensor([0, 0]))])
        >>> soft(torch.ones(2, 3), pair).shape, soft.edges.requires_grad
        (torch.Size([2, 2]), True)
    """

    def __init__(
        self, model: nn.Module, weights: Mapping[str, Tensor], edges: Tensor, graphs: Sequence[MaskedGraph]
    ) -> None:
        super().__init__()
        self.model = model
        self.edges = nn.Parameter(edges)
        self.outputs: Tensor | None = None
        self.forced: Tensor | None = None
        self._masks = {name: _mask_weight(model, name, mask) for name, mask in weights.items()}
        for number, graph in enumerate(graphs):
            loops = graph.edge_index[0] == graph.edge_index[1]
            if bool((loops[:-1] & ~loops[1:]).any()):
                # PyG puts the masks of loops last; where as many are added as removed it would mix up the order
                raise ValueError(
                    "self-loops must come last in a graph that is masked softly; a model that needs arcs sorted by "
                    "target (LSTM, GRU, LCM ... aggregation) takes soft masks on a graph without self-loops only"
                )
            self.register_buffer(f"_arcs_{number}", graph.edge_index, persistent=False)
            self.register_buffer(f"_unit_{number}", graph.unit, persistent=False)
        self._count = len(graphs)
        for layer in model.modules():
            _use_plain_propagate(layer)
        self.to(device_of(model))
        self._products = MaskedProducts(model) if MaskedProducts.serve(model) else None  # type: ignore[arg-type]
        self.register_state_dict_post_hook(_own_keys_only)  # type: ignore[no-untyped-call]

    @property
    def weight_masks(self) -> dict[str, nn.Parameter]:
        """The masks of the weights by the parameter's name; those that started at zero hold zeros."""
        return {name: module.mask for name, module in self._masks.items()}

    def mask_parameters(self) -> list[nn.Parameter]:
        """All masks."""
        return [self.edges, *self.weight_masks.values()]

    @property
    def decode(self) -> Any:
        """The model's own decoder of links; an ``AttributeError`` if it has none."""
        return self.model.decode

    def forward(self, x: Tensor, edge_index: Tensor, *rest: Any, **named: Any) -> Tensor:
        """The model's outputs under the masks; ``forced`` ``[m]`` takes the place of the edge masks if it is set."""
        edges = self.edges if self.forced is None else self.forced
        with_one = torch.cat([edges, edges.new_ones(1)])  # unit -1 reads the one
        number = self._graph_of(edge_index)
        mask = with_one[self.get_buffer(f"_unit_{number}")]
        clear_graph_caches(self.model)  # what a layer keeps of the step before was made under other masks
        try:
            outputs = None
            if self._products is not None and not named:  # its matrix does not tell what weights the arcs carry
                outputs = self._by_product(number, mask, x, edge_index, *rest, **named)
            if outputs is None:
                set_masks(self.model, mask, edge_index, apply_sigmoid=False)
                outputs = self._by_messages(x, edge_index, *rest, **named)
        finally:
            clear_graph_caches(self.model)
        self.outputs = outputs if self.training and torch.is_grad_enabled() else None
        return outputs

    def _by_messages(self, x: Tensor, edge_index: Tensor, *rest: Any, **named: Any) -> Tensor:
        """The outputs by masked messages; a ValueError where a layer's messages are not those of the graph's edges."""
        try:
            outputs: Tensor = self.model(x, edge_index, *rest, **named)
        except AssertionError as error:  # PyG's own, without a word: more or fewer messages than masks
            layer = _layer_of(error)
            raise ValueError(
                f"{type(self.model).__name__} sends messages along other edges than the graph's"
                f"{f', in {layer}' if layer else ''}: each edge can have no mask of its own there (layers by relation, "
                "pooling, sampling); a method that scores edges works with any model"
            ) from error
        return outputs

    def _by_product(
        self, number: int, mask: Tensor, x: Tensor, edge_index: Tensor, *rest: Any, **named: Any
    ) -> Tensor | None:
        """The outputs by masked matrices; None, and never again, if the model did not use its matrix after all."""
        assert self._products is not None
        if mask.device.type == "cpu":
            self._products.use(number, edge_index, mask)
            outputs: Tensor = self.model(x, edge_index, *rest, **named)
            if self._products.calls:
                return outputs
        self._products.remove()
        self._products = None
        return None

    def _graph_of(self, edge_index: Tensor) -> int:
        for number in range(self._count):
            arcs = self.get_buffer(f"_arcs_{number}")
            if arcs.shape == edge_index.shape and torch.equal(arcs, edge_index):
                return number
        raise ValueError(
            "the task calls the model with a graph that is not the one to be sparsified; "
            "learned edge masks need a task on one graph, a one-shot score does not"
        )


class Objective(Protocol):
    """What is minimised instead of the task's loss while masks are learned."""

    @property
    def full_batch(self) -> bool:
        """Whether every step must see the whole graph."""

    def __call__(
        self, soft: SoftMasks, loss: Tensor, again: Callable[[], Tensor], generator: torch.Generator
    ) -> Tensor:
        """From the loss of a step to what is differentiated; ``again`` computes the loss anew in a full-batch task."""


class MaskTask(BaseTask):
    """A task whose loss goes through an :class:`Objective` on its way to the optimizer.

    Args:
        task: the task.
        soft: the model that will be trained on it.
        objective: what becomes of its loss.
    """

    def __init__(self, task: BaseTask, soft: SoftMasks, objective: Objective) -> None:
        self.task, self.soft, self.objective = task, soft, objective
        self.metric = task.metric

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Session:
        """Bind the task to the model with the masks."""
        return _MaskSession(self.task.start(model, device, distill), self.soft, self.objective)

    def fingerprint(self) -> dict[str, str]:
        """That of the task, and the objective."""
        return {**self.task.fingerprint(), "objective": repr(self.objective)}


class _MaskSession:
    def __init__(self, session: Session, soft: SoftMasks, objective: Objective) -> None:
        self.session, self.soft, self.objective = session, soft, objective
        self.generator = torch.Generator()
        self.reached = False

    def losses(self) -> Iterator[Tensor]:
        for number, loss in enumerate(self.session.losses()):
            if number and self.objective.full_batch:
                raise ValueError("this finder needs a task that takes the whole graph in every step")
            self._check_reached(loss)
            yield self.objective(self.soft, loss, self._again, self.generator)

    def _again(self) -> Tensor:
        return next(iter(self.session.losses()))

    def _check_reached(self, loss: Tensor) -> None:
        """A model whose messages no mask can touch would lose edges at random and never say so."""
        if self.reached or not self.soft.edges.numel():
            return
        (gradient,) = torch.autograd.grad(loss, self.soft.edges, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"no edge mask reaches the outputs of {type(self.soft.model).__name__}: it has no MessagePassing layer "
                "of PyG that takes the edges; a method that scores edges works with any model"
            )
        self.reached = True

    def evaluate(self) -> Evaluation:
        return self.session.evaluate()

    def generators(self) -> list[torch.Generator]:
        return [*self.session.generators(), self.generator]


def check_reached(problem: Problem, soft: SoftMasks, task: MaskTask) -> None:
    """Take one step with soft masks, so that a model whose messages no mask fits is told before it is trained.

    Raises:
        ValueError: what the step says.
    """
    where = device_of(soft) if problem.training.device is None else torch.device(problem.training.device)
    with preserved(where):
        seed_all(problem.seed, where)
        next(iter(task.start(soft.to(where), where).losses()))


class MaskAdam:
    """Adam for a model with masks: the weight decay is the weights' alone, the masks have their l1 penalty.

    Args:
        soft: the model.
    """

    def __init__(self, soft: SoftMasks) -> None:
        self._masks = {id(parameter) for parameter in soft.mask_parameters()}

    def __call__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        """The optimizer of ``parameters``."""
        masks = [parameter for parameter in parameters if id(parameter) in self._masks]
        weights = [parameter for parameter in parameters if id(parameter) not in self._masks]
        groups = [{"params": weights, "weight_decay": weight_decay}, {"params": masks, "weight_decay": 0.0}]
        fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
        return torch.optim.Adam([group for group in groups if group["params"]], lr=lr, fused=fused)


def _use_plain_propagate(layer: nn.Module) -> None:
    """Undo what PyG does to a subclass (FastRGCNConv) whose parent was used before.

    It takes for its plain `propagate` the parent's compiled one, which has other arguments and is deaf to masks.
    """
    plain = getattr(type(layer), "_orig_propagate", None)
    if isinstance(layer, MessagePassing) and "_propagate" in getattr(plain, "__module__", ""):
        type(layer)._orig_propagate = MessagePassing.propagate


def _layer_of(error: BaseException) -> str | None:
    """The class of the innermost message-passing layer that an error came through."""
    found, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        found = type(owner).__name__.removeprefix("Parametrized") if isinstance(owner, MessagePassing) else found
        trace = trace.tb_next
    return found


def _mask_weight(model: nn.Module, name: str, mask: Tensor) -> _WeightMask:
    """Multiply a weight by a mask wherever it is used: under each of its names, if it is tied."""
    weight = model.get_parameter(name)
    module = _WeightMask(mask.to(weight.device))
    for owner in list(model.modules()):
        for attribute, value in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
            if value is weight:
                parametrize.register_parametrization(owner, attribute, module)
    return module


def _own_keys_only(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Drop what is no parameter or buffer: PyG's ``Linear`` also lists its parametrized weight, and then refuses it."""
    own = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    own |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    for key in [key for key in state if key.startswith(prefix) and key[len(prefix) :] not in own]:
        if not key.endswith("_extra_state"):
            del state[key]
