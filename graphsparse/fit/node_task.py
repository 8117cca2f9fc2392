"""Node classification on one graph: the whole of it in every step, or in mini-batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.fit.batches.nodes import SampledNodes, exact_outputs
from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.checks import check_arcs, check_features, check_rows, mask_of, tensor_of
from graphsparse.fit.distill import Distill
from graphsparse.fit.edge_data import NAMES, EdgeData
from graphsparse.fit.features import clear_graph_caches, features_for
from graphsparse.fit.fingerprint import name_of
from graphsparse.fit.graph_call import Arguments, GraphCall, whole_outputs
from graphsparse.fit.labels import binary_loss, check_judged, check_label_values, label_metric
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.fit.message_task import MessageTask
from graphsparse.fit.metrics import Metric, find_metric
from graphsparse.fit.task import Evaluation, Loss, Session
from graphsparse.hashing import tensor_hash
from graphsparse.registry import one_of

Protocol = Literal["transductive", "inductive"]
_PARTS = ("train", "val", "test")


class NodeTask(MessageTask):
    """Classify the nodes of one graph, or tell which of several labels each of them has.

    *transductive*: one graph for training and testing. *inductive*: training and validation see only the
    graph induced on the nodes that are not test nodes; the test runs on the whole graph.

    Args:
        data: PyG ``Data`` with x [N, F] (floats), edge_index [2, E], y [N] (class ids; or [N, C] of 0, 1 and NaN, not
            known, for C labels), and the boolean
            train_mask, val_mask and test_mask, each [N] or [N, S] for S splits; edge_weight, edge_attr and edge_type,
            if there are, go to the model by the names of its forward. It is not changed.
        protocol: ``"transductive"`` or ``"inductive"``.
        split: column of the masks, where they have several.
        metric: a name or a `Metric`; None takes ``data.metric``, or accuracy. Of several labels ``"rocauc"`` (the
            default), ``"ap"`` or ``"micro-f1"``.
        loss: of (outputs, targets) on the training nodes; None is cross-entropy, of several labels the binary one,
            averaged over those that are known.

    Raises:
        ValueError: if something is missing, empty, not finite or out of range, or a node is in two masks;
            the sentence says what.
        TypeError: if something is of the wrong type.

    Example:
        >>> from torch_geometric.data import Data
        >>> part = torch.arange(6)
        >>> data = Data(x=torch.eye(6), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), y=part % 2,
        ...             train_mask=part < 3, val_mask=part == 3, test_mask=part > 3)
        >>> NodeTask(data, protocol="inductive").training_nodes.tolist()
        [0, 1, 2, 3]
    """

    x: Tensor
    kind = "node"
    hashed = ("x", "y", "train_mask", "val_mask", "test_mask", *NAMES)

    def __init__(
        self,
        data: Any,
        *,
        protocol: Protocol = "transductive",
        split: int = 0,
        metric: str | Metric | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.protocol = one_of(protocol, "protocol", get_args(Protocol))
        self.x = _features(data)
        self.num_nodes = self.x.size(0)
        self.edge_index = check_arcs(getattr(data, "edge_index", None), self.num_nodes)
        self.edge_data = EdgeData.of(data, self.edge_index)
        self.masks = _masks(data, split, self.num_nodes)
        if bool((self.masks["test"] & (self.masks["train"] | self.masks["val"])).any()):
            raise ValueError("test nodes must be used for nothing else, but test_mask overlaps another mask")
        if bool((self.masks["train"] & self.masks["val"]).any()):
            raise ValueError("train_mask and val_mask overlap: what is trained on cannot choose the epoch")
        metric = metric or getattr(data, "metric", None)
        if _has_labels(data):
            self.outputs = "labels"
            self.metric = label_metric(metric or "rocauc")
            self.y = _labels(data, self.masks, self.metric.name)
        else:
            self.y = _targets(data, self.masks)
            self.metric = find_metric(metric or "accuracy")
        self.custom_loss = loss

    @classmethod
    def of(
        cls: type[NodeTask],
        data: Any,
        *,
        protocol: str | None = None,
        split: int = 0,
        metric: str | Metric | None = None,
    ) -> NodeTask:
        return cls(data, protocol=cast(Protocol, protocol or "transductive"), split=split, metric=metric)

    @property
    def num_features(self) -> int:
        """Features per node."""
        return self.x.size(1)

    @property
    def num_classes(self) -> int:
        """One more than the largest class id of the labelled nodes, and at least 2; or the number of labels."""
        if self.outputs == "labels":
            return self.y.size(1)
        labelled = self.masks["train"] | self.masks["val"] | self.masks["test"]
        return max(2, int(self.y[labelled].max()) + 1)

    @property
    def training_nodes(self) -> Tensor:
        if self.protocol == "transductive":
            return super().training_nodes
        return (~self.masks["test"]).nonzero().squeeze(1)

    def in_training(self) -> NodeTask:
        """The task on its training graph alone, which of an inductive one has no test nodes and so nothing to test."""
        if self.protocol == "transductive":
            return self
        other, nodes = copy.copy(self), self.training_nodes
        other.protocol, other.num_nodes, other.edge_index = "transductive", len(nodes), self.training_edge_index
        if self.edge_data:
            other.edge_data = self.edge_data.take(self.training_edges.nonzero().view(-1))
        other.x, other.y = self.x[nodes], self.y[nodes]
        other.masks = {part: mask[nodes] for part, mask in self.masks.items()}
        return other

    def in_batches(self, batches: Batches) -> NodeTask:
        """The same task, trained on sampled neighbourhoods of its nodes.

        It is evaluated on the whole graph, exactly, a layer after the other, whose messages are made in chunks. So its
        figures mean what they mean without batches, and with `Batches.size` at least the number of nodes and all
        neighbours it is the same task.

        Raises:
            ValueError: if `batches` does not say how many neighbours.
        """
        other = copy.copy(self)
        batches.hops  # noqa: B018
        other.batches = batches
        return other

    def on_nodes(self, nodes: Tensor) -> NodeTask:
        other = super().on_nodes(nodes)
        other.y, other.masks = self.y[nodes], {part: mask[nodes] for part, mask in self.masks.items()}
        return other

    def with_edges(self, edge_index: Tensor) -> NodeTask:
        """The same task on other edges; an inductive one induces its training graph from them.

        Raises:
            ValueError, TypeError: if `edge_index` is not a list of arcs between the task's nodes; or, where edges carry
                something, not some of the task's own, see `edge_data_of`.
        """
        edge_index = check_arcs(edge_index, self.num_nodes).to(self.edge_index.device)
        return self._with(edge_index, self.edge_data_of(edge_index))

    def with_positions(self, positions: Tensor) -> NodeTask:
        positions = positions.to(self.edge_index.device)
        return self._with(self.edge_index[:, positions], self.edge_data.take(positions))

    def _with(self, edge_index: Tensor, edge_data: EdgeData) -> NodeTask:
        other = copy.copy(self)
        other.edge_index, other.edge_data = edge_index, edge_data
        return other

    def to(self, device: torch.device | str) -> NodeTask:
        """The same task with its tensors on `device`."""
        other = copy.copy(self)
        other.x, other.y, other.edge_index = self.x.to(device), self.y.to(device), self.edge_index.to(device)
        other.edge_data = self.edge_data.to(device)
        other.masks = {part: mask.to(device) for part, mask in self.masks.items()}
        return other

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (a single output column: of its sigmoid), that of each label, or the loss that was given."""
        if self.custom_loss is not None:
            return self.custom_loss(outputs, targets)
        if self.outputs == "labels":
            return binary_loss(outputs, targets)
        if outputs.size(1) == 1:
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.to(outputs.dtype))
        return functional.cross_entropy(outputs, targets)

    def score(self, outputs: Tensor, part: str) -> float:
        """The metric of ``"train"``, ``"val"`` or ``"test"`` for outputs [N, C] of all nodes."""
        mask = self.masks[part].to(outputs.device)
        return self.judge(outputs[mask], self.y.to(outputs.device)[mask])

    def judge(self, outputs: Tensor, targets: Tensor) -> float:
        """The metric of some nodes; NaN where labels are judged by outputs that are not finite."""
        if self.outputs == "labels" and not bool(torch.isfinite(outputs).all()):
            return math.nan  # scikit-learn refuses what the loop can name
        return self.metric.score(outputs, targets)

    def inputs(self) -> tuple[Any, ...]:
        """Features and arcs of the whole graph, which an inductive task, too, is tested on."""
        return self.x, self.edge_index

    def arguments(self, model: nn.Module, *, quick: bool = False) -> Arguments:
        task = self.to(device_of(model)) if quick else self
        found = GraphCall(model).arguments(task.x, task.edge_index, task.edge_data)
        return _quick(model, found) if quick and self.batches is None else found

    @torch.no_grad()
    def node_outputs(self, model: nn.Module) -> Tensor:
        """Logits [N, C] on the whole graph, of an inductive task, too."""
        arguments = self.arguments(model, quick=True)
        if self.batches is None:
            return whole_outputs(model, arguments)
        with evaluating(model):
            return exact_outputs(model, arguments)

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Session:
        if self.batches is not None and not self.batches.are_all(self.num_nodes):
            return SampledNodes(self, self.batches, model, device, distill)
        return _FullBatch(self.to(device), model, distill)

    def fingerprint(self) -> dict[str, str]:
        return {
            "x": tensor_hash(self.x),
            "edge_index": tensor_hash(self.edge_index),
            "y": tensor_hash(self.y),
            "masks": tensor_hash(*self.masks.values()),
            "protocol": self.protocol,
            "loss": "cross-entropy" if self.custom_loss is None else name_of(self.custom_loss),
            "metric": f"{self.metric.name} {self.metric.direction}",
            **self.edge_data.fingerprint(),
            **({} if self.batches is None else {"batches": self.batches.fingerprint()}),
        }

    def check_columns(self, columns: int) -> None:
        """Refuse a model whose outputs [N, columns] do not fit the labels.

        Raises:
            ValueError: there are fewer outputs than classes, or not as many as labels.
        """
        number = self.num_classes
        if self.outputs == "labels" and columns != number:
            raise ValueError(f"each node has {number} labels, but the model has {columns} outputs")
        if self.outputs == "classes" and max(2, columns) < number:
            raise ValueError(f"the labels have {number} classes, but the model has {columns} outputs")


