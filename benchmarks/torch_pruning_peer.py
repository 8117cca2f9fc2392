"""Torch-Pruning's own pruner, run as its users run it: DepGraph with and without sparse learning."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

STEPS = 400  # of the way to nothing: small ones, so that a target is hardly passed
STRENGTH = 5e-4  # of the regulariser


def pruner_of(net: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """DepGraph's pruner: group norms, compared over all groups; the last layer stays."""
    import torch_pruning as tp

    score = tp.importance.GroupMagnitudeImportance(p=2)
    options = {"global_pruning": True, "pruning_ratio": 1.0, "iterative_steps": STEPS, "reg": STRENGTH}
    last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
    return tp.pruner.GroupNormPruner(net, inputs, score, ignored_layers=[last], **options)


def depgraph(net: nn.Module, inputs: tuple[Any, ...], speedup: float) -> nn.Module:
    """A copy that is pruned step by step until it has so many times fewer MACs."""
    import torch_pruning as tp

    net = copy.deepcopy(net).eval()
    pruner, (before, _) = pruner_of(net, inputs), tp.utils.count_ops_and_params(net, inputs)
    for _ in range(STEPS):
        pruner.step()
        if before / tp.utils.count_ops_and_params(net, inputs)[0] >= speedup:
            return net
    raise RuntimeError(f"Torch-Pruning did not reach {speedup:g} times fewer MACs")


class SparseLearning:
    """A callback of training: the pruner's own regulariser, added to the gradients before every step."""

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        training = module.training
        self.module, self.pruner = module, pruner_of(module.eval(), inputs)
        module.train(training)
        self._handle: Any = None

    def attach(self, optimizer: Optimizer) -> None:
        """Begin to act."""
        self._handle = optimizer.register_step_pre_hook(self._regularize)

    def detach(self) -> None:
        """Stop, leaving no hook behind."""
        self._handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """Settings; there is no state."""
        return {"strength": STRENGTH}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to go on with."""

    @torch.no_grad()
    def _regularize(self, *_: Any) -> None:
        self.pruner.regularize(self.module)
