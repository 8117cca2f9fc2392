"""What every pattern of sparse weights has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, overload

import torch
from torch import Tensor, nn

from graphsparse.params.starved import warn_starved
from graphsparse.params.tensors import Chosen, Masks, Named, Tensors, empty_mask


class Pattern(ABC):
    """Which weights of some tensors stay, as an exact mask for each: those by which the nearest such point differs.

    A pattern is a plain value that knows no tensors: it can be asked for the masks of any, by itself (:meth:`mask`,
    :meth:`project_`) or after every step of training (:class:`graphsparse.params.Projection`).
    """

    @property
    @abstractmethod
    def kept(self) -> Fraction:
        """The fraction that is kept of whatever the pattern counts."""

    @abstractmethod
    def at(self, keep: Fraction) -> Pattern:
        """The same pattern with another fraction kept, at least that of its own: what a schedule passes through."""

    @abstractmethod
    def write(self, tensors: Named, masks: Named, within: Named | None, *, zero: bool) -> None:
        """Write the masks of checked tensors; nothing is written for a NaN.

        Args:
            tensors: distinct dense floating-point tensors by name, none of which overlap.
            masks: contiguous bool masks of their shapes and devices, overwritten.
            within: bool masks outside which nothing is kept; they may be ``masks`` themselves. Where they hold less
                than the pattern keeps, all that they hold stays.
            zero: whether to set what is not kept to zero, in place.
        """

    @abstractmethod
    def check(self, tensors: Named) -> None:
        """Raise a ValueError for tensors that the pattern cannot be made of."""

    def settings(self) -> dict[str, Any]:
        """What decides the masks, as plain values that are the same in every process."""
        return {"pattern": type(self).__name__, "sparsity": str(1 - self.kept)}

    @overload
    def mask(self, tensors: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    @overload
    def mask(self, tensors: Iterable[Tensor]) -> list[Tensor]: ...
    @torch.no_grad()
    def mask(self, tensors: Tensors) -> Masks:
        """The masks of tensors, true where kept; the tensors stay as they are.

        Args:
            tensors: a module (its trainable parameters), tensors by name, or a list of tensors; a tensor that is given
                twice counts once. What ``torch.nn.utils.prune`` has masked in a module is never kept.

        Returns:
            bool masks: a dict for a module or a dict, else a list.

        Raises:
            ValueError: for a NaN, with its tensor and position, tensors that overlap in memory, weights that are
                computed from other parameters, or tensors that the pattern cannot be made of.
            TypeError: for anything that is no dense floating-point tensor.

        Warns:
            UserWarning: if hardly anything is left of a layer of a module.
        """
        return self._masks(tensors, zero=False)

    @overload
    def project_(self, tensors: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    @overload
    def project_(self, tensors: Iterable[Tensor]) -> list[Tensor]: ...
    @torch.no_grad()
    def project_(self, tensors: Tensors) -> Masks:
        """Set to zero, in place, what :meth:`mask` does not keep; returns the masks, and raises what it raises."""
        return self._masks(tensors, zero=True)

    def _masks(self, tensors: Tensors, *, zero: bool) -> Masks:
        chosen = Chosen(tensors)
        self.check(chosen.tensors)
        masks = {name: empty_mask(tensor) for name, tensor in chosen.tensors.items()}
        self.write(chosen.tensors, masks, chosen.within, zero=zero)
        if isinstance(tensors, nn.Module):
            warn_starved(masks)
        return chosen.arranged(masks)


def check_dimension(tensors: Named, dim: int) -> None:
    """Raise a ValueError for a tensor that has no dimension ``dim``."""
    for name, tensor in tensors.items():
        if not -tensor.dim() <= dim < tensor.dim():
            raise ValueError(f"{name} has shape {[*tensor.shape]} and no dimension {dim}; select the tensors that have")


def zero_outside(tensors: Named, masks: Named) -> None:
    """Set to zero, in place, what the masks do not keep."""
    for name, tensor in tensors.items():
        tensor.masked_fill_(~masks[name], 0)
