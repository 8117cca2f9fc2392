"""Patterns of sparse weights: the l0 ball, by an exact global projection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import overload

import torch
from torch import Tensor, nn

from graphsparse.params.largest import mark_largest
from graphsparse.params.prunable import place, prunable
from graphsparse.select import Keep, kept_count

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@overload
def project_l0_(tensors: nn.Module | Mapping[str, Tensor], keep: Keep) -> dict[str, Tensor]: ...
@overload
def project_l0_(tensors: Iterable[Tensor], keep: Keep) -> list[Tensor]: ...
@torch.no_grad()
def project_l0_(
    tensors: nn.Module | Mapping[str, Tensor] | Iterable[Tensor], keep: Keep
) -> dict[str, Tensor] | list[Tensor]:
    r"""Project weights in place onto the l0 ball: the nearest point with at most ``keep`` of them not zero.

    .. math:: P_k(\theta) = \arg\min_{\|\phi\|_0 \le k} \|\phi - \theta\|_2, \qquad k = \max(1, \lceil keep \cdot m
        \rceil)

    The k largest magnitudes over all tensors together stay as they are, the rest become zero. Ties go to the earlier
    tensor and position. A kept zero stays in the mask, so that the count is always exact.

    Args:
        tensors: a module (its trainable parameters), tensors by name, or a list of tensors; of any shapes, strides and
            floating-point types, which are compared by their exact values. A tensor given twice counts once.
        keep: the kept fraction, in (0, 1]; 1.0 is the identity.

    Returns:
        bool masks, true where kept: a dict for a module or a dict, else a list.

    Raises:
        ValueError: for a NaN, with its tensor and position (nothing is changed then), an expanded tensor, or ``keep``
            outside (0, 1].
        TypeError: for anything that is no dense floating-point tensor.

    Source: Blumensath & Davies, "Iterative hard thresholding for compressed sensing", 2009; used after every optimiser
    step by Seo et al., "TEDDY", ICLR 2024.

    Example:
        >>> a, b = torch.tensor([0.5, -3.0]), torch.tensor([[1.0], [-1.0]])
        >>> project_l0_([a, b], keep=0.5)
        [tensor([False,  True]), tensor([[ True],
                [False]])]
        >>> a, b
        (tensor([ 0., -3.]), tensor([[1.],
                [0.]]))
    """
    return _project(tensors, keep, zero=True)


@overload
def project_mask(tensors: nn.Module | Mapping[str, Tensor], keep: Keep) -> dict[str, Tensor]: ...
@overload
def project_mask(tensors: Iterable[Tensor], keep: Keep) -> list[Tensor]: ...
@torch.no_grad()
def project_mask(
    tensors: nn.Module | Mapping[str, Tensor] | Iterable[Tensor], keep: Keep
) -> dict[str, Tensor] | list[Tensor]:
    """The masks that :func:`project_l0_` would return; the tensors stay as they are.

    Example:
        >>> project_mask({"w": torch.tensor([1.0, -2.0, 2.0])}, keep=0.4)
        {'w': tensor([False,  True,  True])}
    """
    return _project(tensors, keep, zero=False)


def _project(
    tensors: nn.Module | Mapping[str, Tensor] | Iterable[Tensor], keep: Keep, *, zero: bool
) -> dict[str, Tensor] | list[Tensor]:
    named = _by_name(tensors)
    for name, tensor in named.items():
        check_tensor(name, tensor)
    distinct: dict[object, str] = {}
    first = {name: distinct.setdefault(place(tensor), name) for name, tensor in named.items()}
    chosen = {name: named[name] for name in distinct.values()}
    masks = {name: empty_mask(tensor) for name, tensor in chosen.items()}
    k = kept_count(keep, sum(tensor.numel() for tensor in chosen.values()))
    mark_largest(chosen, list(masks.values()), k, zero=zero)
    if isinstance(tensors, (nn.Module, Mapping)):
        return {name: masks[first[name]] for name in named}
    return [masks[first[name]] for name in named]


def empty_mask(tensor: Tensor) -> Tensor:
    """An unfilled bool mask of a tensor's shape, on its device, laid out in order of position."""
    return torch.empty(tensor.shape, dtype=torch.bool, device=tensor.device)


def check_tensor(name: str, tensor: Tensor) -> None:
    """Refuse what cannot be projected in place, before anything is written."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        kind = "a meta tensor" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
        raise TypeError(f"{name} must be a dense floating-point tensor, got {kind}")
    if any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        raise ValueError(f"{name} is expanded: several of its elements share one place; pass tensor.clone()")


def _by_name(tensors: nn.Module | Mapping[str, Tensor] | Iterable[Tensor]) -> dict[str, Tensor]:
    if isinstance(tensors, nn.Module):
        return dict(prunable(tensors))
    if isinstance(tensors, Tensor):  # iterating over it would give its rows
        raise TypeError("tensors must be a module, a dict or a list of tensors; put a single tensor into a list")
    if isinstance(tensors, Mapping):
        return dict(tensors)
    return {f"tensor {i}": tensor for i, tensor in enumerate(tensors)}
