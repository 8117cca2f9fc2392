"""How a model is called on one input or several, and how such inputs are moved and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's outputs: several inputs are its arguments, named ones if they come as a dict.

    Example:
        >>> call(lambda a, b: a - b, [3, 1]), call(lambda a, b: a - b, {"b": 3, "a": 1}), call(abs, -1)
        (2, -2, 1)
    """
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if type(inputs) in (tuple, list) else model(inputs)


def moved_to(inputs: Any, device: torch.device | str) -> Any:
    """Tensors, and what else can be moved, of nested tuples, lists and dicts on a device."""
    return pytree.tree_map(lambda part: part.to(device) if hasattr(part, "to") else part, inputs)


def joined(inputs: Sequence[Any]) -> Any:
    """The inputs of several batches as those of one.

    Example:
        >>> joined([[torch.zeros(2), torch.ones(2)], [torch.zeros(1), torch.ones(1)]])
        [tensor([0., 0., 0.]), tensor([1., 1., 1.])]
    """
    return pytree.tree_map(lambda *parts: torch.cat(parts), *inputs)


def with_state(module: nn.Module, state: Mapping[str, Tensor]) -> Any:
    """The module as a function of its inputs, with these parameters and buffers in the place of its own."""
    return lambda *inputs, **named: functional_call(module, dict(state), inputs, named)
