"""Link prediction on one graph: pairs of nodes are scored from what messages along known links make of the nodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.fit.batches.nodes import exact_outputs
from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.checks import check_arcs, check_features, check_rows, tensor_of
from graphsparse.fit.distill import Distill
from graphsparse.fit.edge_data import NAMES, EdgeData
from graphsparse.fit.features import clear_graph_caches, features_for
from graphsparse.fit.fingerprint import name_of
from graphsparse.fit.graph_call import Arguments, GraphCall, whole_outputs
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.fit.message_task import MessageTask
from graphsparse.fit.metrics import Metric
from graphsparse.fit.negatives import NegativePairs
from graphsparse.fit.ogb_metrics import link_metric, negatives_needed
from graphsparse.fit.task import Evaluation, Session
from graphsparse.hashing import tensor_hash
from graphsparse.registry import one_of, spelling

Decoder = Callable[[Tensor, Tensor], Tensor]
Positives = Literal["all", "kept"]
_JUDGED = ("val_pos", "val_neg", "test_pos", "test_neg")
_PAIRS_AT_ONCE = 1 << 13  # scored together, so that what a decoder makes of them stays in the processor's cache


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Score of pairs: the dot product of their nodes' embeddings, [M, H] and [M, H] to [M].

    Example:
        >>> dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([11.])
    """
    return (first * second).sum(dim=1)


