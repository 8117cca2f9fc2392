"""A callback of training that looks on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Watch:
    """A callback of training that looks on after every step.

    Args:
        look: called with the number of steps done.
    """

    def __init__(self, look: Callable[[int], object]) -> None:
        self.look, self.step, self._handle = look, 0, None

    def attach(self, optimizer: Optimizer) -> None:
        """Begin to look; callbacks that were attached before have acted by then."""
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def detach(self) -> None:
        """Stop."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Any]:
        """How far it came."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.step = state["step"]

    def _after_step(self, *_: object) -> None:
        self.step += 1
        self.look(self.step)
