"""graph-tool's graphs, by their documented interface."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library


@KINDS.register("graph-tool")
class GraphToolGraph(OpenGraph):
    """A ``graph_tool.Graph``: property maps and vertices stay.

    The edge array ``g.get_edges()`` is an array of pairs, and a graph by itself.
    """

    says = "a graph-tool Graph"
    options = ("weight",)

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "graph_tool", "Graph", "GraphView")

    def __init__(self, graph: Any, undirected: bool | None, weight: str | None = None) -> None:
        directed = bool(graph.is_directed())
        if undirected is False and not directed:
            raise ValueError(
                "undirected=False, but the graph is undirected; give graph_tool.GraphView(g, directed=True)"
            )
        if graph.num_vertices(ignore_filter=True) != graph.num_vertices():
            raise ValueError("some vertices of the graph are filtered out: Graph(g, prune=True) drops them")
        self.graph, self.weight = graph, weight or "weight"
        table = np.asarray(graph.get_edges([graph.edge_index]), np.int64).reshape(-1, 3)
        self.numbers = table[:, 2]
        maps = graph.edge_properties
        if weight is not None and weight not in maps:
            raise ValueError(f"the graph has no edge property {weight!r} to take weights from")
        values = None
        if self.weight in maps:
            if maps[self.weight].a is None:
                raise ValueError(f"the edge property {self.weight!r} holds no numbers to be weights")
            values = torch.from_numpy(np.asarray(maps[self.weight].a)[self.numbers].astype(np.float64))
        self.edges = edge_list(
            torch.from_numpy(np.ascontiguousarray(table[:, :2].T)),
            int(graph.num_vertices()),
            bool(undirected) if directed else True,
            weight=values,
            pairs_once=not directed,
        )

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        library = sys.modules[next(cls for cls in type(self.graph).__mro__ if cls.__name__ == "Graph").__module__]
        stay = self.graph.new_edge_property("bool")
        stay.a[self.numbers] = mask.cpu().numpy()
        small = library.Graph(library.GraphView(self.graph, efilt=stay), prune=True)
        if edge_weight is not None:
            new = small.new_edge_property("double")
            numbers = np.asarray(small.get_edges([small.edge_index]), np.int64).reshape(-1, 3)[:, 2]
            new.a[numbers] = edge_weight[mask].cpu().numpy()  # edges keep their order
            small.edge_properties[self.weight] = new
        return small
