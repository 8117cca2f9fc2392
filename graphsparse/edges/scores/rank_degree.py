"""Rank degree: a walk that follows the highest-degree neighbours, read as a score."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from torch import Tensor

from graphsparse.edges.pairs import SimpleGraph, by_degree, endpoints, rows
from graphsparse.edges.score_table import register
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import Keep, exact_fraction, mix64

FINEST = 10**6  # denominator to which ``share`` is read, so that share * degree stays within 64 bits


@register("rank_degree")
def rank_degree(graph: EdgeList, *, share: Keep = 0.1, seeds: Keep = 0.01, seed: int = 0) -> Tensor:
    r"""Score an edge by how early the rank-degree walk picks it: :math:`1 / \text{wave}(u, v)`.

    The walk starts from ``seeds * N`` random nodes. In each wave every seed picks the edges to its
    :math:`\max(1, \lceil share \cdot d \rceil)` highest-degree neighbours, d counting the edges that it still has;
    the picked edges leave the graph, and the nodes they reach are the next seeds. When no seed has an edge left, new
    random ones are drawn, until every edge is picked. Work: O(E log E) to sort, then O(N + E).

    Random order and ties between degrees come from a seeded hash of the nodes' names. Degrees are those of the whole
    graph and count copies; all copies of a pair share its wave. A directed graph is read as the undirected one
    underneath, with in- and out-degree added up.

    Args:
        graph: the graph.
        share: the part of its remaining edges that a seed picks, in (0, 1] (rho in the paper), read to 6 digits;
            the smallest share gives the paper's top-1 walk.
        seeds: the part of all nodes that a walk starts from, in (0, 1].
        seed: of the random start.

    Returns:
        float64 ``[E]`` in (0, 1]; self-loops +inf.

    Raises:
        ValueError: if ``share`` or ``seeds`` lies outside (0, 1].

    Source: Voudigari, Salamanos, Papageorgiou, Yannakoudakis, "Rank degree: An efficient algorithm for graph
    sampling", ASONAM 2016, algorithm 1; the score is the wave of its sample.

    Example:
        >>> import torch
        >>> star = EdgeList(torch.tensor([[0, 0, 0, 3], [1, 2, 3, 4]]), 5, undirected=True, mirrored=False)
        >>> rank_degree(star, seeds=1)  # every node is a seed: all but the centre pick in wave 1
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    picked = _part(share, "share").limit_denominator(FINEST) or Fraction(1, FINEST)
    batch = max(1, math.ceil(_part(seeds, "seeds") * graph.num_nodes))
    simple = SimpleGraph.of(graph)
    if not len(simple.low):
        return simple.spread(np.empty(0), graph.edge_index.device)
    from graphsparse.edges.pair_kernels import waves

    place = by_degree(_degrees(graph), graph.names, seed)
    low, high = place[simple.low], place[simple.high]  # nodes are called by their place, so rows come best first
    indptr, heads, arc = rows(np.concatenate([low, high]), np.concatenate([high, low]), graph.num_nodes)
    names = graph.names if graph.names is not None else np.arange(graph.num_nodes)
    restarts = place[np.argsort(mix64(seed, names, np.ones(1, np.int64)), kind="stable")]
    wave = waves(indptr, heads, arc % len(low), restarts, batch, (picked.numerator, picked.denominator))
    return simple.spread(1.0 / wave, graph.edge_index.device)


def _part(value: Keep, name: str) -> Fraction:
    fraction = exact_fraction(value, name)
    if not 0 < fraction <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value}")
    return fraction


def _degrees(graph: EdgeList) -> npt.NDArray[np.int64]:
    tail, head = endpoints(graph)
    real = tail != head
    ends = np.concatenate([tail[real], head[real]])
    return np.bincount(ends, minlength=graph.num_nodes)
