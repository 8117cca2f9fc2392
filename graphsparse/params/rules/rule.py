"""What every rule has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import ClassVar

from torch.optim import Optimizer

from graphsparse.keep_rule import is_number
from graphsparse.params.joint import Joint
from graphsparse.params.scores.evidence import SCORES, Score, momentary, needs
from graphsparse.registry import Registry


class Rule(ABC):
    """What becomes of the weights outside the mask, step by step.

    A rule is a plain value (a frozen dataclass) without state: all state is in the :class:`Joint`. A new one says what
    happens after a step, and before it if gradients matter.

    Attributes:
        dense: whether weights outside the mask keep values while the model is trained.
    """

    dense: ClassVar[bool] = False

    def check(self, joint: Joint) -> None:  # noqa: B027
        """Raise a ValueError, before anything is changed, if the rule cannot work here."""

    def prepare(self, joint: Joint) -> None:  # noqa: B027
        """Make room in ``joint.extra`` for tensors of the rule's own."""

    def scores(self, score: Score) -> tuple[Score, ...]:
        """Every score that the rule asks for, given that of the axis."""
        return (score,)

    def begin(self, joint: Joint) -> None:
        """Choose the first masks. By a score that needs gradients they are chosen in the first step."""
        if not momentary(joint.score):
            joint.install(joint.chosen(joint.keep_at(0)))
            joint.zero_outside()

    def dress(self, joint: Joint) -> None:  # noqa: B027
        """Put into the model what it carries while it is trained; no weight is changed."""

    def before_step(self, joint: Joint, optimizer: Optimizer) -> None:  # noqa: B027
        """Act on the gradients; ``joint.step`` is still the number of steps before."""

    @abstractmethod
    def after_step(self, joint: Joint, optimizer: Optimizer) -> None:
        """Act on the weights; ``joint.step`` counts the step."""

    def reads(self, part: str, joint: Joint, step: int) -> bool:
        """Whether the masks of that step are chosen by a part of the evidence, such as ``"grad"``."""
        return any(part in needs(score) for score in self.scores(joint.score))

    def restored(self, joint: Joint) -> None:  # noqa: B027
        """Act on a state that was loaded; ``joint`` is as it was then."""

    def ready(self, joint: Joint) -> bool:
        """Whether the model is now as sparse, and in the same way, as after :meth:`finish`."""
        return joint.settled

    def finish(self, joint: Joint) -> None:
        """Cut to the final masks, exactly."""
        if joint.settled:
            joint.fit_masks()
        else:
            end(joint)
            joint.install(joint.chosen(joint.keep, joint.masks))
        joint.zero_outside()


def end(joint: Joint) -> None:
    """Go to the end of the schedule: what counts now are the last pattern and the wanted count."""
    joint.cut = True
    joint.schedule = lambda step, final: final


def of_steps(share: float, joint: Joint, what: str) -> int:
    """The step that lies at a share of the whole training.

    Raises:
        ValueError: if it is not known how long that is.
    """
    if joint.steps is None:
        raise ValueError(f"{what} needs steps=, the optimizer steps of the whole training (epochs times batches)")
    return int(Fraction(str(share)) * joint.steps)


def check_share(share: float, name: str) -> None:
    """Raise a ValueError unless a share lies in (0, 1]."""
    if not (is_number(share) and 0 < share <= 1):
        raise ValueError(f"{name} is a share of the training and must lie in (0, 1], got {share!r:.50}")


def named_score(score: str | Score) -> Score:
    """A score by its name, or itself.

    Raises:
        ValueError: for an unknown name.
        TypeError: for a class, which must be called, or what is no function.
    """
    if isinstance(score, type):
        raise TypeError(f"score is the class {score.__name__}; call it: {score.__name__}()")
    found = SCORES.find(score) if isinstance(score, str) else score
    if not callable(found):
        raise TypeError(f"a score is a name or a function of Evidence, got {type(score).__name__}")
    return found


def _checked(name: str, entry: object) -> type[Rule]:
    if not (isinstance(entry, type) and issubclass(entry, Rule)):
        raise TypeError(f"a rule is a class derived from Rule, {name!r} is {entry!r:.50}")
    return entry


RULES: Registry[type[Rule]] = Registry("rule", folder="graphsparse.params.rules", check=_checked)
