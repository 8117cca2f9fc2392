"""One shot with denoising: edges and weights cut at once, then a few of them exchanged by gradient on a schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.fit import FitResult
from graphsparse.keep_rule import whole_number
from graphsparse.params import plain_distribution
from graphsparse.step_hooks import after_steps, before_steps
from graphsparse.tickets.finders.masked import Kept, train_masked
from graphsparse.tickets.finders.pairs import RemainingPairs
from graphsparse.tickets.finders.rounds import Course
from graphsparse.tickets.finders.soft import MaskAdam, SoftMasks
from graphsparse.tickets.finders.sparse_weights import distribution_of
from graphsparse.tickets.finders.table import FINDERS
from graphsparse.tickets.finders.ugs import UGS
from graphsparse.tickets.problem import Found, Problem, check_number, unguarded


@FINDERS.register("denoise")
@unguarded
@dataclasses.dataclass(frozen=True)
class Denoise:
    r"""Cut edges and weights once by learned masks, then repair the cut while a sparse model trains.

    *One shot.* Masks of edges and weights are trained on the dense graph as in one round of `UGS`, and the lowest are
    cut to the counts that were asked for, all at once. What one cut of many takes is noisy.

    *Denoising.* From theta0 the sparse model trains on. Every ``interval`` steps until the share ``until`` of the run,
    a share of what is left, of edges and of weights alike, is exchanged: out go those of the smallest magnitude
    (:math:`|m_g|` of an edge, :math:`|\theta|` of a weight), in come as many of those that were cut, where the loss has
    the largest gradient :math:`|\partial L / \partial m_g|`, :math:`|\partial L / \partial \theta|`. The share falls as

    .. math:: \zeta(t) = \tfrac{1}{2}\,\zeta_0\,(1 + \cos(\pi t / T)) .

    A weight comes in as zero, an edge as one; counts never change. The masks at the end are the ticket's, which is
    trained from theta0 under them on the sparse graph, dropped edges absent and the graph normalised anew.

    Written from the paper's description, not from its code; its exact scores and schedule were not at hand. Ours: the
    masks of the one shot are those of UGS; the share falls by a cosine and exchanges edges and weights by the same
    rule; while denoising an edge that is out sends nothing, but normalisation counts it still; the ticket is retrained.
    Edges that training never sees (those of test nodes in an inductive task) have no gradient; as many in proportion
    are kept of them, at random.

    Source: Yue, Zhang, Yang, Cheng, "Fast track to winning tickets: repowering one-shot pruning for graph neural
    networks" (FastGLT), arXiv 2412.07605; growing by gradient: Evci et al., "Rigging the lottery", ICML 2020.

    Args:
        interval: optimizer steps between two exchanges, at least 1.
        share: :math:`\zeta_0`, in (0, 1].
        until: share of the epochs after which nothing is exchanged, in (0, 1].
        edge_penalty: the l1 penalty of the edge masks in the one shot.
        weight_penalty: that of the weight masks.

    Raises:
        ValueError: for an option out of range; when called, what `UGS` raises.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="denoise", edge_keep=0.6, weight_keep=0.5, epochs=2)
        >>> round(ticket.metrics["edges_kept"], 2), round(ticket.metrics["weights_kept"], 2)
        (0.6, 0.5)
    """

    whole_graph: ClassVar[bool] = True  # a mask of every edge is learned in every step

    interval: int = 10
    share: float = 0.1
    until: float = 0.75
    edge_penalty: float = 1e-4
    weight_penalty: float = 1e-4

    def __post_init__(self) -> None:
        whole_number(self.interval, "interval", least=1)
        for name in ("share", "until"):
            check_number(getattr(self, name), name, "a share", above=0)
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        for name in ("edge_penalty", "weight_penalty"):
            check_number(getattr(self, name), name, "the weight of a penalty")

    @property
    def one_shot(self) -> UGS:
        """Whose masks are cut."""
        return UGS(edge_penalty=self.edge_penalty, weight_penalty=self.weight_penalty)

    def check(self, problem: Problem) -> None:
        """Raise a ValueError for a pattern of weights that an exchange of single ones would break; and as `UGS`."""
        if problem.training.pattern != "weights":
            pattern = problem.training.pattern
            raise ValueError(f"denoise exchanges weights one by one, which pattern={pattern!r} does not allow")
        self.one_shot.check(problem)

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions."""
        cut = self.one_shot
        course, whole, target = Course(cut, problem, dense), (Fraction(1), Fraction(1)), (edge_keep, weight_keep)
        stamp = f"denoise-{course.stamp}"
        noisy = cut.prune(course, f"{stamp}-one-shot", cut.start(course), whole, target)
        stamp += f"-{self.interval}-{self.share:g}-{self.until:g}-{edge_keep}-{weight_keep}".replace("/", "of")
        kept = self._denoised(problem, dense, noisy, f"{stamp}-exchange")
        found = train_masked(problem, dense, kept, weight_keep, stamp)
        return dataclasses.replace(found, seconds=kept.seconds + found.result.seconds)

    def _denoised(self, problem: Problem, dense: FitResult, noisy: Kept, name: str) -> Kept:
        """The edges and weights after the exchanges; ``seconds`` are those of both runs."""
        pairs = RemainingPairs(problem, torch.ones_like(noisy.edges))
        arcs = [pairs.order[torch.from_numpy(positions)][pairs.learned] for positions in pairs.units.arcs]
        alive = noisy.edges[arcs[0]]
        soft = SoftMasks(problem.fresh_model(), {}, alive.float(), pairs.graphs())
        weights = [soft.model.get_parameter(key) for key in noisy.weights]
        masks = [mask.clone() for mask in noisy.weights.values()]
        pools = [Pool([soft.edges], [alive], revived=1.0)]
        if plain_distribution(distribution_of(problem)) == "global":
            pools += [Pool(weights, masks, revived=0.0)]
        else:  # each tensor keeps as many as the distribution gave it
            pools += [Pool([weight], [mask], revived=0.0) for weight, mask in zip(weights, masks, strict=True)]
        steps = math.ceil(self.until * problem.training.epochs)
        exchange = Exchange(pools, self.interval, self.share, steps)
        exchange.clear()
        task = problem.task.with_positions(pairs.order)
        result = problem.train(
            soft, task, name, distill=problem.teach(dense), optimizer=MaskAdam(soft), callbacks=[exchange]
        )
        edges = noisy.edges.clone()
        for positions in arcs:
            edges[positions] = pools[0].alive[0].cpu()
        left = [mask.cpu() for pool in pools[1:] for mask in pool.alive]
        return Kept(edges, dict(zip(noisy.weights, left, strict=True)), noisy.seconds + result.seconds)


