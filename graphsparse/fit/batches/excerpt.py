"""A small piece of a large graph, to try models on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.sampler import NodeSamplerInput

from graphsparse.fit.batches.sampler import NeighborhoodSampler

_NODES, _ARCS = 1 << 12, 1 << 16  # graphs up to this are taken whole
_STARTS, _AROUND = 8, (8, 8)


def excerpt(edge_index: Tensor, num_nodes: int, among: Tensor) -> Tensor | None:
    """Ids, ascending, of some nodes around a few of `among` [M] that have neighbours; None where all are few."""
    if num_nodes <= _NODES and edge_index.size(1) <= _ARCS:
        return None
    sampler = NeighborhoodSampler(edge_index, num_nodes, _AROUND)
    among = among.cpu()
    able = among[torch.from_numpy(sampler.arcs.degrees)[among] > 0]
    able = able if len(able) else among
    starts = able[torch.linspace(0, len(able) - 1, min(_STARTS, len(able))).long()]
    found: Tensor = sampler.sample_from_nodes(NodeSamplerInput(None, starts)).node.sort().values
    return found
