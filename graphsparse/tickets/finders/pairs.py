"""The edges that are left, counted as pairs: what learned edge masks belong to, and how they are cut."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.keep import mask_edges
from graphsparse.edges.units import find_units
from graphsparse.fit.graph_call import GraphCall, by_target
from graphsparse.graphs.interop import EdgeList, open_graph
from graphsparse.keep_rule import kept_count, mix64
from graphsparse.tickets.finders.soft import MaskedGraph
from graphsparse.tickets.problem import Problem


class RemainingPairs:
    """The countable edges that a round still has: pairs of an undirected graph, arcs of a directed one, never loops.

    Args:
        problem: whose graph it is.
        kept: bool ``[E]``, the edges that are left, self-loops among them.

    Attributes:
        edge_index: the arcs that are left ``[2, E']``, in the caller's order, self-loops last.
        learned: for each unit whether training ever sees it: not so, in an inductive task, if an end is a test node.

    Raises:
        ValueError: for a task on many graphs.
    """

    def __init__(self, problem: Problem, kept: Tensor) -> None:
        if getattr(problem.task, "graph_of", None) is not None:
            raise ValueError("learned edge masks need a task on one graph: test graphs have edges that no mask was for")
        whole = open_graph(problem.data).edges
        self.problem, self.kept, self.total = problem, kept, whole.num_countable
        left = kept.nonzero().view(-1)
        loops = whole.edge_index[0][left] == whole.edge_index[1][left]
        self.order = torch.cat([left[~loops], left[loops]])
        self.edge_index = whole.edge_index[:, self.order]
        # what counts is what counted in the dense graph: a few arcs of a directed one may happen to be mirrored
        self.graph = EdgeList(self.edge_index, whole.num_nodes, whole.undirected, whole.mirrored)
        self.units = find_units(self.graph, torch.zeros(self.edge_index.size(1)), problem.seed)
        inside = problem.task.seen_in_training.cpu()
        self.learned = inside[torch.from_numpy(self.units.low)] & inside[torch.from_numpy(self.units.high)]
        self._inside = inside

    def start(self, noise: float) -> Tensor:
        """Initial masks ``[learned]``: one plus ``noise`` times a uniform number hashed from the pair's own name."""
        keys = mix64(self.problem.seed, self.units.keys)
        uniform = torch.from_numpy(keys.astype(np.float64) / 2.0**64).float()
        return (1 + noise * uniform)[self.learned]

    def graphs(self) -> list[MaskedGraph]:
        """The graphs that the task calls the model with: the whole one, and the training graph of an inductive task."""
        number = torch.where(self.learned, self.learned.long().cumsum(0) - 1, -1)
        unit = torch.full((self.edge_index.size(1),), -1)
        for positions in self.units.arcs:
            unit[torch.from_numpy(positions)] = number
        graphs = [self._masked(self.edge_index, unit)]
        if not bool(self._inside.all()):
            training = self.problem.task.with_positions(self.order).training_edge_index.cpu()
            tails, heads = self.edge_index
            graphs.append(self._masked(training, unit[self._inside[tails] & self._inside[heads]]))
        return graphs

    def _masked(self, edge_index: Tensor, unit: Tensor) -> MaskedGraph:
        """A graph in the order in which the model gets its arcs."""
        if not GraphCall(self.problem.model).sorts:
            return MaskedGraph(edge_index, unit)
        order = by_target(edge_index)
        return MaskedGraph(edge_index[:, order], unit[order])

    def cut(self, masks: Tensor, keep: Fraction) -> Tensor:
        """The caller's edges ``[E]`` that stay: of all edges the fraction ``keep``, exactly, by the highest ``masks``.

        Args:
            masks: magnitude of each learned unit's mask, in the order of `start`; not changed.
            keep: fraction of the dense graph's edges.
        """
        left, count = len(self.units.keys), kept_count(keep, self.total)
        if count >= left:
            return self.kept.clone()
        scores = torch.zeros(self.edge_index.size(1), dtype=torch.float64)
        of_units = self._scores(masks.double())
        for positions in self.units.arcs:
            scores[torch.from_numpy(positions)] = of_units
        stays = mask_edges(self.graph, scores, keep=Fraction(count, left), seed=self.problem.seed, **self._rules())
        result = self.kept.clone()
        result[self.order[~stays]] = False
        return result

    def _scores(self, masks: Tensor) -> Tensor:
        """A score for each unit; where some have no mask, ranks within both kinds, at random where nothing is known."""
        if bool(self.learned.all()):
            return masks
        scores = torch.empty(len(self.learned), dtype=torch.float64)
        scores[self.learned] = _ranks(masks)
        keys = mix64(self.problem.seed + 1, self.units.keys).astype(np.float64)
        scores[~self.learned] = _ranks(torch.from_numpy(keys)[~self.learned])
        return scores

    def _rules(self) -> dict[str, Any]:
        return {name: value for name, value in self.problem.edge_options.items() if name in ("guard", "forest")}


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value among its own kind, in (0, 1)."""
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[values.argsort(stable=True)] = (torch.arange(len(values), dtype=torch.float64) + 0.5) / max(len(values), 1)
    return ranks
