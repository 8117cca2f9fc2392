"""A little smaller after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.optim import Optimizer

from graphsparse.params.joint import Joint
from graphsparse.params.rules.rule import RULES, Rule, check_share, end, of_steps
from graphsparse.params.scores.evidence import needs


@RULES.register("shrink")
@dataclass(frozen=True)
class Shrink(Rule):
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
    dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.factor < 1:
            raise ValueError(f"the factor of a shrinkage must lie in [0, 1), got {self.factor}")
        check_share(self.until, "until")

    def check(self, joint: Joint) -> None:
        """Refuse what has no end, and scores by gradients, which are not there after a step."""
        if of_steps(self.until, joint, "Shrink") < 1:
            raise ValueError(f"steps={joint.steps} is too short to shrink in until={self.until} of it")
        if "grad" in needs(joint.score):
            raise ValueError("Shrink chooses after every step, by a score without gradients such as 'magnitude'")

    def begin(self, joint: Joint) -> None:
        """Choose the first masks; the weights stay."""
        joint.install(joint.chosen(joint.keep_at(0)))

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """After the cut nothing may come back."""
        if joint.cut:
            joint.mask_gradients()

    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Shrink, or cut."""
        if joint.cut:
            joint.zero_outside()
            return
        joint.install(joint.chosen(joint.keep_at(joint.step)))
        if joint.step >= of_steps(self.until, joint, "Shrink"):
            self._cut(joint)
            joint.forget(optimizer, {name: ~mask for name, mask in joint.masks.items()})
            return
        for name, parameter in joint.parameters.items():
            parameter.copy_(parameter.where(joint.masks[name], parameter * self.factor))

    def ready(self, joint: Joint) -> bool:
        """What is not kept was cut."""
        return joint.cut

    def finish(self, joint: Joint) -> None:
        """Cut if that has not happened yet."""
        if not joint.cut:
            self._cut(joint)
        joint.zero_outside()

    def _cut(self, joint: Joint) -> None:
        if not joint.settled:
            end(joint)
            joint.install(joint.chosen(joint.keep))
        joint.cut = True
        joint.zero_outside()
