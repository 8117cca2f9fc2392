"""What a comparison of sparse training would cost: its runs are counted, and a few epochs of each setting are timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphsparse.compare import ROWS, missing_work
from graphsparse.sparse.compare.comparison import SPARSE, SparseSeat
from graphsparse.sparse.compare.plan import Experiment

PROBED = 2  # epochs that are timed


def estimate(experiments: Sequence[Experiment], jobs: int, out: Path) -> dict[str, Any]:
    """Count the runs that ``out`` lacks and estimate their time by a few epochs of the dense model; writes nothing.

    Returns:
        ``runs``, ``made`` (before), ``jobs`` and ``seconds``.

    Raises:
        ValueError, DataError: for what cannot be run.
    """
    rows = SPARSE.read_runs(out / ROWS)
    work = missing_work(experiments, {SPARSE.row_key(row) for row in rows})
    seconds = 0.0
    for name in dict.fromkeys(item.experiment.name for item in work):
        own = [item for item in work if item.experiment.name == name]
        asked = own[0].experiment
        assert isinstance(asked, Experiment)
        epochs = asked.epochs or 1
        probed = SparseSeat(dataclasses.replace(asked, epochs=min(PROBED, epochs)), 0, "cpu", None).dense
        seconds += probed.seconds / min(PROBED, epochs) * epochs * sum(len(item.runs) for item in own)
    runs = sum(len(item.runs) for item in work)
    return {"runs": runs, "made": len(rows), "jobs": jobs, "seconds": seconds / min(jobs, max(1, runs))}


def told(cost: dict[str, Any]) -> list[str]:
    """An estimate in a line for a terminal."""
    return [
        f"{cost['runs']} runs to make, {cost['made']} made before: about {cost['seconds'] / 60:.1f} minutes with "
        f"{cost['jobs']} processes, and up to a quarter more for what the methods do"
    ]
