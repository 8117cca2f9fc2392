"""Keep by a score that is a product over an edge's ends, without the scores: float32 decides all edges but a few."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.keep import Guard, check_rules, keep_tied, mask_edges
from graphsparse.graphs.arcs import compiled, edge_products
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.huge_pages import empty
from graphsparse.keep_rule import Keep, kept_count, threshold
from graphsparse.parallel import over_slices, slices

MARGIN = 2.0**-21  # twice the largest relative error of a product in float32, three roundings of 2^-24 each, and more
SMALLEST, LARGEST = 2.0**-60, 2.0**60  # factors whose products float32 holds with all its digits


def mask_products(
    graph: EdgeList,
    of_tails: Tensor,
    of_heads: Tensor,
    *,
    keep: Keep | None = None,
    per_node: int | None = None,
    guard: Guard | None = None,
    forest: bool = False,
    seed: int = 0,
) -> Tensor:
    """Do what `graphsparse.edges.keep_mask` does with the scores ``of_tails[u] * of_heads[v]`` of all arcs u->v.

    Products of float32 take half the memory, and tell all edges apart but those within a margin around the k-th largest
    score. Only these are multiplied in float64, so the mask is that of the float64 scores, bit for bit.

    Args:
        graph: the edge list.
        of_tails: float64 ``[N]``, not negative; in an undirected graph the same as ``of_heads``.
        of_heads: the same.
        keep: as in `keep_mask`, like the arguments that follow.
        per_node: see there.
        guard: see there.
        forest: see there.
        seed: see there.

    Returns:
        bool ``[E]``.

    Example:
        >>> path = EdgeList(torch.tensor([[0, 1], [1, 2]]), 3, undirected=True, mirrored=False)
        >>> factors = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
        >>> mask_products(path, factors, factors, keep=0.5)
        tensor([ True, False])
    """
    check_rules(keep, per_node, guard, forest)
    count = graph.num_countable if keep is None else kept_count(keep, graph.num_countable)
    plain = per_node is None and guard is None and not forest and count < graph.num_countable
    if not plain or not compiled(graph.edge_index) or not (_fits(of_tails) and _fits(of_heads)):
        scores = edge_products(graph, of_tails, of_heads)
        rules: dict[str, Any] = {"per_node": per_node, "guard": guard, "forest": forest}
        return mask_edges(graph, scores, keep=keep, seed=seed, symmetric=True, **rules)
    rank = (2 if graph.mirrored else 1) * count + graph.survey.loops
    rough = edge_products(graph, of_tails.float(), of_tails.float() if graph.undirected else of_heads.float())
    middle = threshold(rough, rank).value
    mask, near = _split(rough, middle * (1 - MARGIN), middle * (1 + MARGIN))
    wanted = rank - int(np.count_nonzero(mask.numpy()))
    tails, heads = graph.edge_index[:, near].long()
    exact = of_tails[tails] * of_heads[heads]
    cut = threshold(exact.masked_fill_(tails == heads, torch.inf), wanted)
    mask[near[exact > cut.value]] = True
    tied = near[exact == cut.value]
    if cut.above + cut.equal == wanted:
        mask[tied] = True
    else:
        keep_tied(graph, mask, tied, wanted - cut.above, seed)
    return mask


def _fits(factors: Tensor) -> bool:
    values = factors.numpy()
    least, most = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    return least >= 0 and most <= LARGEST and float(values.min(initial=1.0, where=values > 0)) >= SMALLEST


def _split(rough: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Which scores lie above ``high`` ``[E]``, and the positions of those from ``low`` to ``high``."""
    from graphsparse.graphs import loops

    values, mask = rough.numpy(), empty(len(rough), torch.bool)
    out, bounds = mask.numpy(), (np.float32(low), np.float32(high))
    counts = over_slices(lambda a, b: loops.split_scores(values[a:b], *bounds, out[a:b])[1], len(values))
    ends = np.cumsum([0, *counts])
    near = np.empty(ends[-1], np.int64)
    parts = {start: near[ends[i] : ends[i + 1]] for i, (start, _) in enumerate(slices(len(values)))}
    over_slices(lambda a, b: loops.positions_between(values[a:b], *bounds, a, parts[a]), len(values))
    return mask, torch.from_numpy(near)
