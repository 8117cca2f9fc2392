"""Where PyG keeps the edges of a graph or of one relation, what belongs to them, and how both are cut along a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np
from torch import Tensor

from graphsparse.graphs.arcs import compress
from graphsparse.graphs.inner_form import EdgeList, check_edge_index, check_square
from graphsparse.graphs.interop import OpenGraph, kind_of, of_library

if TYPE_CHECKING:
    from torch_geometric import EdgeIndex

TRANSPOSED = "adj_t"  # holds the heads in its rows
MATRICES = (TRANSPOSED, "adj")


def _is_edge_index(edge_index: Any) -> TypeGuard[EdgeIndex]:
    return of_library(edge_index, "torch_geometric", "EdgeIndex")


def plain(edge_index: Tensor) -> Tensor:
    """The tensor within an `EdgeIndex`; any other as it is."""
    return cast(Tensor, edge_index.as_tensor()) if _is_edge_index(edge_index) else edge_index


def own_size(edge_index: Any) -> int | None:
    """The number of nodes that an `EdgeIndex` knows of; None for any other tensor."""
    if not _is_edge_index(edge_index):
        return None
    rows, columns = edge_index.sparse_size()
    if rows is not None and columns is not None:
        check_square((rows, columns))
    size: int | None = rows if rows is not None else columns
    return size


def cut_edges(edges: EdgeList, edge_index: Tensor, mask: Tensor) -> Tensor:
    """The columns of an ``edge_index``; an `EdgeIndex` keeps what it knows of itself."""
    small = compress(edge_index, mask)
    if _is_edge_index(edge_index) and edge_index.is_undirected and edges.mirrored:
        from torch_geometric import EdgeIndex

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


def weight_key(store: Any, asked: str | None) -> str:
    """Where a ``Data`` or a relation has its weights: ``edge_weight``, or the ``weight`` of PyG's `from_networkx`."""
    if asked is not None or store.get("edge_weight") is not None or store.get("weight") is None:
        return asked or "edge_weight"
    return "weight" if store.is_edge_attr("weight") else "edge_weight"


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


def is_weighted_pair(graph: Any) -> bool:
    """Whether it is a pair ``(edge_index, edge_weight)``, the second perhaps None."""
    if not (isinstance(graph, tuple) and len(graph) == 2 and isinstance(graph[0], Tensor) and graph[0].dim() == 2):
        return False
    return graph[1] is None or (isinstance(graph[1], Tensor) and graph[1].is_floating_point())
