"""Tasks whose models send messages along edges: what whoever takes edges away needs to know of them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from graphsparse.fit.batches.chunks import in_chunks
from graphsparse.fit.batches.excerpt import excerpt
from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.batches.reach import check_hops
from graphsparse.fit.distill import Distill, Outputs
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.edge_probe import check_edge_data
from graphsparse.fit.graph_call import Arguments, GraphCall
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.fit.metrics import Metric
from graphsparse.fit.task import BaseTask
from graphsparse.fit.union import find_arcs

T = TypeVar("T", bound="MessageTask")


class MessageTask(BaseTask):
    """A task on one graph or on many, whose edges may be exchanged for fewer of them.

    Attributes:
        kind: what is learned, ``"node"``, ``"link"`` or ``"graph"``.
        hashed: attributes of the data, besides edges and the number of nodes, that tell it from other data.
        protocol: ``"transductive"`` or ``"inductive"``.
        x: features of the nodes [N, ...], or None.
        edge_index: arcs [2, E] that messages go along, in the order of the data; all graphs in one list.
        num_nodes: nodes of all graphs.
        edge_data: what the arcs carry, one row each, passed to a model by the names of its own forward.
        outputs: what a row of the model's outputs says of what is predicted, see `Distill`.
        batches: how it is trained in mini-batches; None: as the task does by itself.
    """

    kind: ClassVar[str]
    hashed: ClassVar[tuple[str, ...]]
    protocol: str
    edge_index: Tensor
    num_nodes: int
    x: Tensor | None
    edge_data: EdgeData = EdgeData()
    outputs: Outputs = "classes"
    batches: Batches | None = None

    @classmethod
    @abstractmethod
    def of(
        cls: type[T], data: Any, *, protocol: str | None = None, split: int = 0, metric: str | Metric | None = None
    ) -> T:
        """The task on `data`; None stands for its usual protocol, and for the metric that the data names.

        Raises:
            ValueError: if this kind of task has no such protocol or split, or the data does not fit.
        """

    @property
    def graph_of(self) -> Tensor | None:
        """The number of the graph that each node lies in [N], where there are many; None: all lie in one."""
        return None

    @property
    def training_nodes(self) -> Tensor:
        """Ids of the nodes of the training graph, ascending."""
        return torch.arange(self.num_nodes, device=self.edge_index.device)

    @property
    def seen_in_training(self) -> Tensor:
        """Mask [N] of the nodes of the training graph."""
        inside = torch.zeros(self.num_nodes, dtype=torch.bool, device=self.edge_index.device)
        inside[self.training_nodes] = True
        return inside

    @property
    def training_edges(self) -> Tensor:
        """Mask [E] of the arcs of the training graph."""
        if self.protocol == "transductive":
            return torch.ones_like(self.edge_index[0], dtype=torch.bool)
        inside = self.seen_in_training
        return inside[self.edge_index[0]] & inside[self.edge_index[1]]

    @property
    def training_edge_index(self) -> Tensor:
        """Arcs of the training graph, numbered by their position in `training_nodes`."""
        if self.protocol == "transductive":
            return self.edge_index
        number = self.seen_in_training.long().cumsum(0) - 1
        return number[self.edge_index[:, self.training_edges]]

    def in_training(self: T) -> T:
        """The task on its training graph alone; itself, where that is all, or where no graph touches another."""
        return self

    def in_batches(self: T, batches: Batches) -> T:
        """The same task, trained in mini-batches.

        Raises:
            ValueError: this kind of task cannot be, or not so.
        """
        raise ValueError(f"{type(self).__name__} is not trained in batches")

    @property
    def evaluated(self) -> str:
        """How figures are made, in words."""
        return "on the whole graph, layer by layer, over all neighbours" if self.samples else "whole"

    def chunked(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside, a model that runs on the whole graph holds few messages at a time, where it is trained in batches."""
        return in_chunks(model) if self.samples else nullcontext()

    @property
    def samples(self) -> bool:
        """Whether training sees sampled neighbourhoods."""
        return self.batches is not None and self.batches.neighbors is not None

    @property
    def shares_out(self) -> bool:
        """Whether several processes can share out its steps."""
        return self.samples

    def excerpt(self: T) -> T:
        """A task on a piece of the graph that is small enough to try a model on; its figures mean nothing.

        Where training sees the whole graph, or many, it is the task itself.
        """
        if not self.samples:
            return self
        other = copy.copy(self)
        other.batches = None
        nodes = excerpt(self.edge_index, self.num_nodes, self.training_nodes)
        return other if nodes is None else other.on_nodes(nodes.to(self.edge_index.device))

    def on_nodes(self: T, nodes: Tensor) -> T:
        """A copy on some nodes [n], ascending, and the arcs between them."""
        other, arcs = copy.copy(self), self.edge_index
        number = torch.full((self.num_nodes,), -1, device=nodes.device)
        number[nodes] = torch.arange(len(nodes), device=nodes.device)
        tails, heads = (number[ends.long()] for ends in arcs)
        inside = (tails >= 0) & (heads >= 0)
        other.num_nodes, other.edge_index = len(nodes), torch.stack([tails[inside], heads[inside]]).to(arcs.dtype)
        if self.edge_data:
            other.edge_data = self.edge_data.take(inside.nonzero().view(-1))
        if self.x is not None:
            other.x = self.x[nodes]
        return other

    @abstractmethod
    def with_edges(self: T, edge_index: Tensor) -> T:
        """The same task with messages along other edges; what is predicted and judged stays as it is.

        Where the edges carry something, these must be some of the task's own.
        """

    def with_positions(self: T, positions: Tensor) -> T:
        """The same task with messages along the edges at some positions [M] only, in that order."""
        return self.with_edges(self.edge_index[:, positions.to(self.edge_index.device)])

    def with_mask(self: T, mask: Tensor) -> T:
        """The same task with messages along the edges of `mask` [E] only."""
        return self.with_positions(mask.nonzero().view(-1))

    def edge_data_of(self, edge_index: Tensor) -> EdgeData:
        """What some of the task's edges carry, in the order of the list.

        Raises:
            ValueError: if an arc is none of the task's own; or if it has parallel copies, some of which are left out,
                so that it is open what the others carry (`with_mask` says it).
        """
        if not self.edge_data:
            return self.edge_data
        return self.edge_data.take(find_arcs(self.edge_index, edge_index, self.num_nodes))

    @abstractmethod
    def inputs(self) -> tuple[Any, ...]:
        """The graph that the model is called with to predict the test part; its cost is the cost of inference."""

    def arguments(self, model: nn.Module, *, quick: bool = False) -> Arguments:
        """All that `model` is called with then, what edges carry by the names of its forward.

        Args:
            model: the model, which is not called, or in copies only.
            quick: in the quickest form that gives the model equal results, on its own device.

        Raises:
            ValueError: if the model needs, without a default, what the edges do not carry.
        """
        x, edge_index, *rest = self.inputs()
        found = GraphCall(model).arguments(x, edge_index, self.edge_data)
        return Arguments((*found.places, *rest), found.named)

    def check(self, model: nn.Module) -> None:
        """Say what of the edges' data a model ignores, and refuse a model that cannot be called with it.

        Raises:
            ValueError: if it cannot be, or reads more hops than a batch has.
        """
        part = self.excerpt()
        check_edge_data(model, part.arguments(model), part.edge_data)
        if self.samples and self.batches is not None and self.x is not None:
            check_hops(model, self.x, self.edge_data, self.batches)

    @abstractmethod
    def score(self, outputs: Tensor, part: str) -> float:
        """The metric of ``"val"`` or ``"test"`` for the outputs that `predict` gives."""

    def predict(self, model: nn.Module, device: torch.device | str | None = None) -> Tensor:
        """Eval-mode outputs, as a run's result holds them; the model's mode and the random state are left alone."""
        where = device_of(model) if device is None else torch.device(device)
        with evaluating(model):
            return self.start(model, where).evaluate().finish()[1]

    def node_outputs(self, model: nn.Module) -> Tensor:
        """What a model says of each node of the task's graph, in eval mode [N, D]: logits, embeddings, or last states.

        Raises:
            ValueError: this kind of task does not know.
        """
        raise ValueError(f"{type(self).__name__} does not say what a model says of each node: override node_outputs")

    def teach(self, teacher: nn.Module, outputs: Tensor, weight: float) -> Distill:
        """The distillation term of a trained teacher.

        Args:
            teacher: the model with the teacher's weights; the term may hold on to it.
            outputs: its outputs, see `predict`.
            weight: lambda, above 0.
        """
        return Distill(outputs, weight=weight, outputs=self.outputs)
