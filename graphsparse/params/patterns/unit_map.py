"""Which elements of some tensors make up each unit: what stays or goes together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from graphsparse.hashing import framed_hash
from graphsparse.params.tensors import Named


@dataclass(frozen=True, eq=False)
class Claim:
    """To which units the elements of a tensor belong in one of its roles, such as the rows of a layer's weight.

    Attributes:
        axes: of the tensor, ascending; the unit of an element depends on its place along these alone.
        units: int64, the sizes of those axes: the unit at each place, -1 where there is none.
        rests: bool of the same shape: whether an element may keep its value while its unit is out. Then nothing reads
            it, and it tells the unit the way back.
    """

    axes: tuple[int, ...]
    units: Tensor
    rests: Tensor

    def spread(self, values: Tensor, dim: int) -> Tensor:
        """Values at each place, laid along the axes of a tensor with so many dimensions, 1 elsewhere."""
        return values.view([values.shape[self.axes.index(a)] if a in self.axes else 1 for a in range(dim)])

    def empty_(self, values: Tensor, places: Tensor) -> None:
        """Set a tensor to zero (or False), in place, at some places, a bool along the axes."""
        if len(self.axes) == 1:  # a few rows or columns, many times faster than a mask of all
            values.index_fill_(self.axes[0], places.nonzero().view(-1).to(values.device), 0)
        else:
            values.masked_fill_(self.spread(places, values.dim()).to(values.device), 0)


@dataclass(frozen=True, eq=False)
class UnitMap:
    """Which elements of some tensors make up each unit; an element may be of two, as a weight between two layers is.

    Attributes:
        claims: for each tensor by name, its roles.
        shapes: of the tensors.
        group: int64 ``[U]``, the group of each unit: units of one layer. Every group keeps a unit.
        lane: int64 ``[U]``, the lane of each unit in its group, counted from 0: the head of a channel of attention.
            All lanes that stay keep equally many units.
        names: of the groups, for people.
    """

    claims: Mapping[str, tuple[Claim, ...]]
    shapes: Mapping[str, torch.Size]
    group: Tensor
    lane: Tensor
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.group)

    def of(self, names: Iterable[str]) -> UnitMap:
        """The map of some of the tensors."""
        chosen = set(names)
        claims = {name: found for name, found in self.claims.items() if name in chosen}
        return replace(self, claims=claims, shapes={n: shape for n, shape in self.shapes.items() if n in chosen})

    def resting(self, groups: Iterable[int]) -> UnitMap:
        """The same, where elements may rest in the units of some groups only."""
        chosen = torch.zeros(len(self.names), dtype=torch.bool)
        chosen[list(groups)] = True
        may = chosen[self.group]

        def changed(claim: Claim) -> Claim:
            return replace(claim, rests=claim.rests & stays(claim.units, may) & (claim.units >= 0))

        return replace(self, claims={name: tuple(map(changed, found)) for name, found in self.claims.items()})

    def masks(self, keep: Tensor) -> dict[str, Tensor]:
        """Which elements of each tensor stay, bool of its shape, if the units ``keep`` (bool ``[U]``) do."""
        found = {name: torch.ones(shape, dtype=torch.bool) for name, shape in self.shapes.items()}
        for name, mask in found.items():
            self.empty_(name, mask, keep)
        return found

    def empty_(self, name: str, values: Tensor, keep: Tensor, *, resting: bool = True) -> None:
        """Set to zero (or False), in place, the elements of a tensor whose units are not kept.

        Args:
            name: of the tensor.
            values: of its shape.
            keep: bool ``[U]``.
            resting: whether what may rest goes, too.
        """
        for claim in self.claims.get(name, ()):
            out = ~stays(claim.units, keep)
            claim.empty_(values, out if resting else out & ~claim.rests)

    def sums(self, tensors: Named, *, squares: bool = False, resting: bool = True) -> Tensor:
        """For each unit the sum of its elements' values, or of their squares, ``[U]``, float64, on the CPU.

        Args:
            tensors: by name, numbers or masks.
            squares: whether to square.
            resting: whether what may rest counts.
        """
        total = torch.zeros(self.count + 1, dtype=torch.float64)
        for name, claims in self.claims.items():
            for claim in claims if name in tensors else ():
                part = _along(tensors[name].detach(), claim.axes, squares).reshape(-1).cpu()
                counted = part if resting else part.masked_fill(claim.rests.reshape(-1), 0)
                total.index_add_(0, claim.units.reshape(-1) % (self.count + 1), counted)
        return total[:-1]

    @cached_property
    def sizes(self) -> Tensor:
        """Number of elements of each unit, ``[U]``, float64; an element of two units counts for both."""
        total = torch.zeros(self.count + 1, dtype=torch.float64)
        for name, claims in self.claims.items():
            for claim in claims:
                each = float(self.shapes[name].numel() // max(claim.units.numel(), 1))
                units = claim.units.reshape(-1) % (self.count + 1)
                total.index_add_(0, units, torch.full((len(units),), each, dtype=torch.float64))
        return total[:-1]

    def settings(self) -> str:
        """A hash of all of it."""
        parts = {"group": self.group, "lane": self.lane}
        for name, claims in self.claims.items():
            for claim in claims:
                parts[f"{name} {claim.axes}"] = torch.stack([claim.units, claim.rests.long()])
        return framed_hash(parts, *self.names)


def _along(tensor: Tensor, axes: tuple[int, ...], squares: bool) -> Tensor:
    """Sums over all other axes."""
    others = [axis for axis in range(tensor.dim()) if axis not in axes]
    if squares and others:
        norms: Tensor = torch.linalg.vector_norm(tensor, dim=others, dtype=torch.float64)
        return norms.square()
    if squares:
        return tensor.double().square()
    return tensor.sum(others, dtype=torch.float64) if others else tensor.double()


def stays(units: Tensor, keep: Tensor) -> Tensor:
    """Whether the unit of each place stays; a place without a unit does."""
    return torch.cat([keep, keep.new_ones(1)])[units]
