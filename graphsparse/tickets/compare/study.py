"""The study behind the command: tickets over seeds, one table, one plot, one JSON object."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from torch_geometric.data import Data

from graphsparse import ranks
from graphsparse.data import load
from graphsparse.fit import Bars, Batches, FitResult, Report, mean_ci
from graphsparse.graphs.interop import open_graph
from graphsparse.graphs.picture import picture
from graphsparse.locking import only_one
from graphsparse.parallel import one_thread
from graphsparse.params import DISTRIBUTIONS
from graphsparse.progress import silent
from graphsparse.report import Curve, interval, plain, plot_sparsity, provenance, say, table, write_json
from graphsparse.report.runs import PAGE, RECORD, write_report
from graphsparse.tickets.compare.estimate import memory_mb, seconds_of
from graphsparse.tickets.compare.search import LEVELS, best_on_validation, sparsest_within, summarise
from graphsparse.tickets.compare.setup import node_classes, problem_of
from graphsparse.tickets.compare.ticket_page import ticket_run
from graphsparse.tickets.compiled.figures import compiled_figures
from graphsparse.tickets.find import check_problem, read_keeps
from graphsparse.tickets.finders.table import check_rules, finder_name
from graphsparse.tickets.make import BATCH_SETTINGS, make_ticket
from graphsparse.tickets.problem import Problem, Training, train_dense
from graphsparse.tickets.standing import Standing
from graphsparse.tickets.ticket import Ticket
from graphsparse.tickets.weights import L0

Step = tuple[Fraction, Fraction]  # edge keep, weight keep
Levels = dict[Step, dict[int, Ticket]]  # the tickets of each seed, by what they keep

CONTROL = "random"  # the method that every other is shown beside

_WRITTEN = ("ticket.json", "metrics.json", "accuracy.png", RECORD, PAGE)

SMALL = 1 << 32  # products of a step: a second thread saved nothing below (digits, Cora), a tenth above (PubMed-512)
GRAPHS_A_STEP = 32  # what a task of graphs takes by default


def steps_to(edge_keep: Fraction, weight_keep: Fraction, points: int) -> list[Step]:
    """The keeps of a curve from dense towards a ticket, geometrically spaced; the last is exactly the ticket.

    Example:
        >>> [(float(e), float(w)) for e, w in steps_to(Fraction(1, 4), Fraction(1, 16), 2)]
        [(0.5, 0.25), (0.25, 0.0625)]
    """
    exponents = [i / points for i in range(1, points)]
    inner = [tuple(Fraction(str(round(float(keep) ** a, 4))) for keep in (edge_keep, weight_keep)) for a in exponents]
    return [*inner, (edge_keep, weight_keep)]  # type: ignore[list-item]


@dataclass(frozen=True)
class Study:
    """What ``graphsparse ticket`` is asked for; the fields are its options.

    Raises:
        ValueError: when run, for an unknown data set, model or method, or keeps outside (0, 1].
    """

    dataset: str
    model: str
    hidden: int
    method: str
    edge_keep: str | None
    weight_keep: str | None
    weight_distribution: str | None
    tolerance: float | None
    distill: float
    protocol: str | None
    split: int | None
    guard: str | None
    epochs: int
    lr: float
    weight_decay: float
    seeds: int
    points: int
    device: str
    pattern: str = "weights"
    tensorboard: Path | None = None
    batches: Batches | None = None
    compile: bool = False
    weights: str = L0

    def run(self, out: Path, console: Console, *, spare_threads: bool = False) -> Ticket:
        """Find the tickets, print the table, and write ``metrics.json``, the plot and the best ticket into ``out``.

        A run that was interrupted and is called again resumes from its checkpoints in ``out``.

        Args:
            out: the folder.
            console: where the table is printed.
            spare_threads: compute on one thread where the work of a step is small; False leaves torch's number alone.

        Raises:
            BusyError: another process works in ``out``.
            OSError: ``out`` cannot be written: told before anything is trained.
        """
        keeps = self._checked()
        if ranks.asked_for() > 1:
            return self._run_together(keeps, out, console)
        data = load(self.dataset, split=self.split)
        console.print(_describe(data), highlight=False)
        with (
            only_one(out, files=_WRITTEN, folders=("checkpoints",)),
            one_thread(spare_threads and _products(data, self.hidden) < SMALL),
        ):
            return self._found(data, keeps, out, console)

    def _run_together(self, keeps: Step | None, out: Path, console: Console) -> Ticket:
        """The same in one of several processes, of which the first locks the folder, prints and writes."""
        ranks.join(self.device)
        if self.batches is None:
            raise ValueError(
                f"{ranks.count()} processes share out mini-batches: give --batch-size and --neighbors, or start one"
            )
        if not ranks.is_first():
            with silent():
                return self._found(load(self.dataset, split=self.split), keeps, out, Console(quiet=True))
        data = load(self.dataset, split=self.split)
        console.print(_describe(data), highlight=False)
        with only_one(out, files=_WRITTEN, folders=("checkpoints",)):
            return self._found(data, keeps, out, console)

    def cost(self) -> dict[str, Any]:
        """What `run` would take, by a few epochs of the dense model that are timed; nothing is written.

        Returns:
            ``runs`` (trainings; with a tolerance as many as there can be), ``seconds`` and ``memory_mb``. Methods that
            train several times take as many times longer, which is not known before.

        Raises:
            ValueError, DataError: as `run`.
        """
        keeps = self._checked()
        data = load(self.dataset, split=self.split)
        runs = self.seeds * (1 + (len(self._wanted(keeps)) if keeps else len(LEVELS)))
        problem = self._problem(data, 0, None, None)
        return {"runs": runs, "seconds": runs * seconds_of(problem), "memory_mb": memory_mb()}

    def _checked(self) -> Step | None:
        keeps = read_keeps(self.edge_keep, self.weight_keep, self.tolerance)
        check_rules(self.method, {"guard": self.guard})
        if self.weight_distribution is not None:
            DISTRIBUTIONS.find(self.weight_distribution)
        self._training()
        return keeps

    def _wanted(self, keeps: Step | None) -> list[tuple[str, Step | None]]:
        """The method, and its control, at each step of the curve."""
        steps = [] if keeps is None else steps_to(*keeps, self.points)
        wanted: list[tuple[str, Step | None]] = [(self.method, step) for step in steps] or [(self.method, None)]
        if finder_name(self.method) != CONTROL:
            wanted += [(CONTROL, step) for step in steps[::-2][::-1]]  # every other point, the last among them
        return wanted

    def _found(self, data: Data, keeps: Step | None, out: Path, console: Console) -> Ticket:
        checkpoints = out / "checkpoints"
        wanted = self._wanted(keeps)
        curves: dict[str, Levels] = {method: {} for method, _ in wanted}
        runs = [(seed, method, step) for seed in range(self.seeds) for method, step in wanted]
        with Bars() as bars:
            made, training = bars.add("tickets"), bars.add("training", keep=False)
            for number, (seed, method, step) in enumerate(runs):
                if number == 0 or runs[number - 1][0] != seed:
                    folder = checkpoints / self._fingerprint() / f"seed-{seed}"
                    problem = self._problem(data, seed, folder, training)
                    check_problem(problem, self.method, None if keeps is None else keeps[1])
                    dense = train_dense(problem)
                ticket = self._ticket(problem, dense, method, step)
                kept = (Fraction(ticket.config["edge_keep"]), Fraction(ticket.config["weight_keep"]))
                curves[method].setdefault(kept, {})[seed] = ticket
                made(number + 1, len(runs), {})
        return self._publish(curves, keeps, data, out, console)

    def _ticket(self, problem: Problem, dense: FitResult, method: str, step: Step | None) -> Ticket:
        if step is None:
            return sparsest_within(problem, dense, method, float(self.tolerance or 0))
        return make_ticket(problem, dense, method, *step)

    def _training(self) -> Training:
        return Training(
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            distill=self.distill,
            distribution=self.weight_distribution,
            device=ranks.join(self.device),
            pattern=self.pattern,
            weights=self.weights,
        )

    def _problem(self, data: Data, seed: int, folder: Path | None, progress: Report | None) -> Problem:
        return problem_of(
            data,
            model=self.model,
            hidden=self.hidden,
            seed=seed,
            training=self._training(),
            protocol=self.protocol,
            batches=self.batches,
            edge_options={"guard": self.guard} if self.guard else {},
            folder=folder,
            progress=progress,
            tensorboard=None if self.tensorboard is None else self.tensorboard / f"seed-{seed}",
        )

    def _fingerprint(self) -> str:
        """Names the checkpoints of this study: another question never resumes from them."""
        apart = ("seeds", "points", "tensorboard", "batches", "compile")
        asked = {name: value for name, value in vars(self).items() if name not in apart}
        if self.batches is not None:
            asked["batches"] = self.batches.fingerprint()
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]

    def _publish(
        self, curves: Mapping[str, Levels], keeps: Step | None, data: Data, out: Path, console: Console
    ) -> Ticket:
        ends = {method: _at_the_end(levels, keeps) for method, levels in curves.items()}
        found = ends[self.method]
        best = best_on_validation(found)
        ranks.wait()
        if not ranks.is_first():
            return best
        best.save(out)
        summary = {"dataset": self.dataset, "model": self.model, "method": self.method, **summarise(found)}
        standing = _standing(found)
        summary["standing"] = standing.figures()
        controls = {method: summarise(end) for method, end in ends.items() if method != self.method}
        summary["controls"] = {
            method: {k: v for k, v in each.items() if k != "seeds"} for method, each in controls.items()
        }
        if self.compile:
            summary["compiled"] = compiled_figures(best, self._problem(data, best.config["seed"], None, None))
        write_json(out / "metrics.json", plain(summary))
        plot = plot_sparsity(
            out / "accuracy.png",
            [_curve(_label(method), levels) for method, levels in curves.items()],
            dense=(summary["dense_test"], summary["dense_test_ci95"]),
            title=f"{self.model} on {self.dataset}, {len(found)} seed{'s' * (len(found) > 1)}",
            x_label="weights removed, % (above: edges removed)",
            y_label=f"test {summary['metric']}",
        )
        write_json(out / RECORD, plain(self._record(best, data, curves)), dense=True)
        page = write_report(out, ticket_run)
        shutil.rmtree(out / "checkpoints" / self._fingerprint(), ignore_errors=True)
        if not any((out / "checkpoints").glob("*")):
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        beside = [_label(method) for method in controls]
        console.print(
            table(
                _title(self, summary),
                ["", "dense", "ticket", *beside],
                _rows(standing.maximize, summary, *controls.values()),
            )
        )
        say(console, f"{standing.sentence[:1].upper()}{standing.sentence[1:]}.")
        if self.compile:
            times = summary["compiled"]
            say(
                console,
                f"Compiled, a pass takes {times['ms']:.3g} ms; the dense model takes {times['dense_ms']:.3g} ms.",
            )
        say(console, f"ticket: {out}/ticket.json  plot: {plot}  figures: {out}/metrics.json  page: {page}")
        return best

    def _record(self, best: Ticket, data: Data, curves: Mapping[str, Levels]) -> dict[str, Any]:
        """What the page shows besides the figures: the curve, the graph before and after, how it was made."""
        mask, made = best.mask_for(data), provenance("ticket", self)
        del made["options"]["batches"]
        made["options"] |= {name: best.config[name] for name in BATCH_SETTINGS if name in best.config}
        return {
            **made,
            "curve": [{"label": _label(method), "points": _points(levels)} for method, levels in curves.items()],
            "graph": picture(open_graph(data).edges, mask, y=node_classes(data)),
        }


def _at_the_end(levels: Levels, keeps: Step | None) -> dict[int, Ticket]:
    """The ticket of each seed: at the keeps that were asked for, or wherever the seed stopped."""
    ends = levels[keeps] if keeps else {seed: each for tickets in levels.values() for seed, each in tickets.items()}
    return dict(sorted(ends.items()))


def _standing(tickets: Mapping[int, Ticket]) -> Standing:
    first = next(iter(tickets.values()))
    dense, sparse = ([each.metrics[name] for each in tickets.values()] for name in ("dense_test", "test"))
    return Standing.of(dense, sparse, maximize=first.config.get("direction") != "min")


def _stable(*summaries: Mapping[str, Any]) -> bool:
    """Whether times agree over the seeds well enough to be shown: their intervals within a quarter of the means."""
    figures = [(each[f"{p}inference_ms"], each[f"{p}inference_ms_ci95"]) for each in summaries for p in ("dense_", "")]
    return all(half is None or math.isnan(half) or half <= mean / 4 for mean, half in figures)


def _rows(maximize: bool, summary: Mapping[str, Any], *controls: Mapping[str, Any]) -> list[list[str]]:
    def row(label: str, dense: str, sparse: str, **style: Any) -> list[str]:
        def cell(found: Mapping[str, Any], key: str) -> str:
            return interval(found[key], found[f"{key}_ci95"], **style)

        first = cell(summary, dense) if dense in summary else dense
        return [label, first, *(cell(found, sparse) for found in (summary, *controls))]

    percent = {"scale": 100.0, "digits": 2}
    metric, unit = (f"{summary['metric']} (%)", percent) if maximize else (summary["metric"], {"digits": 3})
    rows = [
        row(f"test {metric}", "dense_test", "test", **unit),
        row(f"validation {metric}", "dense_val", "val", **unit),
        row("edges kept (%)", "100.00", "edges_kept", **percent),
        row("weights kept, all (%)", "100.00", "weights_kept", **percent),
        row("weights kept, matrices (%)", "100.00", "weights_kept_matrices", **percent),
        row("isolated nodes", "dense_isolated_nodes", "isolated_nodes", digits=1),
        row("MACs (million)", "dense_macs", "macs", scale=1e-6),
    ]
    if _stable(summary, *controls):
        return [*rows, row("inference (ms)", "dense_inference_ms", "inference_ms")]
    return [*rows, ["inference (ms)", *["too noisy here"] * (2 + len(controls))]]


def _title(study: Study, summary: Mapping[str, Any]) -> str:
    seeds = ", ".join(str(each["seed"]) for each in summary["seeds"])
    method = f"{study.method} (ignores {summary['ignores']})" if "ignores" in summary else study.method
    method += "" if study.weights == L0 else f", weights by {study.weights}"
    return f"{study.model}-{study.hidden} on {study.dataset}, {method}; mean ± 95 % interval over seeds {seeds}"


def _label(method: str) -> str:
    """What a method's curve is called."""
    return f"{method} edges" if method == CONTROL else method


