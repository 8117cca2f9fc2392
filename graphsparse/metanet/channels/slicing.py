"""Cutting channels out of a module by what stays of each of its tensors, whatever its layers are."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import LayerNorm as GraphLayerNorm
from torch_geometric.nn import TransformerConv

from graphsparse.errors import GraphsparseError

M = TypeVar("M", bound=nn.Module)
_OVER_CHANNELS = (nn.LayerNorm, nn.RMSNorm, GraphLayerNorm)

Cut = Mapping[tuple[int, ...], Tensor]


class ShrinkError(GraphsparseError):
    """A module cannot be cut as a mask asks."""


class NormOfMore(nn.Module):
    """A norm over channels of which some are gone: they count as the zeros that they were.

    Args:
        norm: over all channels; its scale and shift are taken over.
        width: number of all channels.
        weight, bias: scale and shift of those that stay; None: none.

    Example:
        >>> norm = NormOfMore(nn.LayerNorm(4), 4, nn.Parameter(torch.ones(2)), None)
        >>> torch.equal(norm(torch.tensor([[1.0, 2.0]])), nn.LayerNorm(4)(torch.tensor([[1.0, 2.0, 0, 0]]))[:, :2])
        True
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, norm: nn.Module, width: int, weight: nn.Parameter | None, bias: nn.Parameter | None) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("bias", bias)):
            self.register_parameter(name, value)
            if hasattr(norm, name):
                norm.register_parameter(name, None)
        self.norm, self.width = norm, width

    def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        """What the norm over all channels gives those that stay, ``[..., n]`` of ``[..., n]``."""
        left = x.size(-1)
        out: Tensor = self.norm(nn.functional.pad(x, (0, self.width - left)), *args, **named)[..., :left]
        out = out if self.weight is None else out * self.weight
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        left = 0 if self.weight is None else len(self.weight)
        return f"{left} channels of {self.width}"


def cut_out(module: M, cuts: Mapping[str, Cut]) -> M:
    """A copy of a module that holds only what stays of its tensors; its widths say so.

    Sizes that modules have as attributes of their own (``in_channels``, ``heads``, ``num_features`` ...) follow
    their tensors. A norm over channels still counts those that are gone, as zeros. What code computes from other
    numbers cannot be seen: compare the outputs.

    Args:
        module: any module.
        cuts: parameters and buffers by name -> axes -> bool of the sizes of those axes, true where kept. Of several
            axes (heads and their channels) each place that stays of the first keeps as many of the others.

    Raises:
        ShrinkError: there is no such tensor or axis, or what stays is no smaller tensor.

    Example:
        >>> small = cut_out(nn.Linear(4, 3), {"weight": {(0,): torch.tensor([True, False, True])},
        ...                                   "bias": {(0,): torch.tensor([True, False, True])}})
        >>> small
        Linear(in_features=4, out_features=2, bias=True)
    """
    small = copy.deepcopy(module)
    before = {name: value.shape for name, value in _tensors(small)}
    cuts = take(small, cuts)
    for path, part in [*small.named_modules()]:
        weight = f"{path}.weight" if path else "weight"
        if isinstance(part, _OVER_CHANNELS) and weight in cuts and path and len(before[weight]) == 1:
            more = NormOfMore(part, before[weight][0], part.weight, getattr(part, "bias", None))
            more.train(part.training)
            parent, _, name = path.rpartition(".")
            setattr(small.get_submodule(parent), name, more)
            continue
        _resize(part, [(before[name], value.shape, cuts.get(name, {})) for name, value in _below(small, path)])
    return small


