"""Callbacks of `fit` that act on the steps of the optimizer: learning rates over steps, and clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau
from torch.utils.hooks import RemovableHandle

from graphsparse.keep_rule import is_number
from graphsparse.step_hooks import after_steps, before_steps


class Schedule:
    """Change the learning rate after every step of the optimizer, as a scheduler of torch says.

    Each run of `fit` that it is given to begins the schedule anew.

    Args:
        make: from the optimizer to a ``torch.optim.lr_scheduler`` that counts optimizer steps, not epochs.
            A checkpoint knows a run by its scheduler's state, in which a plain function (of ``LambdaLR``) leaves no
            trace: an object with ``__call__`` and attributes does.

    Raises:
        TypeError: on attaching, if ``make`` gives no scheduler, or one that needs a figure (``ReduceLROnPlateau``).
        ValueError: if it is attached already, or is given the state of another kind of scheduler.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> schedule = Schedule(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5))
        >>> schedule.attach(optimizer)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        >>> schedule.detach()
        >>> rates
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, make: Callable[[Optimizer], LRScheduler]) -> None:
        self.make = make
        self._scheduler: LRScheduler | None = None
        self._handle: RemovableHandle | None = None

    def attach(self, optimizer: Optimizer) -> None:
        """Set the first rate now, and the next one after each ``optimizer.step()``."""
        if self._handle is not None:
            raise ValueError("the schedule is attached already; call detach() first")
        scheduler: Any = self.make(optimizer)
        if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
            raise TypeError(f"a schedule needs a scheduler that only counts steps, not {type(scheduler).__name__}")
        self._scheduler = scheduler
        self._handle = after_steps(optimizer, lambda *_: scheduler.step())

    def detach(self) -> None:
        """Stop; the rate stays as it is. Does nothing if it is not attached."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = self._scheduler = None

    def state_dict(self) -> dict[str, Any]:
        """The kind of scheduler and its settings and state (None unless attached)."""
        if self._scheduler is None:
            return {"kind": None, "scheduler": None}
        return {"kind": type(self._scheduler).__name__, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave while attached; the optimizer's own state holds the rates."""
        kind = None if self._scheduler is None else type(self._scheduler).__name__
        if kind is None or state.get("kind") != kind:
            raise ValueError(f"the state is that of {state.get('kind')}, this schedule is that of {kind}")
        assert self._scheduler is not None
        own = self._scheduler.state_dict()
        saved = dict(state["scheduler"])
        # A checkpoint gives plain dicts; MultiStepLR counts its milestones with a Counter.
        self._scheduler.load_state_dict(
            {key: type(own[key])(value) if isinstance(own.get(key), dict) else value for key, value in saved.items()}
        )


@dataclass(frozen=True)
class _Cosine:
    """The rate's factor at a step; its fields are what `LambdaLR` saves."""

    steps: int
    warmup: int

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        share = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return 0.5 * (1 + math.cos(math.pi * share))


def cosine(steps: int, *, warmup: int = 0) -> Schedule:
    r"""Let the rate fall along half a cosine, after a linear start.

    .. math:: \eta_t = \eta \frac{t + 1}{w} \;(t < w), \qquad
        \eta_t = \frac{\eta}{2} \Big(1 + \cos \pi \frac{t - w}{T - w}\Big) \;(w \le t \le T)

    Args:
        steps: T, optimizer steps of the whole run: epochs times batches per epoch. After them the rate stays 0.
        warmup: w, steps of the linear start.

    Raises:
        ValueError: unless 0 <= warmup < steps.

    Source: Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5, without restarts.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> cosine(4, warmup=2).attach(optimizer)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates.append(round(optimizer.param_groups[0]["lr"], 6))
        ...     optimizer.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"a cosine needs 0 <= warmup < steps, got warmup {warmup} and {steps} steps")
    return Schedule(partial(LambdaLR, lr_lambda=_Cosine(steps, warmup)))


def milestones(at: Sequence[int], gamma: float = 0.1) -> Schedule:
    """Multiply the rate by ``gamma`` at each of some steps.

    Args:
        at: optimizer steps, ascending; ``3`` lets three steps pass at the old rate.
        gamma: the factor.

    Raises:
        ValueError: the steps are not positive and ascending, or the factor is not positive.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> milestones([1, 3], gamma=0.5).attach(optimizer)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        >>> rates
        [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    steps = list(at)
    if any(step < 1 for step in steps) or sorted(set(steps)) != steps:
        raise ValueError(f"milestones are steps from 1 on, each later than the one before, got {steps}")
    if not (is_number(gamma) and gamma > 0):
        raise ValueError(f"gamma must be a positive number, got {gamma!r:.50}")
    return Schedule(partial(MultiStepLR, milestones=steps, gamma=gamma))


class ClipNorm:
    """Scale the gradients down before every step, so that their joint l2 norm is at most ``max_norm``.

    Args:
        max_norm: the bound, over all that the optimizer steps.

    Raises:
        ValueError: the bound is not a positive number, it is attached already, or is given the state of another bound.

    Source: Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0)
        >>> clip = ClipNorm(1.0)
        >>> clip.attach(optimizer)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> optimizer.step()
        >>> clip.detach()
        >>> [round(value, 4) for value in weight.tolist()]
        [-0.6, -0.8]
    """

    def __init__(self, max_norm: float) -> None:
        if not (is_number(max_norm) and max_norm > 0):
            raise ValueError(f"max_norm must be a positive number, got {max_norm!r:.50}")
        self.max_norm = float(max_norm)
        self._handle: RemovableHandle | None = None

    def attach(self, optimizer: Optimizer) -> None:
        """Clip before each ``optimizer.step()``."""
        if self._handle is not None:
            raise ValueError("the clipping is attached already; call detach() first")
        self._handle = before_steps(optimizer, self._before_step)

    def detach(self) -> None:
        """Stop. Does nothing if it is not attached."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Any]:
        """The bound; there is no other state."""
        return {"max_norm": self.max_norm}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that the state is that of the same bound."""
        if state.get("max_norm") != self.max_norm:
            raise ValueError(f"the state has max_norm = {state.get('max_norm')!r}, this clipping {self.max_norm!r}")

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(stepped, self.max_norm)
