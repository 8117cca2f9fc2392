"""PyG graphs of one type of nodes: a bare ``edge_index``, a ``Data``, a ``Batch`` of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphsparse.graphs.inner_form import EdgeList, check_edge_index, edge_list, looks_dense
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library
from graphsparse.graphs.stores import (
    cut_edges,
    cut_store,
    edge_values,
    edges_in,
    is_weighted_pair,
    own_size,
    plain,
    weight_key,
)

if TYPE_CHECKING:
    from torch_geometric.data import Data


@KINDS.register("edge-index")
class BareGraph(OpenGraph):
    """A bare ``edge_index`` or `EdgeIndex` ``[2, E]``; with new weights a pair ``(edge_index, weight)`` comes back."""

    says = "an edge_index tensor [2, E]"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return isinstance(graph, Tensor) and graph.layout == torch.strided and (asked or not looks_dense(graph))

    def __init__(self, edge_index: Tensor, undirected: bool | None) -> None:
        check_edge_index(edge_index)
        self.edge_index = edge_index
        self.edges = edge_list(plain(edge_index), own_size(edge_index), undirected)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        small = cut_edges(self.edges, self.edge_index, mask)
        return small if edge_weight is None else (small, edge_weight[mask])


@KINDS.register("data")
class DataGraph(OpenGraph):
    """A PyG ``Data`` or a subclass of it, with ``edge_index`` or, instead of it, ``adj_t`` or ``adj``.

    ``adj_t`` holds an edge u -> v in row v and column u; what has one entry an edge is in the order of its entries.
    """

    says = "a torch_geometric Data"
    options = ("weight",)

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "torch_geometric", "Data") and not of_library(graph, "torch_geometric", "Batch")

    def __init__(self, data: Data, undirected: bool | None, weight: str | None = None) -> None:
        self.data, self.weight = data, weight_key(data, weight)
        self.key, self.matrix, edge_index, values = edges_in(data, "the Data")
        if weight is not None or values is None:
            values = edge_values(data, self.weight, edge_index.size(1), asked=weight is not None)
            self.weight_in_matrix = False
        else:
            self.weight_in_matrix = True
        with warnings.catch_warnings(record=True) as guessed:  # PyG warns where it counts nodes from the edges alone
            warnings.simplefilter("always")
            num_nodes = data.num_nodes
        self.counted_from_edges = bool(guessed)
        x = data.x if isinstance(data.x, Tensor) else None
        self.edges = edge_list(edge_index, num_nodes, undirected, weight=values, x=x)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Data:
        data = copy.copy(self.data)
        values = edge_weight if self.weight_in_matrix else None
        cut_store(data, self.data.to_dict(), data.__cat_dim__, self.key, self.matrix, self.edges, mask, values)
        if self.counted_from_edges:  # else the nodes with the highest ids could vanish with their edges
            data.num_nodes = self.edges.num_nodes
        if edge_weight is not None and not self.weight_in_matrix:
            data[self.weight] = edge_weight[mask]
        return data


@KINDS.register("batch")
class BatchGraph(DataGraph):
    """A ``Batch`` of ``Data``: every graph is scored and keeps its count by itself, as it would alone."""

    says = "a Batch of them"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "torch_geometric", "Batch") and of_library(
            graph, "torch_geometric", "Data"
        )  # one of HeteroData is of neither kind

    def __init__(self, data: Data, undirected: bool | None, weight: str | None = None) -> None:
        super().__init__(data, undirected=False, weight=weight)
        whole = self.edges
        of_nodes = data.batch if isinstance(data.get("batch"), Tensor) else None
        if of_nodes is None or of_nodes.shape != (whole.num_nodes,):
            raise ValueError("the Batch does not say which graph a node belongs to: batch must have one number a node")
        of_nodes = of_nodes.to(whole.edge_index.device)
        of_edges = of_nodes[whole.edge_index[0].long()]
        if bool((of_edges != of_nodes[whole.edge_index[1].long()]).any()) or bool((of_nodes.diff() < 0).any()):
            raise ValueError("the Batch is no row of graphs: its edges join two of them, or batch does not ascend")
        count = max(int(data.num_graphs), int(of_nodes[-1]) + 1 if len(of_nodes) else 0)
        sizes = torch.bincount(of_nodes, minlength=count).tolist()
        edges_of = torch.argsort(of_edges, stable=True).split(torch.bincount(of_edges, minlength=count).tolist())  # type: ignore[no-untyped-call]
        self.counts = count
        self.positions: dict[Hashable, Tensor] = dict(enumerate(edges_of))
        self._parts: dict[Hashable, EdgeList] = {}
        start = 0
        for number, (size, own) in enumerate(zip(sizes, edges_of, strict=True)):
            self._parts[number] = edge_list(
                whole.edge_index[:, own] - start,
                size,
                undirected,
                weight=None if whole.weight is None else whole.weight[own],
                x=None if whole.x is None or whole.x.layout != torch.strided else whole.x[start : start + size],
            )
            start += size

    @property
    def parts(self) -> Mapping[Hashable, EdgeList]:
        return self._parts

    def cut_parts(self, masks: Mapping[Any, Tensor], weights: Mapping[Any, Tensor] | None = None) -> Any:
        mask = self.gathered(masks)
        small = self.cut(mask, None if weights is None else self.gathered(weights))
        self._move_slices(small, mask)
        return small

    def gathered(self, values: Mapping[Any, Tensor]) -> Tensor:
        kind = next((part.dtype for part in values.values()), torch.float64)
        joined = torch.empty(self.edges.num_edges, dtype=kind, device=self.edges.edge_index.device)
        for number, own in self.positions.items():
            joined[own] = values[number]
        return joined

    def scattered(self, values: Any) -> Mapping[Any, Any]:
        if len(values) != self.edges.num_edges:
            raise ValueError(f"scores must have one number for each of {self.edges.num_edges} edges, got {len(values)}")
        if isinstance(values, Tensor):
            return {number: values[own.to(values.device)] for number, own in self.positions.items()}
        return {number: values[own.cpu().numpy()] for number, own in self.positions.items()}

    def _move_slices(self, small: Any, mask: Tensor) -> None:
        """Where each graph's entries begin has moved in what was cut along the edges."""
        slices = getattr(self.data, "_slice_dict", None)
        if not slices:
            return
        kept = torch.stack([mask[own].sum() for own in self.positions.values()]) if self.positions else mask[:0]
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cpu().cumsum(0)])
        whole = torch.tensor([0, *(len(own) for own in self.positions.values())]).cumsum(0)
        moved = dict(slices)
        for key, starts in slices.items():
            value, before = small.get(key), self.data.get(key)
            if value is before or key == self.key or not isinstance(starts, Tensor):
                continue
            if torch.equal(starts.cpu(), whole):
                moved[key] = ends
        if self.key in slices and self.matrix is None:
            moved[self.key] = ends
        small._slice_dict = moved


@KINDS.register("weighted-edge-index")
class WeightedGraph(OpenGraph):
    """A pair ``(edge_index, edge_weight)`` as PyG's functions return it; the second may be None or ``[E, ...]``."""

    says = "a pair (edge_index, edge_weight)"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return is_weighted_pair(graph)

    def __init__(self, pair: tuple[Tensor, Tensor | None], undirected: bool | None) -> None:
        self.bare = BareGraph(pair[0], undirected)
        self.values = pair[1]
        number_of_edges = self.bare.edges.num_edges
        if self.values is not None and (not self.values.dim() or len(self.values) != number_of_edges):
            raise ValueError(f"the weights must have one entry for each of {number_of_edges} edges")
        plain = self.values is not None and self.values.numel() == number_of_edges
        weight = self.values.reshape(-1) if self.values is not None and plain else None
        self.edges = edge_list(self.bare.edges.edge_index, self.bare.edges.num_nodes, undirected, weight=weight)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        values = self.values if edge_weight is None else edge_weight
        return self.bare.cut(mask), None if values is None else values[mask]
