"""TEDDY: edges pruned once by a score, weights projected onto the l0 ball, outputs distilled from the dense model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from torch import Tensor

from graphsparse.fit import FitResult
from graphsparse.params import L0Projection, Projection, project_mask, prunable
from graphsparse.tickets.finders.masked import run_name
from graphsparse.tickets.finders.sparse_weights import distribution_of, train_by_method
from graphsparse.tickets.finders.table import FINDERS, EdgesByScore
from graphsparse.tickets.problem import Found, Problem
from graphsparse.tickets.units import units_pattern
from graphsparse.tickets.weights import L0


class OneShot(EdgesByScore):
    r"""Prune the edges once by a score, then train the sparse model from theta0 on what is left.

    The sparse model minimises cross-entropy on the training nodes plus
    :math:`\lambda\,\mathrm{KL}(\mathrm{softmax}(teacher) \,\|\, \mathrm{softmax}(student))`, averaged over the nodes;
    after every optimizer step its weights are projected onto the l0 ball, so that pruned weights may revive.

    Source: Seo, Yun, Yang, "TEDDY: Trimming Edges with Degree-based Discrimination strategY", ICLR 2024, algorithm 1.

    Args:
        score: name of the edge score: ``"teddy"`` is the paper's, ``"random"`` the control; or a function from an
            `graphsparse.graphs.interop.EdgeList` to scores ``[E]``, higher = keep.
    """

    any_weights = True

    def __init__(self, score: str | Callable[..., Tensor] = "teddy") -> None:
        self.edges = score

    @property
    def score(self) -> str | Callable[..., Tensor]:
        """The name of a score, or a function of scores."""
        return self.edges

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions."""
        score, edge_mask = self.edges, problem.edge_mask(self.edges, edge_keep)
        name = score if isinstance(score, str) else getattr(score, "__name__", type(score).__name__)
        return train_sparse(problem, dense, edge_mask, weight_keep, f"{name}-{edge_keep}-{weight_keep}")


FINDERS.register("teddy", OneShot("teddy"))
FINDERS.register("random", OneShot("random"))


def train_sparse(problem: Problem, dense: FitResult, edge_mask: Tensor, weight_keep: Fraction, name: str) -> Found:
    """Train from theta0 on the edges of ``edge_mask`` with the fraction ``weight_keep`` of the weights.

    They are projected after every step, or kept sparse by another method, see `Training`.
    """
    if problem.training.pattern == "units":
        return _train_units(problem, dense, edge_mask, weight_keep, name)
    if problem.training.weights != L0:
        return train_by_method(problem, dense, edge_mask, weight_keep, run_name(problem, name))
    student = problem.fresh_model()
    which, distribution = problem.training.which, distribution_of(problem)
    projection = L0Projection(student, sparsity=1 - weight_keep, which=which, distribution=distribution)
    task = problem.task.with_mask(edge_mask)
    result = problem.train(student, task, run_name(problem, name), distill=problem.teach(dense), callbacks=[projection])
    best = {key: result.state[key] for key in prunable(student, which)}
    return Found(edge_mask, project_mask(best, weight_keep, distribution), result)


def _train_units(problem: Problem, dense: FitResult, edge_mask: Tensor, weight_keep: Fraction, name: str) -> Found:
    """The same with whole units. What rests of a unit that is out goes at the end, and changes no output."""
    student, pattern = problem.fresh_model(), units_pattern(problem, weight_keep)
    task, projection = problem.task.with_mask(edge_mask), Projection(student, pattern)
    result = problem.train(student, task, run_name(problem, name), distill=problem.teach(dense), callbacks=[projection])
    masks = pattern.units.masks(pattern.units_in({key: result.state[key] for key in pattern.units.shapes}))
    state = {k: v if k not in masks else v.masked_fill(~masks[k], 0) for k, v in result.state.items()}
    return Found(edge_mask, masks, replace(result, state=state))
