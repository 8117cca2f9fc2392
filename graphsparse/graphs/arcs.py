"""Passes over the arcs of an edge list: a survey, degrees, neighbour sums, edge products, and the cut along a mask.

Numba on the CPU, torch elsewhere, the same bits. Sums are sums of integers, so they do not depend on the order of
edges, on threads or on the engine; a product is one rounding of two float64. The loops themselves are in
`graphsparse.graphs.loops`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.huge_pages import empty
from graphsparse.parallel import over_slices, slices

if TYPE_CHECKING:
    from graphsparse.graphs.inner_form import EdgeList

Array = npt.NDArray[Any]

MANY_NODES = 1 << 20  # figures of fewer nodes lie in the cache, and two places an edge cost nothing
COMPILE_FROM = 1 << 16  # shorter edge lists, and those on other devices, go through torch's own operations


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over an edge list tells.

    Attributes:
        loops: number of self-loops.
        symmetric: whether every arc u->v, u != v, has as many mirrors v->u as copies.
        degree_out: int64 ``[N]``, arcs that leave each node, copies counted and self-loops not.
        degree_in: int64 ``[N]``, arcs that enter each node; the same tensor where the list is symmetric.
    """

    loops: int
    symmetric: bool
    degree_out: Tensor
    degree_in: Tensor


def compiled(edge_index: Tensor) -> bool:
    """Whether the numba loops take this edge list, or row of one (else torch's operations: the same bits)."""
    return edge_index.device.type == "cpu" and edge_index.size(-1) >= COMPILE_FROM


def survey(edge_index: Tensor, num_nodes: int) -> Survey:
    r"""Check, count and test an edge list for symmetry in one pass (two where it is not symmetric).

    The list is symmetric when :math:`\sum_{u<v} h(u, v) = \sum_{u>v} h(v, u) \pmod{2^{64}}`, over its arcs u->v and
    with a mixed 64-bit key h of each pair: no sort, and wrong with a chance of about :math:`2^{-64}`.

    Args:
        edge_index: int32 or int64 ``[2, E]``.
        num_nodes: number of nodes N.

    Raises:
        ValueError: for an id outside 0..N-1, with its row and column.

    Example:
        >>> found = survey(torch.tensor([[0, 1, 2], [1, 0, 2]]), 3)
        >>> found.loops, found.symmetric, found.degree_out.tolist()
        (1, True, [1, 1, 0])
    """
    return _survey_numba(edge_index, num_nodes) if compiled(edge_index) else _survey_torch(edge_index, num_nodes)


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
    tails, heads = graph.edge_index
    if graph.undirected:
        both = _sum_ends(tails, heads, of_heads, graph.mirrored)
        return both, both
    return _sum_heads(tails, heads, of_heads), _sum_heads(heads, tails, of_tails)


def edge_products(graph: EdgeList, of_tails: Tensor, of_heads: Tensor) -> Tensor:
    """Score each arc u->v with ``of_tails[u] * of_heads[v]``; a loop, which is never removed, with infinity.

    Args:
        graph: any edge list.
        of_tails: float64 ``[N]``, or float32.
        of_heads: the same.

    Returns:
        ``[E]`` of that type, aligned with ``graph.edge_index``.

    Raises:
        TypeError: for values of other types, or of two.
        ValueError: for a wrong length.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> graph = open_graph(torch.tensor([[0, 1, 2], [1, 0, 2]])).edges
        >>> values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        >>> edge_products(graph, values, values)
        tensor([2., 2., inf], dtype=torch.float64)
    """
    for name, values in (("of_tails", of_tails), ("of_heads", of_heads)):
        if values.dtype not in (torch.float64, torch.float32) or values.dtype != of_tails.dtype:
            raise TypeError(f"{name} must be float64, or both float32, got {values.dtype}")
        _check_length(name, values, graph)
    if not compiled(graph.edge_index):
        tails, heads = graph.edge_index.long()
        return (of_tails[tails] * of_heads[heads]).masked_fill(tails == heads, torch.inf)
    from graphsparse.graphs import loops

    ends = rows(graph.edge_index)
    left, right = of_tails.contiguous().numpy(), of_heads.contiguous().numpy()
    scores = empty(graph.edge_index.size(1), of_tails.dtype)
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


