"""Layers that weigh messages by degrees get those of the whole graph, though a batch holds some of its edges only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_CACHE = "_cached_edge_index"  # where layers of PyG look before they normalise: GCNConv, GCN2Conv, APPNP


class WholeDegrees:
    r"""In a batch, the weights that GCN's normalisation has in the whole graph.

    With degrees d of the whole graph, and :math:`s_v` of the :math:`n_v` arcs that lead to v in the batch, the arc uv
    weighs :math:`\frac{n_v}{s_v} \frac{w_{uv}}{\sqrt{d_u d_v}}`, so that the sum over the arcs drawn is, in the mean,
    that over all. A batch's own degrees would weigh the same arc by other numbers in training and in evaluation.

    A layer's normalisation is only replaced in calls with the very arcs (and weights) of the batch: a model that drops
    edges on its own normalises what it has left.

    Args:
        model: whose layers of the kind of PyG's ``GCNConv``, ``GCN2Conv`` and ``APPNP`` are served; our own ``GCN``,
            too.
        edge_index: arcs [2, E] of the whole graph.
        edge_weight: their weights [E], or None.
        num_nodes: N.

    Source: Chen, Zhu, Song, "Stochastic training of graph convolutional networks with variance reduction", ICML 2018,
    equation 2.
    """

    def __init__(self, model: nn.Module, edge_index: Tensor, edge_weight: Tensor | None, num_nodes: int) -> None:
        self.layers = [layer for layer in model.modules() if hasattr(layer, _CACHE) and bool(layer.normalize)]
        if not self.layers:
            return
        tails, heads = edge_index
        apart = tails != heads
        weight = torch.ones_like(heads, dtype=torch.float32) if edge_weight is None else edge_weight
        zeros = weight.new_zeros(num_nodes)
        self.arriving = torch.bincount(heads, minlength=num_nodes)
        self.arriving_apart = self.arriving - torch.bincount(heads[~apart], minlength=num_nodes)
        self.all = zeros.index_add(0, heads, weight)
        self.apart = zeros.index_add(0, heads, weight * apart)
        self.has_loop = self.arriving > self.arriving_apart
        self.loop = zeros.index_copy(0, heads[~apart], weight[~apart])

    @contextmanager
    def used_in(self, nodes: Tensor, edge_index: Tensor, edge_weight: Tensor | None) -> Iterator[None]:
        """Inside, layers that are called with these arcs use the weights that they have in the whole graph.

        Args:
            nodes: ids [n] of the batch's nodes.
            edge_index: its arcs [2, e], by their numbers in the batch.
            edge_weight: what they weigh [e], or None.
        """
        hooks: list[RemovableHandle] = []

        def prepare(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            seen = [value for value in (*given, *named.values()) if isinstance(value, Tensor)]
            ours = any(value is edge_index for value in seen)
            weighted = edge_weight is None or any(value is edge_weight for value in seen)
            found = self._norm(layer, nodes, edge_index, edge_weight) if ours and weighted else None
            setattr(layer, _CACHE, found)

        try:
            hooks += [layer.register_forward_pre_hook(prepare, with_kwargs=True) for layer in self.layers]
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layer in self.layers:
                setattr(layer, _CACHE, None)

    def _norm(
        self, layer: Any, nodes: Tensor, edge_index: Tensor, edge_weight: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        if getattr(layer, "flow", "source_to_target") != "source_to_target":
            return None
        (tails, heads), home = edge_index, self.all.device
        ids, count = nodes.to(home), len(nodes)
        weight = torch.ones_like(heads, dtype=self.all.dtype) if edge_weight is None else edge_weight
        arriving, degree = self.arriving[ids], self.all[ids]
        if layer.add_self_loops:
            fill = 2.0 if getattr(layer, "improved", False) else 1.0
            loop = torch.where(self.has_loop[ids], self.loop[ids], torch.full_like(degree, fill)).to(heads.device)
            arriving, degree = self.arriving_apart[ids], self.apart[ids] + loop.to(home)
            apart = tails != heads
            tails, heads, weight = tails[apart], heads[apart], weight[apart]
        arriving, degree = arriving.to(heads.device), degree.to(heads.device)
        share = arriving / torch.bincount(heads, minlength=count).clamp_min(1)
        scale = degree.pow(-0.5).masked_fill_(degree == 0, 0.0)
        weight = scale[tails] * weight * scale[heads] * share[heads]
        if layer.add_self_loops:
            every = torch.arange(count, device=heads.device)
            tails, heads = torch.cat([tails, every]), torch.cat([heads, every])
            weight = torch.cat([weight, scale * loop * scale])
        return torch.stack([tails, heads]), weight
