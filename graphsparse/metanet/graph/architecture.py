"""A module apart from its values: a copy to be refilled, and the key of all that a trace depends on."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch_geometric.inspector import Inspector

from graphsparse.errors import TraceError
from graphsparse.hashing import quick_hash

_ATOMS = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.layout, Enum, slice)
_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_OF_MODULES = frozenset({"_parameters", "_buffers", "_modules", "training"})


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by their first names, tied ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def computed_tensors(module: nn.Module) -> dict[int, Any]:
    """Copies, by id, of tensors that modules hold of an earlier pass (the product of an old weight norm)."""
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return {id(value): value.detach().clone() for value in held if value.grad_fn is not None}


def empty_copy(module: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes but no memory (device "meta")."""
    memo: dict[int, Any] = computed_tensors(module)
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


def filled_copy(shell: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A copy of an empty one that holds the given values (not copies of them)."""
    memo: dict[int, Any] = {id(tensor): _like(tensor, values[name]) for name, tensor in tensors(shell).items()}
    return copy.deepcopy(shell, memo)


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def signature(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hashable key: classes, attributes, shapes and ties of the module, and the form of its example inputs.

    Objects that cannot be looked into stand for themselves: the key holds on to them, so that it never matches another.
    """
    leaves, form = pytree.tree_flatten(inputs)
    walker = _Walker()
    return (walker.of(module), str(form), tuple(_of_input(leaf, walker) for leaf in leaves))


def _of_input(leaf: Any, walker: _Walker) -> Any:
    if isinstance(leaf, Tensor):  # ids do not depend on the values of real inputs, but indices are read
        return (leaf.dtype, tuple(leaf.shape), None if leaf.is_floating_point() else quick_hash(leaf))
    return walker.of(leaf)


class _ByIdentity:
    """Equal to itself alone, and keeps its object alive."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def _is_plain(value: Any) -> bool:
    """Whether all that an object holds is in its ``__dict__``."""
    own = [vars(kind) for kind in type(value).__mro__[:-1]]
    return hasattr(value, "__dict__") and not any("__slots__" in names or "__reduce__" in names for names in own)


class _Walker:
    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []  # keeps temporary objects from handing their ids on

    def of(self, value: Any) -> Any:
        """The key of anything that a module may hold."""
        if isinstance(value, _ATOMS):
            return (type(value).__name__, repr(value) if isinstance(value, float | complex | slice) else value)
        if isinstance(value, _BY_IDENTITY):
            return _ByIdentity(value)
        if isinstance(value, Inspector):  # describes a class of PyG, and caches as it is asked
            return ("inspector", _ByIdentity(value._cls))
        if isinstance(value, tuple):
            return (type(value), tuple(self.of(item) for item in value))
        if isinstance(value, set | frozenset):
            return (type(value), tuple(sorted((self.of(item) for item in value), key=repr)))
        if id(value) in self.seen:
            return ("again", self.seen[id(value)])
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        if isinstance(value, nn.Module):
            return self._of_module(value)
        if isinstance(value, Tensor):  # a sparse one is a graph that a layer remembers
            if value.grad_fn is not None:  # computed anew by every pass
                return (type(value), tuple(value.shape))
            return (type(value), quick_hash(value)) if value.layout == torch.strided else _ByIdentity(value)
        if isinstance(value, dict):
            return (type(value), tuple((self.of(key), self.of(item)) for key, item in value.items()))
        if isinstance(value, list):
            return (list, tuple(self.of(item) for item in value))
        if isinstance(value, types.MethodType):
            return (_ByIdentity(value.__func__), self.of(value.__self__))
        if _is_plain(value):
            return (type(value), self.of(value.__dict__))
        return _ByIdentity(value)

    def _of_module(self, module: nn.Module) -> Any:
        parts: list[Any] = [type(module)]
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            parts.append((name, self._of_state(tensor)))
        parts.extend((name, self.of(child)) for name, child in module._modules.items())
        own = sorted(vars(module).items(), key=lambda pair: pair[0])  # a copy may hold them in another order
        parts.extend((name, self.of(item)) for name, item in own if name not in _OF_MODULES and item is not None)
        return tuple(parts)

    def _of_state(self, tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        tie = self.seen.setdefault(id(tensor), len(self.seen))
        return (tie, type(tensor), tuple(tensor.shape), tensor.dtype)
