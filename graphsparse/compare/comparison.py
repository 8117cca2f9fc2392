"""What a comparison of methods is made of: experiments, the identity of a row, and who makes the runs of a seed."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from graphsparse.errors import GraphsparseError
from graphsparse.report import read_rows
from graphsparse.report.parts import Run as PageRun

Row = Mapping[str, Any]
Trial = Mapping[str, Any]
Verdict = Mapping[str, Any]
Run = tuple[str, Trial, Any]  # method, trial, and how much is kept: a level of tickets, a keep


class Experiment(Protocol):
    """Runs that share a setting: a data set, a model, how it is trained."""

    @property
    def name(self) -> str:
        """A word for a file."""

    @property
    def dataset(self) -> str:
        """Its data set."""

    @property
    def seeds(self) -> int:
        """How many seeds."""

    @property
    def trials(self) -> int:
        """How many trials of each method's hyper-parameters."""

    @property
    def setting(self) -> Mapping[str, Any]:
        """What all its rows share, by the names of `Comparison.setting`."""

    @property
    def comparison(self) -> Comparison:
        """Of which kind it is."""

    def runs(self) -> Iterable[Run]:
        """Every run of one seed but the dense one; steps of a trial follow each other."""


class Seat(Protocol):
    """A seed of a setting, whose dense model is trained."""

    def figures(self, method: str, trial: Trial, step: Any, folder: Path, *, last: bool) -> dict[str, Any]:
        """The figures of a run: ``metric``, ``maximize``, ``val``, ``test`` and others that JSON can say.

        Args:
            method: its name, or ``"dense"``.
            trial: its hyper-parameters.
            step: how much is kept.
            folder: for checkpoints of the trial.
            last: whether it is the sparsest of the trial's runs.
        """


class Comparison(ABC):
    """A kind of comparison, without state: `graphsparse bench tickets` is one, `graphsparse bench sparse` another.

    Attributes:
        command: that makes it.
        setting: names in a row of what makes a setting.
        step: the name in a row of how much is kept.
        older: what rows that were made before a setting had a field say by their silence.
        figures: whose means a verdict gives, beside the metric.
        error: what is raised at the end if runs failed.
        references: methods, or ``"dense"``, that every other is held against.
    """

    command: ClassVar[str]
    setting: ClassVar[tuple[str, ...]]
    step: ClassVar[str]
    older: ClassVar[Mapping[str, Any]] = {}
    figures: ClassVar[tuple[str, ...]]
    references: ClassVar[tuple[str, ...]]
    error: ClassVar[type[GraphsparseError]] = GraphsparseError

    @property
    def key(self) -> tuple[str, ...]:
        """The names in a row that tell it from all others, its source aside."""
        return (*self.setting, "seed", "method", self.step, "trial")

    def row_key(self, row: Row) -> str:
        """The identity of a run; of something of one's own, its source belongs to it."""
        return json.dumps([row[name] for name in self.key] + [row.get("source")], sort_keys=True)

    def read_runs(self, path: Path) -> list[dict[str, Any]]:
        """The rows of a comparison; of equal runs the last; none where there is no file.

        Raises:
            ValueError: a line is no row of a comparison.
        """
        return read_rows(path, self.key, self.older)

    @abstractmethod
    def seat(self, experiment: Any, seed: int, out: Path, device: str, tensorboard: Path | None) -> Seat:
        """Train the dense model of a seed."""

    @abstractmethod
    def trials_of(self, method: str) -> Sequence[Trial]:
        """What is tried of a method's hyper-parameters.

        Raises:
            ValueError, ImportError: it is not at hand.
        """

    @abstractmethod
    def made_by(self, method: str, dataset: str) -> dict[str, str]:
        """Of a method or a data set of one's own: what it was made by, as ``source``; of all others nothing."""

    def order(self, step: Any) -> Any:
        """By what steps are sorted, from the densest on; steps of equal order are compared."""
        return step

    def reference(self, reference: str, method: str) -> str:
        """The method that a method is held against, under the name of a reference."""
        return reference

    def picks_each_seed(self, method: str) -> bool:
        """Whether the trial is chosen for each seed alone: where trials are draws and no hyper-parameters."""
        return False

    def means(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What else a cell says of its rows."""
        return {}

    def of_dense(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What else a setting's rows say of the dense model."""
        return {}

    def of_method(self, cells: Sequence[Mapping[str, Any]], whole: bool, sign: int) -> dict[str, Any]:
        """What else is said of a method, by its cells; ``whole`` where none is missing."""
        return {}

    @abstractmethod
    def pages(self, found: Sequence[Verdict]) -> str:
        """The verdicts as Markdown."""

    @abstractmethod
    def plot(self, out: Path, verdict: Verdict) -> None:
        """Draw a setting into a file in ``out``."""

    @abstractmethod
    def page(self, folder: Path) -> PageRun | None:
        """What the page of a comparison in a folder says; None where there is none."""