def compress(edge_index: Tensor, mask: Tensor) -> Tensor:
    """Return the columns of ``edge_index`` ``[2, E]`` where ``mask`` ``[E]`` is true, in their order.

    Example:
        >>> compress(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([True, False, True]))
        tensor([[0, 2], [1, 0]])
    """
    strided = edge_index.size(1) > 1 and edge_index.stride(1) != 1  # its rows would be copied first
    if strided or not compiled(edge_index) or type(edge_index) is not Tensor:  # a subclass knows how to cut itself
        return edge_index[:, mask]
    from graphsparse.graphs import loops

    tails, heads = rows(edge_index)
    keep = mask.contiguous().numpy()
    counts = over_slices(lambda a, b: int(np.count_nonzero(keep[a:b])), len(keep))
    ends = np.cumsum([0, *counts])
    small = empty((2, int(ends[-1])), edge_index.dtype)
    out = small.numpy()
    first_last = {start: (int(ends[i]), int(ends[i + 1])) for i, (start, _) in enumerate(slices(len(keep)))}
    over_slices(lambda a, b: loops.compress(tails, heads, keep, a, *first_last[a], out), len(keep))
    return small


def rows(edge_index: Tensor) -> tuple[Array, Array]:
    """The tails and the heads of an edge list on the CPU as contiguous arrays (views where they can be)."""
    return edge_index[0].contiguous().numpy(), edge_index[1].contiguous().numpy()


def accumulate(
    kernel: Callable[[int, int, Array], None], num_arcs: int, num_nodes: int, dtype: npt.DTypeLike
) -> Tensor:
    """Run ``kernel(start, stop, sums)`` over slices of the arcs, each with integer sums ``[N]`` of its own.

    All the sums together take at most about the memory of the edge list, whatever the number of threads.

    Returns:
        the total of the sums, int64 ``[N]``.
    """
    parts = min(len(slices(num_arcs)), 1 + 2 * num_arcs // max(1, num_nodes))

    def one(start: int, stop: int) -> Array:
        own = np.zeros(num_nodes, dtype)
        kernel(start, stop, own)
        return own

    sums = over_slices(one, num_arcs, parts)
    total = sums[0].astype(np.int64, copy=False)
    for other in sums[1:]:
        total += other
    return torch.from_numpy(total)


def _survey_numba(edge_index: Tensor, num_nodes: int) -> Survey:
    from graphsparse.graphs import loops

    tails, heads = rows(edge_index)
    parts = over_slices(lambda a, b: loops.look_over(tails, heads, a, b), len(tails))
    if max(int(largest) for largest, _, _ in parts) >= num_nodes and len(tails):
        _raise_out_of_range(edge_index, num_nodes)
    symmetric = sum(int(balance) for _, _, balance in parts) % (1 << 64) == 0
    degree_out = degree_in = _count_tails(tails, heads, num_nodes)
    if not symmetric:
        degree_in = _count_tails(heads, tails, num_nodes)
    return Survey(sum(number for _, number, _ in parts), symmetric, degree_out, degree_in)


def _count_tails(tails: Array, heads: Array, num_nodes: int) -> Tensor:
    from graphsparse.graphs import loops

    dtype = np.int32 if len(tails) < 1 << 31 else np.int64  # half the memory, fewer cache misses
    return accumulate(lambda a, b, own: loops.count_tails(tails, heads, a, b, own), len(tails), num_nodes, dtype)


def _survey_torch(edge_index: Tensor, num_nodes: int) -> Survey:
    if bool(((edge_index < 0) | (edge_index >= num_nodes)).any()):
        _raise_out_of_range(edge_index, num_nodes)
    arcs = edge_index[:, edge_index[0] != edge_index[1]].long()
    keys = mix_pairs(arcs.amin(0), arcs.amax(0))
    symmetric = int(torch.where(arcs[0] < arcs[1], keys, -keys).sum()) == 0
    degree_out = degree_in = torch.bincount(arcs[0], minlength=num_nodes)
    if not symmetric:
        degree_in = torch.bincount(arcs[1], minlength=num_nodes)
    return Survey(edge_index.size(1) - arcs.size(1), symmetric, degree_out, degree_in)


def mix_pairs(low: Tensor, high: Tensor, words: Tensor | None = None) -> Tensor:
    """Hash pairs of ids ``[m]``, and a 64-bit word with each, to 64 bits as the numba loops do."""
    z = (low << 32) ^ high
    if words is not None:
        z = ((z ^ _shift_right(z, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))) ^ words
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shift_right(z, shift)) * (factor - (1 << 64))
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift without copies of the sign bit: torch's integers are signed."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _raise_out_of_range(edge_index: Tensor, num_nodes: int) -> None:
    bad = (edge_index < 0) | (edge_index >= num_nodes)
    column = int(bad.any(0).nonzero()[0])
    row = int(bad[:, column].nonzero()[0])
    known = f"has {num_nodes} nodes, 0..{num_nodes - 1}" if num_nodes else "has no nodes"
    node = int(edge_index[row, column])
    raise ValueError(f"edge_index names node {node} in row {row}, column {column}, but the graph {known}")


