"""Random weights: the control that tells what a choice of weights is worth."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from graphsparse.fit import FitResult
from graphsparse.fit.rng import generator_for
from graphsparse.tickets.finders.masked import Kept, chosen_weights, pruned_in, train_masked
from graphsparse.tickets.finders.table import FINDERS, EdgesByScore
from graphsparse.tickets.problem import Found, Problem


@FINDERS.register("random-weights")
@dataclass(frozen=True)
class RandomWeights(EdgesByScore):
    """Keep weights at random, over all tensors together, and train them from theta0; removed ones never return.

    The edges are chosen at random, too, by default: this is "random pruning" of edges and weights. (The method
    ``random`` draws the edges alone and lets the weights compete, as TEDDY does.)

    Args:
        edges: name of the edge score; the metric ``edges_by`` names it.

    Source: the control of Frankle & Carbin, ICLR 2019, and of Chen et al., ICML 2021.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="random-weights", edge_keep=0.6, weight_keep=0.5, epochs=2)
        >>> round(ticket.metrics["edges_kept"], 2), round(ticket.metrics["weights_kept"], 2)
        (0.6, 0.5)
    """

    edges: str = "random"

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Draw the ticket that keeps exactly these fractions; the seed is the problem's."""
        generator = generator_for("random-weights", problem.seed)
        parameters = pruned_in(problem)
        scores = {name: torch.rand(value.shape, generator=generator) for name, value in parameters.items()}
        weights = chosen_weights(problem, scores, weight_keep)
        kept = Kept(problem.edge_mask(self.edges, edge_keep), weights)
        name = f"random-weights-{self.edges}-{edge_keep}-{weight_keep}"
        found = train_masked(problem, dense, kept, weight_keep, name)
        return Found(found.edge_mask, found.weight_masks, found.result, {"edges_by": self.edges})
