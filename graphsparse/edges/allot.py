"""Allot edges to the nodes that need them: an exact number by a concave sum over nodes, not by a fixed score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.each import counts_by_graph
from graphsparse.edges.units import find_units
from graphsparse.interop import EdgeList
from graphsparse.select import Keep

COMPILE_FROM = 1 << 12  # edges; below, the loop is mostly done before its compiler would be


def mask_by_need(
    graph: EdgeList,
    need: Tensor,
    benefit: Tensor,
    *,
    keep: Keep,
    offset: float,
    batch: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Mask of the edges that serve the nodes best, each node's need met with diminishing returns.

    Greedily maximises :math:`\sum_u need_u \log(offset + \sum_{e \ni u} benefit_e)` under the exact count of
    `graphsparse.edges.keep_mask`. The sum is monotone and submodular, so the greedy choice gains at least a share of
    :math:`1 - 1/e` of the best possible gain (Nemhauser, Wolsey, Fisher, 1978). With a queue of gains it takes
    O(E log E) where few gains change order (7 s for the million pairs of ogbl-ddi), and much longer where all are alike
    (100 s there). On a directed graph an arc serves the node that it points to. Self-loops are kept and serve nobody.

    Args:
        graph: the edge list.
        need: non-negative ``[N]``.
        benefit: non-negative ``[E]``, the same on both arcs of a pair; of unequal ones the larger counts.
        keep: fraction to keep, in (0, 1].
        offset: above 0; the smaller, the more the first edge of a node is worth compared with the next.
        batch: the graph of each node ``[N]``, where there are many; each keeps its own count.
        seed: of the ties.

    Returns:
        bool ``[E]``.

    Raises:
        ValueError: for needs or benefits that are negative or not finite, of a wrong length, or ``offset`` not above 0.

    Example:
        >>> from graphsparse.interop import open_graph
        >>> star = open_graph(torch.tensor([[0, 1, 0, 2, 0, 3], [1, 0, 2, 0, 3, 0]])).edges
        >>> need, benefit = torch.tensor([0.0, 1.0, 9.0, 1.0]), torch.ones(6)
        >>> mask_by_need(star, need, benefit, keep=0.3, offset=0.1).tolist()
        [False, False, True, True, False, False]
    """
    if not offset > 0:
        raise ValueError(f"offset must be above 0, got {offset}")
    for name, values, length in (("need", need, graph.num_nodes), ("benefit", benefit, graph.num_edges)):
        if values.shape != (length,):
            raise ValueError(f"{name} must have {length} numbers, got {list(values.shape)}")
        if not bool((values >= 0).all() & values.isfinite().all()):
            raise ValueError(f"{name} must be finite and not negative")
    units = find_units(graph, benefit.double(), seed)
    by_key = np.argsort(units.keys, kind="stable")
    low, high = units.low[by_key], units.high[by_key]
    owners, counts = counts_by_graph(high, graph.num_nodes, batch, keep)
    taken = np.zeros(len(by_key), bool)
    _loop(len(by_key))(
        low, high, graph.undirected, need.detach().cpu().double().numpy(), units.scores[by_key], float(offset), owners,
        counts, taken,
    )  # fmt: skip
    chosen = np.zeros(len(by_key), bool)
    chosen[by_key] = taken
    mask = np.ones(graph.num_edges, bool)
    units.spread(chosen, mask)
    return torch.from_numpy(mask).to(graph.edge_index.device)


def _loop(count: int) -> Callable[..., None]:
    """The loop for so many edges: compiled, or the same in Python."""
    from graphsparse import loops

    loop: Callable[..., None] = loops.allot if count >= COMPILE_FROM else loops.allot.py_func
    return loop
