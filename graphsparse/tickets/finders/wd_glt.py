"""WD-GLT: UGS whose edge mask also drives the classes' outputs apart, and whose weights bear a hostile edge mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from graphsparse.fit import NodeTask
from graphsparse.keep_rule import whole_number
from graphsparse.tickets.finders.masked import Kept
from graphsparse.tickets.finders.rounds import Course, Keeps
from graphsparse.tickets.finders.soft import Objective, SoftMasks
from graphsparse.tickets.finders.table import FINDERS
from graphsparse.tickets.finders.ugs import UGS, L1Penalty
from graphsparse.tickets.problem import Problem, check_number


def class_distance(
    outputs: Tensor, points: int, generator: torch.Generator, regularisation: float = 0.05, iterations: int = 100
) -> Tensor:
    r"""Sum over the classes of the Sinkhorn distance between the outputs of a class and those of the rest.

    .. math:: \sum_c W_\epsilon(Z_c, Z_{\bar c}), \qquad
        W_\epsilon = \sum_{ij} \pi_{ij} \|p_i - q_j\|_2^2, \qquad
        Z_c = \{p_v : \arg\max p_v = c\},\; p_v = \mathrm{softmax}(z_v)

    The plan :math:`\pi` comes from POT (Sinkhorn, :math:`\epsilon` = ``regularisation`` times the largest cost) and is
    a constant in the gradient. A class that nobody, or everybody, is predicted to have adds nothing.

    Args:
        outputs: logits ``[N, C]``; a single column stands for two classes.
        points: at most so many nodes of either side are compared, drawn from ``generator``.
        generator: of the sample, on the CPU.
        regularisation: of the entropy, relative to the largest cost.
        iterations: Sinkhorn's, at most.

    Source: Hui et al., ICLR 2023, equation 3; Cuturi, "Sinkhorn distances", NeurIPS 2013.

    Example:
        >>> apart = torch.tensor([[9.0, -9.0], [-9.0, 9.0]])
        >>> round(float(class_distance(apart, 10, torch.Generator())), 3)  # from (1, 0) to (0, 1), for each class
        4.0
    """
    import ot

    if outputs.size(1) == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    probabilities, total = outputs.softmax(1), outputs.new_zeros(())
    predicted = outputs.detach().argmax(1).cpu()
    for label in range(outputs.size(1)):
        sides = [(predicted == label).nonzero().view(-1), (predicted != label).nonzero().view(-1)]
        if not all(len(side) for side in sides):
            continue
        one, rest = (
            probabilities[side[torch.randperm(len(side), generator=generator)[:points]].to(outputs.device)]
            for side in sides
        )
        cost = (one[:, None] - rest[None]).square().sum(2)
        numbers = cost.detach().cpu().double().numpy()
        strength = regularisation * max(float(numbers.max()), 1e-12)
        plan = ot.sinkhorn([], [], numbers, strength, numItermax=iterations, stopThr=1e-6, warn=False)
        total = total + (torch.from_numpy(plan).to(cost) * cost).sum()
    return total


@dataclasses.dataclass(frozen=True)
class MinMax:
    """What WD-GLT minimises; see :class:`WDGLT` for the terms.

    Args:
        penalty: the l1 terms.
        distance: weight of the class distance in the edge mask's objective.
        attack: length of the adversary's step, root mean square over the edges.
        points: nodes of either side of a class that are compared.
    """

    penalty: L1Penalty
    distance: float
    attack: float
    points: int
    full_batch: bool = dataclasses.field(default=True, init=False, repr=False)

    def __call__(
        self, soft: SoftMasks, loss: Tensor, again: Callable[[], Tensor], generator: torch.Generator
    ) -> Tensor:
        """The weights' loss under the hostile mask, plus terms of value zero that carry the edge mask's gradient."""
        assert soft.outputs is not None
        distance = class_distance(soft.outputs, self.points, generator)
        edges = soft.edges
        (of_loss,) = torch.autograd.grad(loss, edges, retain_graph=True)
        of_distance = torch.zeros_like(edges)
        if distance.requires_grad:
            (of_distance,) = torch.autograd.grad(distance, edges)
        soft.forced = self.hostile(edges.detach(), of_loss)
        try:
            worst = again()
        finally:
            soft.forced = None
        gradient = of_loss - self.distance * of_distance
        return worst + ((edges - edges.detach()) * gradient).sum() + self.penalty.of(soft)

    def hostile(self, edges: Tensor, gradient: Tensor) -> Tensor:
        """The edge mask after one step of ascent, within [0, 1]: the adversary can only weaken edges."""
        size = gradient.square().mean().sqrt()
        step = self.attack * gradient / size if float(size) > 0 else torch.zeros_like(gradient)
        return (edges + step).clamp(0, 1)


@FINDERS.register("wd-glt")
@dataclasses.dataclass(frozen=True)
class WDGLT(UGS):
    r"""UGS with two remedies for very sparse graphs: a Wasserstein term on the edge mask, and a min-max.

    The edge mask descends on

    .. math:: L - \beta \sum_c W(Z_c, Z_{\bar c}) + \lambda_g \|m_g\|_1 ,

    where :math:`W` is the Sinkhorn distance between the output distributions of the nodes predicted to be of class c
    and of all others, so that every edge is involved and not only those near labelled nodes. The weights and their
    mask descend on the loss under the worst edge mask nearby,

    .. math:: \min_{\theta, m_\theta} \max_{\hat m_g} L(\{\hat m_g \odot A, X\}, m_\theta \odot \theta)
        + \lambda_\theta \|m_\theta\|_1 .

    The rounds are those of :class:`UGS`.

    Readings of ours: the cost between two nodes is the squared Euclidean distance of their softmax outputs; the
    transport plan is a constant in the gradient; at most ``points`` nodes a side are compared, drawn anew in every
    step; the inner maximum is one ascent step of root mean square ``attack``, clipped to [0, 1], and its second-order
    effect on the weights is left out; beta and the attack's length are our choices.

    Args:
        edge_step, weight_step, edge_penalty, weight_penalty: as in :class:`UGS`.
        distance: :math:`\beta`.
        attack: length of the adversary's step; 0 leaves the min-max out, at the cost of nothing but time.
        points: nodes of either side of a class that are compared.

    Raises:
        ValueError: as :class:`UGS`; when called, for a task without classes of nodes or a task of mini-batches.

    Source: Hui, Yan, Ma, Ku, "Rethinking graph lottery tickets: graph sparsity matters", ICLR 2023, section 3.
    """

    distance: float = 0.1
    attack: float = 0.1
    points: int = 256

    @property
    def objective(self) -> Objective:
        """What a round minimises."""
        return MinMax(L1Penalty(self.edge_penalty, self.weight_penalty), self.distance, self.attack, self.points)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.distance, "distance", "the weight of a term")
        check_number(self.attack, "attack", "the length of a step")
        if whole_number(self.points, "points") < 1:
            raise ValueError(f"points must be at least 1, got {self.points}")

    def check(self, problem: Problem) -> None:
        """As in :class:`UGS`, once it is sure that nodes have classes.

        Raises:
            ValueError: as said above.
        """
        _check_classes(problem)
        super().check(problem)

    def prune(self, course: Course, name: str, kept: Kept, before: Keeps, target: Keeps) -> Kept:
        """Learn the masks of one round and cut the lowest."""
        _check_classes(course.problem)
        return super().prune(course, name, kept, before, target)


def _check_classes(problem: Problem) -> None:
    task = problem.task
    if not isinstance(task, NodeTask) or task.custom_loss is not None or task.outputs == "labels":
        how = "" if not isinstance(task, NodeTask) else " with a loss of its own"
        how = " of several labels a node" if task.outputs == "labels" and how else how
        raise ValueError(
            "wd-glt compares the outputs of nodes by their predicted class: it needs a node classification "
            f"task, not {type(task).__name__}{how}"
        )
