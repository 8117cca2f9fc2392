"""Channels of a network with all that is coupled to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from graphsparse.params.counting import prunable
from graphsparse.params.grains.spanning import Spanning
from graphsparse.params.patterns.unit_map import UnitMap
from graphsparse.params.patterns.units import entry_order
from graphsparse.params.tensors import Named


@dataclass(frozen=True, eq=False)
class Coupled(Spanning):
    """The units of a network, such as those that ``graphsparse.metanet.find_units`` finds: channels that go together.

    A unit is cut with all its elements: the rows that make it, the columns that read it, biases and norms; so the
    network can be made smaller afterwards. Its score is the norm of what is its own: an element of two units, as a
    weight between two layers, is that of the unit that it makes. Every layer keeps a unit, and the heads of one layer
    keep equally many, so that with heads up to one unit of each is kept less than asked for.

    Args:
        units: which elements make up each unit: a :class:`UnitMap`, or what has one as ``map``.

    Raises:
        TypeError: for anything else.
        ValueError: when a model is given: for one that has not these tensors.

    Example:
        >>> from graphsparse.metanet import NetworkGraph, find_units
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> channels = Coupled(find_units(NetworkGraph.from_module(net, torch.zeros(1, 2))).map)
        >>> channels.count, channels.owner("0.weight").tolist(), channels.owner("2.weight").tolist()
        (3, [[0, 0], [1, 1], [2, 2]], [[0, 1, 2]])
    """

    units: UnitMap

    def __post_init__(self) -> None:
        units = getattr(self.units, "map", self.units)
        if not isinstance(units, UnitMap):
            raise TypeError(f"Coupled takes the units of a network, find_units(graph), got {type(units).__name__}")
        object.__setattr__(self, "units", units)

    def bind(self, model: nn.Module) -> Coupled:
        """The units of the model's trainable parameters."""
        parameters = prunable(model)
        own = self.units.of(name for name in parameters if name in self.units.claims)
        for name, shape in own.shapes.items():
            if parameters[name].shape != shape:
                raise ValueError(
                    f"the units were found for a tensor {name!r} of shape {[*shape]}, which has shape "
                    f"{[*parameters[name].shape]}"
                )
        if not own.claims or not own.count:
            raise ValueError(
                f"the units are none of this model's parameters: {list(self.units.claims)[:4]} against "
                f"{list(parameters)[:4]}"
            )
        return Coupled(own)

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The trainable parameters that belong to units."""
        return {name: p for name, p in prunable(model).items() if name in self.units.claims}

    @property
    def count(self) -> int:
        """How many units there are."""
        return self.units.count

    def owner(self, name: str) -> Tensor:
        """The unit of each element: the one that it makes, or else the one that it reads."""
        return self._owners[name]

    @cached_property
    def _owners(self) -> dict[str, Tensor]:
        found = {}
        for name, claims in self.units.claims.items():
            shape = self.units.shapes[name]
            owner = torch.full(shape, -1)
            for makes in (True, False):
                for claim in claims:
                    own = torch.where(claim.rests | (not makes), claim.units, -1)
                    owner = torch.where(owner < 0, claim.spread(own, len(shape)).expand(shape), owner)
            found[name] = owner
        return found

    def mask(self, kept: Tensor, name: str, shape: torch.Size) -> Tensor:
        """All elements of a unit go with it, those of two with either."""
        mask = torch.ones(shape, dtype=torch.bool)
        self.units.empty_(name, mask, kept.cpu())
        return mask.to(kept.device)

    def check_count(self, k: int) -> None:
        """Raise a ValueError for a count of less than a unit of each layer."""
        if k < len(self.units.names):
            raise ValueError(
                f"every one of {len(self.units.names)} layers keeps a unit, and {k} are to be kept; ask for more"
            )

    def best(self, scores: Tensor, k: int, inside: Tensor | None = None) -> Tensor:
        """The best units: first the best of every layer, then by falling score, at most ``k``."""
        alive = None if inside is None else inside.cpu()
        rank, _, steps = entry_order(self.units, scores.cpu(), "global", alive)
        after = torch.bincount(rank[rank < steps], minlength=steps).cumsum(0)
        return (rank < int((after <= k).sum())).to(scores.device)

    def kept_units(self, masks: Named) -> Tensor:
        """Which units masks keep, bool ``[U]``.

        An element of two units is out if one of them is, so a unit stays if any of its own elements does.
        """
        return self.held(list(masks), lambda name: masks[name])

    def __repr__(self) -> str:
        return f"Coupled({self.units.settings()[:16]})"
