"""PyG graphs of one type of nodes: a bare ``edge_index``, a ``Data``, a ``Batch`` of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from graphsparse.graphs.arcs import compress
from graphsparse.graphs.inner_form import EdgeList, check_edge_index, check_square, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, kind_of
from graphsparse.graphs.kinds.arrays import looks_dense

TRANSPOSED = "adj_t"  # holds the heads in its rows
MATRICES = (TRANSPOSED, "adj")


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
        return isinstance(graph, Data) and not isinstance(graph, Batch)

    def __init__(self, data: Data, undirected: bool | None, weight: str | None = None) -> None:
        self.data, self.weight = data, weight or "edge_weight"
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
        return isinstance(graph, Batch) and isinstance(graph, Data)  # one of HeteroData is of neither kind

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


def plain(edge_index: Tensor) -> Tensor:
    """The tensor within an `EdgeIndex`; any other as it is."""
    return cast(Tensor, edge_index.as_tensor()) if isinstance(edge_index, EdgeIndex) else edge_index


def own_size(edge_index: Any) -> int | None:
    """The number of nodes that an `EdgeIndex` knows of; None for any other tensor."""
    if not isinstance(edge_index, EdgeIndex):
        return None
    rows, columns = edge_index.sparse_size()
    if rows is not None and columns is not None:
        check_square((rows, columns))
    size: int | None = rows if rows is not None else columns
    return size


def cut_edges(edges: EdgeList, edge_index: Tensor, mask: Tensor) -> Tensor:
    """The columns of an ``edge_index``; an `EdgeIndex` keeps what it knows of itself."""
    small = compress(edge_index, mask)
    if isinstance(edge_index, EdgeIndex) and edge_index.is_undirected and edges.mirrored:
        rows, columns = edge_index.sparse_size()
        order = edge_index.sort_order
        small = EdgeIndex(plain(small), sparse_size=(rows, columns), sort_order=order, is_undirected=True)
    return small


def edges_in(store: Any, what: str, **shape: bool) -> tuple[str, OpenGraph | None, Tensor, Tensor | None]:
    """Where a ``Data`` has its edges: the key, the open matrix if it is one, the ``edge_index``, and the values.

    A matrix is square, unless ``square=False`` says that it need not be.
    """
    key = next((key for key in MATRICES if store.get(key) is not None), None)
    if key is None:
        if store.get("edge_index") is None:
            raise TypeError(f"{what} has no edge_index and no adj_t")
        check_edge_index(store.edge_index)
        return "edge_index", None, plain(store.edge_index), None
    if store.get("edge_index") is not None:
        raise TypeError(
            f"{what} holds its edges in edge_index and in {key}; give it one of them (del data.{key}): which of the "
            "two is the graph would be a guess"
        )
    matrix = kind_of(store[key])(store[key], False, **shape)
    edge_index = matrix.edges.edge_index
    return key, matrix, edge_index.flip(0) if key == TRANSPOSED else edge_index, matrix.edges.weight


def edge_values(store: Any, name: str, number_of_edges: int, asked: bool) -> Tensor | None:
    """The weights ``[E]`` of a ``Data`` or of one relation."""
    values = store.get(name)
    if values is None and asked:
        raise ValueError(f"the graph has no edge attribute {name!r} to take weights from")
    if values is None:
        return None
    if not isinstance(values, Tensor) or values.numel() != number_of_edges:
        raise ValueError(f"{name} must be a tensor with one number for each edge")
    return values.reshape(-1)


def cut_store(
    small: Any,
    values: Mapping[str, Any],
    cat_dim: Any,
    key: str,
    matrix: OpenGraph | None,
    edges: EdgeList,
    mask: Tensor,
    edge_weight: Tensor | None = None,
) -> None:
    """Write the edges that stay, and what has one entry for each of them, into ``small``.

    Args:
        small: a copy of the ``Data`` or of the part of it that holds one relation.
        values: what is in it.
        cat_dim: the ``__cat_dim__`` of its ``Data``.
        key: where its edges are.
        matrix: the open matrix there, or None for an ``edge_index``.
        edges: the inner form.
        mask: bool ``[E]``.
        edge_weight: new values for a matrix.
    """
    for name, value in values.items():
        if name == key:
            small[key] = cut_edges(edges, value, mask) if matrix is None else matrix.cut(mask, edge_weight)
        elif _is_edge_level(values, cat_dim, name, value, edges):
            small[name] = _cut_along(value, mask, cat_dim(name, value))


def _is_edge_level(values: Mapping[str, Any], cat_dim: Any, key: str, value: Any, edges: EdgeList) -> bool:
    """Whether an attribute has one entry for each edge, by PyG's rule: size, and the name where N = E.

    Other lists of node ids (``edge_label_index``, ``face``) are their own, and so are the labels of such a list.
    """
    if "index" in key or key == "face" or ("edge_label" in key and f"{key}_index" in values):
        return False
    if isinstance(value, (list, tuple)):
        size = len(value)
    elif isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        dim = cat_dim(key, value)
        if not isinstance(dim, int):
            return False
        size = value.shape[dim]
    else:
        return False
    return size == edges.num_edges and (edges.num_nodes != edges.num_edges or "edge" in key or key == "e_id")


def _cut_along(value: Any, mask: Tensor, dim: int) -> Any:
    if isinstance(value, (list, tuple)):
        kept = [entry for entry, keep in zip(value, mask.tolist(), strict=True) if keep]
        return kept if isinstance(value, list) else tuple(kept)
    if isinstance(value, np.ndarray):
        return np.compress(mask.cpu().numpy(), value, axis=dim)
    return value.index_select(dim, mask.nonzero().view(-1).to(value.device))


@KINDS.register("weighted-edge-index")
class WeightedGraph(OpenGraph):
    """A pair ``(edge_index, edge_weight)`` as PyG's functions return it; the second may be None or ``[E, ...]``."""

    says = "a pair (edge_index, edge_weight)"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        if not (isinstance(graph, tuple) and len(graph) == 2 and isinstance(graph[0], Tensor) and graph[0].dim() == 2):
            return False
        return graph[1] is None or (isinstance(graph[1], Tensor) and graph[1].is_floating_point())

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
