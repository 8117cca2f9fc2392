"""Local degree: the place of an edge among the edges of its ends, hubs first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.pairs import Floats, Ints, by_degree
from graphsparse.edges.score_table import register
from graphsparse.graphs import arcs
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.parallel import over_slices, slices

COMPILE_FROM = 1 << 14  # edges; below, the loop is done before its compiler would be


@register("local_degree")
def local_degree(graph: EdgeList, *, seed: int = 0) -> Tensor:
    r"""Score an edge by its place among the edges of its ends, hubs first.

    .. math:: \max_{(a, b) \in \{(u, v), (v, u)\}} \; 1 - \frac{\log \mathrm{rank}_a(b)}{\log d_a}

    with :math:`\mathrm{rank}_a(b)` the place of b among the neighbours of a by falling degree (1 = highest), so that
    the score says up to which exponent e the rule "each node keeps its top :math:`d^e` edges" removes the edge. Equal
    degrees are ordered by a seeded hash of the node's name, once for the whole graph. Degrees count parallel copies;
    all copies of an edge have the place of the first. A node with a single edge gives it 1.

    In a directed graph an arc u -> v is ranked among the arcs that leave u, by the in-degrees of their heads, and among
    those that enter v, by the out-degrees of their tails.

    Args:
        graph: the graph.
        seed: of the order among equal degrees.

    Returns:
        float64 ``[E]`` in [0, 1]; self-loops +inf.

    Source: Hamann, Lindner, Meyerhenke, Staudt, Wagner, "Structure-preserving sparsification methods for social
    networks", Social Network Analysis and Mining 6, 2016, section 3.

    Example:
        >>> path = EdgeList(torch.tensor([[0, 1, 1], [1, 2, 3]]), 4, undirected=True, mirrored=False)
        >>> local_degree(path)
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    deg_out, deg_in = (degrees.cpu().numpy() for degrees in arcs.incident_degrees(graph))
    tails, heads = graph.edge_index.detach().cpu().numpy()
    to_heads = by_degree(deg_in, graph.names, seed)
    to_tails = to_heads if graph.undirected else by_degree(deg_out, graph.names, seed)
    if graph.undirected and not graph.mirrored:
        both = _exponents(np.concatenate([tails, heads]), np.concatenate([heads, tails]), to_heads, deg_in)
        scores = np.maximum(both[: len(tails)], both[len(tails) :])
    else:
        sides = ((tails, heads, to_heads, deg_out), (heads, tails, to_tails, deg_in))
        parts = min(2, len(slices(len(tails))))
        found = over_slices(lambda a, b: [_exponents(*side) for side in sides[a:b]], 2, parts)
        scores, other = (side for part in found for side in part)
        np.maximum(scores, other, out=scores)
    return torch.from_numpy(scores).to(graph.edge_index.device)


def _exponents(at: Ints, other: Ints, place: Ints, degrees: Ints) -> Floats:
    """``1 - log(rank) / log(degree)`` of each edge ``[m]`` at its end ``at``, ranked there by the other end's place.

    Edges are grouped by the place of the other end and dealt out to their own ends in that order: a node gets its best
    neighbour first, and nothing is sorted but nodes. Copies have the place of the first; loops have infinity.
    """
    from graphsparse.edges.pair_kernels import places

    logs = np.log(np.arange(1, degrees.max(initial=1) + 1))  # looked up, so that equal ranks score equal bits
    width = np.where(degrees > 1, logs[np.maximum(degrees, 1) - 1], 1.0)
    exponents = np.full(len(at), np.inf)
    loop = places if len(at) >= COMPILE_FROM else places.py_func  # type: ignore[attr-defined]
    positions = np.empty(len(at), np.uint32 if len(at) < 1 << 32 else np.int64)
    loop(at, other, place, width, logs, positions, exponents)
    return exponents
