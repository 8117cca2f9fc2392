"""Where fine-tuning will bring weights, foreseen from its first steps: the interface, and rules that learn little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from graphsparse.metanet.graph import Kernel, NetworkGraph

POINTS = 4  # how many earlier states of the weights are looked at


class Past(NamedTuple):
    """What fine-tuning did so far, and how far ahead to look.

    Args:
        earlier: the network at `POINTS` earlier steps, evenly spaced, the oldest first; all the same after 0 steps.
        steps: optimizer steps since the oldest.
        ahead: optimizer steps from now to the weights that are asked for.
    """

    earlier: tuple[NetworkGraph, ...]
    steps: int
    ahead: int


class Foresight(Protocol):
    """What foresees weights: a `MetaNetwork` of mode "nowcast", or one of the rules here."""

    def __call__(self, graph: NetworkGraph, *, past: Past) -> NetworkGraph:
        """The network as it will be ``past.ahead`` steps from now; running statistics stay as they are."""


def looked_at(steps: int) -> tuple[int, ...]:
    """The steps at which weights are remembered for a jump after ``steps`` steps, the present one last.

    Example:
        >>> looked_at(8), looked_at(0)
        ((0, 2, 4, 6, 8), (0, 0, 0, 0, 0))
    """
    return tuple(steps * point // POINTS for point in range(POINTS + 1))


@dataclass(frozen=True)
class Stay:
    """No change at all: the control that costs what a jump costs.

    Example:
        >>> graph = NetworkGraph.from_module(torch.nn.Linear(2, 1), torch.zeros(1, 2))
        >>> Stay()(graph, past=Past((graph,) * POINTS, 8, 64)) is graph
        True
    """

    def __call__(self, graph: NetworkGraph, *, past: Past) -> NetworkGraph:
        """The network as it is."""
        return graph


@dataclass(frozen=True)
class Extrapolation:
    r"""Go on along the line of the steps so far: :math:`w_k + c\,(w_k - w_0)`.

    Args:
        factor: c; None takes the whole way at the same speed, :math:`c = \text{ahead} / k`.

    Example:
        >>> old, new = (torch.nn.Linear(1, 1) for _ in range(2))
        >>> _ = old.weight.data.fill_(1.0), new.weight.data.fill_(2.0)
        >>> past, graph = (NetworkGraph.from_module(net, torch.zeros(1, 1)) for net in (old, new))
        >>> Extrapolation(0.5)(graph, past=Past((past,) * POINTS, 8, 64)).to_module().weight.item()
        2.5
    """

    factor: float | None = None

    def __call__(self, graph: NetworkGraph, *, past: Past) -> NetworkGraph:
        """The network further along the line."""
        factor = past.ahead / max(1, past.steps) if self.factor is None else self.factor
        return combined(graph, past.earlier[0], lambda key, now, then: now + factor * (now - then))


@dataclass(frozen=True)
class MovingAverage:
    """The mean of the states that are remembered, the first left out: fine-tuning without its jitter.

    Source: Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.

    Example:
        >>> nets = [torch.nn.Linear(1, 1) for _ in range(5)]
        >>> for number, net in enumerate(nets):
        ...     _ = net.weight.data.fill_(number)
        >>> graphs = [NetworkGraph.from_module(net, torch.zeros(1, 1)) for net in nets]
        >>> MovingAverage()(graphs[-1], past=Past(tuple(graphs[:-1]), 8, 64)).to_module().weight.item()
        2.5
    """

    def __call__(self, graph: NetworkGraph, *, past: Past) -> NetworkGraph:
        """The network of mean weights."""
        total = graph
        for state in past.earlier[1:]:
            total = combined(total, state, lambda key, now, then: now + then)
        return combined(total, total, lambda key, now, then: now / len(past.earlier))


@dataclass(frozen=True)
class StepSizes:
    r"""Learned step sizes and no graph: :math:`w_k + c_t\,(w_k - w_0)` with a :math:`c_t` for each tensor.

    A tensor's size is that of its layer and kind, such as weights of ``stages.0.conv1`` with kernels 3x3; of a layer
    that took no part in learning, that of its kind; of a kind that did not, 0. `learned_step_sizes` finds them.

    Args:
        sizes: (after how many steps, how many ahead) -> (layer, kind) -> c; the layer "" stands for all of them. Of
            the pairs of steps the nearest is taken, in logarithms.
    """

    sizes: Mapping[tuple[int, int], Mapping[tuple[str, str], float]] = field(repr=False)

    def __call__(self, graph: NetworkGraph, *, past: Past) -> NetworkGraph:
        """The network after a step of its own size for each tensor."""
        asked = torch.tensor([past.steps, past.ahead]).log1p()
        sizes = min(self.sizes.items(), key=lambda each: float((torch.tensor(each[0]).log1p() - asked).norm()))[1]
        factors: dict[Kernel | str, Tensor] = {}
        for key, names, number in tensors_of(graph):
            found = [sizes.get((name, _kind(key)), sizes.get(("", _kind(key)), 0.0)) for name in names]
            factors[key] = torch.tensor(found, device=number.device)[number].unsqueeze(1)
        return combined(graph, past.earlier[0], lambda key, now, then: now + factors[key].to(now.dtype) * (now - then))


def combined(
    now: NetworkGraph, then: NetworkGraph, rule: Callable[[Kernel | str, Tensor, Tensor], Tensor]
) -> NetworkGraph:
    """The network whose weights, biases and norms a rule makes of those of two networks, tensor by tensor."""
    return now.with_values(
        {kernel: rule(kernel, edges.values, then.edges[kernel].values) for kernel, edges in now.edges.items()},
        {
            name: rule(name, bank.values, then.banks[name].values)
            for name, bank in now.banks.items()
            if not bank.input_only
        },
    )


def tensors_of(graph: NetworkGraph) -> Iterator[tuple[Kernel | str, tuple[str, ...], Tensor]]:
    """For each kernel class and each bank that can change: the layers in it, and the number of each row's layer."""
    for kernel, edges in graph.edges.items():
        counts = torch.tensor(edges.ptr).diff()
        number = torch.repeat_interleave(torch.arange(len(counts)), counts).to(edges.src.device)
        yield kernel, tuple(name.rpartition(".")[0] for name in edges.names), number
    for name, bank in graph.banks.items():
        if not bank.input_only:
            yield name, graph.layer_names, graph.layer[bank.nodes]


