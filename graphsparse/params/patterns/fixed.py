"""Masks that were chosen before and stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphsparse.hashing import masks_hash
from graphsparse.params.patterns.pattern import Pattern, zero_outside
from graphsparse.params.tensors import Named


@dataclass(frozen=True, eq=False)
class Fixed(Pattern):
    """The weights that given masks keep, whatever the weights are; tensors without a mask are kept whole.

    Args:
        masks: bool masks by the names of the tensors (the first name of a tied one).

    Raises:
        TypeError: for a mask that is no bool tensor.
        ValueError: when tensors are given: for a mask of another shape, or of none of them.

    Example:
        >>> pattern = Fixed({"w": torch.tensor([True, False])})
        >>> weights = {"w": torch.tensor([1.0, 5.0]), "b": torch.tensor([0.5])}
        >>> _ = pattern.project_(weights)
        >>> weights["w"], str(pattern.kept)
        (tensor([1., 0.]), '1/2')
    """

    masks: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, mask in self.masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                raise TypeError(f"the mask of {name!r} must be a bool tensor, got {getattr(mask, 'dtype', type(mask))}")

    @property
    def kept(self) -> Fraction:
        """The fraction that the masks keep of what they cover."""
        total = sum(mask.numel() for mask in self.masks.values())
        return Fraction(sum(int(mask.sum()) for mask in self.masks.values()), total) if total else Fraction(1)

    def at(self, keep: Fraction) -> Pattern:
        """These masks, or before a schedule has begun (``keep`` 1) all of their tensors.

        Raises:
            ValueError: for anything between: fixed masks do not say what goes first.
        """
        if keep == self.kept:
            return self
        if keep == 1:
            return Fixed({name: torch.ones_like(mask) for name, mask in self.masks.items()})
        raise ValueError("fixed masks come all at once: their schedule is 'constant' or Constant(begin=...)")

    def check(self, tensors: Named) -> None:
        """Raise a ValueError for a mask that is not of one of the tensors, or not of its shape."""
        for name, mask in self.masks.items():
            if name not in tensors:
                raise ValueError(f"there is a mask for {name!r}, which is none of the tensors: {list(tensors)[:8]}")
            if mask.shape != tensors[name].shape:
                raise ValueError(f"the mask of {name!r} has shape {[*mask.shape]}, its tensor {[*tensors[name].shape]}")

    def settings(self) -> dict[str, Any]:
        """A hash of the masks."""
        return {"pattern": type(self).__name__, "sha256": masks_hash(self.masks)}

    def write(self, tensors: Named, masks: Named, within: Named | None, *, zero: bool) -> None:
        """Write the masks, see :meth:`Pattern.write`; the weights are not looked at."""
        for name in tensors:
            own = self.masks.get(name)
            masks[name].copy_(within[name]) if within is not None else masks[name].fill_(True)
            if own is not None:
                masks[name].logical_and_(own.to(masks[name].device))
        if zero:
            zero_outside(tensors, masks)