class _FullBatch:
    """`NodeTask` in training: one step an epoch."""

    def __init__(self, task: NodeTask, model: nn.Module, distill: Distill | None) -> None:
        self.task, self.model, self.distill = task, model, distill
        self.nodes = task.training_nodes
        part = task.in_training()
        call = GraphCall(model)
        self.whole, self.training = (call.arguments(t.x, t.edge_index, t.edge_data) for t in (task, part))
        if part is task:
            self.training = self.whole
        clear_graph_caches(model)  # what they hold may be another graph's
        self._choose_features()
        self._last: Arguments | None = None
        self.targets, self.train_rows, self.val_rows = part.y, part.masks["train"], part.masks["val"]
        if distill is not None:
            self._bind_teacher(distill)

    def _choose_features(self) -> None:
        quick = _quick(self.model, self.training)
        if self.training is self.whole:
            self.whole = self.training = quick
        elif quick is not self.training:
            self.training, self.whole = quick, _quick(self.model, self.whole)

    def _bind_teacher(self, distill: Distill) -> None:
        device = self.nodes.device
        distilled = distill.mask(self.task.num_nodes).to(device)
        self.distilled = distilled[self.nodes]
        if not bool(self.distilled.any()):
            raise ValueError("no node of the training graph is left to distil")
        self.teacher = distill.logits.detach().to(device)[self.nodes][self.distilled]

    def _forward(self, graph: Arguments) -> Tensor:
        if self._last is not graph:
            clear_graph_caches(self.model)
            self._last = graph
        outputs, number = graph.run(self.model), len(graph.places[0])
        return check_rows(outputs, number)

    def losses(self) -> Iterator[Tensor]:
        self.model.train()
        outputs = self._forward(self.training)
        if self.task.custom_loss is None:
            self.task.check_columns(outputs.size(1))
        loss = self.task.loss(outputs[self.train_rows], self.targets[self.train_rows])
        if self.distill is not None:
            loss = loss + self.distill.term(outputs[self.distilled], self.teacher)
        yield loss

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        self.model.eval()
        outputs = self._forward(self.training)
        val = self.task.judge(outputs[self.val_rows], self.targets[self.val_rows])
        return Evaluation(val, lambda: self._finish(outputs))

    @torch.no_grad()
    def _finish(self, outputs: Tensor) -> tuple[float, Tensor]:
        if self.training is not self.whole:
            everywhere = self._forward(self.whole)
            outputs = everywhere.index_copy(0, self.nodes, outputs)
        return self.task.score(outputs, "test"), outputs

    def generators(self) -> list[torch.Generator]:
        return []