def take(module: nn.Module, cuts: Mapping[str, Cut]) -> dict[str, Cut]:
    """Slice tensors of a module in place, tied ones alike; returns the cuts under all names of each tensor.

    Raises:
        ShrinkError: as `cut_out`, and nothing is changed.
    """
    whole = dict(_tensors(module))
    unknown = [name for name in cuts if name not in whole]
    if unknown:
        raise ShrinkError(f"{type(module).__name__} has no tensor {unknown[0]!r}")
    by_tensor = {id(whole[name]): cut for name, cut in cuts.items()}
    every = {name: by_tensor[id(value)] for name, value in whole.items() if id(value) in by_tensor}
    done = {id(whole[name]): _like(whole[name], _sliced(name, whole[name], cut)) for name, cut in cuts.items()}
    for name in every:
        path, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(path), attribute, done[id(whole[name])])
    return every


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _below(module: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    lead = f"{path}." if path else ""
    for name, value in _tensors(module.get_submodule(path)):
        yield lead + name, value


def _sliced(name: str, value: Tensor, cut: Cut) -> Tensor:
    found = value.detach()
    for axes, kept in sorted(cut.items()):
        if not axes:
            raise ShrinkError(f"nothing would be left of {name!r}")
        if axes[-1] >= value.dim() or tuple(value.shape[axis] for axis in axes) != tuple(kept.shape):
            raise ShrinkError(f"{name!r} has shape {[*value.shape]}, and not {[*kept.shape]} along {axes}")
        if axes != tuple(range(axes[0], axes[0] + len(axes))):
            raise ShrinkError(f"channels of {name!r} lie along axes {axes}, which are no neighbours")
        places = kept.reshape(-1).nonzero().view(-1).to(found.device)
        joined = found.flatten(axes[0], axes[-1]).index_select(axes[0], places)
        found = joined.reshape(*joined.shape[: axes[0]], *_sizes(name, kept), *joined.shape[axes[0] + 1 :])
    return found.clone()


def _sizes(name: str, kept: Tensor) -> tuple[int, ...]:
    """What is left of some axes: of each place of the first as much."""
    if kept.dim() == 1:
        return (int(kept.sum()),)
    left = [_sizes(name, row) for row in kept if bool(row.any())]
    if any(sizes != left[0] for sizes in left[1:]) or not left:
        raise ShrinkError(f"what stays of {name!r} is not equally wide everywhere")
    return (len(left), *left[0])


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _resize(part: nn.Module, changes: list[tuple[torch.Size, torch.Size, Cut]]) -> None:
    """Let a module's own numbers follow the tensors that it and its parts hold."""
    if all(not cut for *_, cut in changes):
        return
    heads = _heads(part, changes)
    became: dict[int, set[int]] = {}
    for old, new, _ in changes:
        for size, left in zip(old, new, strict=True):
            became.setdefault(size, set()).add(left)
    own: dict[str, Any] = {name: value for name, value in vars(part).items() if not name.startswith("_")}
    for name, value in own.items():
        if name in heads:
            setattr(part, name, heads[name])
        elif isinstance(value, (tuple, list, torch.Size)) and value and all(type(size) is int for size in value):
            setattr(part, name, type(value)(_after(size, became) for size in value))
        elif type(value) is int:
            setattr(part, name, _after(value, became))
    for name, size in _layer_sizes(part).items():
        setattr(part, name, size)
    if isinstance(part, TransformerConv) and (wide := own["out_channels"]) != part.out_channels:
        with torch.no_grad():  # PyG divides scores by the root of the width
            for value in part.lin_query.parameters():
                value.mul_(math.sqrt(part.out_channels / wide))


def _after(size: int, became: Mapping[int, set[int]]) -> int:
    """What a number became if all axes of that size became the same."""
    left = became.get(size, {size})
    return next(iter(left)) if len(left) == 1 else size


def _heads(part: nn.Module, changes: list[tuple[torch.Size, torch.Size, Cut]]) -> dict[str, int]:
    """``heads`` and ``out_channels`` of attention, read from an axis that holds all channels of all heads."""
    heads, width = getattr(part, "heads", None), getattr(part, "out_channels", None)
    if type(heads) is not int or type(width) is not int:
        return {}
    for *_, cut in changes:
        for kept in cut.values():
            if kept.numel() == heads * width:
                stays = kept.reshape(heads, width).sum(1)
                return {"heads": int((stays > 0).sum()), "out_channels": int(stays.max())}
    return {"heads": heads, "out_channels": width}


def _layer_sizes(part: nn.Module) -> dict[str, int]:
    """The widths of layers by their weight, which no other size can be mistaken for."""
    weight = getattr(part, "weight", None)
    names = ("in_features", "in_channels"), ("out_features", "out_channels")
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return {}
    if isinstance(part, nn.Embedding):
        return {"num_embeddings": weight.size(0), "embedding_dim": weight.size(1)}
    found: dict[str, int] = {}
    for axis, known in ((1, names[0]), (0, names[1])):
        found |= {name: weight.size(axis) for name in known if type(getattr(part, name, None)) is int}
    return found if len(found) == 2 else {}
