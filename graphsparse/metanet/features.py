"""What a metanetwork sees of a network: one edge list of all types, and figures of every node and kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.metanet.channels import Channels, square_sums
from graphsparse.metanet.graph import COUPLING, Kernel, NetworkGraph, NodeBank

RELATIONS = tuple(sorted(COUPLING | {"broadcast", "reduce", "score"}))
KINDS = ("beta", "bias", "gamma", "running_mean", "running_var", "scale", "shift", "slope", "token")
NODE_FIGURES = 6  # columns of `node_figures`

_LEAST_SQUARE = 1e-8


@dataclass(frozen=True)
class Wiring:
    """All edges of a graph as one list: kernel edges first, class by class, then relations, type by type.

    Args:
        edge_index: ``[2, E]``.
        slices: kernel class or relation type -> its part of the list.
        tensor_of: for each kernel class, the number of the weight tensor that each edge belongs to.
    """

    edge_index: Tensor
    slices: dict[Kernel | str, slice]
    tensor_of: dict[Kernel, Tensor]


def wiring(graph: NetworkGraph) -> Wiring:
    """The edge list of a graph (made once per architecture: pass through ``graph.once``)."""
    blocks, slices, tensor_of, start = [], dict[Kernel | str, slice](), {}, 0
    for kernel, edges in graph.edges.items():
        blocks.append(torch.stack([edges.src, edges.dst]))
        counts = torch.tensor(edges.ptr).diff()
        tensor_of[kernel] = torch.repeat_interleave(torch.arange(len(counts)), counts).to(edges.src.device)
        slices[kernel] = slice(start, start := start + len(edges.src))
    for kind, pairs in graph.relations.items():
        blocks.append(pairs)
        slices[kind] = slice(start, start := start + pairs.shape[1])
    empty = torch.empty(2, 0, dtype=torch.int64, device=graph.layer.device)
    return Wiring(torch.cat([*blocks, empty], dim=1), slices, tensor_of)


def tensor_scale(values: Tensor, tensor_of: Tensor) -> Tensor:
    """Root mean square of the weight tensor that each edge belongs to, ``[num_edges]``."""
    square = values.square().mean(1)
    count = torch.bincount(tensor_of).clamp(min=1)
    total = torch.zeros(len(count), dtype=square.dtype, device=square.device).index_add(0, tensor_of, square)
    return (total / count).sqrt()[tensor_of]


def bank_scale(graph: NetworkGraph, bank: NodeBank, least: float) -> Tensor:
    """Standard deviation of a node feature over each layer, at least ``least``, for the bank's rows ``[m, 1]``."""
    layer, layers = graph.layer[bank.nodes], len(graph.layer_names)
    values = bank.values.detach().mean(1)
    touched = torch.ones_like(layer, dtype=torch.bool)
    centred = values - _layer_mean(values, touched, layer, layers)
    return _layer_mean(centred.square(), touched, layer, layers).sqrt().clamp(min=least).unsqueeze(1)


def node_figures(graph: NetworkGraph) -> Tensor:
    """Figures of every node, ``[num_nodes, 6]``.

    Log norms of the kernels that come in and that go out, less their layer's mean; these means; the log width of the
    layer; the rank of the node's set in its group by group l2, in (-1/2, 1/2). A node without kernels on a side has
    0 there.
    """
    layer, layers = graph.layer, len(graph.layer_names)
    width = torch.bincount(layer, minlength=layers).clamp(min=1)
    columns = []
    for inward in (True, False):
        square = torch.zeros(graph.num_nodes, device=layer.device, dtype=_dtype(graph))
        touched = torch.zeros(graph.num_nodes, dtype=torch.bool, device=layer.device)
        for edges in graph.edges.values():
            ends = edges.dst if inward else edges.src
            square.index_add_(0, ends, edges.values.square().sum(1))
            touched[ends] = True
        norm = torch.where(touched, 0.5 * torch.log(square + _LEAST_SQUARE), 0.0)
        mean = _layer_mean(norm, touched, layer, layers)
        columns += [torch.where(touched, norm - mean, 0.0), torch.where(touched, mean, 0.0)]
    columns += [torch.log(width.to(square.dtype))[layer], group_rank(graph)]
    return torch.stack(columns, dim=1)


def group_rank(graph: NetworkGraph) -> Tensor:
    """Rank of each node's set among its group by group l2, ``[num_nodes]``: -1/2 the least, 1/2 the greatest."""
    channels = Channels.of(graph)
    group, width = channels.group_of, channels.width
    value = square_sums(graph)
    order = torch.argsort(value, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    first = width.cumsum(0) - width
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    rank = (place - first[group] + 0.5) / width[group] - 0.5
    return channels.of_nodes(rank.to(value.dtype))


def kept_figures(graph: NetworkGraph, keep: Tensor) -> Tensor:
    """Whether each node is kept, and which fraction of its group is, ``[num_nodes, 2]``, both in [-1/2, 1/2]."""
    channels = Channels.of(graph)
    group = channels.of_nodes(channels.group_of)
    kept = keep.to(_dtype(graph))
    share = torch.zeros(len(channels.layers), dtype=kept.dtype, device=kept.device).index_add(0, group, kept)
    total = torch.bincount(group, minlength=len(channels.layers)).clamp(min=1)
    return torch.stack([kept, (share / total)[group]], dim=1) - 0.5


def _layer_mean(norm: Tensor, touched: Tensor, layer: Tensor, layers: int) -> Tensor:
    total = torch.zeros(layers, dtype=norm.dtype, device=norm.device).index_add(0, layer, norm * touched)
    count = torch.bincount(layer, weights=touched.to(norm.dtype), minlength=layers).to(norm.dtype).clamp(min=1)
    return (total / count)[layer]


def _dtype(graph: NetworkGraph) -> torch.dtype:
    return next((edges.values.dtype for edges in graph.edges.values()), torch.float32)
