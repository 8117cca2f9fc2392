"""UGS: masks on edges and weights that are trained with the weights, and the lowest dropped in rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from graphsparse.fit.rng import generator_for
from graphsparse.tickets.finders.masked import Kept, chosen_weights
from graphsparse.tickets.finders.pairs import RemainingPairs
from graphsparse.tickets.finders.rounds import Course, Iterative, Keeps
from graphsparse.tickets.finders.soft import MaskAdam, MaskTask, Objective, SoftMasks, check_reached
from graphsparse.tickets.finders.table import EDGE_RULES, FINDERS
from graphsparse.tickets.problem import Problem, check_number

NOISE = 1e-5


@dataclasses.dataclass(frozen=True)
class L1Penalty:
    r"""The task's loss plus :math:`\lambda_g \|m_g\|_1 + \lambda_\theta \|m_\theta\|_1`.

    Its gradient adds :math:`\lambda\,\mathrm{sign}(m)` to that of each mask, and nothing at zero.

    Args:
        edges: :math:`\lambda_g`.
        weights: :math:`\lambda_\theta`.
    """

    edges: float
    weights: float
    full_batch: bool = dataclasses.field(default=False, init=False, repr=False)

    def __call__(
        self, soft: SoftMasks, loss: Tensor, again: Callable[[], Tensor], generator: torch.Generator
    ) -> Tensor:
        """What is differentiated."""
        return loss + self.of(soft)

    def of(self, soft: SoftMasks) -> Tensor:
        """The penalty alone."""
        weights = sum((mask.abs().sum() for mask in soft.weight_masks.values()), soft.edges.new_zeros(()))
        return self.edges * soft.edges.abs().sum() + self.weights * weights


@FINDERS.register("ugs")
@dataclasses.dataclass(frozen=True)
class UGS(Iterative):
    r"""Train masks on edges and weights together with the weights, drop the lowest, rewind to theta0, repeat.

    In each round the weights, an edge mask :math:`m_g` (one number for each undirected pair, none for self-loops) and
    a weight mask :math:`m_\theta` are trained from theta0 and from masks :math:`1 + 10^{-5} u`, :math:`u` uniform, on

    .. math:: L(\{m_g \odot A, X\}, m_\theta \odot \theta) + \lambda_g \|m_g\|_1 + \lambda_\theta \|m_\theta\|_1 .

    At the best validation epoch the shares ``edge_step`` of the edges and ``weight_step`` of the weights with the
    lowest magnitude are dropped for good, and everything else is rewound. The ticket is then trained from theta0 on
    what is left: dropped edges are absent and the graph is normalised anew. :math:`L` is the problem's loss with its
    distillation; ``distill=0`` is the paper's.

    Readings of ours: a soft mask scales an edge's messages (PyG's ``set_masks``), after normalisation or attention;
    weight decay is not applied to the masks; edges that training never sees (those of test nodes in an inductive task)
    have no mask, and as many in proportion are dropped of them, at random. ``guard`` and ``forest`` are obeyed in every
    round; the options of a score have no say.

    Args:
        edge_step: share of the remaining edges that a round drops.
        weight_step: share of the remaining weights that a round drops; the paper's 0.2, TEDDY's comparison 0.1.
        edge_penalty: :math:`\lambda_g`.
        weight_penalty: :math:`\lambda_\theta`.

    Raises:
        ValueError: if a step lies outside (0, 1) or a penalty is negative; when called, if no edge mask can reach the
            model's messages, or the task calls the model with other graphs than the one to be sparsified.

    Source: Chen, Sui, Chen, Zhang, Wang, "A unified lottery ticket hypothesis for graph neural networks", ICML 2021,
    equation 2 and algorithms 1 and 2.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="ugs", edge_keep=0.9, weight_keep=0.9, epochs=2)
        >>> round(ticket.metrics["edges_kept"], 3), round(ticket.metrics["weights_kept"], 3)
        (0.9, 0.9)
    """

    whole_graph: ClassVar[bool] = True  # a mask of every edge is learned in every step

    edge_penalty: float = 1e-4
    weight_penalty: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.edge_penalty, "edge_penalty", "the weight of a penalty")
        check_number(self.weight_penalty, "weight_penalty", "the weight of a penalty")

    @property
    def takes(self) -> tuple[str, ...]:
        """What it may be told of its edges: no score's options, since no score chooses them."""
        return EDGE_RULES

    @property
    def objective(self) -> Objective:
        """What a round minimises."""
        return L1Penalty(self.edge_penalty, self.weight_penalty)

    def check(self, problem: Problem) -> None:
        """Take one step with soft masks, so that a model whose messages no mask fits is told before it is trained.

        Raises:
            ValueError: as said above.
        """
        pairs = RemainingPairs(problem, torch.ones(problem.data.edge_index.size(1), dtype=torch.bool))
        soft = SoftMasks(problem.fresh_model(), {}, pairs.start(NOISE), pairs.graphs())
        check_reached(problem, soft, MaskTask(problem.task.with_positions(pairs.order), soft, self.objective))

    def prune(self, course: Course, name: str, kept: Kept, before: Keeps, target: Keeps) -> Kept:
        """Learn the masks of one round and cut the lowest."""
        problem = course.problem
        pairs = RemainingPairs(problem, kept.edges)
        noise = generator_for("weight masks", problem.seed)
        weights = {
            key: mask * (1 + NOISE * torch.rand(mask.shape, generator=noise)) for key, mask in kept.weights.items()
        }
        soft = SoftMasks(problem.fresh_model(), weights, pairs.start(NOISE), pairs.graphs())
        task = MaskTask(problem.task.with_positions(pairs.order), soft, self.objective)
        result = problem.train(soft, task, name, distill=problem.teach(course.dense), optimizer=MaskAdam(soft))
        magnitudes = {key: mask.detach().cpu().abs() for key, mask in soft.weight_masks.items()}
        edges = pairs.cut(soft.edges.detach().cpu().abs(), target[0])
        return Kept(edges, chosen_weights(problem, magnitudes, target[1], kept.weights), result.seconds)
