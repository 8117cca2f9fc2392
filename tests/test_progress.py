"""Progress: shown on terminals, silent elsewhere, several runs in one display."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from graphsparse.progress import Bars, reporting


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


def test_figures_go_to_tensorboard_or_it_is_said_what_is_missing(monkeypatch, tmp_path):
    import sys
    import types

    import torch

    from graphsparse.errors import GraphsparseError
    from graphsparse.fit import Task, fit

    written = []

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, *words):
            written.append(words)

        def close(self):
            written.append("closed")

    x, y = torch.eye(4), torch.arange(4) % 2
    task = Task((x, y), (x, y), (x, y))
    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    torch.manual_seed(0)
    found = fit(torch.nn.Linear(4, 2), task, epochs=2, tensorboard=tmp_path)
    steps = [("loss", found.history[i]["loss"], i + 1) for i in (0, 1)]
    assert written[0] == str(tmp_path)
    assert [each for each in written if each[0] == "loss"] == steps
    assert len([each for each in written if each[0] == "val"]) == 2
    assert written[-1] == "closed"
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(GraphsparseError, match=r"graphsparse\[tensorboard\]"):
        fit(torch.nn.Linear(4, 2), task, epochs=1, tensorboard=tmp_path)
