"""Which sparsifier fits a graph: several are tried on it, and one is recommended, with what speaks for it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import torch

from graphsparse.edges.advice_text import drawn_curve, table
from graphsparse.edges.choice import by_metric, by_structure
from graphsparse.edges.subject import open_subject
from graphsparse.edges.trials import Bench, Trial, parse
from graphsparse.fit import Bars, Metric, NodeTask, Report, finite_or_none
from graphsparse.fit.measure import find_device
from graphsparse.keep_rule import Keep, check_seed, keep_fraction, whole_number
from graphsparse.registry import spelling

AdviceTask = Literal["node", "structure"]

METHODS = ("random", "teddy", "teddy+cover", "local_degree", "jaccard", "effective_resistance")  # cheapest first
SLOW = "effective_resistance"
MOST_OF_SLOW = 20_000  # edges up to which it is quick
MOST_EDGES = 200_000


@dataclass(frozen=True)
class Advice:
    """What was measured, and what is recommended; ``print`` shows both.

    Attributes:
        graph: the name of what was measured.
        recommended: one of ``rows``.
        whole: the whole graph, in the same figures.
        rows: every sparsifier at every keep that was measured.
        metric: of the validation nodes; None where no network was trained.
        seeds: training runs of each row; 0 where no network was trained.
        reason: why this one, in words.
        notes: what should be known besides, a sentence each.
        not_measured: what the budget of seconds left no time for.
    """

    graph: str
    recommended: Trial
    whole: Trial
    rows: tuple[Trial, ...]
    metric: str | None
    seeds: int
    reason: str
    notes: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()

    @property
    def curve(self) -> tuple[Trial, ...]:
        """The recommended sparsifier at all keeps that were measured, largest first."""
        rows = [row for row in self.rows if row.method == self.recommended.method]
        return tuple(sorted(rows, key=lambda row: -row.keep))

    @property
    def call(self) -> str:
        """The line of Python that does what is recommended."""
        name, rules = parse(self.recommended.method)
        words = [f"keep={self.recommended.keep!r}", *(f"{rule}={value!r}" for rule, value in rules.items())]
        return f"gs.sparsify(graph, {name!r}, {', '.join(words)})"

    def figures(self) -> dict[str, Any]:
        """All of it in plain values that JSON can hold."""
        return {
            "graph": self.graph,
            "recommended": _plain(self.recommended),
            "reason": self.reason,
            "call": self.call,
            "metric": self.metric,
            "seeds": self.seeds,
            "curve": [_plain(row) for row in self.curve],
            "whole": _plain(self.whole),
            "rows": [_plain(row) for row in self.rows],
            "notes": list(self.notes),
            "not_measured": list(self.not_measured),
        }

    def __str__(self) -> str:
        """The table, the curve, the recommendation, and what should be known besides."""
        said = [f"Recommended: {self.recommended.method} at keep {self.recommended.keep:g}. {self.reason}"]
        said += ["Its curve over keep:", *drawn_curve(self.curve, self.whole, self.metric), f"To do it: {self.call}"]
        said += [f"Note: {note}." for note in self.notes]
        if self.not_measured:
            said.append(f"Not measured, for the seconds were over: {'; '.join(self.not_measured)}.")
        return "\n".join([*table((self.whole, *self.rows), self.metric), "", *said])


def advise(
    graph: Any,
    *,
    task: AdviceTask | None = None,
    methods: Sequence[str] | None = None,
    keeps: Sequence[Keep] = (0.8, 0.5, 0.3),
    seeds: int = 3,
    epochs: int = 100,
    hidden: int = 32,
    seconds: float = 60.0,
    most_edges: int = MOST_EDGES,
    seed: int = 0,
    undirected: bool | None = None,
    labels: Any = None,
    device: str | torch.device = "cpu",
    tensorboard: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Advice:
    """Try several sparsifiers on a graph and recommend one.

    Each is measured by what it leaves of the structure and by the time that it takes; where the nodes have features,
    labels and masks, a GCN of two layers is trained on the kept edges, too. It is judged by the best validation epoch;
    the labels of test nodes are not read. Then the smallest keep is taken at which a sparsifier loses at most one point
    of the metric and no loss is shown. Of those that lose no more, all that do not differ from the best (the 95 %
    interval of the difference, paired by seeds, holds 0) are taken as equal: the one that isolates the fewest nodes is
    recommended, and of equals the first in ``methods``. Without labels the smallest keep is taken at which at most 1 %
    of the nodes lose all their edges and the share of the largest component shrinks by at most 5 points.

    Args:
        graph: of any kind that :func:`graphsparse.sparsify` takes, the path of a file, the name of a data set, or
            ``"module:function"``, a data set of one's own. Labels are those of a ``Data``, an npz file or a data set,
            or ``labels``.
        task: ``"node"`` insists on training, ``"structure"`` never does; None trains where it can.
        methods: scores, each perhaps with a guard or a forest (``"teddy+cover"``, ``"dspar+forest"``), the one to be
            preferred among equals first. None: random, teddy, teddy+cover, local_degree, jaccard, and, up to 20,000
            edges, effective_resistance.
        keeps: fractions of the edges, in (0, 1].
        seeds: training runs of each sparsifier, at least 1; one cannot tell chance from a difference.
        epochs: of each run.
        hidden: units of the network.
        seconds: what begins later than this is not measured; the result says so.
        most_edges: of a larger graph a sample of nodes with so many edges among them is measured; at least 100.
        seed: of the sample, ties, random scores and networks.
        undirected: as in :func:`graphsparse.sparsify`.
        labels: classes of nodes that stand beside the graph: the path of a table with the columns ``node`` and
            ``label``, a mapping from nodes to labels, or labels ``[N]``. Nodes may lack one. Without masks the labelled
            nodes are split at random (60 % train, 20 % validate), and without features every node gets random ones.
        device: where networks are trained; ``"auto"`` takes a GPU if there is one.
        tensorboard: a folder for TensorBoard's logs, one below it for each training run; None writes none.
        **options: how a graph or file is read: ``weight``, ``src``, ``dst``; of tables ``header``, ``one_based``.

    Returns:
        an `Advice`; equal calls give equal ones if ``seconds`` suffice, the times that were taken aside.

    Raises:
        ValueError: an unknown method, ``keep`` outside (0, 1], a graph without edges, ``task="node"`` on a graph that
            lacks something for it, or what a score that was named refuses.
        TypeError, DataError: what is no graph, or a file that is damaged.

    Example:
        >>> import networkx
        >>> found = advise(networkx.karate_club_graph(), methods=["teddy", "teddy+cover"], keeps=[0.5])
        >>> found.recommended.method, found.recommended.keep, found.recommended.isolated_nodes
        ('teddy+cover', 0.5, 0)
        >>> found.call
        "gs.sparsify(graph, 'teddy', keep=0.5, guard='cover')"
    """
    if task is not None:
        if (named := spelling(str(task), get_args(AdviceTask))) is None:
            raise ValueError(f"task must be 'node', 'structure' or None, got {task!r}")
        task = cast(AdviceTask, named)
    if isinstance(methods, str) or isinstance(keeps, (str, float, int)):
        raise TypeError("methods and keeps are lists, such as methods=['teddy'], keeps=[0.5]")
    wanted = list(dict.fromkeys(_spelled(method) for method in (METHODS if methods is None else methods)))
    fractions = list(dict.fromkeys(float(keep_fraction(keep)) for keep in keeps))
    if not wanted or not fractions:
        raise ValueError("name at least one method and one keep")
    for name, value, least in (("seeds", seeds, 1), ("epochs", epochs, 1), ("hidden", hidden, 1)):
        whole_number(value, name, least)
    whole_number(most_edges, "most_edges", 100)
    check_seed(seed)
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0, got {seconds}")
    find_device(device)
    ends = time.perf_counter() + seconds
    subject = open_subject(graph, undirected, labels=labels, seed=seed, **options)
    lacks = subject.why_not()
    if task == "node" and lacks:
        raise ValueError(f"{subject.name}: a node task cannot be measured: {lacks}; task='structure' needs no labels")
    subject = subject.cut(most_edges, seed)
    notes = list(subject.notes)
    if methods is None and subject.edges.num_countable > MOST_OF_SLOW:
        wanted.remove(SLOW)
        notes.append(f"{SLOW} is slow above {MOST_OF_SLOW:,} edges and is measured only if it is named")
    bench = Bench(subject, seed=seed, epochs=epochs, hidden=hidden, device=device, tensorboard=tensorboard)
    lacks = "" if task == "structure" else subject.why_not()
    if lacks:
        notes.append(f"no network was trained: {lacks}")
    pairs = [(method, keep) for keep in fractions for method in wanted]
    left: dict[str, list[str]] = {}
    metric: Metric | None = None
    with Bars() as bars:
        rows, refused = _structures(bench, pairs, ends, left, bars.add("structure"), must=methods is not None)
        notes += refused
        if not rows:
            raise ValueError(f"no sparsifier can be measured: {'; '.join(refused)}")
        if task != "structure" and not lacks:
            rows, metric = _trained(bench, rows, subject.node_task(), seeds, ends, left, bars.add("training"))
    if metric is None:
        best, reason = by_structure(rows, bench.whole, subject.edges.num_nodes)
    else:
        best, reason = by_metric([row for row in rows if row.values], metric)
    return Advice(
        graph=subject.name,
        recommended=best,
        whole=bench.whole,
        rows=tuple(rows),
        metric=None if metric is None else metric.name,
        seeds=0 if metric is None else seeds,
        reason=reason,
        notes=tuple(notes),
        not_measured=tuple(f"{what}: {', '.join(methods)}" for what, methods in left.items()),
    )


def _structures(
    bench: Bench, pairs: list[tuple[str, float]], ends: float, left: dict[str, list[str]], report: Report, *, must: bool
) -> tuple[list[Trial], list[str]]:
    """What is left of the graph by each method and keep, as far as the time goes, and what is not possible, and why.

    What a score refuses is an error where it was named; a guard that cannot be held is none.
    """
    rows: list[Trial] = []
    refused = []
    for at, (method, keep) in enumerate(pairs, 1):
        if rows and time.perf_counter() >= ends:
            left.setdefault(f"structure at keep {keep:g}", []).append(method)
            continue
        try:
            rows.append(bench.structure(method, keep))
        except ValueError as error:
            if must and "smallest feasible keep" not in str(error):
                raise
            refused.append(f"{method} at keep {keep:g} is not possible: {error}")
        report(at, len(pairs), {})
    return rows, refused


def _trained(
    bench: Bench,
    rows: list[Trial],
    task: NodeTask,
    seeds: int,
    ends: float,
    left: dict[str, list[str]],
    report: Report,
) -> tuple[list[Trial], Metric | None]:
    """The rows with what a network makes of them, as far as the time goes; no metric if it reached none of them."""
    if time.perf_counter() >= ends:
        left[task.metric.name] = ["no network was trained"]
        return rows, None
    bench.train(bench.whole, task, seeds)
    found = []
    for at, row in enumerate(rows, 1):
        report(at - 1, len(rows), {})
        if time.perf_counter() < ends:
            found.append(bench.train(row, task, seeds))
        else:
            found.append(row)
            left.setdefault(f"{task.metric.name} at keep {row.keep:g}", []).append(row.method)
    report(len(rows), len(rows), {})
    return found, task.metric if any(row.values for row in found) else None


def _spelled(method: str) -> str:
    """A method as the tables spell it: ``"Local-Degree + Cover"`` is ``"local_degree+cover"``."""
    name, rules = parse(method)
    return "+".join([name, *("forest" if rule == "forest" else value for rule, value in rules.items())])


def _plain(row: Trial) -> dict[str, Any]:
    found = asdict(row)
    if row.difference is not None:
        found["difference"]["half_width"] = finite_or_none(row.difference.half_width)
    return found | {"mean": row.mean}
