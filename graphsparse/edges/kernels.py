"""Degrees, neighbour sums and edge products of an edge list: numba on the CPU, torch elsewhere, the same bits.

Sums are sums of integers, so they do not depend on the order of edges, on threads or on the engine; a product is one
rounding of two float64. The loops themselves are in `graphsparse.graphs.loops`; the exact threshold is
`graphsparse.keep_rule.threshold`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphsparse.graphs.arcs import accumulate, compiled, mix_pairs, rows
from graphsparse.graphs.interop import EdgeList
from graphsparse.parallel import over_slices


def incident_degrees(graph: EdgeList) -> tuple[Tensor, Tensor]:
    """Out- and in-degree of each node; in an undirected graph both are the number of its incident edges.

    Copies count one by one, self-loops do not count.

    Args:
        graph: any edge list.

    Returns:
        two int64 tensors ``[N]``, not to be changed in place.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> graph = open_graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).edges
        >>> incident_degrees(graph)[0]
        tensor([1, 2, 1])
    """
    found = graph.survey
    if graph.undirected and not graph.mirrored:
        degree = found.degree_out + found.degree_in
        return degree, degree
    return found.degree_out, found.degree_in


def neighbour_sums(graph: EdgeList, of_tails: Tensor, of_heads: Tensor) -> tuple[Tensor, Tensor]:
    r"""Sum an integer value over the neighbours of each node.

    .. math:: \mathrm{out}_u = \sum_{u \to v,\, u \ne v} h_v, \qquad \mathrm{in}_v = \sum_{u \to v,\, u \ne v} t_u

    In an undirected graph tails and heads are the same: both results are the sum of ``of_heads`` over all neighbours.

    Args:
        graph: any edge list.
        of_tails: int64 values t ``[N]``; an undirected graph does not read them.
        of_heads: int64 values h ``[N]``.

    Returns:
        ``(out_sum, in_sum)``, int64 ``[N]`` each. Sums beyond 63 bits wrap.

    Raises:
        TypeError: for values that are not int64.
        ValueError: for a wrong length.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> graph = open_graph(torch.tensor([[0, 1], [1, 2]])).edges
        >>> neighbour_sums(graph, torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30]))
        (tensor([20, 30,  0]), tensor([0, 1, 2]))
    """
    for name, values in (("of_tails", of_tails), ("of_heads", of_heads)):
        if values.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, so that sums do not depend on order; got {values.dtype}")
        _check_length(name, values, graph)
    forward = _sum_heads(graph.edge_index, graph.num_nodes, of_heads)
    if graph.undirected and graph.mirrored:
        return forward, forward
    backward = _sum_heads(graph.edge_index.flip(0), graph.num_nodes, of_heads if graph.undirected else of_tails)
    if graph.undirected:
        both = forward + backward
        return both, both
    return forward, backward


def edge_products(graph: EdgeList, of_tails: Tensor, of_heads: Tensor) -> Tensor:
    """Score each arc u->v with ``of_tails[u] * of_heads[v]``; a loop, which is never removed, with infinity.

    Args:
        graph: any edge list.
        of_tails: float64 ``[N]``.
        of_heads: float64 ``[N]``.

    Returns:
        float64 ``[E]``, aligned with ``graph.edge_index``.

    Raises:
        TypeError: for values that are not float64.
        ValueError: for a wrong length.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> graph = open_graph(torch.tensor([[0, 1, 2], [1, 0, 2]])).edges
        >>> values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        >>> edge_products(graph, values, values)
        tensor([2., 2., inf], dtype=torch.float64)
    """
    for name, values in (("of_tails", of_tails), ("of_heads", of_heads)):
        if values.dtype != torch.float64:
            raise TypeError(f"{name} must be float64, got {values.dtype}")
        _check_length(name, values, graph)
    if not compiled(graph.edge_index):
        tails, heads = graph.edge_index.long()
        return (of_tails[tails] * of_heads[heads]).masked_fill(tails == heads, torch.inf)
    from graphsparse.graphs import loops

    ends = rows(graph.edge_index)
    left, right = of_tails.contiguous().numpy(), of_heads.contiguous().numpy()
    scores = torch.empty(graph.num_edges, dtype=torch.float64)
    out = scores.numpy()
    over_slices(lambda a, b: loops.products(*ends, a, b, left, right, out), len(out))
    return scores


def symmetric_scores(graph: EdgeList, scores: Tensor) -> bool:
    """Tell whether the k-th best copies of (u, v) and (v, u) have equal scores throughout, without a sort.

    The scores of all copies of (u, v) are those of (v, u) when two order-free sums of mixed 64-bit keys of pair and
    score are equal: the one over arcs that point up and the one over arcs that point down.

    Args:
        graph: a mirrored undirected edge list.
        scores: float32 or float64 ``[E]``; loops are not read.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> graph = open_graph(torch.tensor([[0, 1], [1, 0]])).edges
        >>> symmetric_scores(graph, torch.tensor([2.0, 2.0])), symmetric_scores(graph, torch.tensor([2.0, 3.0]))
        (True, False)
    """
    bits = scores.to(torch.float64).view(torch.int64)
    if not compiled(graph.edge_index):
        bits = torch.where(bits == -(1 << 63), 0, bits)  # the bits of -0.0, which equals 0.0
        real = graph.edge_index[0] != graph.edge_index[1]
        tails, heads = graph.edge_index[:, real].long()
        keys = mix_pairs(torch.minimum(tails, heads), torch.maximum(tails, heads), bits[real])
        return int(torch.where(tails < heads, keys, -keys).sum()) == 0
    from graphsparse.graphs import loops

    ends, words = rows(graph.edge_index), bits.contiguous().numpy()
    parts = over_slices(lambda a, b: loops.score_balance(*ends, words, a, b), len(words))
    return sum(map(int, parts)) % (1 << 64) == 0


def _check_length(name: str, values: Tensor, graph: EdgeList) -> None:
    if values.shape != (graph.num_nodes,):
        raise ValueError(f"{name} must have one value for each of {graph.num_nodes} nodes, got {list(values.shape)}")


def _sum_heads(edge_index: Tensor, num_nodes: int, of_heads: Tensor) -> Tensor:
    if not compiled(edge_index):
        arcs = edge_index[:, edge_index[0] != edge_index[1]].long()
        return torch.zeros_like(of_heads).index_add_(0, arcs[0], of_heads[arcs[1]])
    from graphsparse.graphs import loops

    ends, values = rows(edge_index), of_heads.contiguous().numpy()
    return accumulate(lambda a, b, own: loops.sum_heads(*ends, a, b, values, own), len(ends[0]), num_nodes, np.int64)
