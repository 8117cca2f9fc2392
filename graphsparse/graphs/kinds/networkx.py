"""networkx graphs of all four classes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library
from graphsparse.graphs.labels import as_number, label_names

if TYPE_CHECKING:
    import networkx


@KINDS.register("networkx")
class NetworkXGraph(OpenGraph):
    """A networkx graph of any of the four types; all nodes and attributes stay."""

    says = "a networkx graph"
    options = ("weight",)

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        if not of_library(graph, "networkx"):
            return False
        import networkx

        return isinstance(graph, networkx.Graph)

    def __init__(self, graph: networkx.Graph, undirected: bool | None, weight: str | None = None) -> None:
        if undirected is False and not graph.is_directed():
            raise ValueError("undirected=False, but the networkx graph is undirected; give graph.to_directed()")
        self.graph, self.weight = graph, weight or "weight"
        self.listed = list(graph.edges(keys=True) if graph.is_multigraph() else graph.edges())
        labels = list(graph.nodes)
        if set(labels) == set(range(len(labels))):
            ids, names = {label: int(label) for label in labels}, None
        else:
            ids, names = {label: i for i, label in enumerate(labels)}, label_names(labels)
        ends = np.array([(ids[edge[0]], ids[edge[1]]) for edge in self.listed], np.int64).reshape(-1, 2)
        self.edges = edge_list(
            torch.from_numpy(np.ascontiguousarray(ends.T)),
            len(labels),
            bool(undirected) if undirected is not None else not graph.is_directed(),
            weight=self._weights(weight is not None),
            names=names,
            pairs_once=not graph.is_directed(),
        )

    def _copied(self) -> networkx.Graph:
        """The graph as networkx copies it; where its class cannot be made without arguments, a deep copy."""
        try:
            return self.graph.copy()
        except TypeError:
            return copy.deepcopy(self.graph)

    def _weights(self, asked: bool) -> Tensor | None:
        values = [data.get(self.weight) for _, _, data in self.graph.edges(data=True)]
        if not asked and all(value is None for value in values):
            return None
        return torch.tensor([1.0 if value is None else as_number(value) for value in values], dtype=torch.float64)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> networkx.Graph:
        small = self._copied()
        keep = mask.tolist()
        small.remove_edges_from([edge for edge, kept in zip(self.listed, keep, strict=True) if not kept])
        if edge_weight is not None:
            for edge, kept, value in zip(self.listed, keep, edge_weight.tolist(), strict=True):
                if kept:
                    small.edges[edge][self.weight] = value
        return small
