"""networkit's graphs."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library


@KINDS.register("networkit")
class NetworkitGraph(OpenGraph):
    """A ``networkit.Graph``: nodes, their attributes, weights and the ids of kept edges stay.

    Among parallel edges, which networkit does not tell apart, kept ones get new edge ids.
    """

    says = "a networkit Graph"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "networkit", "Graph")

    def __init__(self, graph: Any, undirected: bool | None) -> None:
        directed = bool(graph.isDirected())
        if undirected is False and not directed:
            raise ValueError(
                "undirected=False, but the networkit graph is undirected; give networkit.Graph(graph, directed=True)"
            )
        self.graph = graph
        self.listed = list(graph.iterEdgesWeights())
        ends = np.array([edge[:2] for edge in self.listed], np.int64).reshape(-1, 2).T
        values = torch.tensor([edge[2] for edge in self.listed], dtype=torch.float64) if graph.isWeighted() else None
        self.edges = edge_list(
            torch.from_numpy(np.ascontiguousarray(ends)),
            int(graph.upperNodeIdBound()),
            bool(undirected) if directed else True,
            weight=values,
            pairs_once=not directed,
        )

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        small = copy.copy(self.graph)
        if edge_weight is not None and not small.isWeighted():
            from networkit import graphtools

            small = graphtools.toWeighted(small)
        keep = mask.tolist()
        names = [(u, v) if small.isDirected() else (min(u, v), max(u, v)) for u, v, _ in self.listed]
        copies = Counter(names)
        mixed = {name for name in set(compress(names, [not kept for kept in keep])) if copies[name] > 1}
        for name, kept in zip(names, keep, strict=True):
            if not kept or name in mixed:
                small.removeEdge(*name)
        values = [weight for _, _, weight in self.listed] if edge_weight is None else edge_weight.tolist()
        for name, kept, weight in zip(names, keep, values, strict=True):
            if kept and name in mixed:
                small.addEdge(*name, weight)
            elif kept and edge_weight is not None:
                small.setWeight(*name, weight)
        return small
