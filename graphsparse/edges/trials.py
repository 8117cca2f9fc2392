"""Sparsifiers tried on one graph: what is left of it, what that costs, and what a small network makes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.edges.keep import mask_edges
from graphsparse.edges.score_table import SCORES, check_options, score_edges
from graphsparse.edges.subject import Subject
from graphsparse.fit import NodeTask, PairedDifference, fit, paired_difference
from graphsparse.fit.measure import find_device
from graphsparse.graphs.anatomy import anatomy
from graphsparse.graphs.picture import MOST_PRODUCTS, SAMPLE
from graphsparse.nn import GCN
from graphsparse.registry import spelling

T = TypeVar("T")

RULES = ("cover", "isolated", "forest")  # what may follow a score: teddy+cover
WHOLE = "whole graph"
AGAIN = 5.0  # what takes less is timed twice: the first call of a score may compile it


@dataclass(frozen=True)
class Trial:
    """One sparsifier at one keep.

    Attributes:
        method: a score, perhaps with a guard: ``"teddy+cover"``; or ``"whole graph"``.
        keep: the fraction of the edges that is kept.
        edges: how many those are.
        seconds: what scoring and choosing took.
        isolated_nodes: nodes without a neighbour.
        components: connected components, isolated nodes included.
        largest_component: the share of the nodes in the largest one.
        degree_distance: how far the degrees, each divided by their mean, are from those of the whole graph
            (Wasserstein distance; 0 where all degrees shrink alike).
        clustering: the mean local clustering coefficient.
        homophily: the share of the edges whose ends have the same class, among nodes that are not tested; None without
            classes.
        values: the validation metric of a small GCN, one a seed; empty where none was trained.
        difference: of ``values`` from those of the whole graph, paired by seeds, above 0 where better; None without.
    """

    method: str
    keep: float
    edges: int
    seconds: float = field(compare=False)
    isolated_nodes: int
    components: int
    largest_component: float
    degree_distance: float
    clustering: float
    homophily: float | None = None
    values: tuple[float, ...] = ()
    difference: PairedDifference | None = None

    @property
    def mean(self) -> float | None:
        """The mean of ``values``."""
        return float(np.mean(self.values)) if self.values else None

    def better_than(self, other: Trial, maximize: bool) -> PairedDifference:
        """How much better the validation metric is than another's, paired by seeds."""
        first, second = (self.values, other.values) if maximize else (other.values, self.values)
        return paired_difference(first, second)


def parse(method: str) -> tuple[str, dict[str, Any]]:
    """A score and the rules after it.

    Raises:
        ValueError: the score or a rule is unknown, or there are two guards.

    Example:
        >>> parse("teddy+cover")
        ('teddy', {'guard': 'cover'})
    """
    if not isinstance(method, str):
        raise TypeError(f"a method is named by a string such as 'teddy+cover', got {type(method).__name__}")
    name, *words = (word.strip() for word in method.split("+"))
    rules: dict[str, Any] = {}
    for given in words:
        if (word := spelling(given, RULES)) is None:
            raise ValueError(f"{method!r}: after + comes {', '.join(RULES[:-1])} or {RULES[-1]}, got {given!r}")
        rule, value = ("forest", True) if word == "forest" else ("guard", word)
        if rule in rules:
            raise ValueError(f"{method!r}: there can be one guard, got two")
        rules[rule] = value
    SCORES.find(name)
    return SCORES.key(name), rules


