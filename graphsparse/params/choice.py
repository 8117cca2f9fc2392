"""Exact masks of scored tensors: units by a grain, counts by a distribution, or N of every M."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphsparse.keep_rule import kept_count
from graphsparse.params.distribution import Distribution, allot, check_distribution, plain_distribution
from graphsparse.params.grains import Elements, Grain
from graphsparse.params.patterns.l0 import mark_top
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.tensors import Named, count_kept

Scored = Callable[[str], Tensor]
Counts = Mapping[str, int] | None


class Choice:
    """Which units of some tensors stay, given a score for each element.

    Args:
        pattern: a grain, or N:M.
        distribution: how many units each tensor keeps; of no meaning for N:M, which fixes it.
        tensors: by name.

    Attributes:
        total: units in all (elements for N:M).

    Raises:
        ValueError: for a distribution beside N:M, tensors that cannot be cut so, or unknown names.
    """

    def __init__(self, pattern: Grain | NofM, distribution: Distribution, tensors: Named) -> None:
        if not isinstance(pattern, (Grain, NofM)):
            raise TypeError(f"pattern must be Elements(), Rows(), Blocks() or NofM(), got {type(pattern).__name__}")
        pattern.check(tensors)
        check_distribution(distribution)
        self.pattern, self.distribution = pattern, distribution
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        grain = pattern if isinstance(pattern, Grain) else Elements()
        self.units = {name: grain.units(shape) for name, shape in self.shapes.items()}
        self.total = sum(self.units.values())
        if isinstance(pattern, Grain):
            allot(distribution, self.shapes, 0, units=self.units)

    def settings(self) -> dict[str, Any]:
        """What decides the masks, as plain values."""
        return {"pattern": repr(self.pattern), "distribution": plain_distribution(self.distribution)}

    def counts(self, keep: Fraction) -> Counts:
        """How many units each tensor keeps; None where that depends on the scores."""
        if isinstance(self.pattern, NofM):
            return {name: self._runs(name, self.pattern.at(keep).n) for name in self.shapes}
        return allot(self.distribution, self.shapes, kept_count(keep, self.total), units=self.units)

    def mark(self, score: Scored, keep: Fraction, masks: Named, within: Named | None = None) -> None:
        """Write the masks of the best units.

        Args:
            score: gives the score of each element of a tensor, by name; asked for once each, one at a time unless all
                tensors compete.
            keep: the kept fraction.
            masks: contiguous bool masks, overwritten.
            within: bool masks outside which nothing is kept; where they hold fewer units, all of those stay.
        """
        if isinstance(self.pattern, NofM):
            pattern = self.pattern.at(keep)
            for name in self.shapes:
                inside = None if within is None else {name: within[name]}
                pattern.write({name: score(name)}, {name: masks[name]}, inside, zero=False)
            return
        counts = self.counts(keep)
        if counts is None:
            self.best(score, kept_count(keep, self.total), masks, within)
        else:
            for name, k in counts.items():
                self.best(score, k, {name: masks[name]}, within)

    def best(self, score: Scored, k: int, masks: Named, within: Named | None = None) -> None:
        """Write the masks of the ``k`` best units of some tensors together; not for N:M."""
        assert isinstance(self.pattern, Grain)
        pooled = {name: self.pattern.pool(score(name)) for name in masks}
        inside = None if within is None else {name: self.held(name, within[name]) for name in masks}
        room = None if inside is None else sum(count_kept(inside).values())
        k = k if room is None else min(k, room)
        plain = isinstance(self.pattern, Elements)
        units = {
            name: masks[name].view(-1) if plain else torch.empty(len(part), dtype=torch.bool, device=part.device)
            for name, part in pooled.items()
        }
        if k == 0:
            for mask in masks.values():
                mask.fill_(False)
            return
        mark_top(pooled, units, inside, k, zero=False, whole=k == room)
        if not plain:
            for name, kept in units.items():
                masks[name].copy_(self.pattern.spread(kept, self.shapes[name]))

    def held(self, name: str, mask: Tensor) -> Tensor:
        """The units of which a mask holds something."""
        assert isinstance(self.pattern, Grain)
        if isinstance(self.pattern, Elements):
            return mask.reshape(-1)
        return self.pattern.pool(mask.float()) > 0

    def held_counts(self, masks: Named) -> dict[str, int]:
        """How many units of each tensor masks hold; for N:M, elements."""
        if isinstance(self.pattern, (NofM, Elements)):
            return count_kept(masks)
        return count_kept({name: self.held(name, mask) for name, mask in masks.items()})

    def _runs(self, name: str, n: int) -> int:
        """Elements that N:M keeps of a tensor: its last run may be shorter."""
        assert isinstance(self.pattern, NofM)
        shape, m = self.shapes[name], self.pattern.m
        side = shape[self.pattern.dim]
        lines = math.prod(shape) // side if side else 0
        return lines * (side // m * n + min(n, side % m))
