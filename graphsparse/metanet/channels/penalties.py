"""Penalties that make whole groups of channels small: on a network graph, and as a callback of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphsparse.metanet.channels.criteria import CRITERIA, Evidence, group_l2, square_sums
from graphsparse.metanet.channels.sets import Channels
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.step_hooks import before_steps


def group_norm(graph: NetworkGraph, alpha: float = 4.0) -> Tensor:
    r"""Squared norms of prunable sets, the less important ones more: a scalar whose gradient is that of DepGraph.

    .. math:: \frac12 \sum_k \gamma_k \lVert w_k \rVert^2, \quad
        \gamma_k = 2^{\alpha (I_{max} - I_k) / (I_{max} - I_{min})}

    with :math:`I_k = \lVert w_k \rVert` and the extremes over the set's group; :math:`\gamma` is held constant, so
    that the gradient is :math:`\gamma_k w`. With :math:`\alpha = 4` the factor is 16 at the most.

    Source: DepGraph (Fang et al., CVPR 2023), group-level sparse learning; arXiv 2506.12041, section 3.
    """
    channels = Channels.of(graph)
    square = square_sums(graph)
    with torch.no_grad():
        norm = square.sqrt()
        groups, group = len(channels.layers), channels.group_of
        high = norm.new_zeros(groups).scatter_reduce(0, group, norm, "amax", include_self=False)[group]
        low = norm.new_zeros(groups).scatter_reduce(0, group, norm, "amin", include_self=False)[group]
        weight = 2.0 ** (alpha * (high - norm) / (high - low).clamp(min=1e-12)) * channels.prunable
    return 0.5 * (weight * square).sum()


def group_lasso(graph: NetworkGraph) -> Tensor:
    r"""How far the prunable groups are from sparse, scale-free, in (0, 1]:

    .. math:: \frac{1}{G} \sum_g
        \frac{\sum_{k \in g} \lVert w_k \rVert_2}{\sqrt{n_g \sum_{k \in g} \lVert w_k \rVert^2}}

    over the G prunable groups g of n_g sets. It is 1 where all sets of a group have the same norm.
    """
    channels = Channels.of(graph)
    square = square_sums(graph)
    groups, group = len(channels.layers), channels.group_of
    norms = square.new_zeros(groups).index_add(0, group, (square + 1e-12).sqrt())
    whole = square.new_zeros(groups).index_add(0, group, square + 1e-12)
    prunable = torch.zeros(groups, dtype=torch.bool, device=group.device)
    prunable[group] = channels.prunable
    ratio = norms / (channels.width * whole).sqrt()
    return ratio[prunable].mean()


class GroupSparsity:
    """A callback of training that adds the gradient of `group_norm` before every step: sparse learning.

    Args:
        module: the module that is trained.
        example_inputs: as for `NetworkGraph.from_module`.
        strength: factor of the penalty.
        alpha: as in `group_norm`.

    Source: DepGraph (Fang et al., CVPR 2023).
    """

    def __init__(self, module: nn.Module, example_inputs: Any, strength: float = 5e-4, alpha: float = 4.0) -> None:
        self.module, self.example_inputs, self.strength, self.alpha = module, example_inputs, strength, alpha
        self._handle: Any = None

    def attach(self, optimizer: Optimizer) -> None:
        """Begin to add the penalty's gradient."""
        self._handle = before_steps(optimizer, self._add)

    def detach(self) -> None:
        """Stop, leaving no hook behind."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Any]:
        """Settings; there is no state."""
        return {"strength": self.strength, "alpha": self.alpha}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take settings over."""
        self.strength, self.alpha = state["strength"], state["alpha"]

    def _add(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        graph = NetworkGraph.from_module(self.module, self.example_inputs)
        with torch.enable_grad():
            leaves = {k: e.values.requires_grad_() for k, e in graph.edges.items()}
            banks = {n: b.values.requires_grad_() for n, b in graph.banks.items() if not b.input_only}
            group_norm(graph, self.alpha).backward()  # type: ignore[no-untyped-call]
        slopes = graph.with_values(
            {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()},
            {n: torch.zeros_like(v) if v.grad is None else v.grad for n, v in banks.items()},
        ).to_state_dict()
        nothing = graph.with_values(
            {k: torch.zeros_like(v) for k, v in leaves.items()}, {n: torch.zeros_like(v) for n, v in banks.items()}
        ).to_state_dict()  # what lies outside the graph comes back as it is, in both
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.add_(slopes[name] - nothing[name], alpha=self.strength)


class SparseLearning:
    """The criterion group-l2 after a training with the penalty `group_norm`.

    Source: DepGraph (Fang et al., CVPR 2023).
    """

    penalty = GroupSparsity

    def __call__(self, evidence: Evidence) -> Tensor:
        return group_l2(evidence)


CRITERIA.register("sparse-learning", SparseLearning())
