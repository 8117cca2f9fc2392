"""Scores that read degrees alone: TEDDY's two-hop statistic, and DSpar's sum of reciprocals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.pairs import Floats
from graphsparse.edges.score_table import factors_of, register
from graphsparse.graphs import arcs
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.registry import one_of

FIXED_POINT = 2.0**32  # neighbour sums are integers, so they do not depend on the order of summation


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
    return arcs.edge_products(graph, *teddy_factors(graph, normalization=normalization))


@factors_of(teddy)
def teddy_factors(graph: EdgeList, *, normalization: str = "degree") -> tuple[Tensor, Tensor]:
    """TEDDY's statistic of every node as a tail and as a head, float64 ``[N]`` each; `teddy` is their product."""
    normalization = one_of(normalization, "normalization", ("degree", "sqrt"))
    deg_out, deg_in = arcs.incident_degrees(graph)
    sum_out, sum_in = arcs.neighbour_sums(graph, inverse_roots(deg_out), inverse_roots(deg_in))
    of_tails = two_hop(sum_out, deg_out, normalization)
    return of_tails, of_tails if graph.undirected else two_hop(sum_in, deg_in, normalization)


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
    deg_out, deg_in = arcs.incident_degrees(graph)
    tail, head = graph.edge_index
    scores = reciprocals(deg_out)[tail] + reciprocals(deg_in)[head]
    return scores.masked_fill_(tail == head, torch.inf)


def inverse_roots(degrees: Tensor) -> Tensor:
    """``round(2^32 / sqrt(d))`` as int64 ``[N]`` in 1..2^32; sums of up to 2^31 of them fit.

    A node of degree 0 has that of degree 1, and no neighbour to be summed by.
    """
    root = np.rint(FIXED_POINT / np.sqrt(_at_least_one(degrees))).astype(np.int64)
    return torch.from_numpy(root).to(degrees.device)


def two_hop(sums: Tensor, degrees: Tensor, normalization: str) -> Tensor:
    """TEDDY's statistic of each node, float64 ``[N]``, from the sum of its neighbours' inverse roots and its degree."""
    wide = _at_least_one(degrees)
    mean = sums.cpu().numpy().astype(np.float64) / FIXED_POINT / wide
    return torch.from_numpy(mean / (wide if normalization == "degree" else np.sqrt(wide))).to(degrees.device)


def _at_least_one(degrees: Tensor) -> Floats:
    """In numpy: waking torch's threads for arrays of one number a node takes longer than the arithmetic."""
    floats: Floats = np.maximum(degrees.cpu().numpy(), 1).astype(np.float64)
    return floats


def reciprocals(degrees: Tensor) -> Tensor:
    """``1/d`` as float64 ``[N]``, 1 where the degree is 0."""
    return degrees.clamp(min=1).to(torch.float64).reciprocal()
