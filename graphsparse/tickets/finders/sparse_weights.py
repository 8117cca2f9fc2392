"""Training a ticket's weights by any method of sparse training, and what such a method refuses."""

from __future__ import annotations

import dataclasses
import hashlib
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from graphsparse.fit import FitResult, steps_of
from graphsparse.params import GRAINS, Distribution, Elements, Sparsifier, plain_distribution
from graphsparse.tickets.problem import Found, Problem
from graphsparse.tickets.weights import L0, Weights, axes_of, check_share, plain_weights, said


def distribution_of(problem: Problem) -> Distribution:
    """How many weights each tensor keeps: as was asked for, else as the method does it."""
    own = problem.training.distribution
    if own is not None:
        return own
    found: Distribution = axes_of(problem.training.weights, _steps(problem)).get("distribution", "erk")
    return found


def mark_of(problem: Problem) -> str:
    """What a file's name says of how the weights are made sparse; nothing for the usual way."""
    training, mark = problem.training, ""
    if training.weights != L0:
        mark = f"-{_short(plain_weights(training.weights))}"
    if training.distribution is not None and plain_distribution(training.distribution) != "global":
        mark += f"-{_short(plain_distribution(training.distribution))}"
    return mark if training.pattern == "weights" else f"{mark}-{training.pattern}"


def check_weights(problem: Problem, method: str, finder: Any, keep: Fraction) -> None:
    """Whatever a method for the weights refuses, before anything is trained.

    Raises:
        ValueError: for a finder that chooses weights itself, a method that keeps no share of single weights, or what
            :class:`graphsparse.params.Sparsifier` refuses.
    """
    if problem.training.weights == L0:
        return
    check_open(method, finder, problem.training.weights)
    sparsifier_of(problem, problem.fresh_model(), keep)


def check_open(method: str, finder: Any, weights: Weights) -> None:
    """Raise a ValueError for a finder that chooses weights by a rule of its own, or a method that keeps no share."""
    check_share(weights)
    if not getattr(finder, "any_weights", False):
        raise ValueError(
            f"{method} chooses weights by a rule of its own: weights={said(weights)} goes with methods that choose the "
            "edges alone, such as teddy, reliance, mixture, random or any edge score"
        )


def sparsifier_of(problem: Problem, model: nn.Module, keep: Fraction) -> Sparsifier:
    """What keeps a model sparse while it is trained, not attached yet.

    Raises:
        ValueError: as `check_weights`.
    """
    training = problem.training
    steps = _steps(problem)
    axes = axes_of(training.weights, steps)
    if training.distribution is not None:
        axes["distribution"] = training.distribution
    pattern = axes.get("pattern", "elements")
    if not isinstance(GRAINS.find(pattern)() if isinstance(pattern, str) else pattern, Elements):
        raise ValueError(
            f"weights={said(training.weights)} cuts by {pattern!r}, and the weights of a ticket are counted one by "
            "one; pattern='units' cuts whole units, by weights='l0'"
        )
    return Sparsifier(model, keep=keep, steps=steps, seed=problem.seed, which=training.which, **axes)


def train_by_method(problem: Problem, dense: FitResult, edge_mask: Tensor, weight_keep: Fraction, name: str) -> Found:
    """Train from theta0 on the edges of ``edge_mask``, kept sparse by the method of ``problem.training.weights``."""
    student, task = problem.fresh_model(), problem.task.with_mask(edge_mask)
    sparsifier = sparsifier_of(problem, student, weight_keep)
    result = problem.train(student, task, name, distill=problem.teach(dense), callbacks=[sparsifier])
    masks = {name: mask.cpu() for name, mask in sparsifier.finish().items()}
    outputs = task.predict(student).cpu()  # the last cut may have come after the best epoch
    state = {name: value.detach().cpu().clone() for name, value in student.state_dict().items()}
    val, test = (task.score(outputs, part) for part in ("val", "test"))
    return Found(edge_mask, masks, dataclasses.replace(result, state=state, logits=outputs, val=val, test=test))


def _steps(problem: Problem) -> int:
    """Of the optimizer, in a whole training."""
    if "steps of an epoch" not in problem.memory:
        problem.memory["steps of an epoch"] = steps_of(problem.task, problem.fresh_model())
    steps: int = problem.training.epochs * problem.memory["steps of an epoch"]
    return steps


def _short(content: Any) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]
