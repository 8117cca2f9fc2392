"""DGL's graphs, by their documented interface."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphsparse.graphs.columns import WEIGHTS
from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library


@KINDS.register("dgl")
class DGLGraph(OpenGraph):
    """A ``DGLGraph`` of one type of nodes and edges: features stay, those of edges are cut; the order of ids stays.

    The graphs of a batched one each keep a count of their own. Weights are ``edata["weight"]`` or what is named,
    features for scores ``ndata["feat"]``. The edge arrays of ``g.edges()`` are a pair of tensors.
    """

    says = "a DGLGraph"
    options = ("weight",)

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "dgl", "DGLGraph", "DGLHeteroGraph")

    def __init__(self, graph: Any, undirected: bool | None, weight: str | None = None) -> None:
        if len(graph.ntypes) != 1 or len(graph.etypes) != 1:
            raise TypeError(
                f"got a DGLGraph with the relations {', '.join(map(str, graph.canonical_etypes))}: sparsify one at a "
                "time, graph[relation], where it joins nodes of one type"
            )
        self.graph = graph
        self.weight = weight or next((name for name in WEIGHTS if name in graph.edata), WEIGHTS[0])
        tails, heads = graph.edges(order="eid")
        values = graph.edata.get(self.weight)
        if weight is not None and values is None:
            raise ValueError(f"the graph has no edge feature {weight!r} to take weights from")
        if values is not None and values.numel() != len(tails):
            if weight is not None:
                raise ValueError(f"the edge feature {weight!r} must be one number for each edge")
            values = None
        values = None if values is None else values.detach().reshape(-1)
        x = graph.ndata.get("feat")
        ends = torch.stack([tails, heads])
        self.edges = edge_list(ends, int(graph.num_nodes()), undirected, weight=values, x=x)
        self._parts: dict[Hashable, EdgeList] = {None: self.edges}
        if int(graph.batch_size) > 1:
            self._parts = {}
            nodes, arcs = graph.batch_num_nodes().tolist(), graph.batch_num_edges().tolist()
            first, start = 0, 0
            for number, (size, count) in enumerate(zip(nodes, arcs, strict=True)):
                own = slice(start, start + count)
                self._parts[number] = edge_list(
                    ends[:, own] - first,
                    size,
                    undirected,
                    weight=None if values is None else values[own],
                    x=None if x is None else x[first : first + size],
                )
                first, start = first + size, start + count

    @property
    def parts(self) -> Mapping[Hashable, EdgeList]:
        return self._parts

    def cut_parts(self, masks: Mapping[Any, Tensor], weights: Mapping[Any, Tensor] | None = None) -> Any:
        return self.cut(self.gathered(masks), None if weights is None else self.gathered(weights))

    def gathered(self, values: Mapping[Any, Tensor]) -> Tensor:
        return torch.cat(list(values.values()))

    def scattered(self, values: Any) -> Mapping[Any, Any]:
        if len(values) != self.edges.num_edges:
            raise ValueError(f"scores must have one number for each of {self.edges.num_edges} edges, got {len(values)}")
        found, start = {}, 0
        for name, edges in self._parts.items():
            found[name] = values[start : start + edges.num_edges]
            start += edges.num_edges
        return found

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        small = self.graph.clone()
        if edge_weight is not None:
            small.edata[self.weight] = edge_weight
        gone = (~mask).nonzero().view(-1)
        small.remove_edges(gone.to(self.edges.edge_index.dtype))  # keeps the order, the features and the batch
        return small
