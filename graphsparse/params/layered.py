"""Any graph in layers, and the network whose units are its nodes."""

from __future__ import annotations

from statistics import fmean, pstdev
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

_NAMED = 8  # nodes that a sentence names


def layered_network(graph: nx.Graph, inputs: int, outputs: int) -> LayeredNet:
    """A network whose hidden units are the nodes of a graph; train it with the masks of :func:`masks_from_graph`.

    Args:
        graph: as for :func:`masks_from_graph`.
        inputs, outputs: how many; both ends are dense.

    Raises:
        ValueError: for a cycle or nodes without edges.

    Example:
        >>> from graphsparse.params import masks_from_graph
        >>> graph = nx.watts_strogatz_graph(20, 4, 0.5, seed=0)
        >>> net = layered_network(graph, 6, 3)
        >>> masks = masks_from_graph(net, graph)
        >>> net(torch.ones(2, 6)).shape, sum(int(mask.sum()) for mask in list(masks.values())[1:-1])
        (torch.Size([2, 3]), 40)
    """
    layer_of = layers_of(directed(graph))
    return LayeredNet(inputs, [list(layer_of.values()).count(i) for i in range(max(layer_of.values()) + 1)], outputs)


class LayeredNet(nn.Module):
    """Layers that take the units of all hidden layers before them.

    Args:
        inputs: features.
        hidden: units of each hidden layer.
        outputs: of the last layer, which takes all hidden units.
    """

    def __init__(self, inputs: int, hidden: list[int], outputs: int) -> None:
        super().__init__()
        before = [inputs, *(sum(hidden[:i]) for i in range(1, len(hidden) + 1))]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(before, [*hidden, outputs], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs ``[..., inputs]`` to outputs ``[..., outputs]``."""
        first, *others = self.layers
        seen = first(x).relu()
        for layer in others[:-1]:
            seen = torch.cat([seen, layer(seen).relu()], dim=-1)
        out: Tensor = others[-1](seen) if others else seen
        return out


def graph_figures(graph: nx.Graph) -> dict[str, float]:
    """What studies of sparse structures report of a graph.

    Returns:
        ``nodes``, ``edges``, ``degree`` and ``degree_std``, ``clustering`` (the mean over nodes), ``path_length`` (the
        mean of shortest paths in the largest connected part), ``connected`` (the share of nodes in it); of a directed
        graph without regard to directions.

    Example:
        >>> figures = graph_figures(nx.cycle_graph(6))
        >>> figures["degree"], figures["clustering"], figures["path_length"]
        (2.0, 0.0, 1.8)
    """
    plain = nx.Graph(graph.to_undirected())
    degrees = [degree for _, degree in plain.degree()]
    whole = max(nx.connected_components(plain), key=len)
    length = nx.average_shortest_path_length(plain.subgraph(whole)) if len(whole) > 1 else 0.0
    return {
        "nodes": len(plain),
        "edges": plain.number_of_edges(),
        "degree": fmean(degrees),
        "degree_std": pstdev(degrees),
        "clustering": nx.average_clustering(plain),
        "path_length": length,
        "connected": len(whole) / len(plain),
    }


def directed(graph: nx.Graph, *, both: bool = False) -> nx.DiGraph:
    if graph.is_directed():
        return nx.DiGraph(graph)
    if both:
        return nx.Graph(graph).to_directed()
    order = {node: i for i, node in enumerate(graph)}
    directed = nx.DiGraph()
    directed.add_nodes_from(graph)
    directed.add_edges_from((u, v, d) if order[u] <= order[v] else (v, u, d) for u, v, d in graph.edges(data=True))
    return directed


def layers_of(graph: nx.DiGraph) -> dict[Any, int]:
    """The length of the longest path to each node."""
    check_isolated(graph)
    try:
        order = list(nx.topological_sort(graph))
    except nx.NetworkXUnfeasible:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
        raise ValueError(
            f"the graph has a cycle, through {cycle[:_NAMED]}: a layered network needs a graph without"
        ) from None
    layer: dict[Any, int] = {}
    for node in order:
        layer[node] = max((layer[before] + 1 for before in graph.predecessors(node)), default=0)
    return layer


def check_isolated(graph: nx.Graph) -> None:
    if not len(graph):
        raise ValueError("the graph has no nodes")
    alone = [node for node in graph if all(other == node for other in nx.all_neighbors(graph, node))]
    if alone:
        raise ValueError(f"the nodes {alone[:_NAMED]} have no edges, and no signal would pass them; remove them")
