"""A comparison of a new kind: a seat and a few names are all that it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from graphsparse.compare import FAILED, ROWS, Bench, Comparison, asked_rows, differs, verdicts_of
from graphsparse.errors import GraphsparseError


class Seat:
    """What a method adds to the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def figures(self, method: str, trial: Mapping[str, Any], step: Any, folder: Path, *, last: bool) -> dict[str, Any]:
        if method == "broken":
            raise ValueError("it does not work")
        gain = {"dense": 0.0, "good": 5.0, "bad": -5.0}[method] + trial.get("bonus", 0) + 0.1 * self.seed * (step or 0)
        return {"metric": "score", "maximize": True, "val": gain, "test": self.seed + gain, "size": step, "last": last}


class Toys(Comparison):
    command: ClassVar[str] = "bench toys"
    setting: ClassVar[tuple[str, ...]] = ("dataset", "colour")
    step: ClassVar[str] = "size"
    figures: ClassVar[tuple[str, ...]] = ("size",)
    references: ClassVar[tuple[str, ...]] = ("dense", "bad")

    def seat(self, experiment: Any, seed: int, out: Path, device: str, tensorboard: Path | None) -> Seat:
        return Seat(seed)

    def trials_of(self, method: str) -> Sequence[Mapping[str, Any]]:
        if method == "gone":
            raise ValueError("there is no such method")
        return ({"bonus": 0}, {"bonus": 1})

    def made_by(self, method: str, dataset: str) -> dict[str, str]:
        return {"source": "mine"} if method == "good" else {}

    def pages(self, found: Sequence[Mapping[str, Any]]) -> str:
        return "\n".join(str(each["setting"]["colour"]) for each in found)

    def plot(self, out: Path, verdict: Mapping[str, Any]) -> None:
        (out / "plot.txt").write_text(str(verdict["setting"]["colour"]))

    def page(self, folder: Path) -> Any:
        from graphsparse.report.parts import Run

        return Run("toys", "toys", "Toys were compared.", [])


TOYS = Toys()


@dataclass(frozen=True)
class Experiment:
    methods: tuple[str, ...] = ("good", "bad")
    colour: str = "red"
    dataset: str = "digits-knn"
    seeds: int = 4
    trials: int = 2
    name: str = "toys"

    @property
    def setting(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "colour": self.colour}

    @property
    def comparison(self) -> Comparison:
        return TOYS

    def runs(self) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
        for method in self.methods:
            for trial in TOYS.trials_of(method)[: self.trials]:
                for size in (1, 2):
                    yield method, trial, size


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


def test_a_kind_of_ones_own_is_run_resumed_and_judged(tmp_path: Path) -> None:
    (verdict,) = Bench([Experiment()], 1).run(tmp_path, Console(quiet=True))
    rows = rows_of(tmp_path)
    assert len(rows) == 4 * (1 + 2 * 2 * 2)
    assert {row["size"] for row in rows if row["last"] and row["method"] != "dense"} == {2}
    assert {row.get("source") for row in rows} == {None, "mine"}
    assert (tmp_path / "plot.txt").read_text() == "red"
    assert "Toys were compared." in (tmp_path / "report.html").read_text()
    good = next(m for m in verdict["methods"] if m["method"] == "good")["levels"][0]
    assert good["trial"] == {"bonus": 1}, "chosen on validation data"
    assert good["minus_dense"]["mean"] == pytest.approx(6.15)
    assert good["minus_bad"] == {"mean": 10.0, "ci95": 0.0, "wins": 4, "pairs": 4, "p": None}, "no spread is no test"
    assert differs(good["minus_dense"])
    Bench([Experiment(seeds=5)], 1).run(tmp_path, Console(quiet=True))
    assert rows_of(tmp_path)[: len(rows)] == rows
    assert len(rows_of(tmp_path)) == 5 * 9


def test_failures_are_of_its_own_kind_of_error_and_stop_no_other(tmp_path: Path) -> None:
    with pytest.raises(GraphsparseError, match=r"8 of 18 runs failed, first toys, seed 0, broken .* at size 1"):
        Bench([Experiment(("good", "broken"), seeds=2, trials=2)], 1).run(tmp_path, Console(quiet=True))
    assert len(rows_of(tmp_path)) == 2 * 5
    assert "it does not work" in (tmp_path / FAILED).read_text()


def test_rows_of_other_settings_and_of_what_is_gone_are_left_out(tmp_path: Path) -> None:
    Bench([Experiment(seeds=1)], 1).run(tmp_path, Console(quiet=True))
    rows = rows_of(tmp_path)
    others = [{**rows[1], "method": "gone"}, {**rows[1], "colour": "blue"}, {**rows[1], "source": "older"}]
    assert asked_rows([Experiment()], rows + others) == rows
    assert [verdict["setting"]["colour"] for verdict in verdicts_of(TOYS, rows)] == ["red"]
