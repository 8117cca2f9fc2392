"""Patterns of sparse weights, each an exact projection onto the nearest such point: l0 ball, grouped l0, N:M."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import overload

import torch
from torch import Tensor, nn

from graphsparse.keep_rule import Keep, kept_count, top_mask
from graphsparse.params.counting import place, prunable
from graphsparse.params.largest import check_numbers, mark_largest

Tensors = nn.Module | Mapping[str, Tensor] | Iterable[Tensor]
Masks = dict[str, Tensor] | list[Tensor]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@overload
def project_l0_(tensors: nn.Module | Mapping[str, Tensor], keep: Keep) -> dict[str, Tensor]: ...
@overload
def project_l0_(tensors: Iterable[Tensor], keep: Keep) -> list[Tensor]: ...
@torch.no_grad()
def project_l0_(tensors: Tensors, keep: Keep) -> Masks:
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
def project_mask(tensors: Tensors, keep: Keep) -> Masks:
    """The masks that :func:`project_l0_` would return; the tensors stay as they are.

    Example:
        >>> project_mask({"w": torch.tensor([1.0, -2.0, 2.0])}, keep=0.4)
        {'w': tensor([False,  True,  True])}
    """
    return _project(tensors, keep, zero=False)


def _project(tensors: Tensors, keep: Keep, *, zero: bool) -> Masks:
    chosen, first = _distinct(tensors)
    masks = {name: empty_mask(tensor) for name, tensor in chosen.items()}
    k = kept_count(keep, sum(tensor.numel() for tensor in chosen.values()))
    mark_largest(chosen, list(masks.values()), k, zero=zero)
    return _arranged(tensors, masks, first)


@overload
def project_groups_(tensors: nn.Module | Mapping[str, Tensor], keep: Keep, dim: int = 0) -> dict[str, Tensor]: ...
@overload
def project_groups_(tensors: Iterable[Tensor], keep: Keep, dim: int = 0) -> list[Tensor]: ...
@torch.no_grad()
def project_groups_(tensors: Tensors, keep: Keep, dim: int = 0) -> Masks:
    r"""Project weights in place onto the grouped l0 ball: whole rows (neurons, filters) are kept or zeroed.

    The groups are the slices of each tensor along ``dim``. The nearest point with at most k groups that are not zero,
    :math:`k = \max(1, \lceil keep \cdot groups \rceil)`, keeps those with the largest l2 norm (in float64), over all
    tensors together and whatever their sizes. Ties go to the earlier tensor and group.

    Args:
        tensors: as in :func:`project_l0_`, each with a dimension ``dim``; the groups of a vector are its elements.
        keep: the kept fraction of groups, in (0, 1].
        dim: the dimension whose slices are the groups; 0 is the output side of linear and convolution layers.

    Returns:
        bool masks of the tensors' shapes, true where kept, as in :func:`project_l0_`.

    Raises:
        ValueError, TypeError: as in :func:`project_l0_`, and ``ValueError`` for a tensor without the dimension.

    Source: Yuan & Lin, "Model selection and estimation in regression with grouped variables", 2006, for the groups.

    Example:
        >>> w = torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
        >>> project_groups_([w], keep=0.5)[0].all(1), w
        (tensor([False,  True,  True]), tensor([[0., 0.],
                [3., 0.],
                [0., 2.]]))
    """
    chosen, first = _distinct(tensors)
    _check_dimension(chosen, dim)
    check_numbers(chosen)
    norms = [_group_norms(tensor.detach(), dim) for tensor in chosen.values()]
    counts = [len(norm) for norm in norms]
    kept: tuple[Tensor, ...] = ()
    if norms:
        together = torch.cat([norm.to(norms[0].device) for norm in norms])
        kept = torch.split(top_mask(together, kept_count(keep, sum(counts))), counts)
    masks = {}
    for (name, tensor), part in zip(chosen.items(), kept, strict=True):
        shape = [-1 if axis == dim % tensor.dim() else 1 for axis in range(tensor.dim())]
        masks[name] = part.to(tensor.device).view(shape).expand(tensor.shape).contiguous()
        tensor.masked_fill_(~masks[name], 0)
    return _arranged(tensors, masks, first)


@overload
def project_nm_(tensors: nn.Module | Mapping[str, Tensor], n: int, m: int, dim: int = -1) -> dict[str, Tensor]: ...
@overload
def project_nm_(tensors: Iterable[Tensor], n: int, m: int, dim: int = -1) -> list[Tensor]: ...
@torch.no_grad()
def project_nm_(tensors: Tensors, n: int, m: int, dim: int = -1) -> Masks:
    """Project weights in place onto the N:M pattern: of every ``m`` consecutive ones along ``dim`` keep ``n``.

    The largest magnitudes of each run stay, ties go to the earlier position; a shorter last run of r weights keeps
    min(n, r) of them.

    Args:
        tensors: as in :func:`project_l0_`, each with a dimension ``dim``.
        n, m: how many of how many are kept; 2 and 4 is the pattern that sparse tensor cores take.
        dim: the dimension along which the runs lie; -1 is the input side of a linear layer, 1 that of a convolution.

    Returns:
        bool masks, true where kept, as in :func:`project_l0_`.

    Raises:
        ValueError, TypeError: as in :func:`project_l0_`, and ``ValueError`` unless 1 <= n <= m, or for a tensor without
            the dimension.

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021.

    Example:
        >>> w = torch.tensor([[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0]])
        >>> _ = project_nm_([w], 2, 4)
        >>> w
        tensor([[ 0., -4.,  3.,  0.,  5.,  5.,  0.,  0.]])
    """
    if not 1 <= n <= m:
        raise ValueError(f"N:M needs 1 <= n <= m, got n={n}, m={m}")
    chosen, first = _distinct(tensors)
    _check_dimension(chosen, dim)
    check_numbers(chosen)
    masks = {}
    for name, tensor in chosen.items():
        lines = tensor.detach().abs().movedim(dim, -1)
        missing = -lines.shape[-1] % m
        padded = nn.functional.pad(lines, (0, missing), value=-1.0)  # which loses to any magnitude
        runs = padded.reshape(*padded.shape[:-1], padded.shape[-1] // m, m)
        best = runs.argsort(dim=-1, descending=True, stable=True)[..., :n]
        kept = torch.zeros_like(runs, dtype=torch.bool).scatter_(-1, best, True).flatten(-2)
        masks[name] = kept[..., : lines.shape[-1]].movedim(-1, dim).contiguous()
        tensor.masked_fill_(~masks[name], 0)
    return _arranged(tensors, masks, first)


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


def _distinct(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Checked tensors by name, each once; and for every name the one under which its tensor comes first."""
    named = _by_name(tensors)
    for name, tensor in named.items():
        check_tensor(name, tensor)
    seen: dict[object, str] = {}
    first = {name: seen.setdefault(place(tensor), name) for name, tensor in named.items()}
    return {name: named[name] for name in seen.values()}, first


