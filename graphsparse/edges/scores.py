"""How much each edge matters: the door to every score, and the scores that read degrees alone.

Every score gives self-loops +inf (they are never removed), is the same bit for bit on both arcs of an undirected pair
and does not depend on the order of the edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges import kernels
from graphsparse.edges import rank_degree as _rank_degree  # noqa: F401  (registers its score)
from graphsparse.edges import resistance as _resistance  # noqa: F401
from graphsparse.edges import similarity as _similarity  # noqa: F401
from graphsparse.edges.pairs import Floats, Ints, by_degree, endpoints
from graphsparse.edges.score_table import SCORES, ScoreFunction, compute, find_score, register
from graphsparse.graphs import interop
from graphsparse.graphs.interop import EdgeList
from graphsparse.keep_rule import mix64

__all__ = [
    "SCORES",
    "ScoreFunction",
    "compute",
    "dspar",
    "find_score",
    "local_degree",
    "random",
    "register",
    "score",
    "teddy",
]

FIXED_POINT = 2.0**32  # neighbour sums are integers, so they do not depend on the order of summation


def score(
    graph: Any, method: str = "teddy", *, undirected: bool | None = None, seed: int = 0, **options: Any
) -> Tensor:
    """Score every edge of any graph; higher = keep.

    Args:
        graph: PyG ``Data``, networkx graph, scipy sparse matrix or ``edge_index`` ``[2, E]``.
        method: a name in ``SCORES``: ``teddy``, ``random``, ``dspar``, ``local_degree``, ``rank_degree``, ``jaccard``,
            ``scan``, ``cosine``, ``effective_resistance``.
        undirected: whether pairs count (True) or arcs (False); None: as the graph says.
        seed: reaches the scores that draw random numbers or break ties.
        **options: the score's own options.

    Returns:
        float64 ``[E]``, aligned with ``edge_index`` (networkx: with ``graph.edges``; scipy: with the entries of
        ``tocoo()``); self-loops +inf.

    Raises:
        ValueError: for an unknown method, or what the score refuses (such as missing features).
        TypeError: for an unknown option or kind of graph.

    Example:
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> score(path, "dspar")
        tensor([1.5000, 1.5000, 1.5000, 1.5000], dtype=torch.float64)
    """
    find_score(method)  # a misspelt name should not wait for a large graph to be read
    return compute(interop.open_graph(graph, undirected).edges, method, seed=seed, **options)


@register("teddy")
def teddy(graph: EdgeList, *, normalization: str = "degree") -> Tensor:
    r"""Score an edge by the two-hop degree statistics of its ends: low-degree neighbourhoods are kept.

    .. math:: \bar g(v) = \frac{1}{d_v} \sum_{u \in N(v)} d_u^{-1/2}, \quad \tilde g(v) = \bar g(v) / d_v,
              \quad T(u, v) = \tilde g(u) \, \tilde g(v)

    Degrees leave self-loops out and count parallel copies; where a degree is 0 the statistic is 0. The neighbour sum
    is one of integers, :math:`round(2^{32} / \sqrt{d})`, exact in any order. O(N + E).

    A directed arc u -> v reads the graph as a bipartite one, tails on one side and heads on the other:
    :math:`\tilde g_{out}(u)` averages :math:`d_{in}^{-1/2}` over the out-neighbours of u, :math:`\tilde g_{in}(v)`
    averages :math:`d_{out}^{-1/2}` over the in-neighbours of v. A symmetric digraph scores as the undirected graph.

    Args:
        graph: the graph.
        normalization: what the node itself is divided by in :math:`\tilde g`: ``"degree"`` for :math:`d_v`, as in the
            paper's formula, ``"sqrt"`` for :math:`\sqrt{d_v}`, as in its figure.

    Returns:
        float64 ``[E]`` in (0, 1]; self-loops +inf.

    Raises:
        ValueError: for another normalization.

    Source: Seo, Yun, Yang, "TEDDY: Trimming Edges with Degree-based Discrimination strategY", ICLR 2024, section 4.1.

    Example:
        >>> star = EdgeList(torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]]), 5, undirected=True, mirrored=False)
        >>> teddy(star)[0]  # centre: (4/4) / 4, leaf: (1/sqrt(4)) / 1
        tensor(0.1250, dtype=torch.float64)
    """
    if normalization not in ("degree", "sqrt"):
        raise ValueError(f"normalization must be 'degree' or 'sqrt', got {normalization!r}")
    deg_out, deg_in = kernels.incident_degrees(graph)
    sum_out, sum_in = kernels.neighbour_sums(graph, _inverse_root(deg_out), _inverse_root(deg_in))
    of_tails = _two_hop(sum_out, deg_out, normalization)
    of_heads = of_tails if graph.undirected else _two_hop(sum_in, deg_in, normalization)
    return kernels.edge_products(graph, of_tails, of_heads)


@register("random")
def random(graph: EdgeList, *, seed: int = 0) -> Tensor:
    """Score an edge by a seeded hash of its own name, uniform in [0, 1): the control that reads no structure.

    The name is (smaller end, larger end, copy number) in an undirected graph, (tail, head, copy number) in a directed
    one, the ends by ``graph.names`` or by their ids; the k-th copy of (u, v) belongs to the k-th of (v, u).

    Args:
        graph: the graph.
        seed: of the hash.

    Returns:
        float64 ``[E]``, multiples of 2^-53 in [0, 1); self-loops +inf.

    Example:
        >>> pair = EdgeList(torch.tensor([[0, 1], [1, 0]]), 2, undirected=True, mirrored=True)
        >>> a, b = random(pair, seed=1)
        >>> bool(a == b), bool(0 <= a < 1), bool(a != random(pair, seed=2)[0])
        (True, True, True)
    """
    tail, head = endpoints(graph)
    first, second = (graph.names[tail], graph.names[head]) if graph.names is not None else (tail, head)
    if graph.undirected:
        first, second = np.minimum(first, second), np.maximum(first, second)
    uniform = (mix64(seed, first, second, _copy_numbers(graph)) >> np.uint64(11)) * 2.0**-53
    uniform[tail == head] = np.inf
    return torch.from_numpy(uniform).to(graph.edge_index.device)


@register("dspar")
def dspar(graph: EdgeList) -> Tensor:
    r"""Score an edge by the reciprocal degrees of its ends: :math:`1/d_u + 1/d_v`.

    The sum bounds the effective resistance of an unweighted edge up to the spectral gap, at the cost of two look-ups.
    A directed arc u -> v scores :math:`1/d_{out}(u) + 1/d_{in}(v)`, which on a symmetric digraph is the same.

    Returns:
        float64 ``[E]`` in (0, 2]; self-loops +inf.

    Source: Liu et al., "DSpar: An Embarrassingly Simple Strategy for Efficient GNN training and inference via
    Degree-based Sparsification", TMLR 2023, equation 2.

    Example:
        >>> star = EdgeList(torch.tensor([[0, 0], [1, 2]]), 3, undirected=True, mirrored=False)
        >>> dspar(star)
        tensor([1.5000, 1.5000], dtype=torch.float64)
    """
    deg_out, deg_in = kernels.incident_degrees(graph)
    tail, head = graph.edge_index
    scores = _reciprocal(deg_out)[tail] + _reciprocal(deg_in)[head]
    return scores.masked_fill_(tail == head, torch.inf)


@register("local_degree")
def local_degree(graph: EdgeList, *, seed: int = 0) -> Tensor:
    r"""Score an edge by its place among the edges of its ends, hubs first.

    .. math:: \max_{(a, b) \in \{(u, v), (v, u)\}} \; 1 - \frac{\log \mathrm{rank}_a(b)}{\log d_a}

    with :math:`\mathrm{rank}_a(b)` the place of b among the neighbours of a by falling degree (1 = highest), so that
    the score says up to which exponent e the rule "each node keeps its top :math:`d^e` edges" removes the edge. Equal
    degrees are ordered by a seeded hash of the node's name, once for the whole graph. Degrees count parallel copies;
    all copies of an edge have the place of the first. A node with a single edge gives it 1.

    In a directed graph an arc u -> v is ranked among the arcs that leave u, by the in-degrees of their heads, and among
    those that enter v, by the out-degrees of their tails.

    Args:
        graph: the graph.
        seed: of the order among equal degrees.

    Returns:
        float64 ``[E]`` in [0, 1]; self-loops +inf.

    Source: Hamann, Lindner, Meyerhenke, Staudt, Wagner, "Structure-preserving sparsification methods for social
    networks", Social Network Analysis and Mining 6, 2016, section 3.

    Example:
        >>> path = EdgeList(torch.tensor([[0, 1, 1], [1, 2, 3]]), 4, undirected=True, mirrored=False)
        >>> local_degree(path)
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    deg_out, deg_in = (degrees.cpu().numpy() for degrees in kernels.incident_degrees(graph))
    tail, head = endpoints(graph)
    real = tail != head
    u, v = tail[real], head[real]
    to_heads = by_degree(deg_in, graph.names, seed)[v]
    if graph.undirected and not graph.mirrored:
        to_tails = by_degree(deg_in, graph.names, seed)[u]
        both = _exponents(np.concatenate([u, v]), np.concatenate([to_heads, to_tails]), deg_in)
        at_tail, at_head = both[: len(u)], both[len(u) :]
    else:
        to_tails = by_degree(deg_out, graph.names, seed)[u]
        at_tail, at_head = _exponents(u, to_heads, deg_out), _exponents(v, to_tails, deg_in)
    scores = np.full(len(tail), np.inf)
    scores[real] = np.maximum(at_tail, at_head)
    return torch.from_numpy(scores).to(graph.edge_index.device)


