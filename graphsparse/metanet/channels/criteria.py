"""Criteria: how important a set of coupled channels is. One function each, registered by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphsparse.fit import Task
from graphsparse.metanet.channels.sets import Channels
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.registry import Registry

Loss = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Args:
        graph: the network.
        seed: for what is random.
        loss: from a state dict to the task's loss on training data; None where there is no task.
        task: the task itself, of which the training part may be read; None where there is none.
        instead: written by a criterion: layer -> how it ranked that layer's channels where it could not by itself.
    """

    graph: NetworkGraph
    seed: int = 0
    loss: Loss | None = None
    task: Task | None = None
    instead: dict[str, str] = field(default_factory=dict)


Criterion = Callable[[Evidence], Tensor]


def _check(name: str, entry: Any) -> Criterion:
    if not callable(entry):
        raise TypeError(f"the criterion {name!r} is a function of an Evidence, not a {type(entry).__name__}")
    return entry  # type: ignore[no-any-return]


# A criterion gives the importance of each coupled set, ``[num_sets]``, higher = keep. Its attribute ``penalty``, where
# there is one, is called as ``penalty(module, example_inputs)`` for a callback of the training before the choice.
CRITERIA: Registry[Criterion] = Registry("criterion", check=_check)


def importance(evidence: Evidence, name: str) -> Tensor:
    """The importance of each coupled set of channels, ``[num_sets]``, by the criterion of that name.

    Raises:
        ValueError: there is no such criterion, or it needs what the network or the evidence lacks.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0], [0.0]])), net[1].weight.data.fill_(4.0)
        >>> importance(Evidence(NetworkGraph.from_module(net, torch.zeros(1, 1))), "group-l2")[1:3]
        tensor([5., 4.])
    """
    found, count = CRITERIA.find(name)(evidence), len(Channels.of(evidence.graph).group_of)
    if not isinstance(found, Tensor) or found.shape != (count,):
        got = [*found.shape] if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"the criterion {name!r} must give a tensor [{count}], one value for each set, got {got}")
    return found


@CRITERIA.register("group-l2")
def group_l2(evidence: Evidence) -> Tensor:
    r"""Group norm: :math:`\sqrt{\sum w^2}` over kernels into and out of the set, and its norms' :math:`\gamma`.

    Source: DepGraph (Fang et al., CVPR 2023), group-level importance with sums over the group.
    """
    return square_sums(evidence.graph).sqrt()


def square_sums(graph: NetworkGraph) -> Tensor:
    r"""Sum of squares of each set's kernels and :math:`\gamma`, ``[num_sets]``; differentiable."""
    edges = {kernel: edge.values.square().sum(1) for kernel, edge in graph.edges.items()}
    gammas = {name: bank.values.square().sum(1) for name, bank in graph.banks.items() if name.startswith("gamma")}
    return _per_set(graph, edges, gammas)


@CRITERIA.register("bn-scale")
def bn_scale(evidence: Evidence) -> Tensor:
    r"""Mean :math:`|\gamma|` over the norms on the set.

    Source: Network Slimming (Liu et al., ICCV 2017).

    Raises:
        ValueError: a prunable set has no norm.
    """
    graph, channels = evidence.graph, Channels.of(evidence.graph)
    scales = {name: bank for name, bank in graph.banks.items() if name.startswith("gamma")}
    total = _per_set(graph, {}, {name: bank.values.abs().sum(1) for name, bank in scales.items()})
    count = _per_set(graph, {}, {name: torch.ones(len(bank.nodes)).to(total) for name, bank in scales.items()})
    bare = torch.nonzero(channels.prunable & (count == 0))
    if len(bare):
        layer = graph.layer_names[channels.layers[int(channels.group_of[bare[0, 0]])][0]]
        raise ValueError(f"bn-scale needs a norm on every prunable channel, and '{layer}' has none; take group-l2")
    return total / count.clamp(min=1)


@CRITERIA.register("taylor")
def taylor(evidence: Evidence) -> Tensor:
    r"""First-order change of the loss: :math:`\sum |w \cdot \partial L / \partial w|` over kernels and :math:`\gamma`.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, summed over the group.

    Raises:
        ValueError: the evidence has no loss.
    """
    if evidence.loss is None:
        raise ValueError("taylor needs the loss of a task")
    graph = evidence.graph
    with torch.enable_grad():
        edges = {kernel: edge.values.detach().clone().requires_grad_() for kernel, edge in graph.edges.items()}
        banks = {
            name: bank.values.detach().clone().requires_grad_()
            for name, bank in graph.banks.items()
            if not bank.input_only
        }
        evidence.loss(graph.with_values(edges, banks).to_state_dict()).backward()  # type: ignore[no-untyped-call]
    return _per_set(
        graph,
        {kernel: _first_order(values) for kernel, values in edges.items()},
        {name: _first_order(values) for name, values in banks.items() if name.startswith("gamma")},
    )


@CRITERIA.register("random")
def random(evidence: Evidence) -> Tensor:
    """Uniform random numbers: the control that every criterion must beat."""
    channels = Channels.of(evidence.graph)
    generator = torch.Generator().manual_seed(evidence.seed)
    return torch.rand(len(channels.group_of), generator=generator).to(channels.set_of.device)


def _first_order(values: Tensor) -> Tensor:
    grad = torch.zeros_like(values) if values.grad is None else values.grad
    return (values.detach() * grad).abs().sum(1)


def _per_set(graph: NetworkGraph, edges: dict[tuple[int, ...], Tensor], banks: dict[str, Tensor]) -> Tensor:
    """Add up figures of edges (at both ends, once if they are one set) and of bank rows."""
    channels = Channels.of(graph)
    sets = channels.set_of
    like = next(iter([*edges.values(), *banks.values()]), torch.zeros(0, device=sets.device))
    total = torch.zeros(len(channels.group_of), dtype=like.dtype, device=sets.device)
    for kernel, figure in edges.items():
        src, dst = sets[graph.edges[kernel].src], sets[graph.edges[kernel].dst]
        total = total.index_add(0, dst, figure).index_add(0, src, figure * (src != dst))
    for name, figure in banks.items():
        total = total.index_add(0, sets[graph.banks[name].nodes], figure)
    return total
