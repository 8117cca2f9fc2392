"""The study behind the command: tickets over seeds, one table, one plot, one JSON object."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch_geometric.data import Data

from graphsparse.data import load
from graphsparse.fit import FitResult, mean_ci
from graphsparse.graphs.interop import open_graph
from graphsparse.graphs.picture import picture
from graphsparse.locking import only_one
from graphsparse.parallel import one_thread
from graphsparse.params import DISTRIBUTIONS
from graphsparse.report import Curve, interval, plain, plot_sparsity, provenance, table, write_json
from graphsparse.report.runs import PAGE, RECORD, write_report
from graphsparse.tickets.compare.search import best_on_validation, sparsest_within, summarise
from graphsparse.tickets.compare.setup import node_classes, problem_of
from graphsparse.tickets.compare.ticket_page import ticket_run
from graphsparse.tickets.find import read_keeps
from graphsparse.tickets.finders.table import check_rules
from graphsparse.tickets.make import make_ticket
from graphsparse.tickets.problem import Problem, Training, train_dense
from graphsparse.tickets.ticket import Ticket

Step = tuple[Fraction, Fraction]  # edge keep, weight keep

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
    weight_distribution: str
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
        keeps = read_keeps(self.edge_keep, self.weight_keep, self.tolerance)
        check_rules(self.method, {"guard": self.guard})
        DISTRIBUTIONS.find(self.weight_distribution)
        _check_device(self.device)
        data = load(self.dataset, split=self.split)
        console.print(_describe(data), highlight=False)
        written = ("ticket.json", "metrics.json", "accuracy.png", RECORD, PAGE)
        with (
            only_one(out, files=written, folders=("checkpoints",)),
            one_thread(spare_threads and _products(data, self.hidden) < SMALL),
        ):
            return self._found(data, keeps, out, console)

    def _found(self, data: Data, keeps: Step | None, out: Path, console: Console) -> Ticket:
        checkpoints = out / "checkpoints"
        curve: dict[Step, dict[int, Ticket]] = {}
        dense: dict[int, FitResult] = {}
        for seed in range(self.seeds):
            problem = self._problem(data, seed, checkpoints / self._fingerprint() / f"seed-{seed}")
            dense[seed] = train_dense(problem)
            if keeps is None:
                ticket = sparsest_within(problem, dense[seed], self.method, float(self.tolerance or 0))
                step = (Fraction(ticket.config["edge_keep"]), Fraction(ticket.config["weight_keep"]))
                curve.setdefault(step, {})[seed] = ticket
                continue
            for step in steps_to(*keeps, self.points):
                curve.setdefault(step, {})[seed] = make_ticket(problem, dense[seed], self.method, *step)
        found = curve[keeps] if keeps else {seed: t for tickets in curve.values() for seed, t in tickets.items()}
        return self._publish(dict(sorted(found.items())), curve, data, out, console)

    def _problem(self, data: Data, seed: int, folder: Path) -> Problem:
        training = Training(
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            distill=self.distill,
            distribution=self.weight_distribution,
            device=self.device,
        )
        return problem_of(
            data,
            model=self.model,
            hidden=self.hidden,
            seed=seed,
            training=training,
            protocol=self.protocol,
            edge_options={"guard": self.guard} if self.guard else {},
            folder=folder,
        )

    def _fingerprint(self) -> str:
        """Names the checkpoints of this study: another question never resumes from them."""
        asked = {name: value for name, value in vars(self).items() if name not in ("seeds", "points")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]

    def _publish(
        self,
        found: dict[int, Ticket],
        curve: Mapping[Step, Mapping[int, Ticket]],
        data: Data,
        out: Path,
        console: Console,
    ) -> Ticket:
        best = best_on_validation(found)
        best.save(out)
        summary = {"dataset": self.dataset, "model": self.model, "method": self.method, **summarise(found)}
        write_json(out / "metrics.json", plain(summary))
        plot = plot_sparsity(
            out / "accuracy.png",
            [_curve(self.method, curve)],
            dense=(summary["dense_test"], summary["dense_test_ci95"]),
            title=f"{self.model} on {self.dataset}, {len(found)} seeds",
            x_label="sparsity of the weights (of the edges: above)",
            y_label=f"test {summary['metric']}",
        )
        write_json(out / RECORD, plain(self._record(best, data, curve)), dense=True)
        page = write_report(out, ticket_run)
        shutil.rmtree(out / "checkpoints" / self._fingerprint(), ignore_errors=True)
        if not any((out / "checkpoints").glob("*")):
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        console.print(table(_title(self, summary), ["", "dense", "ticket"], _rows(summary)))
        console.print(
            f"ticket: {out}/ticket.json  plot: {plot}  figures: {out}/metrics.json  page: {page}",
            highlight=False,
            soft_wrap=True,
        )
        return best

    def _record(self, best: Ticket, data: Data, curve: Mapping[Step, Mapping[int, Ticket]]) -> dict[str, Any]:
        """What the page shows besides the figures: the curve, the graph before and after, how it was made."""
        mask = best.mask_for(data)
        return {
            **provenance("ticket", self),
            "curve": [{"label": self.method, "points": _points(curve)}],
            "graph": picture(open_graph(data).edges, mask, y=node_classes(data)),
        }


def _rows(summary: Mapping[str, Any]) -> list[list[str]]:
    def both(label: str, dense: str, sparse: str, **style: Any) -> list[str]:
        def cell(key: str) -> str:
            return interval(summary[key], summary[f"{key}_ci95"], **style)

        return [label, cell(dense) if dense in summary else dense, cell(sparse)]

    percent = {"scale": 100.0, "digits": 2}
    metric, unit = summary["metric"], percent
    if metric == "rmse":
        unit = {"digits": 3}
    else:
        metric += " (%)"
    return [
        both(f"test {metric}", "dense_test", "test", **unit),
        both(f"validation {metric}", "dense_val", "val", **unit),
        both("edges kept (%)", "100.00", "edges_kept", **percent),
        both("weights kept, all (%)", "100.00", "weights_kept", **percent),
        both("weights kept, matrices (%)", "100.00", "weights_kept_matrices", **percent),
        both("isolated nodes", "dense_isolated_nodes", "isolated_nodes", digits=1),
        both("MACs (million)", "dense_macs", "macs", scale=1e-6),
        both("inference (ms)", "dense_inference_ms", "inference_ms"),
    ]


def _title(study: Study, summary: Mapping[str, Any]) -> str:
    seeds = ", ".join(str(each["seed"]) for each in summary["seeds"])
    method = f"{study.method} (ignores {summary['ignores']})" if "ignores" in summary else study.method
    return f"{study.model}-{study.hidden} on {study.dataset}, {method}; mean ± 95 % interval over seeds {seeds}"


def _points(curve: Mapping[Step, Mapping[int, Ticket]]) -> list[dict[str, float]]:
    """The points of a curve, from the densest on."""
    steps = sorted(curve, key=lambda step: step[1], reverse=True)
    figures = [mean_ci([ticket.metrics["test"] for ticket in curve[step].values()]) for step in steps]
    return [
        {"edges_kept": float(edges), "weights_kept": float(weights), "test": mean, "ci95": half}
        for (edges, weights), (mean, half) in zip(steps, figures, strict=True)
    ]


def _curve(label: str, curve: Mapping[Step, Mapping[int, Ticket]]) -> Curve:
    points = _points(curve)
    return Curve(
        label,
        [1 - point["weights_kept"] for point in points],
        [point["test"] for point in points],
        [point["ci95"] for point in points],
        [f"edges {1 - point['edges_kept']:.0%}" for point in points],
    )


def _check_device(name: str) -> None:
    """Raise ValueError for a device that is not here."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


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
