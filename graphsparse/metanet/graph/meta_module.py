"""A module without its weights: everything a class needs to be refilled, ties and attributes included."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphsparse.errors import TraceError


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by their first names, tied ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def hollow(module: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes but no memory (device "meta")."""
    memo: dict[int, Any] = {}
    for name, tensor in tensors(module).items():
        if is_lazy(tensor):
            raise TraceError(
                f"parameter '{name}' has no shape yet: call the module once before it is turned into a graph"
            )
        memo[id(tensor)] = _like(tensor, torch.empty_like(tensor, device="meta"))
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise TraceError(f"{type(module).__name__} cannot be copied: {error}") from error


def fill(shell: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a hollow module that holds the given values (not copies of them)."""
    memo: dict[int, Any] = {id(tensor): _like(tensor, values[name]) for name, tensor in tensors(shell).items()}
    return copy.deepcopy(shell, memo)


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new
