"""The l0 ball over units: rows and columns of several tensors that stay or go together, counted by their weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from graphsparse.keep_rule import Keep, keep_fraction, kept_count
from graphsparse.params.largest import check_numbers
from graphsparse.params.patterns.pattern import Pattern
from graphsparse.params.patterns.unit_map import UnitMap
from graphsparse.params.tensors import Named
from graphsparse.registry import spelling

Shares = Literal["global", "uniform"]


@dataclass(frozen=True, eq=False)
class Units(Pattern):
    r"""The units of largest mean square, as many as leave at most :math:`\max(1, \lceil keep \cdot m \rceil)` weights.

    A weight stays if all units that it is part of stay, or if it is part of none; m counts all weights. Units enter
    one after the other, first the best of every group, then by falling :math:`\|\theta_u\|_2^2 / n_u`, the mean square
    of their n_u weights (in float64), until the next would bring more weights than the count: so it is met but for less
    than the weights of one unit, and never exceeded. The order is that of the relaxed knapsack problem whose solution
    the projection is: the nearest point with as many weights; for units of one size it is the order of their norms.
    Ties go to the earlier unit. Of a group with several lanes (heads) those that stay keep equally many units, each its
    own best; where there is less than one unit for each lane, whole lanes go, the weakest first.

    Args:
        keep: the kept fraction of weights, in (0, 1].
        units: which elements make up each unit.
        shares: ``"global"``: groups compete; ``"uniform"``: every group keeps the same share of its units.
        counted: names of the tensors whose weights count; None: all. Units take the others along.

    Raises:
        ValueError: for a keep that leaves less than one unit of every group, when tensors are given.

    Source: ours; group sparsity: Yuan & Lin 2006; the projection: Blumensath & Davies 2009.

    Example:
        >>> from graphsparse.params import Claim
        >>> rows = torch.arange(3)
        >>> into, out = (Claim((axis,), rows, torch.zeros(3, dtype=torch.bool)) for axis in (0, 1))
        >>> shapes = {"in": torch.Size([3, 2]), "out": torch.Size([1, 3])}
        >>> units = UnitMap({"in": (into,), "out": (out,)}, shapes, rows * 0, rows * 0, ("hidden",))
        >>> weights = {"in": torch.tensor([[1.0, 1], [3, 0], [0, 2]]), "out": torch.tensor([[5.0, 0, 1]])}
        >>> Units("2/3", units).mask(weights)["out"], Units("5/9", units).mask(weights)["out"]
        (tensor([[ True,  True, False]]), tensor([[ True, False, False]]))
    """

    keep: Keep
    units: UnitMap
    shares: Shares = "global"
    counted: frozenset[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", keep_fraction(self.keep))
        named = spelling(self.shares, get_args(Shares)) if isinstance(self.shares, str) else None
        if named is None:
            known = " or ".join(map(repr, get_args(Shares)))
            raise ValueError(f"units are shared out {known}, not {self.shares!r:.50}")
        object.__setattr__(self, "shares", named)

    @property
    def kept(self) -> Fraction:
        """The fraction of weights that may stay."""
        return keep_fraction(self.keep)

    def at(self, keep: Fraction) -> Units:
        """The same with another fraction."""
        return replace(self, keep=keep)

    def check(self, tensors: Named) -> None:
        """Raise a ValueError for tensors that are not those of the units, or a keep that empties a layer."""
        for name, shape in self.units.shapes.items():
            if name not in tensors or tensors[name].shape != shape:
                found = f"has shape {[*tensors[name].shape]}" if name in tensors else "is not there"
                raise ValueError(f"the units were found for a tensor {name!r} of shape {[*shape]}, which {found}")
        self.choose(torch.arange(self.units.count, 0, -1).double())

    def settings(self) -> dict[str, Any]:
        """The sparsity, how it is shared out, what counts, and a hash of what the units are."""
        counted = "all" if self.counted is None else sorted(self.counted)
        return {**super().settings(), "shares": self.shares, "counted": counted, "units": self.units.settings()}

    def write(self, tensors: Named, masks: Named, within: Named | None, *, zero: bool) -> None:
        """Write the masks, see :meth:`Pattern.write`; of what is not kept, what may rest is not set to zero."""
        keep = self.kept_units(tensors, within)
        for name, tensor in tensors.items():
            if within is None:
                masks[name].fill_(True)
            else:
                if zero:
                    tensor.masked_fill_(~within[name], 0)
                masks[name].copy_(within[name])
            self.units.empty_(name, masks[name], keep)
            if zero:
                self.units.empty_(name, tensor, keep, resting=False)

    def kept_units(self, tensors: Named, within: Named | None = None) -> Tensor:
        """Which units stay, bool ``[U]``, of tensors by name, before they are projected.

        Raises:
            ValueError: for a NaN, with its tensor and position.
        """
        squares = self.units.sums(tensors, squares=True)
        if not bool(squares.isfinite().all()):
            check_numbers(tensors)  # an infinite weight is the largest, a NaN none
        alive = None if within is None else self.units.sums({name: within[name] for name in tensors}) > 0
        return self.choose(squares / self.units.sizes.clamp(min=1), alive)

    def units_in(self, tensors: Named) -> Tensor:
        """Which units stayed, bool ``[U]``, in tensors that were projected and not changed since.

        Units that are out are told by what is zero in them; where a layer or a head would be left with less than its
        due because a kept unit is zero, too, the first ones fill it up.
        """
        keep = self.units.sums(tensors, squares=True, resting=False) > 0
        for group in range(len(self.units.names)):
            members = (self.units.group == group).nonzero().view(-1)
            lane = self.units.lane[members]
            left = torch.bincount(lane[keep[members]], minlength=int(lane.max()) + 1)
            width = max(1, int(left.max()))
            lanes = left.nonzero().view(-1).tolist() or [0]
            for one in lanes:
                own = members[lane == one]
                out = own[~keep[own]]
                keep[out[: width - int(left[one])]] = True
        return keep

    def choose(self, score: Tensor, alive: Tensor | None = None) -> Tensor:
        """Which units stay, bool ``[U]``, by a score of each ``[U]``, higher first, of those ``alive``."""
        rank, floor, steps = entry_order(self.units, score, self.shares, alive)
        counted = [name for name in self.units.shapes if self.counted is None or name in self.counted]
        tables = [_Table(self.units, name, rank) for name in counted]
        limit = kept_count(self.keep, sum(self.units.shapes[name].numel() for name in counted))
        if (least := sum(table.kept(floor) for table in tables)) > limit:
            total = sum(self.units.shapes[name].numel() for name in counted)
            raise ValueError(
                f"one unit of each of {len(self.units.names)} layers has {least} of {total} weights, more than the "
                f"{limit} that are to be kept: keep at least {_decimal(Fraction(least, total))} of the weights"
            )
        low, high = floor, steps
        while low < high:
            middle = (low + high + 1) // 2
            if sum(table.kept(middle) for table in tables) <= limit:
                low = middle
            else:
                high = middle - 1
        return rank < low


class _Table:
    """How many weights of a tensor stay once so many steps are made, for any number of them."""

    def __init__(self, units: UnitMap, name: str, rank: Tensor) -> None:
        shape, claims = units.shapes[name], units.claims.get(name, ())
        first = torch.cat([rank, rank.new_full((1,), -1)])
        ranks = [first[claim.units] for claim in claims]
        axes = [axis for claim in claims for axis in claim.axes]
        if len(set(axes)) < len(axes):  # roles that share an axis do not multiply
            whole = torch.full(shape, -1)
            for claim, own in zip(claims, ranks, strict=True):
                whole = torch.maximum(whole, claim.spread(own, len(shape)).expand(shape))
            ranks, axes = [whole], list(range(len(shape)))
        self._ranks = [own.reshape(-1).sort().values for own in ranks]
        self._rest = torch.Size([size for axis, size in enumerate(shape) if axis not in axes]).numel()

    def kept(self, steps: int) -> int:
        """Elements whose units all enter in the first so many steps."""
        count = self._rest
        for ranks in self._ranks:
            count *= int(torch.searchsorted(ranks, steps))
        return count


def entry_order(units: UnitMap, score: Tensor, shares: Shares, alive: Tensor | None) -> tuple[Tensor, int, int]:
    """The step in which each unit enters ``[U]`` (beyond all steps: never), how many are the floor, and how many all.

    The first step of every group comes first of all.
    """
    local = torch.full_like(units.group, -1)
    keys: list[Tensor] = []
    for group in range(len(units.names)):
        members = units.group == group
        if alive is not None:
            members &= alive
        ids = members.nonzero().view(-1)
        if not len(ids):
            continue
        step, key = _steps(score[ids], units.lane[ids])
        local[ids] = torch.where(step < 0, step, step + sum(len(other) for other in keys))
        if shares == "uniform":
            key = -torch.arange(len(key), dtype=torch.float64) / len(key)
        key = key.clamp(max=torch.finfo(torch.float64).max)
        key[0] = torch.inf  # the first of every group comes before all others
        keys.append(key)
    if not keys:
        return torch.full_like(units.group, 1), 0, 0
    order = torch.cat(keys).argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    never = len(order)
    return torch.where(local >= 0, place[local.clamp(min=0)], never), len(keys), never


def _steps(score: Tensor, lane: Tensor) -> tuple[Tensor, Tensor]:
    """The step in which each unit of a group enters, from 0 (-1: never), and the key of each step; keys never rise."""
    best = score.argsort(descending=True, stable=True)
    lanes, number = torch.unique(lane[best], return_inverse=True)
    if len(lanes) == 1:
        step = torch.empty_like(best)
        step[best] = torch.arange(len(best))
        return step, score[best].clone()
    rows = [best[number == one] for one in range(len(lanes))]
    narrowest = min(map(len, rows))  # what a mask leaves of lanes may differ: they keep equally many
    rows = [row[:narrowest] for row in rows]
    strength = torch.stack([score[row].mean() for row in rows])
    table = torch.stack([rows[one] for one in strength.argsort(descending=True, stable=True).tolist()])
    height, width = table.shape
    step = torch.full_like(best, -1)
    step[table[:, 0]] = torch.arange(height)  # whole lanes, one unit each
    step[table[:, 1:]] = height + torch.arange(width - 1).expand(height, -1)
    key = torch.cat([score[table[:, 0]], score[table[:, 1:]].mean(0)])
    return step, key.cummin(0).values


def _decimal(share: Fraction) -> str:
    """A share in decimals, rounded up."""
    return f"{-(-share.numerator * 10**4 // share.denominator) / 10**4:g}"
