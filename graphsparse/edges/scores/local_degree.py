"""Local degree: the place of an edge among the edges of its ends, hubs first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.pairs import Floats, Ints, by_degree, endpoints
from graphsparse.edges.score_table import register
from graphsparse.graphs import arcs
from graphsparse.graphs.inner_form import EdgeList


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
    tail, head = endpoints(graph)
    real = tail != head
    u, v = tail[real], head[real]
    to_heads = by_degree(deg_in, graph.names, seed)[v]
    if graph.undirected and not graph.mirrored:
        to_tails = by_degree(deg_in, graph.names, seed)[u]
        both = _exponents(np.concatenate([u, v]), np.concatenate([to_heads, to_tails]), deg_in)
        at_tail, at_head = both[: len(u)], both[len(u) :]
    else:
        to_tails = by_degree(deg_out, graph.names, seed)[u]
        at_tail, at_head = _exponents(u, to_heads, deg_out), _exponents(v, to_tails, deg_in)
    scores = np.full(len(tail), np.inf)
    scores[real] = np.maximum(at_tail, at_head)
    return torch.from_numpy(scores).to(graph.edge_index.device)


def _exponents(at: Ints, place: Ints, degrees: Ints) -> Floats:
    """``1 - log(rank) / log(degree)`` of each edge ``[m]`` at its end ``at``, ranked there by the other end's place."""
    keys = at * len(degrees) + place
    order = np.argsort(keys)
    ordered = keys[order]
    position = np.arange(len(keys))
    copies = ordered[1:] == ordered[:-1]
    position[1:][copies] = 0
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.maximum.accumulate(position)  # copies have the place of the first
    rank -= (np.cumsum(degrees) - degrees)[at]
    logs = np.log(np.arange(1, degrees.max(initial=1) + 1))  # looked up, so that equal ranks score equal bits
    width = np.where(degrees > 1, logs[np.maximum(degrees, 1) - 1], 1.0)
    return np.asarray(1.0 - logs[rank] / width[at])
