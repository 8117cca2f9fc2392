"""Rules that train all weights and cut at a share of the training; what is left is trained on."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch.optim import Optimizer

from graphsparse.params.joint import Joint
from graphsparse.params.rules.rule import Rule, check_share, end, of_steps
from graphsparse.params.scores.evidence import momentary


class Late(Rule):
    """The mask is chosen anew after every step, and the weights outside are made weaker until they are cut for good.

    Attributes:
        until: the share of the training after which they are cut.
    """

    until: float
    dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share(self.until, "until")

    @abstractmethod
    def weaken(self, joint: Joint, optimizer: Optimizer) -> None:
        """Act on the weights after a step before the cut."""

    def check(self, joint: Joint) -> None:
        """Refuse what has no end, and scores by gradients, which are not there after a step."""
        name = type(self).__name__
        if of_steps(self.until, joint, name) < 1:
            raise ValueError(f"steps={joint.steps} is too short for {name} in until={self.until} of it")
        if momentary(joint.score):
            raise ValueError(f"{name} chooses after every step, by a score without gradients such as 'magnitude'")

    def begin(self, joint: Joint) -> None:
        """Choose the first masks; the weights stay."""
        joint.install(joint.chosen(joint.keep_at(0)))

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """After the cut nothing may come back."""
        if joint.cut:
            joint.mask_gradients()

    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Weaken, or cut."""
        if joint.cut:
            joint.zero_outside()
        elif joint.step >= of_steps(self.until, joint, type(self).__name__):
            self.last(joint)
            self.cut(joint)
            joint.forget(optimizer, {name: ~mask for name, mask in joint.masks.items()})
        else:
            self.weaken(joint, optimizer)

    def last(self, joint: Joint) -> None:
        """Choose for the last time."""
        joint.install(joint.chosen(joint.keep_at(joint.step)))

    def ready(self, joint: Joint) -> bool:
        """What is not kept was cut."""
        return joint.cut

    def finish(self, joint: Joint) -> None:
        """Cut if that has not happened yet."""
        if not joint.cut:
            self.cut(joint)
        joint.zero_outside()

    def cut(self, joint: Joint) -> None:
        """Set to zero for good what is outside the mask, at the count of the end."""
        if self.end_schedule(joint):
            joint.install(joint.chosen(joint.keep))
        joint.cut = True
        joint.zero_outside()

    @staticmethod
    def end_schedule(joint: Joint) -> bool:
        """Go to the end of the schedule; whether it was not there yet."""
        if joint.settled:
            return False
        end(joint)
        return True
