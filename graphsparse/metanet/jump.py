"""Jumps in fine-tuning: after some steps the weights are put where they are foreseen to go."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.fit import Task, rng
from graphsparse.fit.call import with_state
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import is_number
from graphsparse.metanet.batch_norms import modes_kept, recalibrate
from graphsparse.metanet.channels import batch_statistics
from graphsparse.metanet.foresight import Foresight, Past, looked_at
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.step_hooks import after_steps

_GUARD_BATCHES = 4
Weights = dict[str, Tensor]


class NotTakenWarning(UserWarning):
    """A jump in fine-tuning was not taken: the training loss would be worse or not finite, or too few steps came."""


class Landing(NamedTuple):
    """What became of a jump: after which step, the training loss before and after it, and whether it was taken."""

    step: int
    loss_before: float
    loss_after: float
    taken: bool


@dataclass(frozen=True)
class Jump:
    """A jump of weights in fine-tuning, to where they are foreseen to be some epochs later.

    A jump is taken only if the loss of training batches (with their own statistics in batch norms) is finite and no
    worse for it. After it the statistics of batch norms are recalibrated and momentum starts anew; the learning rate
    goes on as it would have. Frozen parameters stay.

    Args:
        foresight: a `MetaNetwork` of mode "nowcast", or a rule such as `Extrapolation` or `StepSizes`.
        after: optimizer steps before each jump, counted from the jump before: ``(8,)``, or ``(8, 32)`` for two jumps.
        epochs: how far ahead it looks.

    Raises:
        ValueError: an option is out of range, or the metanetwork is of another mode.

    Example:
        >>> from graphsparse.metanet.foresight import Extrapolation
        >>> from graphsparse.metanet.fine_tuning import FineTune
        >>> x = torch.randn(64, 4)
        >>> task = Task((x, (x[:, 0] > 0).long()), (x, (x[:, 0] > 0).long()), (x, (x[:, 0] > 0).long()), batch_size=16)
        >>> landings = []
        >>> tune = FineTune(epochs=2, lr=0.02, jump=Jump(Extrapolation(1.0), after=(4,)))
        >>> _ = tune.run(nn.Linear(4, 2), task, landings=landings)
        >>> landings[0].step, landings[0].taken
        (4, True)
    """

    foresight: Foresight
    after: tuple[int, ...] = (8,)
    epochs: float = 4.0

    def __post_init__(self) -> None:
        if not self.after or any(type(steps) is not int or steps < 0 for steps in self.after):
            raise ValueError(f"a jump comes after numbers of steps from 0 on, got {self.after}")
        if not (is_number(self.epochs) and self.epochs > 0):
            raise ValueError(f"a jump looks a positive number of epochs ahead, got {self.epochs!r:.50}")
        mode = getattr(self.foresight, "mode", "nowcast")
        if mode != "nowcast":
            raise ValueError(f"a jump needs a metanetwork of mode 'nowcast', and this one is of mode {mode!r}")

    def callback(self, module: nn.Module, task: Task, inputs: tuple[Any, ...]) -> Jumping:
        """A callback of `graphsparse.fit.fit` that jumps while a module, traced with ``inputs``, learns a task."""
        return Jumping(self, module, task, inputs)


class Recorder:
    """A callback of `graphsparse.fit.fit` that remembers a module's parameters after some steps of the optimizer.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        >>> recorder = Recorder(layer, {0, 2})
        >>> recorder.attach(optimizer)
        >>> _ = layer.weight.data.fill_(0.0)
        >>> for _ in range(3):
        ...     layer.weight.grad = -torch.ones(1, 1)
        ...     optimizer.step()
        >>> recorder.detach()
        >>> sorted(recorder.states), recorder.states[2]["weight"].item()
        ([0, 2], 2.0)
    """

    def __init__(self, module: nn.Module, at: set[int]) -> None:
        self.module, self.at = module, at
        self.step, self.states = 0, dict[int, Weights]()
        self._handle: RemovableHandle | None = None

    def attach(self, optimizer: Optimizer) -> None:
        """Begin to count steps."""
        self.step, self.states = 0, {}
        self.optimizer = optimizer
        self.look()
        self._handle = after_steps(optimizer, self._after_step)

    def detach(self) -> None:
        """Stop. Does nothing if it is not attached."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def look(self) -> None:
        """Remember the parameters, if this is a step to do so."""
        if self.step in self.at:
            self.states[self.step] = _copied(self.module)

    def state_dict(self) -> dict[str, Any]:
        """The steps so far and what is remembered."""
        return {"step": self.step, "states": dict(self.states)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        device = device_of(self.module)
        self.step = state["step"]
        self.states = {s: {n: t.to(device) for n, t in found.items()} for s, found in state["states"].items()}

    def _after_step(self, *_: Any) -> None:
        self.step += 1
        self.look()


class Jumping(Recorder):
    """`Jump` at work on one module; ``landings`` says what became of each jump."""

    def __init__(self, jump: Jump, module: nn.Module, task: Task, inputs: tuple[Any, ...]) -> None:
        super().__init__(module, set())
        self.jump, self.task, self.inputs = jump, task, inputs
        self.landings: list[Landing] = []
        self.begun = 0  # the step of the jump before

    def attach(self, optimizer: Optimizer) -> None:
        """Begin to count steps; a jump after 0 steps is made now."""
        with modes_kept(self.module):  # tracing
            self.start = NetworkGraph.from_module(self.module, self.inputs)
        if (check := getattr(self.jump.foresight, "check", None)) is not None:  # before anything is trained
            check(self.start)
        self.epoch = sum(1 for _ in self.task.batches("train"))
        self.landings, self.begun = [], 0
        super().attach(optimizer)

    def detach(self) -> None:
        """Stop, and say so if fine-tuning was too short for a jump."""
        missed = len(self.jump.after) - len(self.landings)
        if self._handle is not None and missed and self.step:
            warnings.warn(
                f"fine-tuning ended after {self.step} steps, before {missed} of the jumps after "
                f"{', '.join(map(str, self.jump.after))} steps: give fewer steps in after=",
                NotTakenWarning,
                stacklevel=2,
            )
        super().detach()

    def look(self) -> None:
        """Remember the parameters where a coming jump wants them, and jump when it is time."""
        while len(self.landings) < len(self.jump.after):
            steps = self.jump.after[len(self.landings)]
            wanted = looked_at(steps)
            if self.step - self.begun in wanted:
                self.states[self.step] = _copied(self.module)
            if self.step - self.begun < steps:
                return
            earlier = [self._graph(self.states[self.begun + step]) for step in wanted[:-1]]
            past = Past(tuple(earlier), steps, round(self.jump.epochs * self.epoch))
            with torch.no_grad(), rng.preserved(device_of(self.module)):
                self.landings.append(self._land(past))
            self.begun, self.states = self.step, {}

    def state_dict(self) -> dict[str, Any]:
        """As of a recorder, and what became of the jumps so far."""
        return {**super().state_dict(), "begun": self.begun, "landings": [list(each) for each in self.landings]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state)
        self.begun, self.landings = state["begun"], [Landing(*each) for each in state["landings"]]

    def _graph(self, weights: Weights) -> NetworkGraph:
        return self.start.with_module(_holding(self.start.to_module(), weights))

    def _land(self, past: Past) -> Landing:
        now = self.states[self.step]
        graph = self._graph(now)
        foreseen = self.jump.foresight(graph, past=past)
        state = foreseen.to_state_dict()
        moves = {n: state[n].to(t) for n, t in now.items() if self._learns[n] and n in state}
        before, after = self._loss({}), self._loss(moves)
        taken = math.isfinite(after) and after <= before
        landing = Landing(self.step, before, after, taken)
        if not taken:
            warnings.warn(
                f"the jump after step {self.step} would bring the training loss from {before:.4g} to {after:.4g}: "
                f"it was not taken",
                NotTakenWarning,
                stacklevel=2,
            )
            return landing
        parameters = dict(self.module.named_parameters())
        for name, value in moves.items():
            parameters[name].copy_(value)
            self.optimizer.state.pop(parameters[name], None)
        recalibrate(self.module, self.task)
        return landing

    @property
    def _learns(self) -> dict[str, bool]:
        return {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}

    def _loss(self, weights: Weights) -> float:
        """The mean loss of training batches with these weights; statistics of batch norms are the batch's and stay."""
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        with modes_kept(self.module):
            batch_statistics(self.module.eval())
            call = with_state(self.module, {**buffers, **weights})
            batches = islice(self.task.batches("train", device_of(self.module)), _GUARD_BATCHES)
            losses = [float(self.task.loss(self.task.forward(call, b.inputs), b.targets)) for b in batches]
        return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan


def _copied(module: nn.Module) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _holding(module: nn.Module, weights: Weights) -> nn.Module:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights[name])
    return module
