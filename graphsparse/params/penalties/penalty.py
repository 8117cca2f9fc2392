"""What every penalty on groups of weights has in common: a factor for each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from graphsparse.registry import Registry


@dataclass(frozen=True)
class Pool:
    """Groups of weights that share a penalty.

    Attributes:
        norms: ``[groups]``, the l2 norm of each group; float64, for single weights of their own type.
        sizes: float64 ``[groups]``, how many weights each has.
        rates: float64 ``[groups]``, the learning rate of each.
        strength: of the penalty.
        keep: how many groups are to be kept of all.
    """

    norms: Tensor
    sizes: Tensor
    rates: Tensor
    strength: float
    keep: int


Shrinkage = Callable[[Pool], Tensor]


def _checked(name: str, entry: object) -> Shrinkage:
    if not callable(entry):
        raise TypeError(f"a penalty is a function from a Pool to the factor of each group, {name!r} is {entry!r:.50}")
    found: Shrinkage = entry
    return found


PENALTIES: Registry[Shrinkage] = Registry("penalty", folder="graphsparse.params.penalties", check=_checked)
