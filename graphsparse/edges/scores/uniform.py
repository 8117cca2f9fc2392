"""The control that reads no structure: every edge scores a hash of its own name."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.pairs import Ints, endpoints
from graphsparse.edges.score_table import register
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import mix64
from graphsparse.sorting import sorted_order


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
    copies = copies[sorted_order(keys[copies])]
    grouped = keys[copies]
    numbers[copies] = np.arange(len(copies)) - np.searchsorted(grouped, grouped)
    return numbers
