"""Properties of whole graphs, such as molecules: classification and regression, several targets at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import MessagePassing

from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.batches.seeds import new_epoch
from graphsparse.fit.checks import check_arcs, check_finite, mask_of, tensor_of
from graphsparse.fit.distill import Distill, Outputs
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_call import Arguments, GraphCall
from graphsparse.fit.labels import binary_loss
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.fit.message_task import MessageTask
from graphsparse.fit.metrics import Metric
from graphsparse.fit.ogb_metrics import graph_metric
from graphsparse.fit.task import Evaluation, Session
from graphsparse.fit.union import Union, find_arcs
from graphsparse.hashing import tensor_hash
from graphsparse.registry import spelling

_PARTS = ("train", "val", "test")
_GRAPHS_AT_ONCE = 512


class GraphTask(MessageTask):
    """Predict T properties of each of many graphs.

    The loss is the mean over the known targets of a batch: of the binary cross-entropy, or of the squared error where
    the metric is an error. Training sees training graphs alone, so the protocol is inductive. Distillation: on the
    training graphs, binary KL of each target, or the squared distance to the teacher's value.

    Args:
        data: all graphs as one disjoint union, see `graphsparse.data.GraphSet`: x [N, ...], edge_index [2, E],
            edge_attr [E, ...], edge_weight [E] and edge_type [E] where there are, batch [N] (the graph of each node,
            ascending), y [G] or [G, T] (0 and 1, or numbers; NaN where not known), and the boolean train_mask, val_mask
            and test_mask, each [G].
        metric: ``"rocauc"``, ``"ap"``, ``"rmse"``, ``"accuracy"`` or a `Metric` of outputs and targets [G, T]; None
            takes ``data.metric``. A metric that is minimised makes the task a regression; ``"accuracy"`` one of T
            classes, of which each graph has one: y holds a one there and zeros elsewhere, the loss is cross-entropy.
        batch_size: training graphs of a step; batches of an epoch differ in size by one at most.

    The model is called as ``model(x, edge_index, edge_attr, batch)``, or by the names of its own forward if that names
    ``batch`` elsewhere, and returns [graphs, T] (logits or values). ``edge_weight`` and ``edge_type`` come by name,
    where the forward has them. Outputs are those of all graphs, [G, T].

    Raises:
        ValueError: if something is missing, empty, not finite or out of range, an edge joins two graphs, or the metric
            is undefined in a part; the sentence says what.
        TypeError: if something is of the wrong type.

    Example:
        >>> from torch_geometric.data import Data
        >>> part = torch.arange(3)
        >>> data = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), batch=torch.tensor([0, 0, 1, 2]),
        ...             y=torch.tensor([1.5, 0.0, 2.0]), train_mask=part < 1, val_mask=part == 1, test_mask=part > 1)
        >>> task = GraphTask(data, metric="rmse")
        >>> task.num_graphs, task.score(torch.ones(3, 1), "test")
        (3, 1.0)
    """

    x: Tensor
    kind = "graph"
    hashed = ("x", "y", "batch", "edge_attr", "train_mask", "val_mask", "test_mask", "edge_weight", "edge_type")
    protocol = "inductive"

    def __init__(self, data: Any, *, metric: str | Metric | None = None, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        metric = metric or getattr(data, "metric", None)
        if metric is None:
            raise ValueError("say how graphs are judged: metric='rocauc', 'ap', 'rmse' or a Metric")
        self.metric = metric if isinstance(metric, Metric) else graph_metric(metric)
        self.x = tensor_of(data, "x", "the data has no features: set data.x to a tensor")
        self.num_nodes = self.x.size(0)
        check_finite(self.x, "data.x", "node")
        self.batch = _graph_numbers(data, self.num_nodes)
        self.num_graphs = int(self.batch[-1]) + 1
        self.edge_index = self._within_graphs(getattr(data, "edge_index", None))
        self.edge_data = EdgeData.of(data, self.edge_index)
        self.y = _targets(data, self.num_graphs)
        self.outputs: Outputs = "values" if self.regression else "classes" if self.one_class else "labels"
        self.masks = {part: _mask(data, part, self.num_graphs) for part in _PARTS}
        _check_disjoint(self.masks)
        self._check_targets()
        self.batch_size = batch_size
        self._arrange()

    @classmethod
    def of(
        cls: type[GraphTask],
        data: Any,
        *,
        protocol: str | None = None,
        split: int = 0,
        metric: str | Metric | None = None,
    ) -> GraphTask:
        if protocol is not None and spelling(protocol, [cls.protocol]) is None:
            raise ValueError(f"test graphs are never seen in training: the protocol is inductive, got {protocol!r}")
        if split != 0:
            raise ValueError(f"the data has one split, number 0, got {split}")
        return cls(data, metric=metric)

    def in_batches(self, batches: Batches) -> GraphTask:
        """The same task with so many graphs a step; they are taken whole.

        Raises:
            ValueError: if neighbours are to be drawn.
        """
        if batches.neighbors is not None:
            raise ValueError("a batch of graphs takes each of them whole: leave neighbors out")
        other = copy.copy(self)
        other.batches, other.batch_size = batches, batches.size
        return other

    @property
    def num_targets(self) -> int:
        """Targets of each graph, T."""
        return self.y.size(1)

    @property
    def regression(self) -> bool:
        """Whether targets are numbers, and not labels 0 and 1."""
        return not self.metric.maximize

    @property
    def shares_out(self) -> bool:
        return self.batches is not None

    @property
    def one_class(self) -> bool:
        """Whether each graph is of one of T classes."""
        return self.metric.name == "accuracy"

    @property
    def graph_of(self) -> Tensor:
        return self.batch

    @property
    def training_nodes(self) -> Tensor:
        return self.masks["train"][self.batch].nonzero().view(-1)

    def with_edges(self, edge_index: Tensor) -> GraphTask:
        """The same task with some of its edges, each with what it carries.

        Raises:
            ValueError: if an arc is none of the task's own; or if it has parallel copies, some of which are left out,
                so that it is open what the others carry (`with_mask` says it).
        """
        positions = find_arcs(self.edge_index, self._within_graphs(edge_index), self.num_nodes)
        return self.with_positions(positions)

    def with_positions(self, positions: Tensor) -> GraphTask:
        other, positions = copy.copy(self), positions.to(self.edge_index.device)
        other.edge_index, other.edge_data = self.edge_index[:, positions], self.edge_data.take(positions)
        other._arrange()
        return other

    def _arrange(self) -> None:
        self.union = Union.of(self.x, self.edge_index, self.edge_data, self.batch, self.num_graphs)

    def inputs(self) -> tuple[Any, ...]:
        """The test graphs: features, arcs, features of the arcs or None, and the graph of each node."""
        x, edge_index, edge_data, batch = self._tested()
        return x, edge_index, edge_data.edge_attr, batch

    def arguments(self, model: nn.Module, *, quick: bool = False) -> Arguments:
        found = GraphCall(model).arguments(*self._tested())
        return found.to(device_of(model)) if quick else found

    def _tested(self) -> tuple[Tensor, Tensor, EdgeData, Tensor]:
        return self.union.take(self.masks["test"].nonzero().view(-1))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the targets that are known (zero if none is): squared error, or (binary) cross-entropy."""
        if self.one_class:
            return functional.cross_entropy(outputs, targets.argmax(dim=1))
        if not self.regression:
            return binary_loss(outputs, targets)
        known = ~torch.isnan(targets)
        losses = functional.mse_loss(outputs[known], targets[known], reduction="none")
        mean: Tensor = losses.sum() / max(losses.numel(), 1)
        return mean

    def score(self, outputs: Tensor, part: str) -> float:
        """The metric of ``"train"``, ``"val"`` or ``"test"`` for outputs [G, T] of all graphs."""
        mask = self.masks[part]
        return self.metric.score(outputs[mask.to(outputs.device)].cpu(), self.y[mask].cpu())

    @torch.no_grad()
    def node_outputs(self, model: nn.Module) -> Tensor:
        """What the layer that passes messages last returns [N, D].

        Raises:
            ValueError: the model has none, or it does not return one row for each node.
        """
        last: list[tuple[nn.Module, Any]] = []
        layers = [module for module in model.modules() if isinstance(module, MessagePassing)]
        hooks = [layer.register_forward_hook(lambda layer, _, out: last.append((layer, out))) for layer in layers]
        union, call = self.union.to(device_of(model)), GraphCall(model)

        def states(graphs: Tensor) -> Tensor:
            last.clear()
            arguments = call.arguments(*union.take(graphs.to(union.x.device)))
            arguments.run(model)
            return _state_of_nodes(last, len(arguments.places[0]), model)

        try:
            with evaluating(model):
                return _in_parts(states, torch.arange(self.num_graphs), model)
        finally:
            for hook in hooks:
                hook.remove()
            clear_graph_caches(model)

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Session:
        return _Batches(self, model, device, distill)

    def fingerprint(self) -> dict[str, str]:
        return {
            "graphs": tensor_hash(self.x, self.edge_index, self.edge_data.edge_attr, self.batch),
            "y": tensor_hash(self.y),
            "masks": tensor_hash(*self.masks.values()),
            "batch_size": str(self.batch_size),
            **({} if self.batches is None else {"batches": self.batches.fingerprint()}),
            "metric": f"{self.metric.name} {self.metric.direction}",
            **{name: value for name, value in self.edge_data.fingerprint().items() if name != "edge_attr"},
        }

    def _within_graphs(self, edge_index: Any) -> Tensor:
        arcs = check_arcs(edge_index, self.num_nodes)
        tails, heads = self.batch[arcs.long()]
        between = (tails != heads).nonzero()
        if len(between):
            u, v = arcs[:, int(between[0])].tolist()
            raise ValueError(f"the edge ({u}, {v}) joins two graphs, {int(self.batch[u])} and {int(self.batch[v])}")
        return arcs

    def _check_targets(self) -> None:
        if not self.regression and not bool(((self.y == 0) | (self.y == 1) | self.y.isnan()).all()):
            raise ValueError(f"for {self.metric.name}, targets must be 0, 1 or NaN (not known)")
        if self.one_class and not bool(((self.y == 1).sum(dim=1) == 1).all()):
            graph = int(((self.y == 1).sum(dim=1) != 1).nonzero()[0])
            raise ValueError(
                f"for accuracy each graph has a one at its class and zeros elsewhere; graph {graph} has not"
            )
        for part, mask in self.masks.items():
            y = self.y[mask]
            known = ~y.isnan()
            if self.regression and part != "train" and not bool(known.any(dim=0).all()):
                raise ValueError(
                    f"{part}_mask selects no graph whose target {int((~known.any(dim=0)).nonzero()[0])} is known"
                )
            both = ((y == 0).any(dim=0) & (y == 1).any(dim=0)).any()
            if self.metric.name in ("rocauc", "ap") and part != "train" and not bool(both):
                raise ValueError(f"{self.metric.name} is undefined: {part}_mask selects graphs of one class only")
            if not bool(known.any()):
                raise ValueError(f"{part}_mask selects no graph with a known target")


