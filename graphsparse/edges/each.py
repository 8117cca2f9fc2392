"""Keep edges of many graphs at once: each graph of a disjoint union keeps its own exact count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.edges.keep import Guard, check_rules, check_scores, choose_units
from graphsparse.edges.units import Units, find_units
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import Keep, check_no_nan, kept_count
from graphsparse.sorting import sorted_order

Ints = npt.NDArray[np.int64]


def mask_each(
    graph: EdgeList,
    scores: Tensor | npt.NDArray[Any],
    batch: Tensor,
    *,
    keep: Keep,
    guard: Guard | None = None,
    forest: bool = False,
    seed: int = 0,
    symmetric: bool = False,
) -> Tensor:
    r"""Turn scores of a disjoint union into the mask of the edges that stay.

    Of the m countable edges of a graph exactly :math:`\max(1, \lceil keep \cdot m \rceil)` stay (none if m = 0), by
    the rules of `graphsparse.edges.keep_mask`; guards hold in each graph by itself.

    Args:
        graph: the union.
        scores: ``[E]``, higher = keep.
        batch: number of the graph of each node, int64 ``[N]``, ascending from 0.
        keep: fraction to keep, in (0, 1].
        guard: as in `keep_mask`.
        forest: as in `keep_mask`.
        seed: of the ties.
        symmetric: as in `mask_edges`.

    Returns:
        bool ``[E]``, aligned with ``graph.edge_index``.

    Raises:
        ValueError: for a NaN score, ``keep`` outside (0, 1], or a strict guard that a graph has too few edges for.

    Example:
        >>> from graphsparse.graphs.interop import open_graph
        >>> two = open_graph(torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])).edges
        >>> mask_each(two, torch.tensor([1.0, 1, 2, 2, 0, 0]), torch.tensor([0, 0, 0, 1, 1]), keep=0.5)
        tensor([False, False,  True,  True,  True,  True])
    """
    guard = check_rules(keep, None, guard, forest)
    values = check_scores(graph, scores, symmetric)
    check_no_nan(values)
    units = find_units(graph, values, seed)
    of_units, counts = counts_by_graph(units.low, graph.num_nodes, batch, keep)
    if guard is None and not forest:
        chosen = _best_of_each(units, of_units, counts)
    else:
        chosen = _guarded(units, batch.cpu().numpy(), of_units, counts, guard, forest)
    mask = np.ones(graph.num_edges, bool)
    units.spread(chosen, mask)
    return torch.from_numpy(mask).to(graph.edge_index.device)


def counts_by_graph(ends: Ints, num_nodes: int, batch: Tensor | None, keep: Keep) -> tuple[Ints, Ints]:
    """The graph of each unit ``[m]``, and how many units each graph keeps, exactly ``[G]``.

    Args:
        ends: an end of each unit ``[m]``.
        num_nodes: of all graphs.
        batch: the graph of each node ``[N]``, ascending from 0; None: there is one.
        keep: fraction to keep.
    """
    of_nodes = np.zeros(num_nodes, np.int64) if batch is None else batch.cpu().numpy()
    of_units = of_nodes[ends]
    sizes = np.bincount(of_units, minlength=int(of_nodes[-1]) + 1 if len(of_nodes) else 0)
    different, which = np.unique(sizes, return_inverse=True)  # few sizes, many graphs
    return of_units, np.array([kept_count(keep, int(size)) for size in different], np.int64)[which]


def _best_of_each(units: Units, of_units: Ints, counts: Ints) -> npt.NDArray[np.bool_]:
    sizes = np.bincount(of_units, minlength=len(counts))
    order = units.best_first
    order = order[sorted_order(of_units[order])]
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.empty(len(order), bool)
    chosen[order] = place < counts[of_units[order]]
    return chosen


def _guarded(
    units: Units, of_nodes: Ints, of_units: Ints, counts: Ints, guard: Guard | None, forest: bool
) -> npt.NDArray[np.bool_]:
    """Graph by graph: a guard looks at what it has kept so far."""
    first_node = np.searchsorted(of_nodes, np.arange(len(counts) + 1))
    order = np.argsort(of_units, kind="stable")
    chosen = np.empty(len(order), bool)
    for number, own in enumerate(np.split(order, np.cumsum(np.bincount(of_units, minlength=len(counts)))[:-1])):
        start, stop = first_node[number : number + 2]
        part = Units(units.low[own] - start, units.high[own] - start, units.scores[own], units.keys[own], ())
        try:
            chosen[own] = choose_units(part, int(stop - start), int(counts[number]), guard, forest)
        except ValueError as error:
            raise ValueError(f"graph {number}: {error}") from error
    return chosen
