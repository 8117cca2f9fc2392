"""Layers with attention, whose weights of edges hang on the features: a softmax over what arrives at each node."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import GATConv, TransformerConv
from torch_geometric.utils import add_self_loops, remove_self_loops

from graphsparse.parallel import over_slices
from graphsparse.tickets.compiled.layers import Form, Place, rule
from graphsparse.tickets.compiled.program import Call, Mix, Ref, Scale, Step, Term

_SERIAL_BELOW = 1 << 21  # numbers that are sent: fewer are done before another thread has started


@dataclass(frozen=True, eq=False)
class Arriving:
    """Arcs by their target, copies one by one.

    Attributes:
        starts: of each target's arcs [N + 1].
        columns: sources [E].
        rows: targets [E].
    """

    starts: Tensor
    columns: Tensor
    rows: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> Arriving:
        """Those of arcs [2, E]."""
        order = torch.argsort(edge_index[1], stable=True)
        counts = torch.bincount(edge_index[1], minlength=num_nodes)
        starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        return cls(starts, edge_index[0, order], edge_index[1, order])


@dataclass(frozen=True, eq=False)
class Attention:
    """What a node gets: a mean of what arrives, weighted by the softmax of scores.

    Called with values [N, H C] alone, the score of an arc j -> i is LeakyReLU(near . z_i + far . z_j) (Velickovic et
    al., ICLR 2018, eq. 3); with queries and keys, too, q_i . k_j / sqrt(C) (Shi et al., IJCAI 2021, eq. 3).

    Attributes:
        arcs: the graph's.
        heads: H.
        near, far: [H, C], or None for queries and keys.
        slope: of the LeakyReLU.
    """

    arcs: Arriving
    heads: int
    near: Tensor | None = None
    far: Tensor | None = None
    slope: float = 0.2

    def __call__(self, values: Tensor, queries: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """Outputs [N, H C], in torch's operations."""
        sent, rows, columns = self._heads(values), self.arcs.rows, self.arcs.columns
        if queries is None or keys is None:
            near, far = self._sides(values)
            scores = functional.leaky_relu(near[rows] + far[columns], self.slope)
        else:
            products = self._heads(queries)[rows] * self._heads(keys)[columns]
            scores = products.sum(dim=-1) / math.sqrt(sent.size(2))
        index = rows.unsqueeze(1).expand_as(scores)
        lowest = scores.new_full((values.size(0), self.heads), -torch.inf)
        highest = lowest.scatter_reduce(0, index, scores, "amax")
        weights = (scores - highest[rows]).exp()
        total = torch.zeros_like(lowest).scatter_add(0, index, weights)
        weights = weights / (total[rows] + 1e-16)
        out = torch.zeros_like(sent).index_add(0, rows, sent[columns] * weights.unsqueeze(2))
        return out.reshape(values.shape)

    def by_loops(self, threads: int, *inputs: Tensor) -> Tensor:
        """The same on the CPU, without a number for each arc."""
        from graphsparse.tickets.compiled import loops

        values = inputs[0].contiguous()
        if len(inputs) == 1:
            sides = [side.contiguous().numpy() for side in self._sides(values)]
            loop, extra = loops.attend, float(self.slope)
        else:
            sides = [side.contiguous().numpy() for side in inputs[1:]]
            loop, extra = loops.attend_by_keys, 1 / math.sqrt(values.size(1) // self.heads)
        out = torch.zeros_like(values)
        arrays: tuple[Any, ...] = (self.arcs.starts.numpy(), self.arcs.columns.numpy(), *sides, values.numpy())
        scale = np.asarray(extra, values.numpy().dtype)[()]
        parts = 1 if len(self.arcs.rows) * values.size(1) < _SERIAL_BELOW else threads
        over_slices(lambda start, stop: loop(*arrays, out.numpy(), self.heads, scale, start, stop), len(values), parts)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), self.heads, -1)

    def _sides(self, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self.near is not None
        assert self.far is not None
        apart = self._heads(values)
        return (apart * self.near).sum(dim=-1), (apart * self.far).sum(dim=-1)


@dataclass(frozen=True)
class HeadMean:
    """The mean over heads."""

    heads: int

    def __call__(self, x: Tensor) -> Tensor:
        """[N, C] of [N, H C]."""
        return x.view(x.size(0), self.heads, -1).mean(dim=1)


def _attended(layer: Any, number: int, attention: Attention, inputs: tuple[int, ...]) -> list[tuple[Step, int]]:
    """The attention, and the mean of heads where they are not put side by side."""
    width = layer.heads * layer.out_channels
    refs = tuple(map(Ref, inputs))
    steps: list[tuple[Step, int]] = [(Call(number, attention, refs, {}, "attention"), width)]
    if not layer.concat:
        mean = Call(number + 1, HeadMean(layer.heads), (Ref(number),), {}, "mean of heads")
        steps.append((mean, layer.out_channels))
    return steps


@rule(GATConv)
def _gat(layer: Any, source: int, place: Place, edge_index: Tensor, edge_attr: None = None) -> Form | None:
    if edge_attr is not None or layer.res is not None or layer.lin is None:
        return None
    if layer.add_self_loops:
        edge_index, _ = add_self_loops(remove_self_loops(edge_index)[0], num_nodes=place.num_nodes)
    weight, first = layer.lin.weight.detach(), place.number
    sides = (layer.att_dst.detach()[0], layer.att_src.detach()[0])
    arcs = Arriving.of(edge_index, place.num_nodes)
    attention = Attention(arcs, layer.heads, *sides, slope=layer.negative_slope)
    steps: list[tuple[Step, int]] = [(Mix(first, (Term(source, weight),)), len(weight))]
    steps += _attended(layer, first + 1, attention, (first,))
    if layer.bias is not None:
        last, width = steps[-1]
        bias = layer.bias.detach()
        steps.append((Scale(last.out + 1, last.out, torch.ones_like(bias), bias), width))
    return Form(tuple(steps))


@rule(TransformerConv)
def _transformer(layer: Any, source: int, place: Place, edge_index: Tensor, edge_attr: None = None) -> Form | None:
    if edge_attr is not None or layer.lin_beta is not None:
        return None
    steps: list[tuple[Step, int]] = []
    for part in (layer.lin_value, layer.lin_query, layer.lin_key):
        bias = None if part.bias is None else part.bias.detach()
        weight = part.weight.detach()
        steps.append((Mix(place.number + len(steps), (Term(source, weight),), bias), len(weight)))
    attention = Attention(Arriving.of(edge_index, place.num_nodes), layer.heads)
    inputs = tuple(step.out for step, _ in steps)
    steps += _attended(layer, inputs[-1] + 1, attention, inputs)
    if layer.root_weight:
        (last, width), skip = steps[-1], layer.lin_skip
        bias = None if skip.bias is None else skip.bias.detach()
        terms = (Term(source, skip.weight.detach()), Term(last.out))
        steps.append((Mix(last.out + 1, terms, bias), width))
    return Form(tuple(steps))
