"""Layers of PyG as sums of products; a layer that is not listed, or is set to do more, is run as it is.

A rule is called with the layer, the number of its input, a `Place` for what it makes, and the layer's other arguments,
and gives the steps of the layer, or None. The exact class counts: a subclass may do anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GCNConv, GINConv, GraphConv, MessagePassing, SAGEConv, SGConv
from torch_geometric.nn.aggr import MeanAggregation, SumAggregation
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphsparse.nn.layers import MatrixGCNConv, MatrixGINConv, MatrixSAGEConv
from graphsparse.tickets.compiled.program import Graph, Mix, Scale, Step, Term

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
)


@dataclass
class Place:
    """Where a rule puts what it makes.

    Attributes:
        number: the first free number of a value.
        num_nodes: rows N of every value.
        width: columns of the layer's input.
        graphs: those made so far, so that equal ones are made once.
    """

    number: int
    num_nodes: int
    width: int
    graphs: list[Graph]

    def graph(self, arcs: Tensor, weight: Tensor) -> Graph:
        """The matrix that sums over arcs [2, E] (source, target), weighted [E], what arrives at each node."""
        made = matrix_of(arcs, weight, self.num_nodes)
        same = (old for old in self.graphs if _equal(old, made))
        found = next(same, None)
        if found is None:
            self.graphs.append(made)
        return found or made


@dataclass(frozen=True)
class Form:
    """A layer as steps, each with its columns; ``then`` is what the layer still does with the last of them."""

    steps: tuple[tuple[Step, int], ...]
    then: nn.Module | None = None


Rule = Callable[..., Form | None]
LAYERS: dict[type, Rule] = {}


def hooked(layer: nn.Module) -> bool:
    """Whether somebody looks into the layer, or an explanation masks its messages."""
    return any(getattr(layer, name, None) for name in _HOOKS) or bool(getattr(layer, "explain", False))


def matrix_of(arcs: Tensor, weight: Tensor, num_nodes: int) -> Graph:
    """See `Place.graph`; entries that are given several times add up."""
    tails, heads = (part.cpu().numpy() for part in arcs)
    shape = (num_nodes, num_nodes)
    matrix = csr_array((weight.detach().double().cpu().numpy(), (heads, tails)), shape=shape)
    matrix.sum_duplicates()
    ids = np.int32 if max(matrix.nnz, num_nodes) < 2**31 else np.int64
    values = torch.from_numpy(matrix.data).to(weight.dtype)
    sums = torch.from_numpy(np.asarray(matrix.sum(axis=1))).to(weight.dtype)
    starts, columns = (torch.from_numpy(part.astype(ids)) for part in (matrix.indptr, matrix.indices))
    return Graph(starts, columns, values, sums)


def _equal(one: Graph, other: Graph) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("starts", "columns", "values"))


def rule(*kinds: type) -> Callable[[Rule], Rule]:
    def of(function: Rule) -> Rule:
        def checked(layer: MessagePassing, source: int, place: Place, edge_index: Any, *rest: Any, **named: Any) -> Any:
            plain = type(edge_index) is Tensor and edge_index.layout == torch.strided
            if not plain or layer.flow != "source_to_target":
                return None
            try:
                return function(layer, source, place, edge_index, *rest, **named)
            except TypeError:  # more arguments than the form has a use for
                return None

        LAYERS.update(dict.fromkeys(kinds, checked))
        return checked

    return of


def _normed(layer: Any, place: Place, edge_index: Tensor, edge_weight: Tensor | None, dtype: torch.dtype) -> Graph:
    if getattr(layer, "normalize", True):
        edge_index, edge_weight = gcn_norm(
            edge_index,
            edge_weight,
            place.num_nodes,
            getattr(layer, "improved", False),
            layer.add_self_loops,
            layer.flow,
            dtype,
        )
    return _weighted(place, edge_index, edge_weight, dtype)


def _weighted(place: Place, arcs: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Graph:
    ones = torch.ones(arcs.size(1), dtype=dtype, device=arcs.device)
    return place.graph(arcs, ones if weight is None else weight.view(-1).to(dtype))


def _summed(layer: Any, place: Place, arcs: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Graph | None:
    """The matrix of a layer that adds up or averages; None for one that does neither."""
    if type(layer.aggr_module) is SumAggregation:
        return _weighted(place, arcs, weight, dtype)
    if type(layer.aggr_module) is not MeanAggregation:
        return None
    each = 1 / torch.bincount(arcs[1], minlength=place.num_nodes).to(dtype)[arcs[1]]
    return _weighted(place, arcs, each if weight is None else each * weight.view(-1).to(dtype), dtype)


def _plain(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


@rule(GCNConv, MatrixGCNConv)
def _gcn(layer: Any, source: int, place: Place, edge_index: Tensor, edge_weight: Tensor | None = None) -> Form | None:
    weight = layer.lin.weight.detach()
    graph = _normed(layer, place, edge_index, edge_weight, weight.dtype)
    return Form(((Mix(place.number, (Term(source, weight, graph),), _plain(layer.bias)), len(weight)),))


@rule(SAGEConv, MatrixSAGEConv)
def _sage(layer: Any, source: int, place: Place, edge_index: Tensor, size: None = None) -> Form | None:
    weight = layer.lin_l.weight.detach()
    graph = _summed(layer, place, edge_index, None, weight.dtype)
    if layer.normalize or layer.project or size is not None or graph is None:
        return None
    terms = [Term(source, weight, graph)]
    if layer.root_weight:
        terms.append(Term(source, layer.lin_r.weight.detach()))
    return Form(((Mix(place.number, tuple(terms), _plain(layer.lin_l.bias)), len(weight)),))


@rule(GraphConv)
def _graph_conv(
    layer: Any, source: int, place: Place, edge_index: Tensor, edge_weight: Tensor | None = None, size: None = None
) -> Form | None:
    weight = layer.lin_rel.weight.detach()
    graph = _summed(layer, place, edge_index, edge_weight, weight.dtype)
    if size is not None or graph is None:
        return None
    terms = (Term(source, weight, graph), Term(source, layer.lin_root.weight.detach()))
    return Form(((Mix(place.number, terms, _plain(layer.lin_rel.bias)), len(weight)),))


@rule(GINConv, MatrixGINConv)
def _gin(layer: Any, source: int, place: Place, edge_index: Tensor, size: None = None) -> Form | None:
    dtype = next((value.dtype for value in layer.nn.parameters()), torch.get_default_dtype())
    if size is not None or type(layer.aggr_module) is not SumAggregation:
        return None
    nodes = torch.arange(place.num_nodes, device=edge_index.device, dtype=edge_index.dtype)
    own = torch.full((place.num_nodes,), 1 + float(layer.eps), dtype=dtype, device=edge_index.device)
    weight = torch.cat((torch.ones(edge_index.size(1), dtype=dtype, device=edge_index.device), own))
    graph = place.graph(torch.cat((edge_index, nodes.expand(2, -1)), dim=1), weight)
    return Form(((Mix(place.number, (Term(source, None, graph),)), place.width),), layer.nn)


@rule(SGConv)
def _sgc(layer: Any, source: int, place: Place, edge_index: Tensor, edge_weight: Tensor | None = None) -> Form | None:
    weight = layer.lin.weight.detach()
    graph = _normed(layer, place, edge_index, edge_weight, weight.dtype)
    steps: list[tuple[Step, int]] = []
    for number in range(place.number, place.number + layer.K - 1):
        steps.append((Mix(number, (Term(source, None, graph),)), place.width))
        source = number
    last = Mix(place.number + layer.K - 1, (Term(source, weight, graph),), _plain(layer.lin.bias))
    return Form((*steps, (last, len(weight))))


@rule(APPNP)
def _appnp(layer: Any, source: int, place: Place, edge_index: Tensor, edge_weight: Tensor | None = None) -> Form | None:
    dtype = torch.get_default_dtype() if edge_weight is None else edge_weight.dtype
    normed = _normed(layer, place, edge_index, edge_weight, dtype)
    graph = replace(normed, values=normed.values * (1 - layer.alpha), sums=normed.sums * (1 - layer.alpha))
    first = place.number
    part = torch.full((place.width,), layer.alpha, dtype=dtype)
    steps: list[tuple[Step, int]] = [(Scale(first, source, part, torch.zeros_like(part)), place.width)]
    for number in range(first + 1, first + 1 + layer.K):
        steps.append((Mix(number, (Term(source, None, graph), Term(first))), place.width))
        source = number
    return Form(tuple(steps))
