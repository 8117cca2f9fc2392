"""Tasks whose models send messages along edges: what whoever takes edges away needs to know of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from graphsparse.fit.distill import Distill
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.fit.task import BaseTask

T = TypeVar("T", bound="MessageTask")


class MessageTask(BaseTask):
    """A task on one graph or on many, whose edges may be exchanged for fewer of them.

    Attributes:
        kind: what is learned, ``"node"``, ``"link"`` or ``"graph"``.
        hashed: attributes of the data, besides edges and the number of nodes, that tell it from other data.
        protocol: ``"transductive"`` or ``"inductive"``.
        edge_index: arcs [2, E] that messages go along, in the order of the data; all graphs in one list.
        num_nodes: nodes of all graphs.
    """

    kind: ClassVar[str]
    hashed: ClassVar[tuple[str, ...]]
    protocol: str
    edge_index: Tensor
    num_nodes: int

    @classmethod
    @abstractmethod
    def of(cls: type[T], data: Any, *, protocol: str | None = None, split: int = 0, metric: str | None = None) -> T:
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
    def training_edge_index(self) -> Tensor:
        """Arcs of the training graph, numbered by their position in `training_nodes`."""
        if self.protocol == "transductive":
            return self.edge_index
        inside = self.seen_in_training
        number = inside.long().cumsum(0) - 1
        kept = inside[self.edge_index[0]] & inside[self.edge_index[1]]
        return number[self.edge_index[:, kept]]

    def in_training(self: T) -> T:
        """The task on its training graph alone; itself, where that is all, or where no graph touches another."""
        return self

    @abstractmethod
    def with_edges(self: T, edge_index: Tensor) -> T:
        """The same task with messages along other edges; what is predicted and judged stays as it is."""

    def with_mask(self: T, mask: Tensor) -> T:
        """The same task with messages along the edges of `mask` [E] only."""
        return self.with_edges(self.edge_index[:, mask.to(self.edge_index.device)])

    @abstractmethod
    def inputs(self) -> tuple[Any, ...]:
        """What the model is called with to predict the test part; its cost is the cost of inference."""

    def inputs_for(self, model: nn.Module) -> tuple[Any, ...]:
        """The same in the quickest form that gives `model` equal results."""
        return self.inputs()

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
        return Distill(outputs, weight=weight)
