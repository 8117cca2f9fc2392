"""Allot edges to the nodes that need them: an exact number by a concave sum over nodes, not by a fixed score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.edges.each import counts_by_graph
from graphsparse.edges.units import Ints, Units, find_units
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import Keep

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
    start: Tensor | None = None,
    among: Tensor | None = None,
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
        start: bool ``[E]``, edges that are kept already; they count.
        among: bool ``[E]``, edges that may be added to them, by default all.

    Returns:
        bool ``[E]``.

    Raises:
        ValueError: for needs or benefits that are negative or not finite, of a wrong length, or ``offset`` not above 0;
            if ``start`` has more edges than ``keep`` asks for, or ``start`` and ``among`` together fewer.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
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
    taken, open_ = (_of_units(mask, units, by_key, default) for mask, default in ((start, False), (among, True)))
    counts -= np.bincount(owners[taken], minlength=len(counts))
    room = np.bincount(owners[open_ & ~taken], minlength=len(counts))
    if (counts < 0).any() or (counts > room).any():
        raise ValueError("start and among leave no choice of the size that keep asks for")
    owners, counts = np.where(open_, owners, len(counts)), np.append(counts, 0)  # who may not be added has no budget
    _loop(len(by_key))(
        low, high, graph.undirected, need.detach().cpu().double().numpy(), units.scores[by_key], float(offset), owners,
        counts, taken,
    )  # fmt: skip
    chosen = np.zeros(len(by_key), bool)
    chosen[by_key] = taken
    mask = np.ones(graph.num_edges, bool)
    units.spread(chosen, mask)
    return torch.from_numpy(mask).to(graph.edge_index.device)


def _of_units(mask: Tensor | None, units: Units, order: Ints, default: bool) -> npt.NDArray[np.bool_]:
    """A mask of edges ``[E]`` as one of units ``[m]``, in an order of theirs."""
    if mask is None:
        return np.full(len(order), default)
    whole: npt.NDArray[np.bool_] = mask.cpu().numpy()[units.arcs[0][order]]
    return whole


def _loop(count: int) -> Callable[..., None]:
    """The loop for so many edges: compiled, or the same in Python."""
    from graphsparse.graphs import loops

    loop: Callable[..., None] = loops.allot if count >= COMPILE_FROM else loops.allot.py_func
    return loop