class Bench:
    """Measures sparsifiers on a graph; scores that draw no random numbers are computed once.

    Args:
        subject: the graph.
        seed: of ties and random scores; of the networks' weights it is the first.
        epochs: of each training run.
        hidden: width of the network.
        device: where it is trained.
        tensorboard: a folder for TensorBoard's logs, one below it for each training run; None writes none.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        seed: int,
        epochs: int,
        hidden: int,
        device: str | torch.device = "cpu",
        tensorboard: str | os.PathLike[str] | None = None,
    ) -> None:
        self.subject, self.edges, self.seed, self.epochs, self.hidden = subject, subject.edges, seed, epochs, hidden
        self.device = find_device(device)
        self.tensorboard = None if tensorboard is None else Path(tensorboard)
        self._scores: dict[str, tuple[Any, bool]] = {}
        self._seconds: dict[str, float] = {}
        ends = self.edges.edge_index.cpu().numpy()
        self._ends = ends[:, ends[0] != ends[1]]
        degree = self._degrees(np.ones(self._ends.shape[1], bool))
        heavy = float((degree.astype(np.float64) ** 2).sum()) > MOST_PRODUCTS and len(degree) > SAMPLE
        self._sample = SAMPLE if heavy else None
        self._relative = degree / degree.mean()
        self.whole = self._trial(WHOLE, 1.0, torch.ones(self.edges.num_edges, dtype=torch.bool), 0.0)

    def structure(self, method: str, keep: float) -> Trial:
        """What is left of the graph, and the time it took.

        Raises:
            ValueError: the score refuses the graph, or a guard cannot be held at this keep.
        """
        name, _ = parse(method)
        if name not in self._scores:
            self._scores[name], self._seconds[name] = _timed(lambda: score_edges(self.edges, name, self.seed, {}))
        mask, seconds = _timed(lambda: self._mask(method, keep, 0))
        return self._trial(method, keep, mask, self._seconds[name] + seconds)

    def train(self, trial: Trial, task: NodeTask, seeds: int) -> Trial:
        """The same trial with the validation metric of a GCN on the kept edges, one a seed."""
        values = []
        for run in range(seeds):
            here = task
            if trial.method != WHOLE:
                here = task.with_positions(self._mask(trial.method, trial.keep, run).nonzero().view(-1))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + run)
                model = GCN(task.num_features, self.hidden, task.num_classes)
            name = f"{trial.method.replace(' ', '-').replace(':', '.')}-{trial.keep:g}-seed-{self.seed + run}"
            fitted = fit(
                model,
                here,
                epochs=self.epochs,
                seed=self.seed + run,
                device=self.device,
                progress=False,
                tensorboard=None if self.tensorboard is None else self.tensorboard / name,
            )
            values.append(fitted.val)
        found = replace(trial, values=tuple(values))
        if not self.whole.values:
            self.whole = found
        return replace(found, difference=found.better_than(self.whole, task.metric.maximize))

    def _mask(self, method: str, keep: float, run: int) -> Tensor:
        """Which edges stay; what chance has a part in differs from run to run."""
        name, rules = parse(method)
        seed = self.seed + run
        drawn = run > 0 and "seed" in check_options(name, [])
        scores, symmetric = score_edges(self.edges, name, seed, {}) if drawn else self._scores[name]
        return mask_edges(self.edges, scores, keep=keep, seed=seed, symmetric=symmetric, **rules)

    def _trial(self, method: str, keep: float, mask: Tensor, seconds: float) -> Trial:
        from scipy.stats import wasserstein_distance

        edges, count = self.edges, self.edges.num_nodes
        kept = edges.edge_index[:, mask]
        found = anatomy(kept, count, sample=self._sample)
        ends = edges.edge_index.cpu().numpy()
        degree = self._degrees(mask.cpu().numpy()[ends[0] != ends[1]])
        relative = degree / degree.mean() if degree.any() else degree
        return Trial(
            method=method,
            keep=keep,
            edges=(int(mask.sum()) - edges.survey.loops) // (2 if edges.mirrored else 1),
            seconds=seconds,
            isolated_nodes=int(found["isolated_nodes"]),
            components=int(found["components"]),
            largest_component=found["largest_component"],
            degree_distance=float(wasserstein_distance(self._relative, relative)),
            clustering=found["clustering"],
            homophily=_homophily(self.subject, kept),
        )

    def _degrees(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(self._ends[:, kept].ravel(), minlength=self.edges.num_nodes)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives, and its seconds: of two times the shorter one, where it is quick."""
    found: T | None = None
    taken: list[float] = []
    while len(taken) < 2 and sum(taken) < AGAIN:
        start = time.perf_counter()
        found = work()
        taken.append(time.perf_counter() - start)
    return cast(T, found), min(taken)


def _homophily(subject: Subject, kept: Tensor) -> float | None:
    """The share of the kept edges whose ends have the same class, among nodes whose labels may be read."""
    y = subject.y
    if y is None or y.is_floating_point() or y.numel() != len(y):
        return None
    y, readable = y.view(-1), subject.readable
    tails, heads = kept.long()
    seen = (tails != heads) & (y[tails] >= 0) & (y[heads] >= 0)
    if readable is not None:
        seen &= readable[tails] & readable[heads]
    return float((y[tails] == y[heads])[seen].double().mean()) if bool(seen.any()) else None
