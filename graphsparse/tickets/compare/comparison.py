"""The comparison of ticket finders: ``graphsparse bench tickets``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from graphsparse.compare import Comparison, mean_of, verdicts_of
from graphsparse.compare.comparison import Row, Trial, Verdict
from graphsparse.data import DATASETS
from graphsparse.errors import GraphsparseError, TicketError
from graphsparse.params import METHODS
from graphsparse.report import Curve, plot_curves
from graphsparse.report.parts import Run
from graphsparse.tickets.compare.plan import OLDER, SETTING, Experiment, base_of, marks_of, trials_of
from graphsparse.tickets.compare.runs import TicketSeat
from graphsparse.tickets.compare.verdict import FIGURES, REFERENCES, of_method, pages
from graphsparse.tickets.finders.table import FINDERS


class TicketComparison(Comparison):
    """Finders at levels of the paper, on graphs."""

    command: ClassVar[str] = "bench tickets"
    setting: ClassVar[tuple[str, ...]] = SETTING
    step: ClassVar[str] = "level"
    older: ClassVar[Mapping[str, Any]] = OLDER
    figures: ClassVar[tuple[str, ...]] = FIGURES
    references: ClassVar[tuple[str, ...]] = REFERENCES
    error: ClassVar[type[GraphsparseError]] = TicketError

    def seat(self, experiment: Experiment, seed: int, out: Path, device: str, tensorboard: Path | None) -> TicketSeat:
        """Train the dense model of a seed."""
        return TicketSeat(experiment, seed, out, device, tensorboard)

    def trials_of(self, method: str) -> Sequence[Trial]:
        """What is tried of a finder's hyper-parameters."""
        return trials_of(base_of(method))

    def made_by(self, method: str, dataset: str) -> dict[str, str]:
        """Of a finder, a method for the weights or a data set of one's own: what it was made by."""
        sources = [DATASETS.source_hash(dataset)]
        if method != "dense":
            sources = [FINDERS.source_hash(base_of(method)), METHODS.source_hash(marks_of(method).weights), *sources]
        known = [source for source in sources if source is not None]
        return {"source": "+".join(known)} if known else {}

    def means(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The share of the dense model's time in the same run, and of a control what it ignores."""
        timed = [row for row in rows if row.get("dense_inference_ms")]
        return {
            "inference_of_dense": mean_of([row["inference_ms"] / row["dense_inference_ms"] for row in timed]),
            "ignores": next((row["ignores"] for row in rows if row.get("ignores")), ""),
        }

    def of_dense(self, rows: Sequence[Row]) -> dict[str, Any]:
        """A sparse run measures the dense model beside its own."""
        named = {name: [row[f"dense_{name}"] for row in rows if f"dense_{name}" in row] for name in _BESIDE}
        return {name: mean_of(values) for name, values in named.items()}

    def of_method(self, cells: Sequence[Mapping[str, Any]], whole: bool, sign: int) -> dict[str, Any]:
        """Its extreme tickets, and the area below its curve."""
        return of_method(cells, whole, sign)

    def pages(self, found: Sequence[Verdict]) -> str:
        """For each setting the metric by method and level, and what it costs at the sparsest level."""
        return pages(found)

    def page(self, folder: Path) -> Run | None:
        """Methods beside each other in every setting."""
        from graphsparse.tickets.compare.bench_page import bench_run  # which reads what is compared here

        return bench_run(folder)

    def plot(self, out: Path, verdict: Verdict) -> None:
        """The metric against the level."""
        dense = verdict["dense"]
        half = dense["test_ci95"]
        curves = [
            Curve(
                method["method"],
                [cell["level"] for cell in method["levels"]],
                [cell["test"] for cell in method["levels"]],
                # of two seeds an interval is as wide as the page (t is 12.7), and hides all others
                [cell["test_ci95"] if len(cell["seeds"]) > 2 else float("nan") for cell in method["levels"]],
            )
            for method in verdict["methods"]
        ]
        name = "-".join(str(verdict["setting"][key]) for key in ("dataset", "model", "hidden", "protocol"))
        name += "-random-splits" if verdict["setting"]["split"] else ""
        plot_curves(
            out / f"{name}.png",
            curves,
            level=("dense", dense["test"], float("nan") if half is None else half),
            title=f"{name}: mean and 95 % interval over {dense['seeds']} seeds",
            x_label="level i: 0.95^i of the edges, 0.9^i of the weights",
            y_label=f"test {verdict['metric']}",
        )


_BESIDE = ("macs", "inference_ms")
TICKETS = TicketComparison()


def verdicts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A verdict for each setting (data set, model, protocol), see :func:`graphsparse.compare.verdicts_of`.

    The references are the dense model, TEDDY and the dense student. A method also has its ``extreme`` (the sparsest
    level whose mean difference from dense, or with three seeds or more its 95 % interval, reaches 0; None if none
    does), ``extreme_by_student`` (the same by the difference from the dense student), ``area`` (mean metric over
    levels, by trapezoids; None if levels are missing) and ``ignores`` (the keeps that a control does not obey; "" for
    all others); ``inference_of_dense`` is the share of the dense model's time in the same run.
    """
    return verdicts_of(TICKETS, rows)
