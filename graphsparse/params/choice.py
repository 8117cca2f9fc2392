"""Exact masks of scored tensors: units by a grain, counts by a distribution, or N of every M."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphsparse.keep_rule import kept_count
from graphsparse.params.distribution import Distribution, allot, check_distribution, plain_distribution
from graphsparse.params.grains import Elements, Grain
from graphsparse.params.grains.spanning import Spanning
from graphsparse.params.largest import Guess
from graphsparse.params.patterns.l0 import mark_top
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.tensors import Named, count_kept

Cut = Grain | Spanning | NofM
Scored = Callable[[str], Tensor]
Counts = Mapping[str, int] | None

ALL = "all"  # the pool of units that span tensors


class Choice:
    """Which units of some tensors stay, given a score for each element.

    Units compete in pools: the units of each tensor are one, by its name, or all units that span tensors are, `ALL`.

    Args:
        pattern: a grain, units that span tensors (bound to the model), or N:M.
        distribution: how many units each tensor keeps; of no meaning for N:M, which fixes it.
        tensors: by name.

    Attributes:
        pools: the names of the tensors of each pool.
        units: how many units each pool has (elements for N:M).
        total: units in all.

    Raises:
        ValueError: for a distribution beside N:M, tensors that cannot be cut so, or unknown names.
    """

    def __init__(self, pattern: Cut, distribution: Distribution, tensors: Named) -> None:
        if not isinstance(pattern, Cut):
            raise TypeError(
                f"pattern must be Elements(), Rows(), Blocks(), Modules(), Coupled() or NofM(), got "
                f"{type(pattern).__name__}"
            )
        check_distribution(distribution)
        self.pattern, self.distribution = pattern, distribution
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if isinstance(pattern, Spanning):
            self.pools = {ALL: list(self.shapes)}
            self.units = {ALL: pattern.count}
        else:
            pattern.check(tensors)
            grain = pattern if isinstance(pattern, Grain) else Elements()
            self.pools = {name: [name] for name in self.shapes}
            self.units = {name: grain.units(shape) for name, shape in self.shapes.items()}
        self.total = sum(self.units.values())
        self._sizes: dict[str, Tensor] = {}
        self._contests: dict[Fraction, list[tuple[list[str], int]]] = {}
        self._guesses: dict[tuple[str, ...], Guess] = {}
        if isinstance(pattern, Grain):
            allot(distribution, self.shapes, 0, units=self.units)

    def settings(self) -> dict[str, Any]:
        """What decides the masks, as plain values."""
        return {"pattern": repr(self.pattern), "distribution": plain_distribution(self.distribution)}

    def counts(self, keep: Fraction, within: Named | None = None) -> Counts:
        """How many units each pool keeps, of those within masks; None where that depends on the scores."""
        if isinstance(self.pattern, NofM):
            return {name: self._runs(name, self.pattern.at(keep).n) for name in self.shapes}
        if isinstance(self.pattern, Spanning):
            return {ALL: kept_count(keep, self.total)}
        if within is None:
            return allot(self.distribution, self.shapes, kept_count(keep, self.total), units=self.units)
        room = self.held_counts(within)  # a tensor's share of fewer units may be larger than it was of more
        k = min(kept_count(keep, self.total), sum(room.values()))
        return allot(self.distribution, self.shapes, k, room, self.units)

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
        for pools, k in self.contests(keep, within):
            self.best(score, k, {name: masks[name] for pool in pools for name in self.pools[pool]}, within)

    def contests(self, keep: Fraction, within: Named | None = None) -> list[tuple[list[str], int]]:
        """Pools that compete with each other, and how many units they keep together; not for N:M."""
        if within is not None:
            return self._contests_of(self.counts(keep, within), keep)
        if keep not in self._contests:  # asked for in every step, nearly always with the same answer
            self._contests = {keep: self._contests_of(self.counts(keep), keep)}
        return self._contests[keep]

    def _contests_of(self, counts: Counts, keep: Fraction) -> list[tuple[list[str], int]]:
        alone = None if counts is None else [([pool], k) for pool, k in counts.items()]
        return alone or [(list(self.pools), kept_count(keep, self.total))]

    def best(self, score: Scored, k: int, masks: Named, within: Named | None = None) -> None:
        """Write the masks of the ``k`` best units of some tensors together; not for N:M."""
        pools = [pool for pool, names in self.pools.items() if names[0] in masks]
        self.best_units({pool: self.pooled(score, pool) for pool in pools}, k, masks, within)

    def best_units(self, scores: Named, k: int, masks: Named, within: Named | None = None) -> None:
        """Write the masks of the ``k`` best of scored units, by pool, together."""
        inside = None if within is None else {pool: self.held(pool, within) for pool in scores}
        room = None if inside is None else sum(count_kept(inside).values())
        k = k if room is None else min(k, room)
        plain = isinstance(self.pattern, Elements)
        if k == 0:
            for mask in masks.values():
                mask.fill_(False)
            return
        if isinstance(self.pattern, Spanning):
            units = {ALL: self.pattern.best(scores[ALL], k, None if inside is None else inside[ALL])}
        else:
            units = {
                pool: masks[pool].view(-1) if plain else torch.empty(len(part), dtype=torch.bool, device=part.device)
                for pool, part in scores.items()
            }
            guess = self._guesses.setdefault(tuple(scores), Guess())
            mark_top(scores, units, inside, k, zero=False, whole=k == room, guess=guess)
        if not plain:
            self.spread_masks(units, masks)

    def spread_masks(self, units: Named, masks: Named) -> None:
        """Write the masks of tensors from the bools of their units, by pool."""
        for pool, kept in units.items():
            for name in self.pools[pool]:
                if isinstance(self.pattern, Spanning):
                    masks[name].copy_(self.pattern.mask(kept, name, self.shapes[name]))
                else:
                    masks[name].copy_(self._grain.spread(kept, self.shapes[name]))

    def pooled(self, values: Scored, pool: str) -> Tensor:
        """The norm of each unit's values."""
        if isinstance(self.pattern, Spanning):
            return self.pattern.pool(self.pools[pool], values)
        return self._grain.pool(values(pool))

    def summed(self, values: Scored, pool: str) -> Tensor:
        """The sum of each unit's values, float64."""
        if isinstance(self.pattern, Spanning):
            return self.pattern.sums(self.pools[pool], values)
        return self._grain.sums(values(pool))

    def sizes(self, pool: str) -> Tensor:
        """How many elements each unit has, float64; counted once."""
        if isinstance(self.pattern, Elements):
            return torch.ones((), dtype=torch.float64).expand(self.units[pool])
        if pool not in self._sizes:
            self._sizes[pool] = self.pooled(lambda name: torch.ones(self.shapes[name]), pool).square().round()
        return self._sizes[pool]

    def means(self, values: Mapping[str, float], pool: str) -> Tensor:
        """The mean over each unit's elements of a value that each tensor has, from 0 on; float64."""
        own = {values[name] for name in self.pools[pool]}
        if len(own) == 1:
            return torch.tensor(own.pop(), dtype=torch.float64).expand(self.units[pool])
        roots = {name: torch.tensor(math.sqrt(values[name])) for name in self.pools[pool]}
        return self.pooled(lambda name: roots[name].expand(self.shapes[name]), pool).square() / self.sizes(pool)

    def shared(self, units: Tensor, pool: str) -> Iterable[tuple[str, Tensor]]:
        """For each tensor of a pool, the value of its unit at each element, of its shape or expanded to it."""
        for name in self.pools[pool]:
            yield name, self.at_elements(units, name)

    def at_elements(self, units: Tensor, name: str) -> Tensor:
        """The value of its unit at each element of a tensor, of its shape or expanded to it."""
        if isinstance(self.pattern, Spanning):
            return self.pattern.spread(units, name, self.shapes[name])
        return self._grain.spread(units, self.shapes[name])

    def held(self, pool: str, masks: Named) -> Tensor:
        """The units of which masks hold something."""
        if isinstance(self.pattern, Spanning):
            return self.pattern.held(self.pools[pool], lambda name: masks[name])
        if isinstance(self.pattern, Elements):
            return masks[pool].reshape(-1)
        return self._grain.pool(masks[pool].float()) > 0

    def held_counts(self, masks: Named) -> dict[str, int]:
        """How many units of each pool masks hold; for N:M, elements."""
        if isinstance(self.pattern, (NofM, Elements)):
            return count_kept(masks)
        return count_kept({pool: self.held(pool, masks) for pool, names in self.pools.items() if names[0] in masks})

    @property
    def _grain(self) -> Grain:
        assert isinstance(self.pattern, Grain)
        return self.pattern

    def _runs(self, name: str, n: int) -> int:
        """Elements that N:M keeps of a tensor: its last run may be shorter."""
        assert isinstance(self.pattern, NofM)
        shape, m = self.shapes[name], self.pattern.m
        side = shape[self.pattern.dim]
        lines = math.prod(shape) // side if side else 0
        return lines * (side // m * n + min(n, side % m))
