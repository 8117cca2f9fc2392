"""Reliance: edges go to the nodes whose dense output leans on them, along neighbours that the dense model agrees on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from graphsparse.edges.allot import mask_by_need
from graphsparse.fit import FitResult
from graphsparse.interop import open_graph
from graphsparse.tickets.masked import file_name
from graphsparse.tickets.problem import Found, Problem
from graphsparse.tickets.teddy import train_sparse


@dataclass(frozen=True)
class Reliance:
    r"""Choose the edges once, by what the trained dense model loses without them, then train as TEDDY does.

    Let :math:`p_u` be the dense model's output at node u and :math:`q_u` the same model's without any edge. A node
    relies on its edges by :math:`r_u = KL(p_u \,\|\, q_u)`; an edge helps both its ends by their agreement
    :math:`a_{uv} = \sum_c p_u(c)\, p_v(c)`, the chance that two classes drawn from the two outputs are equal. Kept are
    the edges that greedily maximise

    .. math:: \sum_u (r_u + 10^{-3}) \log\Bigl(0.05 + \sum_{v \in N_{kept}(u)} a_{uv}\Bigr)

    under the exact count, see :func:`graphsparse.edges.allot.mask_by_need`. So a node that needs no neighbour keeps
    none, and one that needs some keeps first the neighbour that says what the dense model says. No label is read, of
    test nodes or others; the dense model's outputs on the whole graph are, the test nodes among them, as an engineer
    who sparsifies a graph for a trained model has them.

    Where tasks predict links or graphs, :math:`p_u` is the last state of a node:
    :math:`r_u = |p_u - q_u|^2 / (|p_u|^2 + |q_u|^2)` and :math:`a_{uv} = (1 + \cos(p_u, p_v)) / 2`.

    Source: ours.

    Args:
        floor: the need of a node that relies on nothing, not negative.
        first: how little a node's first edge is discounted: the logarithm's offset, above 0.

    Raises:
        ValueError: when called on a problem with a guard, a forest or score options: they belong to scores.
    """

    floor: float = 1e-3
    first: float = 0.05

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions."""
        given = [name for name, value in problem.edge_options.items() if value]
        if given:
            raise ValueError(f"reliance chooses edges by a rule of its own and takes no {given[0]}")
        need, agreement = _reliance(problem, dense)
        edge_mask = mask_by_need(
            open_graph(problem.data).edges,
            need + self.floor,
            agreement,
            keep=edge_keep,
            first=self.first,
            batch=problem.task.graph_of,
            seed=problem.seed,
        )
        return train_sparse(problem, dense, edge_mask, weight_keep, file_name(f"reliance-{edge_keep}-{weight_keep}"))


def _reliance(problem: Problem, dense: FitResult) -> tuple[Tensor, Tensor]:
    """How much each node relies on its edges [N], and how much the two ends of each arc agree [E]."""
    task, model = problem.task, problem.trained_model(dense)
    tails, heads = problem.data.edge_index
    with_edges = task.node_outputs(model)
    without = task.with_mask(tails == heads).node_outputs(model)
    if task.kind == "node":
        p, q = (_log_chances(outputs.double()) for outputs in (with_edges, without))
        need = (p.exp() * (p - q)).sum(dim=1)
        agreement = (p.exp()[tails] * p.exp()[heads]).sum(dim=1)
    else:
        p, q = with_edges.double(), without.double()
        size = p.square().sum(dim=1) + q.square().sum(dim=1)
        need = (p - q).square().sum(dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
        agreement = (1 + functional.cosine_similarity(p[tails], p[heads])) / 2
    return need.clamp_min(0), agreement.clamp_min(0)


def _log_chances(logits: Tensor) -> Tensor:
    """Logarithms of the classes' probabilities [N, C]; a single logit is that of the second of two classes."""
    if logits.size(1) == 1:
        return torch.cat([functional.logsigmoid(-logits), functional.logsigmoid(logits)], dim=1)
    return logits.log_softmax(dim=1)