def _quick(model: nn.Module, graph: Arguments) -> Arguments:
    """The same graph with sparse features, where those give the model equal results; else itself."""
    x = graph.x
    assert x is not None
    quick = features_for(model, x, graph.edge_index, **graph.named)
    return graph if quick is x else graph.with_x(quick)


def _features(data: Any) -> Tensor:
    return check_features(tensor_of(data, "x", "the data has no features: set data.x to a float tensor [N, F]"))


def _masks(data: Any, split: int, num_nodes: int) -> dict[str, Tensor]:
    """The mask of each part; of a part that has one for all splits (the test part of WikiCS) that one."""
    masks = {part: mask_of(data, part, num_nodes, "node") for part in _PARTS}
    for part, mask in masks.items():
        columns = 1 if mask.dim() == 1 else mask.size(1) if mask.dim() == 2 else 0
        if mask.dim() == 0 or mask.size(0) != num_nodes or columns == 0:
            got = list(mask.shape)
            raise ValueError(f"{part}_mask must have shape [{num_nodes}] or [{num_nodes}, splits], got {got}")
    columns = min((mask.size(1) for mask in masks.values() if mask.dim() == 2), default=1)
    if not 0 <= split < columns:
        raise ValueError(f"split must lie in 0 ... {columns - 1}, got {split}")
    masks = {part: mask if mask.dim() == 1 else mask[:, split] for part, mask in masks.items()}
    for part, mask in masks.items():
        if not bool(mask.any()):
            raise ValueError(f"{part}_mask selects no node")
    return masks


