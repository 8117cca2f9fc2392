"""Hooks on the steps of an optimizer that run once a step.

torch hooks the method `step` of every class that has an instance. An optimizer that is derived from another one, and
calls its step, would run each hook twice, but only where a plain one of the other class was made before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

Hook = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], Any]


def before_steps(optimizer: Optimizer, hook: Hook) -> RemovableHandle:
    """Call a hook before each step, as ``register_step_pre_hook`` does."""
    return optimizer.register_step_pre_hook(_once(hook))


def after_steps(optimizer: Optimizer, hook: Hook) -> RemovableHandle:
    """Call a hook after each step, as ``register_step_post_hook`` does.

    Example:
        >>> import torch
        >>> class Louder(torch.optim.SGD):
        ...     def step(self, closure=None):
        ...         return super().step(closure)
        >>> weight, seen = torch.nn.Parameter(torch.ones(1)), []
        >>> _ = torch.optim.SGD([weight])
        >>> optimizer = Louder([weight])
        >>> handle = after_steps(optimizer, lambda *_: seen.append("once"))
        >>> optimizer.step()
        >>> seen
        ['once']
    """
    return optimizer.register_step_post_hook(_once(hook))


def _once(hook: Hook) -> Hook:
    def outermost(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return None if _is_inner(optimizer, sys._getframe(1)) else hook(optimizer, args, kwargs)

    return outermost


def _is_inner(optimizer: Optimizer, frame: FrameType | None) -> bool:
    """Whether a step of this optimizer runs inside another of its own."""
    steps = [vars(kind)["step"] for kind in type(optimizer).__mro__ if "step" in vars(kind)]
    codes = [step.__code__ for step in steps if getattr(step, "hooked", False)]
    running = 0
    while len(codes) > 1 and frame is not None and running < 2:
        running += frame.f_code in codes and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return running > 1
