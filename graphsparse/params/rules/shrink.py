"""A little smaller after every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from graphsparse.keep_rule import is_number
from graphsparse.params.joint import Joint
from graphsparse.params.rules.late import Late
from graphsparse.params.rules.rule import RULES
from graphsparse.params.tensors import fast, flat


@RULES.register("shrink")
@dataclass(frozen=True)
class Shrink(Late):
    """Multiply the weights outside the mask after every step, choose the mask anew each time, and cut at the end.

    Args:
        factor: of the weakest weights after every step, in [0, 1): 0 is a projection.
        until: the share of the training after which they are cut for good, so that the rest fine-tunes what stays.

    Raises:
        ValueError: for a factor or share out of range; when a training begins whose length is not known.

    Source: Wang et al., "Iterative soft shrinkage learning for efficient image super-resolution", ICCV 2023.
    """

    factor: float = 0.99
    until: float = 0.75

    def __post_init__(self) -> None:
        if not (is_number(self.factor) and 0 <= self.factor < 1):
            raise ValueError(f"the factor of a shrinkage must lie in [0, 1), got {self.factor!r:.50}")
        super().__post_init__()

    def weaken(self, joint: Joint, optimizer: Optimizer) -> None:
        """Choose, and shrink the others."""
        joint.install(joint.chosen(joint.keep_at(joint.step)))
        for name, parameter in joint.parameters.items():
            shrink_outside_(parameter, joint.masks[name], self.factor)


def shrink_outside_(weight: Tensor, mask: Tensor, factor: float) -> None:
    """Multiply by a factor, in place, what a mask does not keep."""
    if not fast(weight, mask):
        weight.copy_(weight.where(mask, weight * factor))
        return
    from graphsparse.params import kernels

    kernels.shrink_outside(flat(weight), flat(mask).view(np.uint8), np.float32(factor))
    increment_version(weight)  # autograd does not see what numba writes
