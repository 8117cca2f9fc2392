"""Zero after a step; every weight may return."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from graphsparse.keep_rule import whole_number
from graphsparse.params.joint import Joint
from graphsparse.params.rules.rule import RULES, Rule
from graphsparse.params.scores.evidence import momentary


@RULES.register("project")
@dataclass(frozen=True)
class Project(Rule):
    r"""Choose anew among all weights after every step and zero the others (projected gradient descent).

    .. math:: \theta_{t+1} = P_{k_t}(\theta_t - \eta\, u_t)

    A weight returns with the value, and the momentum, that its update gave it.

    Args:
        every: steps between two projections.

    Source: Blumensath & Davies, "Iterative hard thresholding for compressed sensing", 2009.
    """

    every: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", whole_number(self.every, "every", least=1))

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Choose here where gradients decide: after the step they may have been changed."""
        step = joint.step + 1
        if step % self.every == 0 and momentary(joint.score):
            joint.plan = joint.chosen(joint.keep_at(step), step=step)

    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Project."""
        if joint.step % self.every == 0:
            joint.install(joint.plan or joint.chosen(joint.keep_at(joint.step)))
            joint.plan = None
            joint.zero_outside()

    def ready(self, joint: Joint) -> bool:
        """The schedule has ended, and the last step was projected."""
        return joint.settled and joint.step % self.every == 0

    def finish(self, joint: Joint) -> None:
        """Steps since the last projection may have filled the weights again."""
        if joint.step % self.every:
            joint.install(joint.chosen(joint.keep))
        super().finish(joint)
