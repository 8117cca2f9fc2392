"""Allot edges to the nodes that need them: an exact number by a concave sum over nodes, not by a fixed score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.edges.each import Ints, counts_of
from graphsparse.edges.units import find_units
from graphsparse.interop import EdgeList
from graphsparse.select import Keep

COMPILE_FROM = 1 << 14  # edges; below, the loop is done before its compiler would be


def mask_by_need(
    graph: EdgeList,
    need: Tensor,
    help_: Tensor,
    *,
    keep: Keep,
    first: float,
    batch: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Mask of the edges that serve the nodes best, each node's need met with diminishing returns.

    Greedily maximises :math:`\sum_u need_u \log(first + \sum_{e \ni u} help_e)` under the exact count of
    `graphsparse.edges.keep_mask`. The sum is monotone and submodular, so the greedy choice gains at least a share of
    :math:`1 - 1/e` of the best possible gain (Nemhauser, Wolsey, Fisher, 1978); it takes O(E log E) for the queue and
    rarely more. An arc without a mirror serves the node that it points to. Self-loops are kept and serve nobody.

    Args:
        graph: the edge list.
        need: non-negative ``[N]``.
        help_: non-negative ``[E]``, the same on both arcs of a pair; of unequal ones the larger counts.
        keep: fraction to keep, in (0, 1].
        first: above 0; the smaller, the more the first edge of a node is worth compared with the next.
        batch: the graph of each node ``[N]``, where there are many; each keeps its own count.
        seed: of the ties.

    Returns:
        bool ``[E]``.

    Raises:
        ValueError: for needs or helps that are negative or not finite, of a wrong length, or ``first`` not above 0.

    Example:
        >>> from graphsparse.interop import open_graph
        >>> star = open_graph(torch.tensor([[0, 1, 0, 2, 0, 3], [1, 0, 2, 0, 3, 0]])).edges
        >>> need, help_ = torch.tensor([0.0, 1.0, 9.0, 1.0]), torch.ones(6)
        >>> mask_by_need(star, need, help_, keep=0.3, first=0.1).tolist()
        [False, False, True, True, False, False]
    """
    if not first > 0:
        raise ValueError(f"first must be above 0, got {first}")
    for name, values, length in (("need", need, graph.num_nodes), ("help_", help_, graph.num_edges)):
        if values.shape != (length,):
            raise ValueError(f"{name} must have {length} numbers, got {list(values.shape)}")
        if not bool((values >= 0).all() & values.isfinite().all()):
            raise ValueError(f"{name} must be finite and not negative")
    units = find_units(graph, help_.double(), seed)
    by_key = np.argsort(units.keys, kind="stable")
    both = len(units.arcs) == 2
    ends = (units.low, units.high) if both else graph.edge_index[:, units.arcs[0]].cpu().long().numpy()
    ends = ends[0][by_key], ends[1][by_key]
    of_nodes = np.zeros(graph.num_nodes, np.int64) if batch is None else batch.cpu().numpy()
    of_units = of_nodes[ends[1]]
    sizes = np.bincount(of_units, minlength=int(of_nodes[-1]) + 1 if len(of_nodes) else 1)
    chosen = np.zeros(len(by_key), bool)
    taken = _allot(ends, both, need, units.scores[by_key], first, of_units, counts_of(sizes, keep))
    chosen[by_key] = taken
    mask = np.ones(graph.num_edges, bool)
    units.spread(chosen, mask)
    return torch.from_numpy(mask).to(graph.edge_index.device)


def _allot(
    ends: tuple[Ints, Ints], both: bool, need: Tensor, help_: Any, first: float, of_units: Ints, budgets: Ints
) -> npt.NDArray[np.bool_]:
    from graphsparse import loops

    taken = np.zeros(len(help_), bool)
    run = loops.allot if len(help_) >= COMPILE_FROM else loops.allot.py_func
    run(*ends, both, need.detach().cpu().double().numpy(), help_, float(first), of_units, budgets, taken)
    return taken
