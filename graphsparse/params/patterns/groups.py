"""Whole rows: neurons, filters or columns that are kept or removed together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphsparse.keep_rule import Keep, keep_fraction, kept_count, top_mask, whole_number
from graphsparse.params.largest import check_numbers
from graphsparse.params.patterns.pattern import Pattern, check_dimension, zero_outside
from graphsparse.params.tensors import Named


@dataclass(frozen=True)
class Groups(Pattern):
    r"""The :math:`\max(1, \lceil keep \cdot groups \rceil)` slices of largest l2 norm (in float64); ties go to the
    earlier tensor and group.

    Args:
        keep: the kept fraction of groups, in (0, 1], of all tensors together and whatever their sizes.
        dim: the dimension whose slices are the groups; 0 is the output side of linear and convolution layers.

    Source: Yuan & Lin, "Model selection and estimation in regression with grouped variables", 2006, for the groups.

    Example:
        >>> Groups(0.5).mask([torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 2.0]])])[0].all(1)
        tensor([False,  True,  True])
    """

    keep: Keep
    dim: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", keep_fraction(self.keep))
        whole_number(self.dim, "dim")

    @property
    def kept(self) -> Fraction:
        """The kept fraction of all groups."""
        return keep_fraction(self.keep)

    def at(self, keep: Fraction) -> Groups:
        """The largest ``keep`` of all groups."""
        return replace(self, keep=keep)

    def check(self, tensors: Named) -> None:
        """Raise a ValueError for a tensor without the dimension."""
        check_dimension(tensors, self.dim)

    def settings(self) -> dict[str, Any]:
        """The sparsity and the dimension."""
        return {**super().settings(), "dim": self.dim}

    def write(self, tensors: Named, masks: Named, within: Named | None, *, zero: bool) -> None:
        """Write the masks, see :meth:`Pattern.write`; a group of which ``within`` holds nothing is removed."""
        check_numbers(tensors)
        norms = {name: _norms(tensor.detach(), self.dim) for name, tensor in tensors.items()}
        if not norms:
            return
        counts = [len(norm) for norm in norms.values()]
        k = kept_count(self.keep, sum(counts))
        if within is not None:
            held = {name: _rows(within[name], self.dim).any(1) for name in tensors}
            norms = {name: norm.masked_fill(~held[name], -1.0) for name, norm in norms.items()}
            k = min(k, sum(int(part.sum()) for part in held.values()))
        device = next(iter(norms.values())).device
        kept = torch.split(top_mask(torch.cat([norm.to(device) for norm in norms.values()]), k), counts)
        for (name, tensor), part in zip(tensors.items(), kept, strict=True):
            shape = [-1 if axis == self.dim % tensor.dim() else 1 for axis in range(tensor.dim())]
            whole = part.to(tensor.device).view(shape).expand(tensor.shape)
            masks[name].copy_(whole if within is None else whole & within[name])
        if zero:
            zero_outside(tensors, masks)


def _norms(tensor: Tensor, dim: int) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(_rows(tensor.double(), dim), dim=1)
    return norms


def _rows(tensor: Tensor, dim: int) -> Tensor:
    """The slices along ``dim`` as rows ``[groups, rest]``."""
    groups = tensor.movedim(dim, 0)
    return groups.reshape(len(groups), groups[:1].numel())
