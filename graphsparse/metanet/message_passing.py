"""Message passing on network graphs: one layer, in both directions, and in parts where there are many edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import MultiAggregation


class NetworkConv(MessagePassing):  # type: ignore[misc]
    r"""One layer: messages along typed edges in both directions with shared weights, and an update of the edges.

    .. math::
        m_{ij} = f_1(h_j) \odot f_2(h_i) \odot e_{ij}, \quad
        h_i \mathrel{+}= W [\mathrm{mean} \| \mathrm{std} \| \max \| \min]_j m_{ij}, \quad
        e_{ij} \mathrel{+}= f_3(h_j) \odot f_4(h_i) \odot e_{ij}

    with :math:`f = \mathrm{SiLU}(\mathrm{Linear}(\mathrm{LayerNorm}(h)))`. Against the direction of an edge the same
    weights work on :math:`e \odot s`, where s is +1 in one half of the channels and -1 in the other.

    Source: "Meta Pruning via Graph Metanetworks", arXiv 2506.12041, section 3.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(aggr=MultiAggregation(["mean", "std", "max", "min"]), node_dim=0)
        self.norm = nn.LayerNorm(hidden)
        self.f = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(4)])
        for f in self.f[:2]:
            nn.init.ones_(cast(nn.Linear, f).bias)  # messages start as their edges' own features, and not near zero
        self.combine = nn.Linear(4 * hidden, hidden)
        sign = torch.ones(hidden)
        sign[hidden // 2 :] = -1.0
        self.register_buffer("sign", sign, persistent=False)

    def forward(self, h: Tensor, e: Tensor, edge_index: Tensor, chunks: Chunks | None = None) -> tuple[Tensor, Tensor]:
        """New features of nodes ``[N, H]`` and edges ``[E, H]``; ``chunks`` of edges are worked on in turn."""
        normed = self.norm(h)
        a, b, c, d = (functional.silu(f(normed)) for f in self.f)
        total = self._gather(edge_index, a, b, e, None, chunks.forward if chunks else None)
        total = total + self._gather(edge_index.flip(0), a, b, e, self.sign, chunks.backward if chunks else None)
        if chunks is None:
            return h + self.combine(total), e + self._edge_change(edge_index, c, d, e)
        parts = [_sparing(self._edge_change, edge_index[:, p], c, d, e[p]) for p in chunks.slices]
        return h + self.combine(total), e + torch.cat(parts)

    def message(self, a_j: Tensor, b_i: Tensor, e: Tensor) -> Tensor:
        """The message of each edge, ``[E, H]``."""
        return a_j * b_i * e

    def _gather(
        self, index: Tensor, a: Tensor, b: Tensor, e: Tensor, sign: Tensor | None, parts: tuple[Tensor, ...] | None
    ) -> Tensor:
        if parts is None:
            return self._part(index, a, b, e, sign)
        whole = a.new_zeros(len(a), 4 * a.shape[1])
        for part in parts:  # all edges of a node lie in one part, so that parts touch different rows
            whole = whole + _sparing(self._part, index[:, part], a, b, e[part], sign)
        return whole

    def _part(self, index: Tensor, a: Tensor, b: Tensor, e: Tensor, sign: Tensor | None) -> Tensor:
        return cast(Tensor, self.propagate(index, a=a, b=b, e=e if sign is None else e * sign))

    def _edge_change(self, index: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
        src, dst = index
        change: Tensor = (c[src] * d[dst] + c[dst] * d[src] * self.sign) * e
        return change


class Chunks:
    """Edges in parts of about ``limit``; a node's incoming (outgoing) edges stay in one part of a direction."""

    def __init__(self, edge_index: Tensor, limit: int) -> None:
        self.forward, self.backward = (_by_node(row, limit) for row in (edge_index[1], edge_index[0]))
        count = edge_index.shape[1]
        self.slices = [slice(start, min(start + limit, count)) for start in range(0, count, limit)]


def _by_node(node: Tensor, limit: int) -> tuple[Tensor, ...]:
    order = torch.argsort(node, stable=True)
    ends = torch.bincount(node).cumsum(0).tolist()
    cuts, start = [], 0
    for previous, end in zip([0, *ends], ends, strict=False):
        if end - start > limit and previous > start:
            cuts.append(previous - start)
            start = previous
    return torch.split(order, [*cuts, len(order) - start])


def _sparing(function: Callable[..., Tensor], *args: Tensor | None) -> Tensor:
    """Call the function; where gradients are wanted, compute it again in the backward pass instead of storing it."""
    if torch.is_grad_enabled():
        return cast(Tensor, checkpoint(function, *args, use_reentrant=False))
    return function(*args)
