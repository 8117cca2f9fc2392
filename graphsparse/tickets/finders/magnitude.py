"""One-shot magnitude pruning: the largest weights of the trained dense model, rewound to theta0."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from graphsparse.fit import FitResult
from graphsparse.params import project_mask
from graphsparse.tickets.finders.masked import Kept, chosen_weights, pruned_in, train_masked
from graphsparse.tickets.finders.sparse_weights import distribution_of
from graphsparse.tickets.finders.table import FINDERS, EdgesByScore
from graphsparse.tickets.problem import Found, Problem


@FINDERS.register("magnitude")
@dataclass(frozen=True)
class Magnitude(EdgesByScore):
    r"""Keep the weights that are largest in the trained dense model, rewind them to theta0, train once.

    .. math:: m = [\,|\theta_i^{dense}| \text{ is among the } k \text{ largest of all weights}\,], \qquad
        \theta \leftarrow train(m \odot \theta_0)

    Weights that are removed never return. A weight's size says nothing about edges: they are chosen by an edge score,
    at random by default, so that the method differs from ``random-weights`` in the weights alone; the metric
    ``edges_by`` names the score.

    Args:
        edges: name of the edge score.

    Source: one-shot pruning with the initial weights: Frankle & Carbin, "The lottery ticket hypothesis", ICLR 2019,
    section 2; the magnitude: Han et al., NeurIPS 2015.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="magnitude", edge_keep=0.6, weight_keep=0.5, epochs=2)
        >>> ticket.metrics["edges_by"], round(ticket.metrics["weights_kept"], 2)
        ('random', 0.5)
    """

    edges: str = "random"

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions."""
        trained = {name: dense.state[name] for name in pruned_in(problem)}
        if problem.training.pattern == "weights":
            weights = project_mask(trained, weight_keep, distribution_of(problem))
        else:
            weights = chosen_weights(problem, trained, weight_keep)
        kept = Kept(problem.edge_mask(self.edges, edge_keep), weights)
        found = train_masked(problem, dense, kept, weight_keep, f"magnitude-{self.edges}-{edge_keep}-{weight_keep}")
        return Found(found.edge_mask, found.weight_masks, found.result, {"edges_by": self.edges})
