"""Projections of given tensors onto the nearest point of a pattern: l0 ball, grouped l0, N:M."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import overload

from torch import Tensor, nn

from graphsparse.keep_rule import Keep
from graphsparse.params.distribution import Distribution
from graphsparse.params.patterns import L0, Groups, NofM
from graphsparse.params.tensors import Masks, Tensors


@overload
def project_l0_(
    tensors: nn.Module | Mapping[str, Tensor], keep: Keep, distribution: Distribution = ...
) -> dict[str, Tensor]: ...
@overload
def project_l0_(tensors: Iterable[Tensor], keep: Keep, distribution: Distribution = ...) -> list[Tensor]: ...
def project_l0_(tensors: Tensors, keep: Keep, distribution: Distribution = "global") -> Masks:
    r"""Project weights in place onto the l0 ball: the nearest point with at most ``keep`` of them not zero.

    .. math:: P_k(\theta) = \arg\min_{\|\phi\|_0 \le k} \|\phi - \theta\|_2, \qquad k = \max(1, \lceil keep \cdot m
        \rceil)

    The k largest magnitudes over all tensors together stay as they are, the rest become zero. Ties go to the earlier
    tensor and position. A kept zero stays in the mask, so that the count is always exact.

    Args:
        tensors: a module (its trainable parameters), tensors by name, or a list of tensors; of any shapes, strides and
            floating-point types, which are compared by their exact values. A tensor given twice counts once. What
            ``torch.nn.utils.prune`` has masked in a module is never kept.
        keep: the kept fraction, in (0, 1]; 1.0 is the identity.
        distribution: how many of them each tensor keeps: ``"global"``, as above, ``"uniform"``, ``"er"``, ``"erk"``, or
            relative densities by name, see :func:`allot`; then the largest of each tensor stay.

    Returns:
        bool masks, true where kept: a dict for a module or a dict, else a list.

    Raises:
        ValueError: for a NaN, with its tensor and position (nothing is changed then), tensors that overlap in memory,
            an expanded tensor, parameters that weights are computed from, ``keep`` outside (0, 1], or an unknown
            distribution.
        TypeError: for anything that is no dense floating-point tensor.

    Warns:
        UserWarning: if hardly anything is left of a layer of a module.

    Source: Blumensath & Davies, "Iterative hard thresholding for compressed sensing", 2009; used after every optimiser
    step by Seo et al., "TEDDY", ICLR 2024.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([0.5, -3.0]), torch.tensor([[1.0], [-1.0]])
        >>> project_l0_([a, b], keep=0.5)
        [tensor([False,  True]), tensor([[ True],
                [False]])]
        >>> a, b
        (tensor([ 0., -3.]), tensor([[1.],
                [0.]]))
    """
    return L0(keep, distribution).project_(tensors)


@overload
def project_mask(
    tensors: nn.Module | Mapping[str, Tensor], keep: Keep, distribution: Distribution = ...
) -> dict[str, Tensor]: ...
@overload
def project_mask(tensors: Iterable[Tensor], keep: Keep, distribution: Distribution = ...) -> list[Tensor]: ...
def project_mask(tensors: Tensors, keep: Keep, distribution: Distribution = "global") -> Masks:
    """The masks that :func:`project_l0_` would return; the tensors stay as they are.

    Example:
        >>> import torch
        >>> project_mask({"w": torch.tensor([1.0, -2.0, 2.0])}, keep=0.4)
        {'w': tensor([False,  True,  True])}
    """
    return L0(keep, distribution).mask(tensors)


@overload
def project_groups_(tensors: nn.Module | Mapping[str, Tensor], keep: Keep, dim: int = 0) -> dict[str, Tensor]: ...
@overload
def project_groups_(tensors: Iterable[Tensor], keep: Keep, dim: int = 0) -> list[Tensor]: ...
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
        >>> import torch
        >>> w = torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
        >>> project_groups_([w], keep=0.5)[0].all(1), w
        (tensor([False,  True,  True]), tensor([[0., 0.],
                [3., 0.],
                [0., 2.]]))
    """
    return Groups(keep, dim).project_(tensors)


@overload
def project_nm_(tensors: nn.Module | Mapping[str, Tensor], n: int, m: int, dim: int = -1) -> dict[str, Tensor]: ...
@overload
def project_nm_(tensors: Iterable[Tensor], n: int, m: int, dim: int = -1) -> list[Tensor]: ...
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
        >>> import torch
        >>> w = torch.tensor([[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0]])
        >>> _ = project_nm_([w], 2, 4)
        >>> w
        tensor([[ 0., -4.,  3.,  0.,  5.,  5.,  0.,  0.]])
    """
    return NofM(n, m, dim).project_(tensors)
