"""igraph's graphs."""

from __future__ import annotations

from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library
from graphsparse.graphs.labels import as_number, label_names


@KINDS.register("igraph")
class IGraph(OpenGraph):
    """An ``igraph.Graph``: attributes of the graph, its vertices and the kept edges stay, in their order.

    Where every vertex has another ``name``, ties break by the names, as with the labels of networkx; else by the ids.
    """

    says = "an igraph Graph"
    options = ("weight",)

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "igraph", "Graph")

    def __init__(self, graph: Any, undirected: bool | None, weight: str | None = None) -> None:
        directed = bool(graph.is_directed())
        if undirected is False and not directed:
            raise ValueError("undirected=False, but the igraph graph is undirected; give graph.as_directed()")
        self.graph, self.weight = graph, weight or "weight"
        known = graph.es.attributes()
        if weight is not None and weight not in known:
            raise ValueError(f"the graph has no edge attribute {weight!r} to take weights from")
        values = [as_number(value) for value in graph.es[self.weight]] if self.weight in known else None
        self.listed = graph.get_edgelist()
        ends = np.array(self.listed, np.int64).reshape(-1, 2).T
        self.edges = edge_list(
            torch.from_numpy(np.ascontiguousarray(ends)),
            int(graph.vcount()),
            bool(undirected) if directed else True,
            weight=None if values is None else torch.tensor(values, dtype=torch.float64),
            names=self._names(),
            pairs_once=not directed,
        )

    def _names(self) -> Any:
        if "name" not in self.graph.vs.attributes():
            return None
        names = self.graph.vs["name"]
        unique = len({name for name in names if isinstance(name, (str, int))}) == len(names)
        if not unique or names == list(range(len(names))):
            return None
        return label_names(names)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        graph, keep = self.graph, mask.tolist()
        attributes = {name: list(compress(graph.es[name], keep)) for name in graph.es.attributes()}
        if edge_weight is not None:
            attributes[self.weight] = edge_weight[mask].tolist()
        small = graph.copy()
        small.delete_edges(range(small.ecount()))  # of some edges it would change the order of the others
        small.add_edges(list(compress(self.listed, keep)), attributes=attributes)
        return small
