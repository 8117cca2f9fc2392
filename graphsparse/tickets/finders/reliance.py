"""Reliance: edges go to the nodes whose dense output leans on them, along neighbours that the dense model agrees on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.edges.allot import mask_by_need
from graphsparse.fit import FitResult, MessageTask
from graphsparse.fit.distill import two_columns
from graphsparse.graphs.interop import EdgeList, open_graph
from graphsparse.tickets.finders.one_shot import train_sparse
from graphsparse.tickets.finders.table import FINDERS
from graphsparse.tickets.problem import Found, Problem, unguarded

Array = npt.NDArray[np.float64]

_ARCS_AT_ONCE = 1 << 18


@FINDERS.register("reliance")
@unguarded
@dataclass(frozen=True)
class Reliance:
    r"""Choose the edges once, by what the trained dense model loses without them, then train as TEDDY does.

    Let :math:`p_u` be the dense model's output at node u, and :math:`q_u` the same model's without any edge but
    self-loops. A node relies on its edges by :math:`r_u = KL(p_u \,\|\, q_u)`; an edge serves both its
    ends by their agreement :math:`a_{uv} = \sum_c p_u(c)\, p_v(c)`, the chance that two classes drawn from the two
    outputs are equal. Kept are the edges that greedily maximise

    .. math:: \sum_u (r_u + 10^{-3}) \log\Bigl(0.05 + \sum_{v \in N_{kept}(u)} a_{uv}\Bigr)

    under the exact count, see :func:`graphsparse.edges.allot.mask_by_need`. So edges go where nodes need some, first
    the one to the neighbour that says what the dense model says. No label is read.

    In an inductive task the edges of the training graph are chosen first, by the outputs on that graph, exactly as many
    as ``keep`` says of it; then those that touch test nodes, by the outputs on the whole graph, on top of them. For
    those the dense model is run on the test nodes *with all their edges*: that is what a ticket is to save, once for
    each test graph, and a deployment that never has the dense test graph cannot do it. `RelianceBlind` can.

    Where nodes have several labels, each is a distribution of its own (holds, or not), and both figures are means over
    the labels. Where tasks predict links or graphs, :math:`p_u` is the last state of a node:
    :math:`r_u = |p_u - q_u|^2 / (|p_u|^2 + |q_u|^2)` and :math:`a_{uv} = (1 + \cos(p_u, p_v)) / 2`.

    Source: ours.

    Args:
        floor: the need of a node that relies on nothing, not negative.
        offset: the logarithm's, above 0; the smaller, the more a node's first edge is worth beside its second.

    Raises:
        ValueError: when called, if the dense model's outputs with or without edges are not finite.
    """

    floor: float = 1e-3
    offset: float = 0.05
    any_weights: ClassVar[bool] = True

    @property
    def named(self) -> str:
        """What its checkpoints are called."""
        return "reliance"

    def check(self, problem: Problem) -> None:
        """Run the model with and without edges once, before anything is trained.

        Raises:
            ValueError: if it cannot be, or nothing tells what it says of each node.
        """
        problem.check_without_edges(self.named)
        problem.task.node_outputs(problem.fresh_model())

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions."""
        edge_mask = self.edge_mask(problem, dense, edge_keep)
        name = f"{self.named}-{self.floor:g}-{self.offset:g}-{edge_keep}-{weight_keep}"
        return train_sparse(problem, dense, edge_mask, weight_keep, name)

    def edge_mask(self, problem: Problem, dense: FitResult, keep: Fraction) -> Tensor:
        """The edges that stay, bool ``[E]``: exactly the fraction ``keep`` of them."""
        model, whole, graph = problem.trained_model(dense), problem.task, open_graph(problem.data).edges
        choose = partial(self._choose, keep=keep, seed=problem.seed)
        training = whole.in_training()
        if training is whole:
            return choose(whole, graph, *_reliance(model, whole))
        inside = whole.seen_in_training.cpu()  # what training sees is chosen from what it sees
        tails, heads = graph.edge_index.cpu()
        seen = inside[tails] & inside[heads]
        start = torch.zeros_like(seen)
        part = EdgeList(training.edge_index.cpu(), training.num_nodes, graph.undirected, graph.mirrored)
        start[seen] = choose(training, part, *_reliance(model, training))
        return choose(whole, graph, *self.of_test_nodes(model, whole, training), start=start, among=~seen)

    def of_test_nodes(self, model: nn.Module, whole: MessageTask, training: MessageTask) -> tuple[Tensor, Tensor]:
        """Needs ``[N]`` and agreements ``[E]`` that the edges of test nodes are chosen by, those of training spent."""
        return _reliance(model, whole)

    def _choose(self, task: MessageTask, graph: EdgeList, need: Tensor, agreement: Tensor, **rules: Any) -> Tensor:
        return mask_by_need(graph, need + self.floor, agreement, offset=self.offset, batch=task.graph_of, **rules)