class LinkTask(MessageTask):
    """Tell links from pairs that are none; messages go along training links only.

    A step embeds all nodes along `edge_index`, takes a batch of training links and as many negative pairs
    (`NegativePairs`), and minimises -mean log sigmoid(link) - mean log(1 - sigmoid(negative)), as OGB's examples do.
    Fewer edges mean fewer messages and nothing else: all training links stay examples, and all validation and test
    links stay what they are. Distillation: binary KL from the teacher's score of every pair of the step.

    Args:
        data: PyG ``Data`` with edge_index [2, E] (both arcs of an undirected link), num_nodes, and in PyG's names
            ``train_pos_edge_index`` [2, P] (each link once) and ``{val,test}_{pos,neg}_edge_index`` [2, M]; for ``mrr``
            the negatives are [2, M, K], K for each positive. x [N, F] (floats) if there are features; edge_weight,
            edge_attr and edge_type of the arcs, if there are, go to the model by the names of its forward.
        metric: ``"hits@K"``, ``"mrr"``, ``"rocauc"`` or a `Metric` whose score takes the outputs of positives and of
            negatives; None takes ``data.metric``.
        decoder: from the embeddings of both ends, [M, H] each, to scores [M]. A model that has a method
            ``decode(z, pairs)`` (embeddings [N, H], pairs [2, M]) of its own decodes itself.
        batch_size: training links of a step, and as many negatives; None takes all of them at once.
        positives: ``"all"``: training links whose messages are dropped still train; ``"kept"``: they do not.

    The model is called as ``model(x, edge_index)``, where x is None if the data has no features, and returns
    embeddings [N, H]. Outputs are logits of the judged pairs: validation positives and negatives, then those of test.

    Raises:
        ValueError: if something is missing, empty, not finite or out of range, or there are fewer than K negatives
            for ``hits@K``.
        TypeError: if something is of the wrong type.

    Example:
        >>> from torch_geometric.data import Data
        >>> arcs = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> pair = torch.tensor([[0], [3]])
        >>> data = Data(edge_index=arcs, num_nodes=4, train_pos_edge_index=arcs[:, ::2], val_pos_edge_index=pair,
        ...             val_neg_edge_index=pair, test_pos_edge_index=pair, test_neg_edge_index=pair)
        >>> task = LinkTask(data, metric="hits@1")
        >>> outputs = torch.tensor([1.0, 0.0, -1.0, 0.0])
        >>> task.score(outputs, "val"), task.score(outputs, "test")
        (1.0, 0.0)
    """

    kind = "link"
    hashed = ("x", "train_pos_edge_index", *(f"{name}_edge_index" for name in _JUDGED), *NAMES)
    protocol = "transductive"

    def __init__(
        self,
        data: Any,
        *,
        metric: str | Metric | None = None,
        decoder: Decoder = dot,
        batch_size: int | None = 1 << 16,
        positives: Positives = "all",
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for all, got {batch_size}")
        positives = cast(Positives, one_of(positives, "positives", get_args(Positives)))
        metric = metric or getattr(data, "metric", None)
        if metric is None:
            raise ValueError("say how links are judged: metric='hits@20', 'mrr', 'rocauc' or a Metric")
        self.metric = metric if isinstance(metric, Metric) else link_metric(metric)
        self.num_nodes = _num_nodes(data)
        self.x = None if getattr(data, "x", None) is None else check_features(data.x)
        self.edge_index = check_arcs(getattr(data, "edge_index", None), self.num_nodes)
        self.edge_data = EdgeData.of(data, self.edge_index)
        self.training_links = _pairs(data, "train_pos", self.num_nodes)
        self.judged = {name: _pairs(data, name, self.num_nodes) for name in _JUDGED}
        _check_negatives(self.judged, self.metric.name)
        self.negatives = NegativePairs(torch.cat([self.edge_index, self.training_links], dim=1), self.num_nodes)
        self.decoder, self.batch_size, self.positives = decoder, batch_size, positives

    @classmethod
    def of(
        cls: type[LinkTask],
        data: Any,
        *,
        protocol: str | None = None,
        split: int = 0,
        metric: str | Metric | None = None,
    ) -> LinkTask:
        if protocol is not None and spelling(protocol, [cls.protocol]) is None:
            raise ValueError(f"links are predicted between known nodes: the protocol is transductive, got {protocol!r}")
        if split != 0:
            raise ValueError(f"the data has one split, number 0, got {split}")
        return cls(data, metric=metric)

    def in_batches(self, batches: Batches) -> LinkTask:
        """The same task; with `Batches.neighbors`, on sampled neighbourhoods of the ends of pairs.

        Without, a step takes so many links, and messages go along the whole graph. Figures are those of embeddings that
        are made on the whole graph, exactly, layer by layer.

        Raises:
            ValueError: if neighbours are to be drawn and the data has no features: the model would hold an embedding of
                every node, which a batch cannot have.
        """
        other = copy.copy(self)
        if batches.neighbors is not None and self.x is None:
            raise ValueError(
                "the data has no features x, so the model holds an embedding of every node, of which a batch has no "
                "part: leave neighbors out (messages then go along the whole graph), or give the nodes features"
            )
        if batches.neighbors is None and batches.steps is not None:
            raise ValueError("steps counts batches of neighbourhoods: give neighbors, too")
        other.batches, other.batch_size = batches, batches.size
        return other

    def with_edges(self, edge_index: Tensor) -> LinkTask:
        """The same task with messages along other edges.

        Raises:
            ValueError, TypeError: if `edge_index` is not a list of arcs between the task's nodes; or, where edges carry
                something, not some of the task's own, see `edge_data_of`.
        """
        edge_index = check_arcs(edge_index, self.num_nodes).to(self.edge_index.device)
        return self._with(edge_index, self.edge_data_of(edge_index))

    def with_positions(self, positions: Tensor) -> LinkTask:
        positions = positions.to(self.edge_index.device)
        return self._with(self.edge_index[:, positions], self.edge_data.take(positions))

    def _with(self, edge_index: Tensor, edge_data: EdgeData) -> LinkTask:
        other = copy.copy(self)
        other.edge_index, other.edge_data = edge_index, edge_data
        if self.positives == "kept":
            other.training_links = _among(self.training_links, other.edge_index, self.num_nodes)
        return other

    def to(self, device: torch.device | str) -> LinkTask:
        """The same task with its tensors on `device`."""
        other = copy.copy(self)
        other.x = None if self.x is None else self.x.to(device)
        other.edge_index, other.training_links = self.edge_index.to(device), self.training_links.to(device)
        other.edge_data = self.edge_data.to(device)
        other.judged = {name: pairs.to(device) for name, pairs in self.judged.items()}
        return other

    def inputs(self) -> tuple[Any, ...]:
        """Features (or None) and arcs."""
        return self.x, self.edge_index

    def arguments(self, model: nn.Module, *, quick: bool = False) -> Arguments:
        task = self.to(device_of(model)) if quick else self
        found = GraphCall(model).arguments(task.x, task.edge_index, task.edge_data)
        if not quick or found.x is None or self.samples:
            return found
        return found.with_x(features_for(model, found.x, found.edge_index, **found.named))

    def decode(self, model: nn.Module, z: Tensor, pairs: Tensor) -> Tensor:
        """Logits [M] of pairs [2, M] from embeddings [N, H]: by the model itself if it can, else by the decoder."""
        own = getattr(model, "decode", None)
        logits = own(z, pairs) if own is not None else self.decoder(*(z.index_select(0, ends) for ends in pairs))
        if not isinstance(logits, Tensor) or logits.numel() != pairs.size(1):
            raise ValueError(f"the decoder must return one score for each of {pairs.size(1)} pairs")
        return logits.reshape(-1)

    def score(self, outputs: Tensor, part: str) -> float:
        """The metric of ``"val"`` or ``"test"`` for outputs of all judged pairs."""
        if part not in ("val", "test"):
            raise ValueError(f"links are judged in the parts 'val' and 'test', not in {part!r}")
        sizes = [pairs[0].numel() for pairs in self.judged.values()]
        parts = dict(zip(self.judged, torch.split(outputs.reshape(-1), sizes), strict=True))
        negative = parts[f"{part}_neg"].view(self.judged[f"{part}_neg"].shape[1:])
        return self.metric.score(parts[f"{part}_pos"], negative)

    @torch.no_grad()
    def node_outputs(self, model: nn.Module) -> Tensor:
        """Embeddings [N, H]."""
        arguments = self.arguments(model, quick=True)
        if not self.samples:
            return whole_outputs(model, arguments)
        with evaluating(model):
            return exact_outputs(model, arguments)

    def teach(self, teacher: nn.Module, outputs: Tensor, weight: float) -> Distill:
        """Distil the scores of whatever pairs a step draws: the teacher's embeddings and its decoder are kept."""
        z = self.node_outputs(teacher.eval())
        return Distill(z, weight=weight, outputs="labels", decode=partial(self.decode, teacher))

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Session:
        if self.samples and self.batches is not None and not self.batches.are_all(self.training_links.size(1)):
            from graphsparse.fit.batches.links import SampledLinks

            return SampledLinks(self, self.batches, model, device, distill)
        return LinkSession(self.to(device), model, distill)

    def fingerprint(self) -> dict[str, str]:
        return {
            "x": tensor_hash(self.x),
            "edge_index": tensor_hash(self.edge_index),
            "training links": tensor_hash(self.training_links),
            "judged pairs": tensor_hash(*self.judged.values()),
            "decoder": name_of(self.decoder),
            "batch_size": str(self.batch_size),
            "metric": f"{self.metric.name} {self.metric.direction}",
            **self.edge_data.fingerprint(),
            **({} if self.batches is None else {"batches": self.batches.fingerprint()}),
        }


class LinkSession:
    """`LinkTask` in training, messages along the whole graph in every step."""

    def __init__(self, task: LinkTask, model: nn.Module, distill: Distill | None) -> None:
        if not task.training_links.size(1):
            raise ValueError("no training link is left; positives='all' keeps those whose messages are dropped")
        self.task, self.model, self.distill = task, model, distill
        clear_graph_caches(model)  # what they hold may be another graph's
        self.arguments = task.arguments(model, quick=True)
        if distill is not None:
            if distill.decode is None:
                raise ValueError("links are distilled by a teacher that scores any pair: make it with LinkTask.teach")
            self.teacher = distill.logits.to(task.edge_index.device)

    def _embed(self) -> Tensor:
        return check_rows(self.arguments.run(self.model), self.task.num_nodes, "one embedding")

    def losses(self) -> Iterator[Tensor]:
        self.model.train()
        links = self.task.training_links
        order = torch.randperm(links.size(1))
        for batch in torch.split(order, self.task.batch_size or len(order)):
            negative = self.task.negatives.draw(len(batch)).to(links.device)
            pairs = torch.cat([links[:, batch.to(links.device)], negative], dim=1)
            logits = self._logits(self._embed(), pairs)
            targets = torch.zeros_like(logits)
            targets[: len(batch)] = 1
            # equally many of both kinds, so this is the mean over links plus the mean over negatives
            loss = 2 * functional.binary_cross_entropy_with_logits(logits, targets)
            if self.distill is not None:
                loss = loss + self.distill.term(logits[:, None], self._taught(pairs)[:, None])
            yield loss

    @torch.no_grad()
    def _taught(self, pairs: Tensor) -> Tensor:
        assert self.distill is not None
        assert self.distill.decode is not None
        parts = torch.split(pairs, _PAIRS_AT_ONCE, dim=1)
        return torch.cat([self.distill.decode(self.teacher, part) for part in parts])

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        self.model.eval()
        z = self._embed()
        val = [self._logits(z, self.task.judged[name]) for name in ("val_pos", "val_neg")]
        return Evaluation(self.task.metric.score(*val), lambda: self._finish(z, val))

    @torch.no_grad()
    def _finish(self, z: Tensor, val: list[Tensor]) -> tuple[float, Tensor]:
        test = [self._logits(z, self.task.judged[name]) for name in ("test_pos", "test_neg")]
        return self.task.metric.score(*test), torch.cat([logits.reshape(-1) for logits in (*val, *test)])

    def _logits(self, z: Tensor, pairs: Tensor) -> Tensor:
        parts = torch.split(pairs.flatten(1), _PAIRS_AT_ONCE, dim=1)
        return torch.cat([self.task.decode(self.model, z, part) for part in parts]).view(pairs.shape[1:])

    def generators(self) -> list[torch.Generator]:
        return []


def _num_nodes(data: Any) -> int:
    if getattr(data, "x", None) is None and "num_nodes" not in data:
        raise ValueError("without features the data must say how many nodes there are: set data.num_nodes")
    return int(data.num_nodes)


def _pairs(data: Any, name: str, num_nodes: int) -> Tensor:
    key = f"{name}_edge_index"
    pairs = tensor_of(data, key, f"the data has no {key}: a link task needs it, pairs of nodes [2, M]")
    many = name.endswith("neg") and pairs.dim() == 3
    flat = check_arcs(pairs.flatten(1) if many else pairs, num_nodes, key)
    if not flat.numel():
        raise ValueError(f"{key} holds no pair")
    return flat.view(pairs.shape).long()


def _check_negatives(judged: dict[str, Tensor], metric: str) -> None:
    for part in ("val", "test"):
        negative, positive = judged[f"{part}_neg"], judged[f"{part}_pos"]
        if metric == "mrr" and (negative.dim() != 3 or negative.size(1) != positive.size(1)):
            raise ValueError(f"mrr needs negatives of each positive: {part}_neg_edge_index [2, {positive.size(1)}, K]")
        if metric != "mrr" and negative.dim() != 2:
            raise ValueError(f"{metric} needs {part}_neg_edge_index of shape [2, M], got {list(negative.shape)}")
        if negative.size(1) < negatives_needed(metric):
            raise ValueError(f"{metric} needs more than {negative.size(1)} pairs in {part}_neg_edge_index")


def _among(links: Tensor, edge_index: Tensor, num_nodes: int) -> Tensor:
    """Those links [2, P] that are listed as an arc in one direction or the other."""
    keys = [pairs[0] * num_nodes + pairs[1] for pairs in (edge_index.long(), edge_index.long().flip(0))]
    return links[:, torch.isin(links[0] * num_nodes + links[1], torch.cat(keys))]
