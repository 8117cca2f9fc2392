"""Progress: shown on terminals, silent elsewhere, several runs in one display."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from graphsparse.fit.progress import Bars, reporting


def display(enabled: bool | None, *, terminal: bool) -> str:
    out = io.StringIO()
    with Bars(enabled, Console(file=out, force_terminal=terminal, width=120)) as bars:
        dense, sparse = bars.add("dense"), bars.add("sparse")
        dense(1, 2, {"val": 0.25})
        sparse(2, 2, {"val": 0.5})
    return out.getvalue()


@pytest.mark.parametrize(
    ("enabled", "terminal", "shown"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_shown_on_a_terminal_or_when_asked(enabled: bool | None, terminal: bool, shown: bool) -> None:
    text = display(enabled, terminal=terminal)
    assert ("dense" in text) == shown
    assert ("val 0.2500" in text and "sparse" in text and "1/2" in text) == shown
    assert shown or text == ""


def test_a_bar_may_go_when_it_is_done() -> None:
    out = io.StringIO()
    with Bars(True, Console(file=out, force_terminal=False, width=120)) as bars:
        stays, goes = bars.add("stays"), bars.add("goes", keep=False)
        goes(2, 2, {})
        stays(2, 2, {})
    assert "stays" in out.getvalue()
    assert "goes" not in out.getvalue()


def test_reports_go_where_they_should() -> None:
    calls: list[int] = []
    with reporting(lambda done, total, figures: calls.append(done)) as report:
        report(3, 4, {})
    assert calls == [3]
    for silent in (None, False):
        with reporting(silent) as report:
            report(1, 2, {"val": 0.0})


def test_own_bar_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with reporting(True) as report:
        report(1, 2, {"val": 0.0})
    assert capfd.readouterr() == ("", "")