class Pool:
    """Tensors whose elements compete for a fixed number of places.

    Args:
        values: the tensors.
        alive: bool mask of each, of its shape: the elements that have a place.
        revived: the value of an element that gets one.

    Example:
        >>> weight = nn.Parameter(torch.tensor([3.0, 1.0, 0.0, 0.0]))
        >>> pool = Pool([weight], [torch.tensor([True, True, False, False])], revived=0.0)
        >>> weight.grad = torch.tensor([0.0, 0.0, 1.0, -2.0])
        >>> pool.exchange(0.5)
        >>> pool.alive[0].tolist(), weight.tolist()
        ([True, False, False, True], [3.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, values: Sequence[nn.Parameter], alive: Sequence[Tensor], revived: float) -> None:
        self.values, self.alive, self.revived = list(values), list(alive), revived

    @torch.no_grad()
    def exchange(self, share: float) -> None:
        """Give the places of the share of smallest magnitude to those without one that have the largest gradient."""
        alive = _flat(self.alive)
        count = min(int(share * int(alive.sum())), int((~alive).sum()))
        if count == 0:
            return
        magnitude = _flat([value.abs() for value in self.values]).double()
        gradient = _flat([_gradient(value).abs() for value in self.values]).double()
        out = magnitude.masked_fill(~alive, torch.inf).argsort(stable=True)[:count]
        come = gradient.masked_fill(alive, -torch.inf).argsort(stable=True, descending=True)[:count]
        alive[out], alive[come] = False, True
        new = torch.zeros_like(alive)
        new[come] = True
        sizes = [value.numel() for value in self.values]
        for value, fresh in zip(self.values, torch.split(new, sizes), strict=True):
            value.masked_fill_(fresh.view(value.shape).to(value.device), self.revived)
        parts = zip(self.values, torch.split(alive, sizes), strict=True)
        self.alive = [mask.view(value.shape).to(value.device) for value, mask in parts]
        self.clear()

    @torch.no_grad()
    def clear(self) -> None:
        """Zero whatever has no place."""
        for value, mask in zip(self.values, self.alive, strict=True):
            value.masked_fill_(~mask.to(value.device), 0)

    @torch.no_grad()
    def clear_memory(self, optimizer: Optimizer) -> None:
        """Zero the gradients of what has no place, and what the optimizer remembers of it."""
        for value, mask in zip(self.values, self.alive, strict=True):
            gone = ~mask.to(value.device)
            remembered = optimizer.state.get(value, {}).values()
            for kept in [value.grad, *remembered]:
                if isinstance(kept, Tensor) and kept.shape == value.shape and value.dim():
                    kept.masked_fill_(gone, 0)


class Exchange:
    """Denoising as a callback of `graphsparse.fit.fit`: before some steps places are exchanged, after all kept empty.

    Args:
        pools: each exchanges among its own.
        interval: steps between two exchanges.
        share: of the places, at first.
        steps: after so many steps nothing is exchanged.
    """

    def __init__(self, pools: Sequence[Pool], interval: int, share: float, steps: int) -> None:
        self.pools, self.interval, self.share, self.steps = pools, interval, share, steps
        self.step = 0
        self._handles: list[RemovableHandle] = []

    def share_at(self, step: int) -> float:
        """The share that is exchanged before a step.

        Example:
            >>> [round(Exchange([], 10, 0.2, 100).share_at(step), 3) for step in (0, 50, 100)]
            [0.2, 0.1, 0.0]
        """
        return self.share / 2 * (1 + math.cos(math.pi * step / self.steps))

    def clear(self) -> None:
        """Zero whatever has no place."""
        for pool in self.pools:
            pool.clear()

    def attach(self, optimizer: Optimizer) -> None:
        """Act before and after the optimizer's steps."""
        self._handles = [
            before_steps(optimizer, self._before_step),
            after_steps(optimizer, self._after_step),
        ]

    def detach(self) -> None:
        """Stop."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """The schedule, the step and who has a place."""
        schedule = {"interval": self.interval, "share": self.share, "steps": self.steps}
        return {**schedule, "step": self.step, "alive": [[*pool.alive] for pool in self.pools]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.step = int(state["step"])
        for pool, alive in zip(self.pools, state["alive"], strict=True):
            pool.alive = [mask.to(value.device) for mask, value in zip(alive, pool.values, strict=True)]

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.step += 1
        for pool in self.pools:
            if self.step % self.interval == 0 and self.step <= self.steps:
                pool.exchange(self.share_at(self.step))
            pool.clear_memory(optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.clear()


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).cpu() for tensor in tensors])


def _gradient(value: nn.Parameter) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad
