"""The runs of a comparison, a seed of a setting at a time: each is a line, and one that fails stops no other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphsparse.atomic_write import DISK
from graphsparse.compare.comparison import Experiment, Run
from graphsparse.report import append_row, commit, plain, unchanged, versions

ROWS = "rows.jsonl"


@dataclasses.dataclass(frozen=True)
class Work:
    """Runs that one process makes.

    Attributes:
        experiment: of which setting.
        seed: which seed.
        runs: which are missing.
    """

    experiment: Experiment
    seed: int
    runs: list[Run]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.experiment.name}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Where the checkpoints of the setting and seed go, a folder for each trial of a method."""
        digest = digest_of([self.experiment.setting, self.seed])
        return out / "checkpoints" / f"{self.experiment.name}-{self.seed}-{digest}"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that raised an error.

    Attributes:
        run: which, in words.
        error: what it said.
        trace: where.
    """

    run: str
    error: str
    trace: str

    @staticmethod
    def of(run: str, error: Exception, said: str | None = None) -> Failure:
        """The failure that an error is, in its own words or in others."""
        return Failure(run, said or f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def missing_work(experiments: Sequence[Experiment], done: set[str]) -> list[Work]:
    """What is not done, by setting and seed: experiments of one setting share its dense model."""
    work: dict[str, Work] = {}
    for experiment in experiments:
        for seed in range(experiment.seeds):
            name = json.dumps([experiment.setting, seed])
            runs = work.setdefault(name, Work(experiment, seed, [])).runs
            runs += [run for run in missing_runs(experiment, seed, done) if run not in runs]
    return [item for item in work.values() if item.runs]


def shared_out(work: Sequence[Work], jobs: int) -> list[Work]:
    """Work for so many processes: where seeds are fewer, their methods are shared out, each part with its dense model.

    Example:
        >>> runs = [("dense", {}, 0), ("teddy", {}, 5), ("random", {}, 5), ("teddy", {}, 9)]
        >>> [[run[::2] for run in part.runs] for part in shared_out([Work(None, 0, runs)], 2)]
        [[('dense', 0), ('teddy', 5), ('teddy', 9)], [('random', 5)]]
    """
    parts = -(-jobs // max(len(work), 1))
    shares = []
    for item in work:
        methods = dict.fromkeys(method for method, *_ in item.runs if method != "dense")
        part_of = {method: place % parts for place, method in enumerate(methods)} | {"dense": 0}
        shares += [
            dataclasses.replace(item, runs=[run for run in item.runs if part_of[run[0]] == part])
            for part in sorted({part_of[method] for method, *_ in item.runs})
        ]
    return shares


def missing_runs(experiment: Experiment, seed: int, done: set[str]) -> list[Run]:
    """The runs of a seed that are not done, the dense one's row among them."""
    kind, runs = experiment.comparison, [("dense", dict[str, Any](), 0), *experiment.runs()]
    return [run for run in runs if kind.row_key(_about(experiment, seed, run)) not in done]


def _about(experiment: Experiment, seed: int, run: Run) -> dict[str, Any]:
    """What makes a run, as its row says it."""
    method, trial, step = run
    about = {"seed": seed, "method": method, "trial": dict(trial), experiment.comparison.step: step}
    return {**experiment.setting, **about, **experiment.comparison.made_by(method, experiment.dataset)}


def make_runs(work: Work, out: Path, device: str = "cpu", tensorboard: Path | None = None) -> Iterator[Failure | None]:
    """Train the dense model of a seed and make its missing runs; after each, how it failed, or None.

    Trials have checkpoints, which go once all their runs are made; the dense model has none, because it is not alone in
    needing one: other processes train it, too.

    Args:
        work: which runs.
        out: the folder of the comparison.
        device: where the networks are trained.
        tensorboard: a folder for TensorBoard's logs; None writes none.

    Raises:
        OSError: the disk is full or broken.
    """
    experiment, kind = work.experiment, work.experiment.comparison
    folder = work.folder(out)
    try:
        logs = None if tensorboard is None else tensorboard / folder.name
        seat = kind.seat(experiment, work.seed, out, device, logs)
    except Exception as error:
        yield from [Failure.of(f"{work.name}, the dense model", error)] * len(work.runs)
        return
    trials, failed = set[str](), set[str]()
    made = {"commit": commit(), "clean": unchanged(), "versions": versions()}
    for run in work.runs:
        method, trial, step = run
        about = _about(experiment, work.seed, run)
        own = digest_of([method, trial, {"source": about["source"]} if "source" in about else {}])
        try:
            if method != "dense" and own not in trials:
                _forget(folder, trials - failed)
                trials = {own}  # the one before has done its work
            sparsest = max((other[2] for other in work.runs if other[:2] == run[:2]), key=kind.order)
            figures = seat.figures(method, trial, step, folder / own, last=step == sparsest)
            append_row(out / ROWS, plain(about | figures | made))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise  # no later run could be written down either
            failed.add(own)
            yield Failure.of(f"{work.name}, {method} {dict(trial)} at {kind.step} {step}", error)
        else:
            yield None
    _forget(folder, trials - failed)


def _forget(folder: Path, trials: Iterable[str]) -> None:
    """Remove the checkpoints of trials, and the folder if no others are left in it."""
    for name in trials:
        shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def digest_of(content: Any) -> str:
    """A short word for what JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
