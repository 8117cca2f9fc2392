"""What the documents claim is what the results say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_tables_of_tickets_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("tickets")
    rows = study.read_runs(study.OUT / study.ROWS)
    assert len(rows) > 500
    _, mark, shown = study.PAGE.read_text().partition(study.MARK)
    assert mark
    assert shown.strip() == study.tables(rows, study.compared(rows)).strip(), "python benchmarks/tickets.py table"


def test_every_row_says_what_it_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("tickets")
    for row in study.read_runs(study.OUT / study.ROWS):
        assert len(row["commit"]) == 40
        assert row["test"] >= 0
