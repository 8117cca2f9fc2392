"""Exact outputs for a whole graph without the messages of all its arcs at once.

A layer's messages take (arcs x width) numbers, its nodes only (nodes x width). So the model runs on the whole graph as
it is, layer by layer, and each layer's messages are made, and added up, for some of the target nodes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphsparse.fit.batches.sampler import Incoming
from graphsparse.fit.graph_call import needs_order

ARCS_AT_ONCE = 1 << 18


@contextmanager
def in_chunks(model: nn.Module, arcs_at_once: int = ARCS_AT_ONCE) -> Iterator[None]:
    """Inside, layers of PyG send messages to some target nodes at a time; outputs are those of the whole graph.

    A layer whose arguments cannot be told apart by node and by arc (a `propagate` of its own, soft masks) sends all its
    messages at once, which gives the same. For inference: with gradients nothing changes.

    Args:
        model: any module; afterwards it is as it was.
        arcs_at_once: messages of a chunk, at least those of one node.

    Example:
        >>> from torch_geometric.nn import SAGEConv
        >>> layer, x, arcs = SAGEConv(2, 3), torch.ones(4, 2), torch.tensor([[0, 1, 2], [3, 3, 0]])
        >>> with torch.no_grad(), in_chunks(layer, arcs_at_once=1):
        ...     in_parts = layer(x, arcs)
        >>> bool(torch.allclose(in_parts, layer(x, arcs)))
        True
    """
    arranged = _Arranged()
    layers = {layer: vars(layer).get("propagate") for layer in model.modules() if _can_be_cut(layer)}
    for layer in layers:
        own: Any = layer
        own.propagate = partial(_propagate, layer, own.propagate, arranged, arcs_at_once)
    try:
        yield
    finally:
        for layer, before in layers.items():
            del layer.propagate
            if before is not None:
                vars(layer)["propagate"] = before


def _can_be_cut(layer: nn.Module) -> bool:
    """Whether `propagate` is PyG's, plain or written out by a template of PyG, and not one of the layer's own.

    An LSTM of PyG goes on over what fills a node's messages up to the most that any node gets: it must see all.
    """
    if not isinstance(layer, MessagePassing) or layer.explain or layer.decomposed_layers > 1:
        return False
    if any(map(needs_order, layer.modules())):
        return False
    own = type(layer).propagate
    return own is MessagePassing.propagate or "_propagate" in own.__module__


class _Arranged:
    """The arcs of the last graph by their target, since several layers send along the same."""

    def __init__(self) -> None:
        self.arcs: Tensor | None = None
        self.found: Incoming | None = None

    def of(self, edge_index: Tensor, target: int, num_nodes: int) -> Incoming:
        if self.found is None or self.arcs is not edge_index or self.found.num_nodes != num_nodes:
            arcs = edge_index if target == 1 else edge_index.flip(0)
            self.arcs, self.found = edge_index, Incoming.of(arcs, num_nodes)
        return self.found


def _propagate(
    layer: Any, whole: Any, arranged: _Arranged, arcs_at_once: int, edge_index: Any, size: Any = None, **named: Any
) -> Any:
    plain = type(edge_index) is Tensor and edge_index.layout == torch.strided and edge_index.dim() == 2
    if not plain or torch.is_grad_enabled() or edge_index.size(1) <= arcs_at_once or layer._edge_mask is not None:
        return whole(edge_index, size=size, **named)
    target = 1 if layer.flow == "source_to_target" else 0
    parts = _Parts.of(layer, edge_index, size, named, target)
    if parts is None:
        return whole(edge_index, size=size, **named)
    graph = arranged.of(edge_index, target, parts.sizes[target])
    out: Tensor | None = None
    for begin, end in _cuts(graph.first, arcs_at_once):
        positions = torch.from_numpy(graph.positions[graph.first[begin] : graph.first[end]]).to(edge_index.device)
        arcs = edge_index[:, positions.long()]
        arcs[target] -= begin
        of_part = [parts.sizes[0], parts.sizes[1]]
        of_part[target] = end - begin
        # the plain method, since a template's knows one type of each argument: here nodes come as a pair
        found = MessagePassing.propagate(layer, arcs, tuple(of_part), **parts.take(begin, end, positions.long()))
        if not isinstance(found, Tensor) or found.size(layer.node_dim) != end - begin:
            return whole(edge_index, size=size, **named)
        if out is None:
            shape = list(found.shape)
            shape[layer.node_dim] = parts.sizes[target]
            out = found.new_empty(shape)
        out.narrow(layer.node_dim, begin, end - begin).copy_(found)
    return out


class _Parts:
    """The arguments of `propagate`, told apart by what they have a row for."""

    def __init__(self, layer: Any, target: int, sizes: tuple[int, int]) -> None:
        self.layer, self.target, self.sizes = layer, target, sizes
        self.pairs: dict[str, list[Any]] = {}
        self.of_arcs: dict[str, Tensor] = {}
        self.of_targets: dict[str, Tensor] = {}
        self.others: dict[str, Any] = {}

    @classmethod
    def of(cls, layer: Any, edge_index: Tensor, size: Any, named: dict[str, Any], target: int) -> _Parts | None:
        """None where it cannot be told."""
        lifted = {name[:-2] for name in layer._user_args if name[-2:] in ("_i", "_j")}
        update = {*layer.inspector.get_param_names("update", exclude=layer.special_args)}
        before = {
            *layer.inspector.get_param_names("message", exclude=layer.special_args),
            *layer.inspector.get_param_names("aggregate", exclude=layer.special_args),
        }
        if update & (before | lifted):
            return None
        sizes: list[Any] = list(size) if size is not None else [None, None]
        for name in lifted:
            for side, value in enumerate(_pair(named.get(name))):
                if isinstance(value, Tensor) and sizes[side] is None:
                    sizes[side] = value.size(layer.node_dim)
        if None in sizes:
            return None
        found = cls(layer, target, (sizes[0], sizes[1]))
        for name, value in named.items():
            if name in lifted:
                found.pairs[name] = _pair(value)
            elif not isinstance(value, Tensor) or value.dim() == 0:
                found.others[name] = value
            elif name in before and value.size(0) == edge_index.size(1):
                found.of_arcs[name] = value
            elif name in update and value.size(layer.node_dim) == sizes[target]:
                found.of_targets[name] = value
            elif name in before or name in update:
                return None
            else:
                found.others[name] = value
        return found

    def take(self, begin: int, end: int, positions: Tensor) -> dict[str, Any]:
        """The arguments for the targets from `begin` to `end` and the arcs that lead there."""
        dim, found = self.layer.node_dim, dict(self.others)
        for name, pair in self.pairs.items():
            part = list(pair)
            if isinstance(part[self.target], Tensor):
                part[self.target] = part[self.target].narrow(dim, begin, end - begin)
            found[name] = tuple(part)
        found |= {name: value.index_select(0, positions) for name, value in self.of_arcs.items()}
        return found | {name: value.narrow(dim, begin, end - begin) for name, value in self.of_targets.items()}


def _pair(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value, value]


def _cuts(first: Any, arcs_at_once: int) -> Iterator[tuple[int, int]]:
    """Ranges of targets with at most so many arcs, or of one target."""
    begin, last = 0, len(first) - 1
    while begin < last:
        end = int(first.searchsorted(first[begin] + arcs_at_once, side="right")) - 1
        end = min(max(end, begin + 1), last)
        yield begin, end
        begin = end
