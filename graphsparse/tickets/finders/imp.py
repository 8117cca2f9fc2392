"""IMP: iterative magnitude pruning, with the weights rewound after every round."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.fit import FitResult
from graphsparse.fit.relus import dead_relus
from graphsparse.keep_rule import kept_count, whole_number
from graphsparse.params import plain_distribution, prunable
from graphsparse.params.counting import is_matrix
from graphsparse.registry import one_of
from graphsparse.step_hooks import after_steps
from graphsparse.tickets.finders.masked import Kept, chosen_weights, train_masked
from graphsparse.tickets.finders.rounds import Course, Iterative, Keeps
from graphsparse.tickets.finders.sparse_weights import distribution_of
from graphsparse.tickets.finders.table import FINDERS, EdgesByScore
from graphsparse.tickets.problem import Found, Problem


@FINDERS.register("imp")
@dataclasses.dataclass(frozen=True)
class IMP(EdgesByScore, Iterative):
    r"""Train, drop the weights that ended up smallest, rewind the others, repeat.

    Round r trains :math:`m^{(r)} \odot \theta_k` under the fixed mask and drops the share ``weight_step`` of the
    remaining weights with the smallest trained magnitude; :math:`k = 0` rewinds to theta0, a later epoch to the dense
    model as it was after that many epochs. The run under the last mask is the ticket, so a sweep over levels trains
    once a level.

    A weight's size says nothing about edges: those are chosen by an edge score, at random by default, so that the
    method differs from ``random-weights`` in the weights alone; the metric ``edges_by`` names the score.

    Args:
        edge_step: share of the remaining edges that a round drops.
        weight_step: share of the remaining weights that a round drops.
        edges: name of the edge score.
        rewind: epoch to rewind to. The ticket's own ``theta0`` is the caller's in any case; the metric
            ``rewind_epoch`` says where its training began.
        also: ``"ap"``: of what a round drops, a tenth are negative weights of the matrices that the round moved least,
            as they keep ReLUs at zero; smaller weights go for them no more. The metrics ``dead_relus`` and
            ``dense_dead_relus`` are the shares of (unit, node) pairs at zero. None: by magnitude alone.

    Raises:
        ValueError: for a step outside (0, 1), a negative epoch or another word for ``also``; when called, for an epoch
            beyond the training's, and of ``"ap"`` for a model without ReLUs, units, or weights that are not shared out
            globally.

    Source: Frankle & Carbin, "The lottery ticket hypothesis", ICLR 2019; rewinding to an early epoch: Frankle et al.,
    "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020; activations: Liu, Ghosh, Motani, "AP:
    selective activation for de-sparsifying pruned neural networks", TMLR 2023, which drops 18 + 2 of 100.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, method="imp", edge_keep=0.9, weight_keep=0.8, epochs=2)
        >>> round(ticket.metrics["weights_kept"], 3), ticket.metrics["rewind_epoch"]
        (0.8, 0)
    """

    edges: str = "random"
    rewind: int = 0
    also: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if whole_number(self.rewind, "rewind") < 0:
            raise ValueError(f"rewind must be an epoch, at least 0, got {self.rewind}")
        object.__setattr__(self, "also", one_of(self.also, "also", ("ap",), none=True))

    def check(self, problem: Problem) -> None:
        """Raise a ValueError for an epoch to rewind to that no training reaches, and what the score refuses."""
        super().check(problem)
        if self.rewind > problem.training.epochs:
            raise ValueError(f"rewind={self.rewind} lies beyond the training of {problem.training.epochs} epochs")
        if self.also is None:
            return
        if problem.training.pattern == "units" or plain_distribution(distribution_of(problem)) != "global":
            raise ValueError("also='ap' drops single weights of all tensors together: pattern='weights', 'global'")
        if _dead(problem, problem.fresh_model()) is None:
            raise ValueError(
                f"also='ap' looks for negative weights that keep ReLUs at zero, and {type(problem.model).__name__} has "
                "no ReLU; leave it out"
            )

    def start(self, course: Course) -> Kept:
        """Everything, after the training that is rewound to."""
        return dataclasses.replace(super().start(course), seconds=self._early(course)[1])

    def prune(self, course: Course, name: str, kept: Kept, before: Keeps, target: Keeps) -> Kept:
        """Train under the masks of this round, and drop the smallest weights."""
        result = self.last_run(course, kept, before).result
        edges = course.problem.edge_mask(self.edges, target[0])
        magnitudes = {key: result.state[key].abs() for key in kept.weights}
        alive = kept.weights if self.also is None else self._active(course, result, kept, target)
        return Kept(edges, chosen_weights(course.problem, magnitudes, target[1], alive), result.seconds)

    def _active(self, course: Course, result: FitResult, kept: Kept, target: Keeps) -> dict[str, Tensor]:
        """What is alive without the negative weights that moved least: a tenth of what this round drops.

        They are looked for among the weights that magnitude alone would keep.
        """
        alive = {name: mask.clone() for name, mask in kept.weights.items()}
        held, total = sum(int(mask.sum()) for mask in alive.values()), sum(mask.numel() for mask in alive.values())
        dropped = held - kept_count(target[1], total)
        out = math.floor(_PART * dropped)
        large = chosen_weights(
            course.problem,
            {name: result.state[name].abs() for name in alive},
            Fraction(held - dropped + out, total),
            alive,
        )
        start = self._early(course)[0] or course.problem.model.state_dict()
        moved = {name: (result.state[name].cpu() - start[name].cpu()).abs().double() for name in alive}
        found = {
            name: large[name] & (result.state[name].cpu() < 0) if is_matrix(mask) else torch.zeros_like(mask)
            for name, mask in alive.items()
        }
        far = torch.cat([moved[name].masked_fill(~found[name], torch.inf).reshape(-1) for name in alive])
        count = min(out, sum(int(mask.sum()) for mask in found.values()))
        gone = torch.zeros(total, dtype=torch.bool)
        gone[torch.argsort(far, stable=True)[:count]] = True
        for (name, mask), part in zip(
            alive.items(), torch.split(gone, [m.numel() for m in alive.values()]), strict=True
        ):
            alive[name] = mask & ~part.view(mask.shape)
        return alive

    def last_run(self, course: Course, kept: Kept, target: Keeps) -> Found:
        """The run under these masks: a ticket, and what the next round is cut from."""
        name = f"{course.stamp}-{target[0]}-{target[1]}"
        memory = course.problem.memory
        if name in memory:
            found: Found = memory[name]
            return found
        run = train_masked(course.problem, course.dense, kept, target[1], name, self._early(course)[0])
        metrics: dict[str, Any] = {"edges_by": self.edges, "rewind_epoch": self.rewind}
        if self.also is not None:
            problem = course.problem
            sparse = dataclasses.replace(problem, task=problem.task.with_mask(kept.edges))
            metrics["also"] = self.also
            metrics["dead_relus"] = _dead(sparse, problem.trained_model(run.result))
            metrics["dense_dead_relus"] = _dead(problem, problem.trained_model(course.dense))
        found = dataclasses.replace(run, metrics=metrics)
        if course.problem.folder is None:  # otherwise its checkpoint gives it back
            memory[name] = found
        return found

    def _early(self, course: Course) -> tuple[dict[str, Tensor] | None, float]:
        """The weights to rewind to, None for theta0, and the seconds that their training took."""
        problem, name = course.problem, f"{course.stamp}-rewind"
        if self.rewind == 0:
            return None, 0.0
        self.check(problem)
        if name not in problem.memory:
            early = dataclasses.replace(problem, training=dataclasses.replace(problem.training, epochs=self.rewind))
            model = early.fresh_model()
            last = _LastWeights(model)
            result = early.train(model, early.task, name, callbacks=[last])
            problem.memory[name] = last.weights, result.seconds
        remembered: tuple[dict[str, Tensor], float] = problem.memory[name]
        return remembered


_PART = 0.1  # of what a round drops: the paper's 2 of 20


def _dead(problem: Problem, model: nn.Module) -> float | None:
    """The share of the outputs of a model's ReLUs that are zero, over all nodes; None without ReLUs."""
    return dead_relus(lambda: problem.task.predict(model))


class _LastWeights:
    """Remembers the weights of the last step, where a run would leave those of its best epoch."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = prunable(model)
        self.weights = {name: value.detach().cpu().clone() for name, value in self._parameters.items()}
        self._handle: RemovableHandle | None = None

    def attach(self, optimizer: Optimizer) -> None:
        self._handle = after_steps(optimizer, self._after_step)

    def detach(self) -> None:
        if self._handle is not None:
            self._handle.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = dict(state["weights"])

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.weights = {name: value.detach().cpu().clone() for name, value in self._parameters.items()}