class _Batches:
    """`GraphTask` in training: batches of graphs, cut from the union."""

    def __init__(self, task: GraphTask, model: nn.Module, device: torch.device, distill: Distill | None) -> None:
        self.task, self.model, self.device, self.distill = task, model, device, distill
        clear_graph_caches(model)
        self.generator = torch.Generator()
        self.union, self.y, self.call = task.union.to(device), task.y.to(device), GraphCall(model)
        self.graphs = {part: mask.nonzero().view(-1).cpu() for part, mask in task.masks.items()}
        if distill is not None:
            self.distilled = distill.mask(task.num_graphs)
            self.teacher = distill.logits.detach().to(device)

    def _forward(self, graphs: Tensor) -> Tensor:
        outputs = self.call.arguments(*self.union.take(graphs.to(self.device))).run(self.model)
        if not isinstance(outputs, Tensor) or outputs.shape != (len(graphs), self.task.num_targets):
            raise ValueError(
                f"the model must return outputs [{len(graphs)}, {self.task.num_targets}] for {len(graphs)} graphs with "
                f"{self.task.num_targets} targets"
            )
        return outputs

    def losses(self) -> Iterator[Tensor]:
        self.model.train()
        graphs = self.graphs["train"]
        if self.task.batches is not None:
            epoch = new_epoch(self.task.batches, [graphs], self.generator)
            for own, every in zip(epoch.steps, epoch.wholes, strict=True):
                yield self._loss(own, every)
            return
        order = graphs[torch.randperm(len(graphs))]
        # parts of nearly equal size: a last batch of one atom would stop a batch norm
        for batch in torch.tensor_split(order, -(-len(order) // self.task.batch_size)):
            yield self._loss(batch, batch)

    def _loss(self, batch: Tensor, every: Tensor) -> Tensor:
        """What the graphs of a batch are of the loss of all that are learned from in this step."""
        if not len(batch):  # another process has some
            return next(p for p in self.model.parameters() if p.requires_grad).sum() * 0
        clear_graph_caches(self.model)
        outputs, targets = self._forward(batch), self.y[batch.to(self.device)]
        loss = self.task.loss(outputs, targets)
        if len(every) > len(batch):
            known, of_all = (int((~y.isnan()).sum()) for y in (targets, self.y[every.to(self.device)]))
            loss = loss * (known / max(of_all, 1))
        if self.distill is not None and bool(self.distilled[batch].any()):
            rows = self.distilled[batch].to(self.device)
            term = self.distill.term(outputs[rows], self.teacher[batch.to(self.device)[rows]])
            loss = loss + term * (int(rows.sum()) / int(self.distilled[every].sum()))
        return loss

    @torch.no_grad()
    def _outputs(self, graphs: Tensor) -> Tensor:
        self.model.eval()
        return _in_parts(self._forward, graphs, self.model)

    def evaluate(self) -> Evaluation:
        outputs = self._outputs(self.graphs["val"])
        finite = bool(torch.isfinite(outputs).all())  # scikit-learn refuses what the loop can name
        val = self.task.metric.score(outputs.cpu(), self.task.y[self.task.masks["val"]].cpu()) if finite else np.nan
        return Evaluation(val, lambda: self._finish(outputs))

    def _finish(self, val: Tensor) -> tuple[float, Tensor]:
        others = (~self.task.masks["val"]).nonzero().view(-1).cpu()
        outputs = val.new_empty(self.task.num_graphs, self.task.num_targets)
        outputs[self.graphs["val"].to(val.device)] = val
        outputs[others.to(val.device)] = self._outputs(others)
        finite = bool(torch.isfinite(outputs).all())
        return self.task.score(outputs, "test") if finite else np.nan, outputs

    def generators(self) -> list[torch.Generator]:
        return [] if self.task.batches is None else [self.generator]


def _in_parts(outputs: Callable[[Tensor], Tensor], graphs: Tensor, model: nn.Module) -> Tensor:
    """The outputs of a few graphs at a time, one below the other; layers remember no graph from part to part."""
    found = []
    for part in torch.split(graphs, _GRAPHS_AT_ONCE):
        clear_graph_caches(model)
        found.append(outputs(part))
    return torch.cat(found)


def _state_of_nodes(calls: list[tuple[nn.Module, Any]], num_nodes: int, model: nn.Module) -> Tensor:
    if not calls:
        raise ValueError(f"{type(model).__name__} calls no MessagePassing layer of PyG whose states could be read")
    layer, state = calls[-1]
    if not isinstance(state, Tensor) or state.dim() != 2 or state.size(0) != num_nodes:
        raise ValueError(
            f"{type(layer).__name__} passes messages last, but returns no row for each of {num_nodes} nodes"
        )
    return state


def _graph_numbers(data: Any, num_nodes: int) -> Tensor:
    batch = tensor_of(data, "batch", "the data has no graph of each node: set data.batch to a tensor")
    if batch.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"data.batch must hold graph numbers (int64), got {batch.dtype}")
    if batch.shape != (num_nodes,) or not num_nodes:
        raise ValueError(f"data.batch must have shape [{max(num_nodes, 1)}], got {list(batch.shape)}")
    steps = batch.diff()
    if int(batch[0]) != 0 or bool(((steps != 0) & (steps != 1)).any()):
        raise ValueError("data.batch must ascend from 0 by steps of one: every graph has a node, side by side")
    return batch.long()


def _targets(data: Any, num_graphs: int) -> Tensor:
    y = tensor_of(data, "y", "the data has no targets: set data.y to a tensor")
    y = y[:, None] if y.dim() == 1 else y
    if y.dim() != 2 or y.size(0) != num_graphs or not y.size(1):
        raise ValueError(f"data.y must have shape [{num_graphs}] or [{num_graphs}, T], got {list(y.shape)}")
    if y.is_complex():
        raise TypeError(f"data.y must hold numbers, got {y.dtype}")
    if bool(torch.isinf(y).any()):
        raise ValueError(f"the target of graph {int(torch.isinf(y).nonzero()[0, 0])} is infinite; NaN says not known")
    return y.float()


def _mask(data: Any, part: str, num_graphs: int) -> Tensor:
    name = f"{part}_mask"
    mask = mask_of(data, part, num_graphs, "graph")
    if mask.shape != (num_graphs,):
        raise ValueError(f"{name} must have shape [{num_graphs}], one entry a graph, got {list(mask.shape)}")
    if not bool(mask.any()):
        raise ValueError(f"{name} selects no graph")
    return mask


def _check_disjoint(masks: dict[str, Tensor]) -> None:
    twice = torch.stack(list(masks.values())).sum(dim=0) > 1
    if bool(twice.any()):
        raise ValueError(f"graph {int(twice.nonzero()[0])} is in two of train_mask, val_mask and test_mask")