def learned_step_sizes(cases: Iterator[tuple[NetworkGraph, Past, NetworkGraph]]) -> StepSizes:
    r"""The step sizes that fit cases best: :math:`c_t = \sum d \cdot (w^* - w_k) / \sum d \cdot d`.

    Here :math:`d = w_k - w_0`. Sums run over all weights of a layer and kind, and of a kind, each case divided by the
    squared length of its whole change, so that none outweighs the others.

    Args:
        cases: (network now, its past, network as it was ``past.ahead`` steps later).
    """
    sums: dict[tuple[int, int], dict[tuple[str, str], list[float]]] = {}
    for graph, past, later in cases:
        table = sums.setdefault((past.steps, past.ahead), {})
        for key, names, number in tensors_of(graph):
            now, then, target = (values_of(each, key) for each in (graph, past.earlier[0], later))
            total = float((target - now).double().square().sum()) or 1.0
            moved = (now - then).double()
            products = torch.stack([(moved * (target - now)).sum(1), moved.square().sum(1)], dim=1) / total
            each = torch.zeros(len(names), 2, dtype=torch.float64, device=number.device).index_add(0, number, products)
            for name, (over, under) in zip(names, each.tolist(), strict=True):
                for owner in {name, ""}:
                    entry = table.setdefault((owner, _kind(key)), [0.0, 0.0])
                    entry[0] += over
                    entry[1] += under
    return StepSizes(
        {
            steps: {name: over / under for name, (over, under) in table.items() if under > 0}
            for steps, table in sums.items()
        }
    )


def values_of(graph: NetworkGraph, key: Kernel | str) -> Tensor:
    """The values of a kernel class or a bank."""
    return graph.banks[key].values if isinstance(key, str) else graph.edges[key].values


def _kind(key: Kernel | str) -> str:
    return key if isinstance(key, str) else "x".join(map(str, key)) or "linear"