def _check_length(name: str, values: Tensor, graph: EdgeList) -> None:
    if values.shape != (graph.num_nodes,):
        raise ValueError(f"{name} must have one value for each of {graph.num_nodes} nodes, got {list(values.shape)}")


def _sum_ends(tails: Tensor, heads: Tensor, values: Tensor, mirrored: bool) -> Tensor:
    """Sum ``values`` ``[N]`` over the neighbours of each node, in an undirected graph."""
    if not compiled(tails) or (mirrored and (len(values) < MANY_NODES or _grouped(tails))):
        out = _sum_heads(tails, heads, values)
        return out if mirrored else out.add_(_sum_heads(heads, tails, values))
    from graphsparse.graphs import loops

    ends, num_nodes = (tails.contiguous().numpy(), heads.contiguous().numpy()), len(values)

    def one(start: int, stop: int) -> Array:
        nodes = np.zeros((num_nodes, 2), np.int64)
        nodes[:, 0] = values
        loops.sum_ends(*ends, start, stop, not mirrored, nodes)
        return nodes[:, 1]

    parts = min(len(slices(len(tails))), 1 + len(tails) // max(1, num_nodes))
    return torch.from_numpy(np.sum(over_slices(one, len(tails), parts), axis=0))


def _grouped(ends: Tensor, sample: int = 1024) -> bool:
    """Whether most edges have about the same end as the next one, by a sample: then sums over it stay in the cache."""
    if len(ends) < 2:
        return False
    at = torch.arange(sample) * (len(ends) - 1) // sample  # whole numbers: floats miss places of a long list
    steps = ends[at + 1].long() - ends[at].long()
    return bool(((steps >= 0) & (steps <= 8)).float().mean() > 0.5)


def _sum_heads(tails: Tensor, heads: Tensor, of_heads: Tensor) -> Tensor:
    """Sum ``of_heads`` ``[N]`` over the arcs that leave each node, or, with the rows exchanged, that enter it."""
    if not compiled(tails):
        real = tails != heads
        return torch.zeros_like(of_heads).index_add_(0, tails[real].long(), of_heads[heads[real].long()])
    from graphsparse.graphs import loops

    ends, values = (tails.contiguous().numpy(), heads.contiguous().numpy()), of_heads.contiguous().numpy()
    least = values.min() if len(values) else np.int64(0)
    if int(values.max(initial=least)) - int(least) < 1 << 32:  # half the memory, fewer cache misses
        values = (values - least).astype(np.uint32)
    else:
        least = np.int64(0)
    return accumulate(
        lambda a, b, own: loops.sum_heads(*ends, a, b, values, least, own), len(tails), len(values), np.int64
    )