def _points(levels: Levels) -> list[dict[str, float]]:
    """The points of a curve, from the densest on."""
    steps = sorted(levels, key=lambda step: step[1], reverse=True)
    figures = [mean_ci([ticket.metrics["test"] for ticket in levels[step].values()]) for step in steps]
    return [
        {"edges_kept": float(edges), "weights_kept": float(weights), "test": mean, "ci95": half}
        for (edges, weights), (mean, half) in zip(steps, figures, strict=True)
    ]


def _curve(label: str, levels: Levels) -> Curve:
    """From the dense model, of which nothing is removed, to the sparsest tickets."""
    every = {seed: ticket.metrics["dense_test"] for tickets in levels.values() for seed, ticket in tickets.items()}
    points = _points(levels)
    return Curve(
        label,
        [0.0, *(100 * (1 - point["weights_kept"]) for point in points)],
        [math.fsum(every.values()) / len(every), *(point["test"] for point in points)],
        [math.nan, *(point["ci95"] for point in points)],
        ["none", *(f"{1 - point['edges_kept']:.0%}" for point in points)],
    )


def _products(data: Data, hidden: int) -> float:
    """About so many products a step's widest linear map takes."""
    nodes = data.num_nodes
    if data.task == "graph":
        nodes *= GRAPHS_A_STEP / data.num_graphs
    return float(nodes * max(hidden, data.num_features if data.task == "node" else 0) * hidden)


def _describe(data: Data) -> str:
    undirected = data.is_undirected()
    count = data.num_edges // 2 if undirected else data.num_edges
    kind = "undirected" if undirected else "directed"
    graphs = f"{data.num_graphs:,} graphs, " if data.task == "graph" else ""
    return f"{data.name}: {graphs}{data.num_nodes:,} nodes, {count:,} {kind} edges; split: {data.split}"
