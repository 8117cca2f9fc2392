"""What a comparison would cost: its runs are counted, and a few epochs of each setting are timed."""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphsparse.compare import ROWS, missing_work
from graphsparse.data import load
from graphsparse.errors import GraphsparseError
from graphsparse.tickets.compare.comparison import TICKETS
from graphsparse.tickets.compare.plan import Experiment
from graphsparse.tickets.compare.setup import problem_of
from graphsparse.tickets.problem import Problem, Training, train_dense

PROBED = 3  # epochs that are timed


def estimate(experiments: Sequence[Experiment], jobs: int, out: Path) -> dict[str, Any]:
    """Count the runs that ``out`` lacks and estimate their time and memory; nothing is written.

    The time of a run is that of its epochs, by `PROBED` epochs of the dense model; methods that train several times
    take as many times longer, which is not known before.

    Returns:
        ``runs``, ``made`` (before), ``jobs``, ``seconds``, ``memory_mb`` (of all processes), and ``settings``: of each
        ``name``, ``runs`` and ``seconds`` of one run (None where its data set is missing, and ``missing`` says why).

    Raises:
        ValueError: there is no such data set, backbone or protocol.
    """
    rows = TICKETS.read_runs(out / ROWS)
    left: dict[str, int] = {}
    for work in missing_work(experiments, {TICKETS.row_key(row) for row in rows}):
        left[work.experiment.name] = left.get(work.experiment.name, 0) + len(work.runs)
    asked = {each.name: each for each in experiments if each.name in left}
    settings: list[dict[str, Any]] = [{"name": name, "runs": left[name], **_probe(asked[name])} for name in asked]
    known = [each["runs"] * each["seconds"] for each in settings if each["seconds"] is not None]
    return {
        "runs": sum(left.values()),
        "made": len(rows),
        "jobs": jobs,
        "seconds": sum(known) / min(jobs, max(1, sum(left.values()))),
        "memory_mb": jobs * memory_mb(),
        "settings": settings,
    }


def told(cost: dict[str, Any]) -> list[str]:
    """An estimate in lines for a terminal."""
    lines = []
    for each in cost["settings"]:
        time = each["missing"] if each["seconds"] is None else f"about {each['seconds']:.1f} s each"
        lines.append(f"{each['name']}: {each['runs']} runs, {time}")
    lines.append(
        f"{cost['runs']} runs to make, {cost['made']} made before: about {cost['seconds'] / 60:.1f} minutes with "
        f"{cost['jobs']} processes and {cost['memory_mb']:,.0f} MB; methods that train several times take longer"
    )
    return lines


def _probe(experiment: Experiment) -> dict[str, Any]:
    try:
        data = load(experiment.dataset, split=experiment.split)
    except GraphsparseError as error:
        return {"seconds": None, "missing": str(error)}
    training = Training(experiment.epochs, experiment.lr, experiment.weight_decay)
    made = problem_of(
        data, model=experiment.model, hidden=experiment.hidden, seed=0, training=training, protocol=experiment.protocol
    )
    return {"seconds": seconds_of(made)}


def seconds_of(problem: Problem) -> float:
    """About what one training of a problem takes, by a few epochs of its dense model; nothing is written."""
    short = dataclasses.replace(problem.training, epochs=PROBED)
    probed = train_dense(dataclasses.replace(problem, training=short, folder=None, tensorboard=None, progress=False))
    return probed.seconds / PROBED * problem.training.epochs


def memory_mb() -> float:
    """The most that this process has taken."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
