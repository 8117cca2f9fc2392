"""What every way of cutting tensors into units has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor

from graphsparse.params.tensors import Named
from graphsparse.registry import Registry


class Grain(ABC):
    """What of a tensor is kept or cut together: its units, each with one score.

    A grain is a plain value (a frozen dataclass) that knows no tensors. A new one says how many units a shape has, what
    score each has, and which elements it stands for; counts, ratios and rules work on units alone.
    """

    @abstractmethod
    def units(self, shape: Sequence[int]) -> int:
        """How many units a tensor of this shape has."""

    @abstractmethod
    def pool(self, scores: Tensor) -> Tensor:
        """The score of each unit ``[units]`` from those of the elements, whose signs do not count."""

    @abstractmethod
    def spread(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """A bool mask of this shape from the bools of its units ``[units]``."""

    def sums(self, values: Tensor) -> Tensor:
        """The sum of each unit's values ``[units]``, in float64."""
        positive, negative = (self.pool(part.clamp(min=0).double().sqrt()).square() for part in (values, -values))
        return positive - negative

    def check(self, tensors: Named) -> None:  # noqa: B027
        """Raise a ValueError for a tensor that cannot be cut so."""


def _checked(name: str, entry: object) -> Callable[..., Grain]:
    if not (isinstance(entry, type) and issubclass(entry, Grain)):
        raise TypeError(f"a grain is a class derived from Grain, {name!r} is {entry!r:.50}")
    return entry


GRAINS: Registry[Callable[..., Grain]] = Registry("grain", folder="graphsparse.params.grains", check=_checked)
