"""What the five axes act on together: parameters, their masks over the steps, and what is remembered of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.params.choice import Choice
from graphsparse.params.ends import Ends
from graphsparse.params.grains import Elements, Modules
from graphsparse.params.masked import Link, Masked, Orders
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.schedule import Schedule, Stages, sparsity_fraction
from graphsparse.params.scores.evidence import Evidence, Score, needs
from graphsparse.params.scores.magnitude import by_magnitude
from graphsparse.params.starved import Starved
from graphsparse.params.tensors import Named, empty_mask, fast, flat, keep_only_

_LOOKS = 32  # updates between two looks for starved layers


def one() -> float:
    """The scale of a loss that is not scaled."""
    return 1.0


@dataclass
class Joint:
    """The state that rules read and write. Everything here is per parameter, by name.

    Attributes:
        model: the module.
        parameters: that are made sparse.
        choices: how masks are made; several where the pattern changes in stages.
        score: what decides which weights stay.
        schedule: sparsity over steps, or stages.
        keep: the kept fraction at the end.
        seed: of random scores.
        steps: optimizer steps of the whole training, if it is known.
        step: steps done.
        masks: bool, what is kept now.
        churn: elements of the masks that the last update changed.
        seen: bool, what was ever kept.
        alive: int32, updates that saw each weight kept; empty unless a score needs it.
        start: values at the beginning; empty unless a score needs them.
        ends: hears what flows through the weights; None unless a score needs it.
        extra: tensors of a rule's own, by names that it gives them.
        plan: masks that were chosen before a step and take effect after it.
        installed: the parametrizations of a rule that masks in the forward pass.
        hooks: of a rule that changes what modules give, each with its handle.
        orders: the modules that carry them, and the order of their parameters.
        loss_scale: by which the loss is multiplied before the backward pass.
        scale: by which an AMP scaler has multiplied the gradients that the optimizer is about to divide.
        cut: whether the final masks are chosen and nothing moves any more.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    choices: list[Choice]
    score: Score
    schedule: Schedule | Stages
    keep: Fraction
    seed: int
    steps: int | None
    step: int = 0
    masks: dict[str, Tensor] = field(default_factory=dict)
    churn: int = 0
    seen: dict[str, Tensor] = field(default_factory=dict)
    alive: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)
    ends: Ends | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    plan: dict[str, Tensor] | None = None
    installed: dict[str, Link] = field(default_factory=dict)
    hooks: list[tuple[Any, RemovableHandle]] = field(default_factory=list)
    orders: Orders = field(default_factory=list)
    loss_scale: Callable[[], float] = one
    scale: Tensor | None = None
    cut: bool = False

    def __post_init__(self) -> None:
        for name, parameter in self.parameters.items():
            self.masks[name] = empty_mask(parameter).fill_(True)
            self.seen[name] = empty_mask(parameter).fill_(False)
        self._starved = Starved({name: p.numel() for name, p in self.parameters.items()})
        self._updates = 0

    def remember(self, scores: tuple[Score, ...]) -> None:
        """Make room for what scores need."""
        wanted = {part for score in scores for part in needs(score)}
        if "correlation" in wanted:
            self.ends = Ends(self.model, self.parameters)
        for name, parameter in self.parameters.items():
            if "alive" in wanted:
                self.alive[name] = torch.zeros(parameter.shape, dtype=torch.int32, device=parameter.device)
            if "start" in wanted:
                self.start[name] = parameter.detach().clone()

    @property
    def choice(self) -> Choice:
        """How masks are made at the present step."""
        if isinstance(self.schedule, Stages):
            return self.choices[self.schedule.patterns.index(self.schedule.at(self.step))]
        return self.choices[-1]

    @cached_property
    def singles(self) -> Choice:
        """The weights one by one, whatever is cut together."""
        return Choice(Elements(), "uniform", self.parameters)

    def keep_at(self, step: int) -> Fraction:
        """The kept fraction that the schedule wants at a step; a stage's own pattern says it."""
        if isinstance(self.schedule, Stages):
            pattern = self.choices[self.schedule.patterns.index(self.schedule.at(step))].pattern
            assert isinstance(pattern, NofM)
            return pattern.kept
        final = 1 - self.keep
        sparsity = self.schedule(step, final)
        return self.keep if sparsity == final else 1 - sparsity_fraction(sparsity, "the scheduled sparsity")

    @property
    def settled(self) -> bool:
        """Whether the schedule has come to its end."""
        return self.keep_at(self.step) == self.keep

    def scored(self, score: Score, name: str, step: int) -> Tensor:
        """The scores of a tensor's elements, which must be finite and not negative.

        Raises:
            ValueError: otherwise, with the name and the position; for a missing or sparse gradient; for another shape.
        """
        parameter = self.parameters[name]
        grad = None
        if "grad" in needs(score):
            grad = _gradient(name, parameter, step)
            grad = grad if self.scale is None else grad / self.scale
        weight = parameter.detach()
        check_finite(weight, f"the weight {name!r}")
        if score is by_magnitude:
            return weight  # whose sign never counts: no copy, and no more to be checked
        together = None
        if self.ends is not None and "correlation" in needs(score):
            together = self.ends.correlation(name, weight.shape, step)
        evidence = Evidence(
            name,
            weight,
            self.masks[name],
            step,
            self.seed,
            self.keep,
            grad,
            together,
            self.alive.get(name),
            self.start.get(name),
        )
        found = score(evidence)
        if not isinstance(found, Tensor) or found.shape != weight.shape:
            got = f"shape {[*found.shape]}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the score of {name!r} must be a tensor of shape {[*weight.shape]}, got {got}")
        check_finite(found, f"the score of {name!r}")
        if bool((found < 0).any()):
            position = tuple((found < 0).nonzero()[0].tolist())
            raise ValueError(f"the score of {name!r} is negative at position {position}; scores are 0 or more")
        return found

    def chosen(
        self, keep: Fraction, within: Named | None = None, *, step: int | None = None, score: Score | None = None
    ) -> dict[str, Tensor]:
        """New masks of the best units; nothing is changed yet."""
        score, step = score or self.score, self.step if step is None else step
        masks = {name: empty_mask(parameter) for name, parameter in self.parameters.items()}
        self.choice.mark(lambda name: self.scored(score, name, step), keep, masks, within)
        return masks

    def install(self, masks: Mapping[str, Tensor]) -> None:
        """Let masks take effect, and count. No weight is touched."""
        self.churn = 0
        for name, mask in masks.items():
            self.churn += _take_over(mask, self.masks[name], self.seen[name])
            if name in self.alive:
                self.alive[name].add_(mask)
        if self._updates % _LOOKS == 0 and not isinstance(self.choice.pattern, Modules):  # which are meant to go
            self._starved.warn(self.masks)
        self._updates += 1

    def differing(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which elements of the present masks others would change."""
        return {name: mask ^ self.masks[name] for name, mask in masks.items()}

    def zero_outside(self) -> None:
        """Set to zero what is not kept."""
        for name, parameter in self.parameters.items():
            keep_only_(parameter, self.masks[name])

    def fit_masks(self) -> None:
        """Let the masks hold every weight that is not zero, with the same counts.

        The weights may be those of an earlier step, which somebody has loaded.
        """
        if all(not bool((p.detach()[~self.masks[name]] != 0).any()) for name, p in self.parameters.items()):
            return
        new = {name: empty_mask(parameter) for name, parameter in self.parameters.items()}
        size = lambda name: self.scored(by_magnitude, name, self.step)  # noqa: E731
        if isinstance(self.choice.pattern, NofM) or self.choice.counts(self.keep) is not None:
            self.choice.mark(size, self.keep, new)
        lost = any(bool((p.detach()[~new[name]] != 0).any()) for name, p in self.parameters.items())
        if lost and not isinstance(self.choice.pattern, NofM):
            self.choice.best(size, sum(self.choice.held_counts(self.masks).values()), new)
        self.install(new)

    def mask_gradients(self) -> None:
        """Set the gradients of what is not kept to zero, so that the optimizer remembers nothing of them."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and parameter.grad.layout == torch.strided:
                keep_only_(parameter.grad, self.masks[name])

    def forget(self, optimizer: Optimizer, places: Named) -> None:
        """Zero every tensor of the optimizer's state that has a parameter's shape, at the given places."""
        for name, where in places.items():
            for value in optimizer.state.get(self.parameters[name], {}).values():
                if isinstance(value, Tensor) and value.shape == where.shape:
                    value.masked_fill_(where.to(value.device), 0)

    def follow(self) -> None:
        """Go where the parameters have gone: another device, or the model's own buffers."""
        for name, parameter in self.parameters.items():
            own = self.installed.get(name)
            self.masks[name] = own.mask if isinstance(own, Masked) else self.masks[name].to(parameter.device)
            for kept in (self.seen, self.alive, self.start):
                if name in kept:
                    kept[name] = kept[name].to(parameter.device)
        device = next(iter(self.parameters.values())).device
        self.extra = {key: value.to(device) for key, value in self.extra.items()}


def _take_over(new: Tensor, mask: Tensor, seen: Tensor) -> int:
    """Copy a new mask, and add it to what was ever kept; how many elements changed."""
    if fast(new, mask, seen):
        from graphsparse.params import kernels

        return int(kernels.take_over(*(flat(part).view(np.uint8) for part in (new, mask, seen))))
    changed = int((new ^ mask).count_nonzero())
    mask.copy_(new)
    seen.logical_or_(new)
    return changed


def check_finite(values: Tensor, what: str) -> None:
    """Raise a ValueError that names the first NaN or infinity; one pass where there is none."""
    if values.numel() == 0 or math.isfinite(float(values.sum())):
        return
    bad = ~torch.isfinite(values)
    if bool(bad.any()):  # else only the sum overflowed
        position = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{what} is {float(values[position])} at position {position}; it must be finite to be ranked")


def dense_gradient(name: str, parameter: nn.Parameter) -> Tensor | None:
    """The gradient of a parameter, where there is one; raises a ValueError for a sparse one."""
    grad = parameter.grad
    if grad is not None and grad.layout != torch.strided:
        raise ValueError(f"the gradient of {name!r} is a sparse tensor, and all of it is needed: use sparse=False")
    return None if grad is None else grad.detach()


def _gradient(name: str, parameter: nn.Parameter, step: int) -> Tensor:
    grad = dense_gradient(name, parameter)
    if grad is None:
        raise ValueError(
            f"{name!r} has no gradient at step {step}, and the masks are chosen by it: call backward() before "
            "optimizer.step(), or in its closure, on a loss that depends on it, or leave it out by which="
        )
    return grad
