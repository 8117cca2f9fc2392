"""Zero for good."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from graphsparse.params.joint import Joint
from graphsparse.params.rules.rule import RULES, Rule
from graphsparse.params.scores.evidence import momentary


@RULES.register("hold")
@dataclass(frozen=True)
class Hold(Rule):
    """What was cut stays cut; a schedule cuts more of the rest.

    Source: Zhu & Gupta, "To prune, or not to prune", 2017, for masks that only shrink.
    """

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Choose here where gradients decide, then mask them."""
        step = joint.step + 1
        if momentary(joint.score) and self._cuts(joint, step):
            joint.plan = joint.chosen(joint.keep_at(step), joint.masks, step=step)
        joint.mask_gradients()

    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Cut if the schedule says so."""
        if joint.plan is not None or (not momentary(joint.score) and self._cuts(joint, joint.step)):
            plan = joint.plan or joint.chosen(joint.keep_at(joint.step), joint.masks)
            changed, joint.plan = joint.differing(plan), None
            joint.install(plan)
            joint.forget(optimizer, changed)
        joint.zero_outside()

    def reads(self, part: str, joint: Joint, step: int) -> bool:
        """At the steps that cut."""
        return super().reads(part, joint, step) and self._cuts(joint, step)

    def _cuts(self, joint: Joint, step: int) -> bool:
        if step == 1 and momentary(joint.score):
            return True
        return joint.keep_at(step) != joint.keep_at(step - 1)
