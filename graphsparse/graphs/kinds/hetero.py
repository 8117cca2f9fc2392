"""PyG graphs of several types of nodes and edges: every relation by itself, its reverse with it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, about, of_library
from graphsparse.graphs.stores import cut_store, edge_values, edges_in, weight_key

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

Relation = tuple[str, str, str]


@dataclass
class _Found:
    """The edges of one relation, ids of its two types of nodes as they are."""

    key: str
    matrix: OpenGraph | None
    edge_index: Tensor
    values: Tensor | None
    partner: Relation | None = None  # the reverse relation that goes with it
    partner_order: Tensor | None = None  # for each of its edges, the position of the same one there


@KINDS.register("hetero-data")
class HeteroGraph(OpenGraph):
    """A ``HeteroData``: each relation keeps a count of its own.

    Where a relation joins two types, the ids of the two sides are different nodes. A reverse relation of the same edges
    (by its edges, whatever its name; within one type of nodes by the prefix ``rev_``, too) loses the same ones, and
    makes a relation of two types undirected. A ``rev_`` relation of other edges is one of its own, and a warning says
    so.
    """

    says = "a HeteroData"
    options = ("weight",)

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "torch_geometric", "HeteroData") and not hasattr(graph, "to_data_list")

    def __init__(self, graph: HeteroData, undirected: bool | None, weight: str | None = None) -> None:
        self.graph, self.weight = graph, weight
        if not graph.edge_types:
            raise TypeError("the HeteroData has no relation with edges")
        self.found: dict[Relation, _Found] = {}
        for relation in graph.edge_types:
            shape = {} if relation[0] == relation[2] else {"square": False}
            key, matrix, edge_index, values = edges_in(graph[relation], f"the relation {relation}", **shape)
            if values is None or weight is not None:
                name = weight_key(graph[relation], weight)
                values = edge_values(graph[relation], name, edge_index.size(1), asked=False)
            self.found[relation] = _Found(key, matrix, edge_index, values)
        if weight is not None and all(weight not in graph[relation] for relation in self.found):
            raise ValueError(f"no relation has an edge attribute {weight!r} to take weights from")
        self.sizes, self.counted = self._node_counts()
        self._pair_relations()
        led = {found.partner for found in self.found.values() if found.partner_order is not None}
        self._parts: dict[Hashable, EdgeList] = {
            relation: self._part(relation, undirected) for relation in self.found if relation not in led
        }

    def _node_counts(self) -> tuple[dict[str, int], set[str]]:
        """The number of nodes of each type, and the types whose number follows from their edges alone."""
        sizes: dict[str, int] = {}
        counted = set()
        for kind in {end for source, _, target in self.found for end in (source, target)}:
            with warnings.catch_warnings(record=True) as guessed:
                warnings.simplefilter("always")
                known = self.graph[kind].num_nodes
            if known is None or guessed:
                ids = [
                    int(found.edge_index[row].max()) + 1
                    for relation, found in self.found.items()
                    for row, end in ((0, relation[0]), (1, relation[2]))
                    if end == kind and found.edge_index.size(1)
                ]
                known = max(ids, default=0)
                counted.add(kind)
            sizes[kind] = int(known)
        return sizes, counted

    def _part(self, relation: Relation, undirected: bool | None) -> EdgeList:
        source, _, target = relation
        found = self.found[relation]
        if source == target:
            x = self.graph[source].get("x")
            return self._listed(relation, found.edge_index, self.sizes[source], undirected, found.values, x)
        for row, kind in ((0, source), (1, target)):
            ids = found.edge_index[row]
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.sizes[kind]:
                node = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
                raise ValueError(
                    f"the relation {relation}: edge_index names node {node} in row {row}, but {kind!r} has "
                    f"{self.sizes[kind]} nodes"
                )
        shift = torch.tensor([[0], [self.sizes[source]]], device=found.edge_index.device)
        if undirected is None:  # messages go both ways where the reverse relation is there, else one way
            undirected = found.partner is not None
        count = self.sizes[source] + self.sizes[target]
        x = _one_table(self.graph[source].get("x"), self.graph[target].get("x"))
        return self._listed(relation, found.edge_index.long() + shift, count, undirected, found.values, x)

    def _listed(
        self, relation: Relation, edge_index: Tensor, count: int, undirected: bool | None, values: Any, x: Any
    ) -> EdgeList:
        with about(relation):
            return edge_list(edge_index, count, undirected, weight=values, x=x if isinstance(x, Tensor) else None)

    def _pair_relations(self) -> None:
        """Find for each relation the later one that holds the same edges the other way round."""
        for relation, found in self.found.items():
            for other in self.found:
                if other == relation or (other[0], other[2]) != (relation[2], relation[0]):
                    continue
                if found.partner is not None or self.found[other].partner is not None:
                    continue
                named = other[1] in (f"rev_{relation[1]}", relation[1].removeprefix("rev_"))
                if other[1] == relation[1]:
                    named = relation[0] != relation[2]
                order = _same_edges(found.edge_index, self.found[other].edge_index)
                if order is not None and relation[0] == relation[2] and not named:  # two equal symmetric relations?
                    order = None if _same_edges(found.edge_index, found.edge_index) is not None else order
                if order is not None:
                    found.partner, found.partner_order = other, order
                    self.found[other].partner = relation
                elif named and other[1].startswith("rev_"):
                    warnings.warn(
                        f"{other} does not hold the edges of {relation} the other way round: each keeps a count of "
                        "its own",
                        stacklevel=5,
                    )

    @property
    def parts(self) -> Mapping[Hashable, EdgeList]:
        return self._parts

    def cut_parts(self, masks: Mapping[Any, Tensor], weights: Mapping[Any, Tensor] | None = None) -> HeteroData:
        small = copy.copy(self.graph)
        for relation, mask, values in self._spread(masks, weights):
            store, found = small[relation], self.found[relation]
            edges = EdgeList(found.edge_index, -1, False, False)  # what has one entry an edge lies in the store alone
            in_matrix = found.matrix is not None and found.matrix.edges.weight is not None
            before = dict(self.graph[relation].items())
            new = values if in_matrix else None
            cut_store(store, before, self.graph.__cat_dim__, found.key, found.matrix, edges, mask, new)
            if values is not None and not in_matrix:
                store[weight_key(self.graph[relation], self.weight)] = values[mask]
        for kind in self.counted:
            small[kind].num_nodes = self.sizes[kind]
        return small

    def _spread(self, masks: Mapping[Any, Tensor], weights: Any) -> list[tuple[Relation, Tensor, Tensor | None]]:
        """A mask and new weights for every relation, those that go with another among them."""
        found = []
        for relation, mask in masks.items():
            values = None if weights is None else weights[relation]
            found.append((relation, mask, values))
            order, partner = self.found[relation].partner_order, self.found[relation].partner
            if order is not None and partner is not None:
                found.append((partner, _moved(mask, order), None if values is None else _moved(values, order)))
        return found

    def gathered(self, values: Mapping[Any, Tensor]) -> dict[Relation, Tensor]:
        return {relation: part for relation, part, _ in self._spread(values, None)}

    def scattered(self, values: Any) -> Mapping[Any, Any]:
        if not isinstance(values, Mapping):
            raise TypeError(f"scores of a HeteroData are a dict of scores by relation, got {type(values).__name__}")
        missing = [relation for relation in self._parts if relation not in values]
        if missing:
            raise ValueError(f"there are no scores of the relation {missing[0]}")
        return values


def _moved(values: Tensor, order: Tensor) -> Tensor:
    out = torch.empty_like(values)
    out[order] = values
    return out


def _one_table(left: Any, right: Any) -> Tensor | None:
    """Features of both sides, where they can be compared: tables of one width."""
    both = isinstance(left, Tensor) and isinstance(right, Tensor) and left.layout == right.layout == torch.strided
    if not both or left.shape[1:] != right.shape[1:] or left.dtype != right.dtype:
        return None
    return torch.cat([left, right])


def _same_edges(edge_index: Tensor, reverse: Tensor) -> Tensor | None:
    """For each edge (u, v) the position of (v, u) in ``reverse``, copies in their order; None if they differ."""
    if edge_index.shape != reverse.shape:
        return None
    ends, turned = edge_index.cpu().numpy(), reverse.cpu().numpy()[::-1]
    first, second = np.lexsort(ends), np.lexsort(turned)  # both are stable
    if not np.array_equal(ends[:, first], turned[:, second]):
        return None
    order = np.empty(len(first), np.int64)
    order[first] = second
    return torch.from_numpy(order).to(edge_index.device)