def _inverse_root(degrees: Tensor) -> Tensor:
    """``round(2^32 / sqrt(d))`` as int64 ``[N]``, 0 where the degree is 0; sums of up to 2^31 of them fit."""
    wide = _at_least_one(degrees)
    root = np.rint(FIXED_POINT / np.sqrt(wide)).astype(np.int64)
    root[degrees.cpu().numpy() == 0] = 0
    return torch.from_numpy(root).to(degrees.device)


def _two_hop(sums: Tensor, degrees: Tensor, normalization: str) -> Tensor:
    wide = _at_least_one(degrees)
    mean = sums.cpu().numpy().astype(np.float64) / FIXED_POINT / wide
    return torch.from_numpy(mean / (wide if normalization == "degree" else np.sqrt(wide))).to(degrees.device)


def _at_least_one(degrees: Tensor) -> Floats:
    """In numpy: waking torch's threads for arrays of one number a node takes longer than the arithmetic."""
    floats: Floats = np.maximum(degrees.cpu().numpy(), 1).astype(np.float64)
    return floats


def _reciprocal(degrees: Tensor) -> Tensor:
    return degrees.clamp(min=1).to(torch.float64).reciprocal()


def _copy_numbers(graph: EdgeList) -> Ints:
    """Which copy of its pair or arc each edge is ``[E]``, 0 = the first, counted in list order."""
    tail, head = endpoints(graph)
    if graph.undirected and not graph.mirrored:
        tail, head = np.minimum(tail, head), np.maximum(tail, head)
    keys = tail * graph.num_nodes + head
    numbers = np.zeros(len(keys), np.int64)
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return numbers
    copies = np.flatnonzero(np.isin(keys, repeated))
    copies = copies[np.argsort(keys[copies], kind="stable")]
    grouped = keys[copies]
    numbers[copies] = np.arange(len(copies)) - np.searchsorted(grouped, grouped)
    return numbers


def _exponents(at: Ints, place: Ints, degrees: Ints) -> Floats:
    """``1 - log(rank) / log(degree)`` of each edge ``[m]`` at its end ``at``, ranked there by the other end's place."""
    keys = at * len(degrees) + place
    order = np.argsort(keys)
    ordered = keys[order]
    position = np.arange(len(keys))
    copies = ordered[1:] == ordered[:-1]
    position[1:][copies] = 0
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.maximum.accumulate(position)  # copies have the place of the first
    rank -= (np.cumsum(degrees) - degrees)[at]
    logs = np.log(np.arange(1, degrees.max(initial=1) + 1))  # looked up, so that equal ranks score equal bits
    width = np.where(degrees > 1, logs[np.maximum(degrees, 1) - 1], 1.0)
    return np.asarray(1.0 - logs[rank] / width[at])
