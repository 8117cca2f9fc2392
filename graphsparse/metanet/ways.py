"""What a metanetwork of mode "nowcast" sees of the past: the ways that weights have come, free of their scale."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphsparse.metanet.features import bank_scale, tensor_scale, wiring
from graphsparse.metanet.foresight import POINTS, Past
from graphsparse.metanet.graph import Kernel, NetworkGraph

_SMALLEST = 1e-12  # a way of length 0 is no direction
_LEAST_RATIO = 1e-6  # of a way's length to its tensor's scale


class Way(NamedTuple):
    """The way that one kernel class or bank has come.

    Args:
        steps: ``[rows, POINTS, columns]``, from each earlier state to the present one, in units of the root mean square
            of the whole way of the tensor (bank: layer) that a row belongs to.
        ratio: ``[rows, 1]``, a quarter of the logarithm of that unit over the scale of the tensor's own values.
    """

    steps: Tensor
    ratio: Tensor

    @property
    def whole(self) -> Tensor:
        """The whole way, ``[rows, columns]``."""
        return self.steps[:, 0]

    @property
    def columns(self) -> Tensor:
        """All of it as columns, ``[rows, ways_columns(columns)]``."""
        return torch.cat([self.steps.flatten(1), self.ratio], dim=1)

    def of_rows(self) -> Tensor:
        """The mean over the columns of each row, as columns: ``[rows, ways_columns(1)]``."""
        return torch.cat([self.steps.mean(2), self.ratio], dim=1)


Ways = dict[Kernel | str, Way]


def ways_columns(width: int) -> int:
    """How many columns describe the way of ``width`` numbers."""
    return POINTS * width + 1


def ways_of(graph: NetworkGraph, past: Past, least: float) -> Ways:
    """The ways of all kernels, and of all banks that can change; ``least`` is as in `features.bank_scale`."""
    found: Ways = {}
    with torch.no_grad():
        tensor_of = graph.once(wiring).tensor_of
        for kernel, edges in graph.edges.items():
            earlier = [state.edges[kernel].values for state in past.earlier]
            scale = tensor_scale(edges.values, tensor_of[kernel]).unsqueeze(1)
            found[kernel] = _way(edges.values, earlier, tensor_of[kernel], scale)
        for name, bank in graph.banks.items():
            if not bank.input_only:
                earlier = [state.banks[name].values for state in past.earlier]
                scale = bank_scale(graph, bank, least)
                found[name] = _way(bank.values, earlier, graph.layer[bank.nodes], scale)
    return found


def times(graph: NetworkGraph, past: Past) -> Tensor:
    """How many steps were made and how far ahead to look, in quarters of logarithms, for each node: ``[N, 2]``."""
    columns = torch.tensor([past.steps, past.ahead], dtype=torch.float32, device=graph.layer.device).log1p() / 4
    return columns.expand(graph.num_nodes, 2)


def check_past(graph: NetworkGraph, past: Past) -> None:
    """Raise ValueError unless a past has enough states, all of this graph's architecture and finite."""
    if len(past.earlier) != POINTS or past.steps < 0 or past.ahead < 1:
        raise ValueError(
            f"a past holds {POINTS} earlier states, steps from 0 on and at least 1 step ahead, "
            f"got {len(past.earlier)}, {past.steps} and {past.ahead}"
        )
    for state in past.earlier:
        for now, then in ((graph.edges, state.edges), (graph.banks, state.banks)):
            if {k: v.values.shape for k, v in now.items()} != {k: v.values.shape for k, v in then.items()}:
                raise ValueError("an earlier state is of another architecture than the network")
            if not all(bool(torch.isfinite(part.values).all()) for part in then.values()):
                raise ValueError("an earlier state holds values that are not finite")


def _way(now: Tensor, earlier: list[Tensor], number: Tensor, scale: Tensor) -> Way:
    unit = tensor_scale(now - earlier[0], number).unsqueeze(1)
    steps = torch.stack([now - then for then in earlier], dim=1) / unit.clamp(min=_SMALLEST).unsqueeze(2)
    ratio = (unit / scale.clamp(min=_SMALLEST)).clamp(min=_LEAST_RATIO).log() / 4
    return Way(steps, ratio)