@FINDERS.register("reliance-blind")
@unguarded
@dataclass(frozen=True)
class RelianceBlind(Reliance):
    r"""Reliance that never runs the dense model along an edge of a test node.

    Edges of the training graph are chosen as `Reliance` does. Of test nodes it knows the edges to choose from, their
    features, and what the trained model says of those alone: :math:`q_v`, its outputs without any edge. The need of a
    test node is predicted from the entropy of :math:`q_v`, by the isotonic regression of the training nodes' needs
    :math:`KL(p_u \| q_u)` on the entropies of their :math:`q_u`: the surer the features, the less need. Agreement is
    not asked, one edge of a test node is as good as another: :math:`q_v` misjudges who agrees with whom.

    In a transductive task, whose training graph is the whole one, it is `Reliance`.

    Source: ours; the regression: Barlow, Bartholomew, Bremner, Brunk, "Statistical inference under order restrictions",
    1972.

    Raises:
        ValueError: when called, for inductive tasks on graphs, whose nodes have no classes, or outputs not finite.
    """

    @property
    def named(self) -> str:
        """What its checkpoints are called."""
        return "reliance-blind"

    def check(self, problem: Problem) -> None:
        """As in `Reliance`, once it is sure that unseen nodes have classes.

        Raises:
            ValueError: as said above.
        """
        self._check_unseen(problem.task)
        super().check(problem)

    def _check_unseen(self, task: MessageTask) -> None:
        if task.protocol == "inductive" and (task.kind != "node" or task.in_training() is task):
            raise ValueError(
                "reliance-blind knows unseen nodes by the classes that their features say; an inductive "
                f"{task.kind} task has none, so take reliance, which runs the dense model on the test graphs"
            )

    def edge_mask(self, problem: Problem, dense: FitResult, keep: Fraction) -> Tensor:
        """The edges that stay, bool ``[E]``: exactly the fraction ``keep`` of them."""
        self._check_unseen(problem.task)
        return super().edge_mask(problem, dense, keep)

    def of_test_nodes(self, model: nn.Module, whole: MessageTask, training: MessageTask) -> tuple[Tensor, Tensor]:
        """The same from features alone wherever a test node is concerned."""
        nodes = whole.training_nodes.cpu()
        alone, count = _log_probabilities(_without_edges(model, whole), whole)
        known, _ = _log_probabilities(_outputs(model, training, "with its edges"), whole)
        need = _divergence(known, alone[nodes]) / count
        entropy = -(alone.exp() * alone).sum(dim=1) / count
        predicted = torch.from_numpy(_isotonic(entropy[nodes].numpy(), need.numpy(), entropy.numpy()))
        return predicted.index_copy(0, nodes, need), torch.ones(whole.edge_index.size(1), dtype=need.dtype)


def _reliance(model: nn.Module, task: MessageTask) -> tuple[Tensor, Tensor]:
    """How much each node relies on its edges [N], and how much the two ends of each arc agree [E]; on the CPU."""
    edge_index = task.edge_index.cpu()
    p, q = _outputs(model, task, "with its edges"), _without_edges(model, task)
    if task.kind == "node":
        (p, count), (q, _) = _log_probabilities(p, task), _log_probabilities(q, task)
        return _divergence(p, q) / count, _inner(p.exp(), edge_index) / count
    size = p.square().sum(dim=1) + q.square().sum(dim=1)
    need = (p - q).square().sum(dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
    cosine = _inner(functional.normalize(p, dim=1), edge_index)
    return need, ((1 + cosine) / 2).clamp(0, 1)


def _log_probabilities(outputs: Tensor, task: MessageTask) -> tuple[Tensor, int]:
    """Logarithms of what outputs of nodes say, and of how many distributions: one over the classes, or one a label."""
    if task.outputs == "labels":
        return torch.cat([functional.logsigmoid(outputs), functional.logsigmoid(-outputs)], dim=1), outputs.size(1)
    return functional.log_softmax(two_columns(outputs), dim=1), 1


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL of each row of q from that of p, both logarithms."""
    return (p.exp() * (p - q)).sum(dim=1).clamp_min(0)


def _isotonic(known: Array, values: Array, asked: Array) -> Array:
    """The rising function of ``known`` that is nearest to ``values``, at what is ``asked``."""
    from sklearn.isotonic import IsotonicRegression

    fitted: Array = IsotonicRegression(out_of_bounds="clip").fit(known, values).predict(asked)
    return fitted


def _without_edges(model: nn.Module, task: MessageTask) -> Tensor:
    loops = task.edge_index[0] == task.edge_index[1]
    return _outputs(model, task.with_mask(loops), "without edges, which reliance needs to know")


def _outputs(model: nn.Module, task: MessageTask, where: str) -> Tensor:
    outputs = task.node_outputs(model).cpu().double()
    if not bool(outputs.isfinite().all()):
        node = int((~outputs.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(f"{type(model).__name__} gives node {node} no finite output {where}")
    return outputs


def _inner(rows: Tensor, edge_index: Tensor) -> Tensor:
    """Inner product of the two ends' rows for each arc [E], a part of the arcs at a time."""
    parts = torch.split(edge_index, _ARCS_AT_ONCE, dim=1)
    return torch.cat([(rows[tails] * rows[heads]).sum(dim=1) for tails, heads in parts])