def _has_labels(data: Any) -> bool:
    """Whether y has a column a label; a single column of whole numbers is one of class ids."""
    y = getattr(data, "y", None)
    return isinstance(y, Tensor) and y.dim() == 2 and (y.size(1) != 1 or y.is_floating_point())


def _labels(data: Any, masks: dict[str, Tensor], metric: str) -> Tensor:
    y: Tensor = data.y.detach()
    y = y if y.layout == torch.strided else y.to_dense()
    num_nodes = masks["train"].size(0)
    if y.size(0) != num_nodes or not y.size(1):
        raise ValueError(f"data.y must have shape [{num_nodes}] or [{num_nodes}, labels], got {list(y.shape)}")
    if y.is_complex():
        raise TypeError(f"data.y must hold labels (0, 1 or NaN), got {y.dtype}")
    y = y.float()
    check_label_values(y, "node")
    for part, mask in masks.items():
        check_judged(y[mask], part, metric, "node")
    return y


def _targets(data: Any, masks: dict[str, Tensor]) -> Tensor:
    y = tensor_of(data, "y", "the data has no labels: set data.y to class ids [N]")
    num_nodes = masks["train"].size(0)
    if y.dim() == 2 and y.size(1) == 1:
        y = y[:, 0]
    if y.shape != (num_nodes,):
        raise ValueError(f"data.y must have shape [{num_nodes}], got {list(y.shape)}")
    if y.is_floating_point() or y.is_complex():
        raise TypeError(f"data.y must hold class ids (integers), got {y.dtype}")
    y = y.detach().long()
    labelled = masks["train"] | masks["val"] | masks["test"]
    if int(y[labelled].min()) < 0:
        node = int((labelled & (y < 0)).nonzero()[0])
        raise ValueError(f"the label of node {node} is {int(y[node])}; class ids start at 0")
    return y
