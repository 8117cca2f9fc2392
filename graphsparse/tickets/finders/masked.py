"""Masks that stay as they are: the exact cut of weights by a score, and training under fixed masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor, nn

from graphsparse.fit import FitResult
from graphsparse.keep_rule import kept_count, top_mask
from graphsparse.params import Distribution, Fixed, Projection, allot, prunable
from graphsparse.tickets.finders.sparse_weights import distribution_of, mark_of
from graphsparse.tickets.problem import Found, Problem
from graphsparse.tickets.units import units_pattern


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is left of a graph and of a model.

    Attributes:
        edges: bool ``[E]`` over the caller's edges, true on self-loops.
        weights: bool mask of each parameter that counts, by name.
        seconds: of the training that found it, all rounds together.
    """

    edges: Tensor
    weights: Mapping[str, Tensor]
    seconds: float = 0.0


def largest_weights(
    scores: Mapping[str, Tensor],
    keep: Fraction,
    alive: Mapping[str, Tensor] | None = None,
    distribution: Distribution = "global",
) -> dict[str, Tensor]:
    """Masks of the ``keep`` highest scores of all weights together, none of them outside ``alive``.

    Args:
        scores: a score for each weight, by the parameter's name; not changed.
        keep: fraction of *all* weights, the removed ones too; ties go to the earlier parameter and position.
        alive: bool masks of the weights that may be kept; None: all.
        distribution: how many of them each tensor keeps, see :func:`graphsparse.params.allot`; ``"global"``: as many as
            are among the highest of all.

    Example:
        >>> scores = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0, 9.0]])}
        >>> largest_weights(scores, Fraction(1, 2), {"a": torch.ones(2).bool(), "b": torch.tensor([[True, False]])})
        {'a': tensor([ True, False]), 'b': tensor([[ True, False]])}
    """
    flat = {name: value.detach().cpu().reshape(-1).float() for name, value in scores.items()}
    count, limits = kept_count(keep, sum(map(len, flat.values()))), None
    if alive is not None:
        limits = {name: int(alive[name].sum()) for name in scores}
        if count >= sum(limits.values()):
            return {name: alive[name].clone() for name in scores}
        flat = {name: value.masked_fill(~alive[name].reshape(-1), -torch.inf) for name, value in flat.items()}
    counts = allot(distribution, {name: value.shape for name, value in scores.items()}, count, limits)
    if counts is None:
        whole = top_mask(torch.cat(list(flat.values())), count)
        parts = dict(zip(flat, torch.split(whole, [len(value) for value in flat.values()]), strict=True))
    else:
        parts = {name: top_mask(value, counts[name]) for name, value in flat.items()}
    return {name: parts[name].view(value.shape) for name, value in scores.items()}


def chosen_weights(
    problem: Problem, scores: Mapping[str, Tensor], keep: Fraction, alive: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks of the weights of highest score in the problem's pattern: one by one, or as whole units.

    Args:
        problem: says which pattern, and how it is distributed.
        scores: of each weight, by the names of `pruned_in`, not negative; not changed.
        keep: fraction of all weights.
        alive: bool masks of the weights that may be kept; None: all.
    """
    if problem.training.pattern == "weights":
        return largest_weights(scores, keep, alive, distribution_of(problem))
    values = {name: value.detach().cpu().float() for name, value in scores.items()}
    masks = {name: torch.empty_like(value, dtype=torch.bool) for name, value in values.items()}
    units_pattern(problem, keep).write(values, masks, alive, zero=False)
    return masks


def pruned_in(problem: Problem) -> dict[str, nn.Parameter]:
    """The parameters that lose weights: those that count; all of them, where units take along what they have."""
    training = problem.training
    return prunable(problem.model, training.which if training.pattern == "weights" else "all")


def train_masked(
    problem: Problem,
    dense: FitResult,
    kept: Kept,
    weight_keep: Fraction,
    name: str,
    start: Mapping[str, Tensor] | None = None,
) -> Found:
    """Train on the kept edges alone, the removed weights held at zero from the first forward pass to the last.

    Args:
        problem: the problem.
        dense: its dense run, the teacher.
        kept: edges and weights that stay.
        weight_keep: the fraction that ``kept.weights`` holds, exactly.
        name: of the checkpoint.
        start: weights to start from, by name; None: the initial ones, theta0.
    """
    student = problem.fresh_model()
    if start is not None:
        _load(student, start)
    projection = Projection(student, Fixed(kept.weights), which=list(pruned_in(problem)))
    projection.apply()
    task = problem.task.with_mask(kept.edges)
    result = problem.train(student, task, run_name(problem, name), distill=problem.teach(dense), callbacks=[projection])
    return Found(kept.edges, kept.weights, result)


def run_name(problem: Problem, name: str) -> str:
    """A name that may hold fractions, as a file's name; runs that make weights sparse in other ways have others."""
    return name.replace("/", "of") + mark_of(problem)


@torch.no_grad()
def _load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])
