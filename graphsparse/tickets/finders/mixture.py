"""A mixture of scores for each node: a router, trained with the model, picks the local sparsifiers that it hears."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from graphsparse.edges.keep import mask_edges
from graphsparse.edges.score_table import SCORES, compute
from graphsparse.edges.units import find_units
from graphsparse.fit import FitResult
from graphsparse.graphs.interop import EdgeList
from graphsparse.keep_rule import kept_count, whole_number
from graphsparse.tickets.finders.masked import run_name
from graphsparse.tickets.finders.one_shot import train_sparse
from graphsparse.tickets.finders.pairs import RemainingPairs
from graphsparse.tickets.finders.soft import MaskTask, SoftMasks, check_reached
from graphsparse.tickets.finders.table import FINDERS
from graphsparse.tickets.problem import Found, Problem, check_number, unguarded

Ints = npt.NDArray[np.int64]


@FINDERS.register("mixture")
@unguarded
@dataclasses.dataclass(frozen=True)
class Mixture:
    r"""Let every node choose, by a router over its features, among sparsifiers of its own neighbourhood.

    An expert m is a criterion with a share of the edges to keep. At node i, of degree :math:`d_i`, it keeps the
    :math:`c_m = \lceil keep_m d_i \rceil` edges that are best by its criterion, :math:`S_m(i)`. The router gives node i
    the gates of its k strongest experts,

    .. math:: g_i = \mathrm{softmax}(\mathrm{top}_k(x_i W_g + \epsilon \odot \mathrm{softplus}(x_i W_n))), \qquad
        \epsilon \sim N(0, 1) \text{ in training, } 0 \text{ after.}

    The chosen sparse neighbourhoods are mixed on the Grassmann manifold: with :math:`L_m` an expert's Laplacian and
    :math:`U_m` a basis of its kernel, :math:`\hat L = \sum_m g_{im} (L_m - U_m U_m^T)`. A neighbourhood is a star, so
    the kernel is spanned by the indicators of its components and the mixture has a closed form: edge (i, j) weighs

    .. math:: \omega_i(j) = \sum_m g_{im}\,[j \in S_m(i)]\,\Bigl(1 + \frac{1}{c_m + 1}\Bigr).

    An edge is worth the mean of what its two ends give it. Router and model are trained together from theta0, the
    messages of each edge scaled by its worth, on the task's loss plus :math:`\lambda\,\mathrm{CV}(\sum_i g_i)^2`, which
    keeps all experts in use. Then the edges worth most stay, exactly the fraction that was asked for, and the ticket is
    trained as TEDDY's.

    Written from the paper's formulas, not from its code. What differs: criteria are scores by themselves (the paper
    puts them, with the features of both ends, through a small network, and has the gradient among them); an expert's
    share is set beside the one asked for, and not searched; the kernel takes the place of a fixed number of
    eigenvectors; gates weigh both terms of the mixture; the count is exact over the whole graph; the ticket is trained
    anew from theta0. In an inductive task the router is trained on the training graph alone, whose edges are chosen by
    scores on that graph, and in proportion those of test nodes, by scores on the whole and by gates from their
    features.

    Source: Zhang, Sun, Yue, Jiang, Wang, Chen, Pan, "Graph sparsification via mixture of graphs", ICLR 2025; noisy
    gates and their balance: Shazeer et al., "Outrageously large neural networks", ICLR 2017.

    Args:
        criteria: names of edge scores.
        top: how many experts a node listens to, k.
        balance: :math:`\lambda`.

    Raises:
        ValueError: for an unknown criterion, or ``top`` beyond the number of experts; when called, for data without
            features, a task on many graphs, or a model whose messages no edge mask reaches.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="mixture", edge_keep=0.6, weight_keep=0.5, epochs=2)
        >>> round(ticket.metrics["edges_kept"], 2)
        0.6
    """

    any_weights: ClassVar[bool] = True
    whole_graph: ClassVar[bool] = True  # a mask of every edge is learned in every step

    criteria: Sequence[str] = ("dspar", "jaccard", "effective_resistance", "cosine")
    top: int = 2
    balance: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.criteria, str) or not self.criteria:
            raise ValueError(f"criteria must list names of edge scores, got {self.criteria!r}")
        for name in self.criteria:
            SCORES.find(name)
        check_number(self.balance, "balance", "the weight of a penalty")
        if not 1 <= whole_number(self.top, "top") <= 3 * len(self.criteria):
            raise ValueError(
                f"top must lie in 1 ... {3 * len(self.criteria)}, the number of the experts, not {self.top}"
            )

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions."""
        own = f"{'-'.join(self.criteria)}-{self.top}-{self.balance:g}"
        soft, task = self._routed(problem, edge_keep)
        name = run_name(problem, f"mixture-{own}-{edge_keep}-router")
        result = problem.train(soft, task, name, distill=problem.teach(dense), optimizer=soft.adam)
        edge_mask = self._cut(problem, soft, edge_keep)
        found = train_sparse(problem, dense, edge_mask, weight_keep, f"mixture-{own}-{edge_keep}-{weight_keep}")
        return dataclasses.replace(found, seconds=result.seconds + found.result.seconds)

    def check(self, problem: Problem) -> None:
        """Take one step with the router, so that what it cannot do with is told before anything is trained.

        Raises:
            ValueError: as said above.
        """
        check_reached(problem, *self._routed(problem, Fraction(1, 2)))

    def _routed(self, problem: Problem, keep: Fraction) -> tuple[RoutedMasks, MaskTask]:
        """The model with its router, and the task that both are trained on."""
        x = _features(problem)
        pairs = RemainingPairs(problem, torch.ones(problem.data.edge_index.size(1), dtype=torch.bool))
        inside = problem.task.seen_in_training.cpu()
        seen = self._votes(problem, _part(pairs.graph, inside, x), keep, "training graph")
        router = Router(x.size(1), seen.size, self.top)
        soft = RoutedMasks(problem.fresh_model(), router, x, inside, seen, pairs)
        return soft, MaskTask(problem.task.with_positions(pairs.order), soft, Balance(self.balance))

    def _votes(self, problem: Problem, graph: EdgeList, keep: Fraction, which: str) -> EdgeVotes:
        """The experts' votes on a graph, whose scores are remembered for the next level."""
        name = f"mixture scores, {which}, {self.criteria}"
        if name not in problem.memory:
            problem.memory[name] = [compute(graph, criterion, seed=problem.seed) for criterion in self.criteria]
        return EdgeVotes.of(graph, problem.memory[name], ((1 + keep) / 2, keep, keep / 2), problem.seed)

    @torch.no_grad()
    def _cut(self, problem: Problem, soft: RoutedMasks, keep: Fraction) -> Tensor:
        """The caller's edges ``[E]`` that are worth most: by rank among the seen, and among the rest."""
        router, pairs, x = soft.router.cpu().eval(), soft.pairs, _features(problem)
        worth = torch.empty(len(pairs.units.low), dtype=torch.float64)
        learned = pairs.learned
        worth[learned] = _ranks(soft.votes.worth(router(x)), pairs.units.keys[learned.numpy()])
        if not bool(learned.all()):
            everywhere = torch.ones(x.size(0), dtype=torch.bool)
            votes = self._votes(problem, _part(pairs.graph, everywhere, x), keep, "whole graph")
            rest = ~learned
            worth[rest] = _ranks(votes.worth(router(x))[rest], pairs.units.keys[rest.numpy()])
        scores = torch.zeros(pairs.edge_index.size(1), dtype=torch.float64)
        for positions in pairs.units.arcs:
            scores[torch.from_numpy(positions)] = worth
        edge_mask = torch.empty_like(pairs.kept)
        edge_mask[pairs.order] = mask_edges(pairs.graph, scores, keep=keep, seed=problem.seed)
        return edge_mask


