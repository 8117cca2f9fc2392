"""Iterative pruning: round by round fewer edges and weights, each round made once for all the levels of a sweep."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction

import torch

from graphsparse.fit import FitResult
from graphsparse.fit.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from graphsparse.fit.fingerprint import model_hash
from graphsparse.hashing import tensor_hash
from graphsparse.keep_rule import Keep, exact_fraction
from graphsparse.tickets.finders.masked import Kept, pruned_in, train_masked
from graphsparse.tickets.problem import Found, Problem

Keeps = tuple[Fraction, Fraction]  # edge keep, weight keep


@dataclasses.dataclass(frozen=True)
class Iterative(ABC):
    r"""What the iterative finders share: the rounds, their memory, and the last run under fixed masks.

    Round r leaves :math:`\max(keep_{edge}, (1 - p_e)^r)` of the edges and :math:`\max(keep_{weight}, (1 - p_w)^r)` of
    the weights, exactly by the rule of :func:`graphsparse.keep_rule.kept_count`, so the last round cuts to the count
    that was asked for. Every round starts from theta0 again. A round is remembered in ``problem.memory``, and with
    ``problem.folder`` in a file of masks: another level, or a run that was killed, goes on from there.

    Args:
        edge_step: share of the remaining edges that a round removes, in (0, 1).
        weight_step: share of the remaining weights that a round removes, in (0, 1).

    Raises:
        ValueError: for a step outside (0, 1).
    """

    edge_step: Keep = Fraction(1, 20)
    weight_step: Keep = Fraction(1, 10)

    def __post_init__(self) -> None:
        for name in ("edge_step", "weight_step"):
            step = exact_fraction(getattr(self, name), name)
            if not 0 < step < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")
            object.__setattr__(self, name, step)  # equal steps are equal rounds, however they were written

    def __call__(self, problem: Problem, dense: FitResult, edge_keep: Fraction, weight_keep: Fraction) -> Found:
        """Find the ticket that keeps exactly these fractions, reusing the rounds that were made before."""
        course = Course(self, problem, dense)
        kept, before = self.start(course), (Fraction(1), Fraction(1))
        for number, target in enumerate(self.targets(edge_keep, weight_keep), start=1):
            kept = course.round(number, kept, before, target)
            before = target
        found = self.last_run(course, kept, (edge_keep, weight_keep))
        return dataclasses.replace(found, seconds=kept.seconds + found.result.seconds)

    def targets(self, edge_keep: Fraction, weight_keep: Fraction) -> Iterator[Keeps]:
        """What each round leaves of all edges and of all weights.

        Example:
            >>> from graphsparse.tickets import UGS
            >>> [(float(e), float(w)) for e, w in UGS("0.5", "0.2").targets(Fraction(3, 10), Fraction(9, 10))]
            [(0.5, 0.9), (0.3, 0.9)]
        """
        edges, weights = Fraction(1), Fraction(1)
        while edges > edge_keep or weights > weight_keep:
            edges = max(edge_keep, edges * (1 - exact_fraction(self.edge_step)))
            weights = max(weight_keep, weights * (1 - exact_fraction(self.weight_step)))
            yield edges, weights

    def start(self, course: Course) -> Kept:
        """What the first round prunes: all edges, all weights that count."""
        problem = course.problem
        edges = torch.ones(problem.data.edge_index.size(1), dtype=torch.bool)
        parameters = pruned_in(problem)
        return Kept(edges, {name: torch.ones(value.shape, dtype=torch.bool) for name, value in parameters.items()})

    @abstractmethod
    def prune(self, course: Course, name: str, kept: Kept, before: Keeps, target: Keeps) -> Kept:
        """One round: train from theta0 on what is ``kept`` (``before`` of the whole), and cut it to ``target``.

        The checkpoint ``name`` is removed when the round is done. The outcome's ``seconds`` are those of its training,
        whenever that was done: another level may have done it.
        """

    def last_run(self, course: Course, kept: Kept, target: Keeps) -> Found:
        """Train the ticket: theta0 on the sparse graph under fixed masks."""
        name = f"{course.stamp}-{target[0]}-{target[1]}"
        return train_masked(course.problem, course.dense, kept, target[1], name)


class Course:
    """The rounds of one finder on one problem, and where they are remembered.

    Args:
        finder: whose rounds they are.
        problem: the problem.
        dense: its dense run.
    """

    def __init__(self, finder: Iterative, problem: Problem, dense: FitResult) -> None:
        self.finder, self.problem, self.dense = finder, problem, dense
        self.run = {
            **problem.task.fingerprint(),
            "finder": repr(finder),
            "theta0": model_hash(problem.model),
            "training": repr(dataclasses.replace(problem.training, device=None)),
            "seed": repr(problem.seed),
            "edges": repr(sorted(problem.edge_options.items())),
            "teacher": tensor_hash(dense.logits if problem.training.distill > 0 else None),
        }
        own = hashlib.sha256(repr(sorted(self.run.items())).encode()).hexdigest()[:12]
        self.stamp = f"{type(finder).__name__.lower()}-{own}"  # finders with other options never meet in a folder

    def round(self, number: int, kept: Kept, before: Keeps, target: Keeps) -> Kept:
        """The round's outcome: from memory, from its file, or made now."""
        came_from = tensor_hash(kept.edges, *kept.weights.values())
        own = hashlib.sha256(f"{came_from} {target}".encode()).hexdigest()[:12]
        name = f"{self.stamp}-round-{number:03d}-{own}"
        if name not in self.problem.memory:
            self.problem.memory[name] = self._from_file(name, kept, before, target)
        remembered: Kept = self.problem.memory[name]
        return remembered

    def _from_file(self, name: str, kept: Kept, before: Keeps, target: Keeps) -> Kept:
        folder, run = self.problem.folder, self.run | {"round": name}
        file = None if folder is None else folder / f"{name}.masks"
        if file is not None and file.exists():
            with checkpoint_file(file):
                return Kept(**load_checkpoint(file, run))
        result = self.finder.prune(self, name, kept, before, target)
        result = dataclasses.replace(result, seconds=kept.seconds + result.seconds)
        if folder is None or file is None:
            return result
        save_checkpoint(file, {"edges": result.edges, "weights": dict(result.weights), "seconds": result.seconds}, run)
        (folder / name).unlink(missing_ok=True)  # tens of megabytes of optimizer state that nothing reads any more
        return result
