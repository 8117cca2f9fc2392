"""Runs a comparison: in parallel, one JSON line a run, resumed where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from graphsparse.atomic_write import atomic_write
from graphsparse.compare.comparison import Comparison, Experiment, Trial
from graphsparse.compare.runs import ROWS, Failure, Work, make_runs, missing_work, shared_out
from graphsparse.compare.verdict import verdicts_of
from graphsparse.cores import usable_cores
from graphsparse.errors import GraphsparseError
from graphsparse.fit import Bars
from graphsparse.fit.measure import find_device
from graphsparse.locking import only_one
from graphsparse.parallel import one_thread
from graphsparse.report import provenance, say, versions, write_json
from graphsparse.report.runs import PAGE, RECORD, write_report
from graphsparse.workers import WorkerError, in_processes

FAILED, SUMMARY, TABLES = "failed.txt", "summary.json", "tables.md"


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a comparison is asked for.

    Args:
        experiments: what is compared.
        jobs: processes of one thread each, by seed, or by seed and method where the seeds are fewer.
        device: where the networks are trained; it is no part of what makes runs the same.
        tensorboard: a folder for TensorBoard's logs, one below it for each training run; None writes none.

    Raises:
        ValueError: ``jobs`` is less than 1, or there is no such device.
    """

    experiments: Sequence[Experiment]
    jobs: int = dataclasses.field(default_factory=usable_cores)
    device: str = "cpu"
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        find_device(self.device)

    @property
    def comparison(self) -> Comparison:
        """Of which kind it is."""
        return self.experiments[0].comparison

    def run(self, out: Path, console: Console) -> list[dict[str, Any]]:
        """Make the runs that ``out`` lacks, write summary, tables and plots there, and print the tables.

        Every run appends one line to ``rows.jsonl`` in ``out``: an interrupted comparison goes on from there, and
        another one may share the folder. A run that fails stops no other.

        Raises:
            GraphsparseError: of the comparison's kind, at the end, after the tables, if runs failed or were killed.
            BusyError: another process works in ``out``.
            OSError: ``out`` cannot be written, which is told before anything is trained, or its disk is full.
        """
        with only_one(out, files=(ROWS, SUMMARY, TABLES, FAILED, RECORD, PAGE), folders=("checkpoints", "graphs")):
            return self._run(out, console)

    def _run(self, out: Path, console: Console) -> list[dict[str, Any]]:
        rows = self.comparison.read_runs(out / ROWS)
        work = self._missing(rows)
        total = sum(len(item.runs) for item in work)
        say(console, f"{total} runs to make, {len(rows)} made before; rows: {out / ROWS}")
        failures = self._make(work, total, out)
        rows = self.comparison.read_runs(out / ROWS)
        found = self._publish(rows, out, console)
        missing = sum(len(item.runs) for item in self._missing(rows))
        _complain(failures, missing, total, out, self.comparison.error)
        return found

    def _missing(self, rows: Sequence[dict[str, Any]]) -> list[Work]:
        return missing_work(self.experiments, {self.comparison.row_key(row) for row in rows})

    def _make(self, work: Sequence[Work], total: int, out: Path) -> list[Failure]:
        """Do the work; the runs that failed."""
        # Without huge pages the activations of a graph like PubMed's are mapped anew every step, a third of its time.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch, read at a process's first tensor
        with Bars() as bars:
            bar = bars.add("runs")

            def show(made: int) -> None:
                bar(min(made, total), total, {})

            show(0)
            shares = shared_out(work, self.jobs)
            return (self._in_turn if min(self.jobs, len(shares)) <= 1 else self._at_once)(shares, out, show)

    def _in_turn(self, work: Sequence[Work], out: Path, show: Callable[[int], None]) -> list[Failure]:
        ends = []
        with one_thread():  # figures of time are those of one thread, however many runs there are at once
            for item in work:
                for end in make_runs(item, out, self.device, self.tensorboard):
                    ends.append(end)
                    show(len(ends))
        return [end for end in ends if end is not None]

    def _at_once(self, work: Sequence[Work], out: Path, show: Callable[[int], None]) -> list[Failure]:
        begun, failures = _lines(out / ROWS), list[Failure]()

        def beat() -> None:
            show(_lines(out / ROWS) - begun + len(failures))

        call = partial(_failures, out=out, device=self.device, tensorboard=self.tensorboard)
        with closing(in_processes(call, work, self.jobs, beat=beat)) as ends:
            for end in ends:
                if isinstance(end.error, WorkerError):
                    failures.append(Failure.of(end.item.name, end.error, str(end.error)))
                else:
                    failures += end.result()
                beat()
        return failures

    def _publish(self, rows: Sequence[dict[str, Any]], out: Path, console: Console) -> list[dict[str, Any]]:
        asked = asked_rows(self.experiments, rows)
        kind = self.comparison
        found = verdicts_of(kind, asked)
        content = {"command": f"graphsparse {kind.command}", "versions": versions(), "runs": len(asked)}
        summary = write_json(out / SUMMARY, {**content, "settings": found})
        text = kind.pages(found)
        tables = out / TABLES
        with atomic_write(tables) as partial:
            partial.write_text(text + "\n")
        for verdict in found:
            kind.plot(out, verdict)
        write_json(out / RECORD, provenance(kind.command, SimpleNamespace(jobs=self.jobs, device=self.device)))
        page = [f"  page: {write_report(out, kind.page)}"] if found else []
        from rich.markdown import Markdown

        console.print(Markdown(text))
        say(console, f"rows: {out / ROWS}  summary: {summary}  tables: {tables}  plots: {out}/*.png{''.join(page)}")
        return found


def asked_rows(experiments: Sequence[Experiment], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the experiments' settings, whatever their method, level and seed; of every method as many trials.

    Where experiments of a setting differ in their trials, the fewest count. Rows of a finder or a data set that is not
    at hand, or whose source has changed since, are left out.
    """
    count: dict[str, int] = {}
    for experiment in experiments:
        name = json.dumps(dict(experiment.setting))
        count[name] = min(count.get(name, experiment.trials), experiment.trials)
    kind = experiments[0].comparison
    known = {named: _at_hand(kind, *named) for named in {(row["method"], row["dataset"]) for row in rows}}
    asked = []
    for row in rows:
        trials, source = known[row["method"], row["dataset"]]
        tried = trials[: count.get(json.dumps({name: row[name] for name in kind.setting}), 0)]
        if row["trial"] in tried and row.get("source") == source.get("source"):
            asked.append(row)
    return asked


def _at_hand(kind: Comparison, method: str, dataset: str) -> tuple[Sequence[Trial], dict[str, str]]:
    """The trials of a method and where it and its data come from; no trials where either cannot be had."""
    try:
        return [{}] if method == "dense" else kind.trials_of(method), kind.made_by(method, dataset)
    except (ValueError, ImportError):
        return [], {}


def _failures(work: Work, out: Path, device: str, tensorboard: Path | None) -> list[Failure]:
    return [end for end in make_runs(work, out, device, tensorboard) if end is not None]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _complain(failures: Sequence[Failure], missing: int, total: int, out: Path, kind: type[GraphsparseError]) -> None:
    """Say what failed, and where the whole story is; the file of an earlier time goes."""
    file = out / FAILED
    if not failures:
        file.unlink(missing_ok=True)
        return
    with atomic_write(file) as partial:
        partial.write_text("\n".join(f"{failure.run}\n{failure.trace}" for failure in failures))
    first = failures[0]
    raise kind(
        f"{missing} of {total} runs failed, first {first.run}: {first.error} (all of them: {file}); "
        "the others are in the tables, and the same comparison tries these again"
    )