@dataclasses.dataclass(frozen=True)
class EdgeVotes:
    """What the experts at both ends of an edge say of it: 0 where they drop it, above 1 where they keep it.

    Attributes:
        low: one end of each countable edge ``[m]``, in the order of `graphsparse.edges.units.find_units`.
        high: the other end ``[m]``.
        at_low: votes of the experts at that end ``[m, K]``.
        at_high: votes at the other end ``[m, K]``.
    """

    low: Tensor
    high: Tensor
    at_low: Tensor
    at_high: Tensor

    @staticmethod
    def of(graph: EdgeList, scores: Sequence[Tensor], shares: Sequence[Fraction], seed: int) -> EdgeVotes:
        """The votes by every score ``[E]`` with every share; the experts of a score follow each other."""
        units = find_units(graph, torch.zeros(graph.num_edges), seed)
        ends, m = np.concatenate([units.low, units.high]), len(units.low)
        keys = np.concatenate([units.keys, units.keys])
        degree = np.bincount(ends, minlength=graph.num_nodes)
        counts = [_counts(degree, share) for share in shares]
        votes = torch.zeros(2 * m, len(scores) * len(shares))
        for number, score in enumerate(scores):
            values = score.cpu().numpy()[units.arcs[0]]
            order = np.lexsort((keys, -np.concatenate([values, values]), ends))
            place = np.empty(2 * m, np.int64)
            place[order] = np.arange(2 * m) - np.searchsorted(ends[order], ends[order])
            for column, kept in enumerate(counts, start=number * len(shares)):
                weight = (place < kept[ends]) * (1 + 1 / (kept[ends] + 1))
                votes[:, column] = torch.from_numpy(weight)
        low, high = (torch.from_numpy(side) for side in (units.low, units.high))
        return EdgeVotes(low, high, votes[:m], votes[m:])

    @property
    def size(self) -> int:
        """The number of experts K."""
        return self.at_low.size(1)

    def worth(self, gates: Tensor) -> Tensor:
        """What each edge is worth ``[m]`` under the gates of the nodes ``[N, K]``."""
        return ((gates[self.low] * self.at_low).sum(dim=1) + (gates[self.high] * self.at_high).sum(dim=1)) / 2

    def to(self, device: torch.device) -> EdgeVotes:
        """The same elsewhere."""
        return EdgeVotes(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


class Router(nn.Module):
    """Gates of each node: its ``top`` strongest of ``experts``, softmax among them, noisy in training.

    Args:
        features: of a node.
        experts: how many there are.
        top: how many of them a node listens to.

    Example:
        >>> gates = Router(3, experts=4, top=2).eval()(torch.ones(2, 3))
        >>> gates.shape, (gates > 0).sum(dim=1).tolist()
        (torch.Size([2, 4]), [2, 2])
    """

    def __init__(self, features: int, experts: int, top: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(features, experts))
        self.noise = nn.Parameter(torch.zeros(features, experts))
        self.top = top

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``[N, K]`` of nodes with features ``[N, F]``; rows sum to 1."""
        logits = x @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * functional.softplus(x @ self.noise)
        best = logits.topk(self.top, dim=1).indices
        chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, best, True)
        return logits.masked_fill(~chosen, -torch.inf).softmax(dim=1)


class RoutedMasks(SoftMasks):
    """A model whose messages are scaled by what a router finds each edge worth.

    Args:
        model: the model, which is changed: pass a copy.
        router: the router, trained with it.
        x: features of all nodes ``[N, F]``; only those of training nodes are read.
        inside: bool ``[N]``, the nodes of the training graph.
        votes: of the experts on the training graph.
        pairs: the countable edges.

    Attributes:
        pairs: the same.
        gates: of the training nodes ``[n, K]``, as the last forward pass had them.
    """

    def __init__(
        self, model: nn.Module, router: Router, x: Tensor, inside: Tensor, votes: EdgeVotes, pairs: RemainingPairs
    ) -> None:
        super().__init__(model, {}, torch.ones(len(votes.low)), pairs.graphs())
        self.router, self.votes, self.pairs = router, votes, pairs
        self.nodes = inside.nonzero().view(-1)
        self.x = x[self.nodes]
        self.num_nodes = len(inside)
        self.gates = torch.zeros(0)

    def forward(self, x: Tensor, edge_index: Tensor, *rest: Any, **named: Any) -> Tensor:
        """The model's outputs with every edge's messages scaled by its worth."""
        device = self.edges.device
        self.gates = self.router(self.x.to(device))
        gates = self.gates.new_zeros(self.num_nodes, self.gates.size(1)).index_copy(
            0, self.nodes.to(device), self.gates
        )
        self.forced = self.edges * self.votes.to(device).worth(gates)  # times one, so that it is seen whether it counts
        return super().forward(x, edge_index, *rest, **named)

    def adam(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        """Adam for the model and the router; an edge has no mask of its own to learn."""
        own = [parameter for parameter in parameters if parameter is not self.edges]
        return torch.optim.Adam(own, lr=lr, weight_decay=weight_decay)


@dataclasses.dataclass(frozen=True)
class Balance:
    r"""The task's loss plus :math:`\lambda` times the squared coefficient of variation of the experts' summed gates.

    Args:
        weight: :math:`\lambda`.
    """

    weight: float
    full_batch: bool = dataclasses.field(default=False, init=False, repr=False)

    def __call__(
        self, soft: SoftMasks, loss: Tensor, again: Callable[[], Tensor], generator: torch.Generator
    ) -> Tensor:
        """What is differentiated."""
        assert isinstance(soft, RoutedMasks)
        use = soft.gates.sum(dim=0)
        return loss + self.weight * use.var(correction=0) / use.mean().square()


def _features(problem: Problem) -> Tensor:
    """Features of the nodes ``[N, F]``, in full."""
    x = getattr(problem.data, "x", None)
    if not isinstance(x, Tensor):
        raise ValueError("mixture routes nodes by their features, and the data has no x")
    return (x if x.layout == torch.strided else x.to_dense()).float()


def _part(graph: EdgeList, inside: Tensor, x: Tensor) -> EdgeList:
    """The edges between some nodes, under the ids of all."""
    tails, heads = graph.edge_index.cpu()
    arcs = graph.edge_index.cpu()[:, inside[tails] & inside[heads]]
    return EdgeList(arcs, graph.num_nodes, graph.undirected, graph.mirrored, x=x.cpu().masked_fill(~inside[:, None], 0))


def _counts(degree: Ints, share: Fraction) -> Ints:
    """How many of its edges each node keeps ``[N]``."""
    sizes, which = np.unique(degree, return_inverse=True)
    counts: Ints = np.array([kept_count(share, int(size)) for size in sizes], np.int64)[which]
    return counts


def _ranks(values: Tensor, keys: npt.NDArray[np.uint64]) -> Tensor:
    """Rank of each value among its own kind, in (0, 1); among equal ones the smallest key is the highest."""
    order = np.lexsort((~keys, values.numpy()))
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[torch.from_numpy(order)] = (torch.arange(len(values), dtype=torch.float64) + 0.5) / max(len(values), 1)
    return ranks
