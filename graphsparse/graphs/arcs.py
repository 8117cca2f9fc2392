"""One look at an edge list (range, loops, degrees, symmetry) and the cut of an edge list along a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.parallel import over_slices, slices

Array = npt.NDArray[Any]

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
    """Whether the numba loops take this edge list (else torch's operations: the results are the same bits)."""
    return edge_index.device.type == "cpu" and edge_index.size(1) >= COMPILE_FROM


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


def compress(edge_index: Tensor, mask: Tensor) -> Tensor:
    """Return the columns of ``edge_index`` ``[2, E]`` where ``mask`` ``[E]`` is true, in their order.

    Example:
        >>> compress(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([True, False, True]))
        tensor([[0, 2], [1, 0]])
    """
    if not compiled(edge_index) or type(edge_index) is not Tensor:  # a subclass knows how to cut itself
        return edge_index[:, mask]
    from graphsparse.graphs import loops

    tails, heads = rows(edge_index)
    keep = mask.contiguous().numpy()
    counts = over_slices(lambda a, b: int(np.count_nonzero(keep[a:b])), len(keep))
    ends = np.cumsum([0, *counts])
    small = torch.empty((2, int(ends[-1])), dtype=edge_index.dtype)
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
