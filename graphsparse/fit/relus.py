"""How much of a network's ReLUs is dead: outputs that are zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RELUS = frozenset(
    (torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_, functional.relu6)
)


def dead_relus(run: Callable[[], Any]) -> float | None:
    """The share of the outputs of all ReLUs that are zero while something runs; None where it uses no ReLU.

    Modules, functions and methods are seen alike: ``nn.ReLU()``, ``functional.relu(x)``, ``x.relu()``.

    Args:
        run: called once, such as ``lambda: net(x)``.

    Example:
        >>> dead_relus(lambda: torch.tensor([-1.0, 2.0, -3.0, 0.0]).relu())
        0.75
        >>> dead_relus(lambda: torch.ones(2).tanh()) is None
        True
    """
    with torch.no_grad(), _Relus() as seen:
        run()
    return seen.zeros / seen.outputs if seen.outputs else None


class _Relus(TorchFunctionMode):
    """Counts the outputs of ReLUs, and those of them that are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros = self.outputs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _RELUS and isinstance(out, Tensor):
            self.outputs += out.numel()
            self.zeros += out.numel() - int(out.count_nonzero())
        return out
