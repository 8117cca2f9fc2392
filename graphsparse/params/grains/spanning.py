"""Units that reach over several tensors: whole modules, channels that are coupled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphsparse.keep_rule import top_mask

if TYPE_CHECKING:
    from typing_extensions import Self


class Spanning(ABC):
    """What of several tensors is kept or cut together: units that compete in one pool, each with one score.

    It is bound to a model before use, which says the tensors. A new one says to which unit an element belongs.
    """

    @abstractmethod
    def bind(self, model: nn.Module) -> Self:
        """The same for the tensors of a model; raises a ValueError for one that it does not fit."""

    @abstractmethod
    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that its units are made of, by name."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many units there are."""

    @abstractmethod
    def owner(self, name: str) -> int | Tensor:
        """The unit of a tensor, or int64 of its shape, the unit of each element; -1: of none."""

    def check_count(self, k: int) -> None:  # noqa: B027
        """Raise a ValueError for a count that cannot be kept."""

    def pool(self, names: list[str], values: Callable[[str], Tensor]) -> Tensor:
        """The l2 norm of each unit's values, ``[count]``, in float64."""
        return self.sums(names, lambda name: values(name).double().square()).sqrt()

    def sums(self, names: list[str], values: Callable[[str], Tensor]) -> Tensor:
        """The sum of each unit's values, ``[count]``, in float64."""
        total: Tensor | None = None
        for name in names:
            part, owner = values(name), self.owner(name)
            if total is None:
                total = torch.zeros(self.count + 1, dtype=torch.float64, device=part.device)
            if isinstance(owner, int):
                total[owner] += part.sum(dtype=torch.float64).to(total.device)
            else:
                places = owner.reshape(-1).to(total.device) % (self.count + 1)
                total.index_add_(0, places, part.reshape(-1).to(total))
        assert total is not None
        return total[:-1]

    def spread(self, values: Tensor, name: str, shape: torch.Size) -> Tensor:
        """The value of its unit at each element of a tensor; 1 (or true) where it is of none."""
        owner = self.owner(name)
        if isinstance(owner, int):
            return values[owner].expand(shape)
        return torch.cat([values, values.new_ones(1)])[owner.to(values.device)]

    def mask(self, kept: Tensor, name: str, shape: torch.Size) -> Tensor:
        """Which elements of a tensor stay with the units ``kept``."""
        return self.spread(kept, name, shape)

    def best(self, scores: Tensor, k: int, inside: Tensor | None = None) -> Tensor:
        """The ``k`` best units, bool ``[count]``, of those ``inside``; ties go to the earlier."""
        if inside is not None:
            scores = scores.masked_fill(~inside, -1.0)
        return top_mask(scores, k)

    def held(self, names: list[str], masks: Callable[[str], Tensor]) -> Tensor:
        """The units of which masks hold something, bool ``[count]``."""
        return self.pool(names, lambda name: masks(name).float()) > 0