def _arranged(tensors: Tensors, masks: Mapping[str, Tensor], first: Mapping[str, str]) -> Masks:
    """The masks in the structure of the input."""
    if isinstance(tensors, (nn.Module, Mapping)):
        return {name: masks[own] for name, own in first.items()}
    return [masks[own] for own in first.values()]


def _group_norms(tensor: Tensor, dim: int) -> Tensor:
    groups = tensor.double().movedim(dim, 0)
    norms: Tensor = torch.linalg.vector_norm(groups.reshape(len(groups), groups[:1].numel()), dim=1)
    return norms


def _check_dimension(tensors: Mapping[str, Tensor], dim: int) -> None:
    for name, tensor in tensors.items():
        if not -tensor.dim() <= dim < tensor.dim():
            raise ValueError(f"{name} has shape {[*tensor.shape]} and no dimension {dim}; select the tensors that have")


def _by_name(tensors: Tensors) -> dict[str, Tensor]:
    if isinstance(tensors, nn.Module):
        return dict(prunable(tensors))
    if isinstance(tensors, Tensor):  # iterating over it would give its rows
        raise TypeError("tensors must be a module, a dict or a list of tensors; put a single tensor into a list")
    if isinstance(tensors, Mapping):
        return dict(tensors)
    return {f"tensor {i}": tensor for i, tensor in enumerate(tensors)}
