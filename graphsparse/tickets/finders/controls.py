"""Controls that give up a size: no edges, all edges, and the dense student; they tell what distillation alone does.

They alone may ignore what they were asked to keep, and say so in `Found.ignores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from graphsparse.fit import FitResult
from graphsparse.params import prunable
from graphsparse.tickets.finders.one_shot import train_sparse
from graphsparse.tickets.finders.table import FINDERS
from graphsparse.tickets.problem import Found, Problem, unguarded

IGNORED: Mapping[str, tuple[str, ...]] = {
    "no-edges": ("edge_keep",),
    "all-edges": ("edge_keep",),
    "dense-student": ("edge_keep", "weight_keep"),
}


@FINDERS.register("no-edges")
@unguarded
def no_edges(problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
    """Drop every edge but the self-loops: with distillation, an MLP that imitates the dense model.

    What remains of a message-passing layer without edges is a linear map of each node. The weights are those of
    TEDDY. The edge keep has no say: the metric ``ignores`` is ``"edge_keep"``, and ``edges_kept`` is 0.

    Source: the MLP student: Zhang et al., "Graph-less neural networks", ICLR 2022.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="no-edges", weight_keep=0.5, epochs=2)
        >>> ticket.metrics["edges_kept"], ticket.metrics["ignores"]
        (0.0, 'edge_keep')
    """
    found = train_sparse(problem, dense, _loops(problem), weight_keep, f"no-edges-{weight_keep}")
    return replace(found, ignores=IGNORED["no-edges"])


no_edges.any_weights = True  # type: ignore[attr-defined]
no_edges.check = lambda problem: problem.check_without_edges("no-edges")  # type: ignore[attr-defined]


@FINDERS.register("all-edges")
@unguarded
def all_edges(problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
    """Keep every edge and make the weights sparse as TEDDY does: what the sparse weights alone cost.

    The metric ``ignores`` is ``"edge_keep"``, and ``edges_kept`` is 1.
    """
    everything = torch.ones_like(_loops(problem))
    found = train_sparse(problem, dense, everything, weight_keep, f"all-edges-{weight_keep}")
    return replace(found, ignores=IGNORED["all-edges"])


all_edges.any_weights = True  # type: ignore[attr-defined]


@FINDERS.register("dense-student")
@unguarded
def dense_student(problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
    """Keep every edge and every weight: what distillation gives the dense model itself (born-again training).

    The metric ``ignores`` is ``"edge_keep, weight_keep"``; both kept fractions are 1.

    It is the same at every keep, so it is trained once and remembered for the next call on the problem.

    Source: Furlanello et al., "Born again neural networks", ICML 2018.
    """
    if "dense-student" not in problem.memory:
        problem.memory["dense-student"] = _dense_student(problem, dense)
    found: Found = problem.memory["dense-student"]
    return found


def _dense_student(problem: Problem, dense: FitResult) -> Found:
    student = problem.fresh_model()
    weights = {
        name: torch.ones_like(value, dtype=torch.bool).cpu()
        for name, value in prunable(student, problem.training.which).items()
    }
    result = problem.train(student, problem.task, "dense-student", distill=problem.teach(dense))
    return Found(torch.ones_like(_loops(problem)), weights, result, ignores=IGNORED["dense-student"])


def _loops(problem: Problem) -> Tensor:
    edge_index: Tensor = problem.data.edge_index
    return edge_index[0] == edge_index[1]
