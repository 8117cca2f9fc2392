"""The command of sparse training: what it writes and says, and that it resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from graphsparse import cli
from graphsparse.cli.report_command import know_runs
from graphsparse.errors import DataError
from graphsparse.locking import BusyError, only_one
from graphsparse.params import load_masks
from graphsparse.report.runs import read_run
from graphsparse.sparse.study import SparseStudy

WORDS = ["sparse", "train", "--method", "set", "--keep", "0.1", "--epochs", "1", "--hidden", "8", "--json"]


def test_the_command_writes_weights_masks_and_figures_and_resumes(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, [*WORDS, "--out", str(tmp_path)])
    assert done.exit_code == 0, (done.output, done.exception)
    figures = json.loads((tmp_path / "metrics.json").read_text())
    masks, state = load_masks(tmp_path / "masks.safetensors"), load_file(tmp_path / "model.safetensors")
    assert sum(int(mask.sum()) for mask in masks.values()) == sum(figures["counts"].values()) == 66
    assert all(bool((state[name][~mask] == 0).all()) for name, mask in masks.items())
    assert figures["options"]["method"] == "set"
    assert 0 <= figures["test_accuracy"] <= 1
    assert '"test_accuracy"' in done.output
    again = CliRunner().invoke(cli.app, [*WORDS, "--out", str(tmp_path)])
    assert again.exit_code == 0
    other = json.loads((tmp_path / "metrics.json").read_text())
    assert {k: v for k, v in other.items() if k != "machine"} == {k: v for k, v in figures.items() if k != "machine"}
    assert isinstance(CliRunner().invoke(cli.app, [*WORDS, "--seed", "1", "--out", str(tmp_path)]).exception, DataError)


def test_a_page_shows_the_run_and_several_beside_each_other(tmp_path: Path) -> None:
    know_runs()
    for seed in (0, 1):
        SparseStudy(method="magnitude", keep="0.1", hidden=8, epochs=2, seed=seed).run(
            tmp_path / f"run-{seed}", Console(quiet=True)
        )
    run = read_run(tmp_path / "run-0")
    figures = json.loads((tmp_path / "run-0" / "metrics.json").read_text())
    assert run.kind == "sparse train"
    assert f"{100 * figures['test']:.2f} % test accuracy" in run.lead
    assert [len(trend.x) for trend in run.trends] == [2]
    titles = [section.title for section in run.sections]
    assert titles == ["The training", "Weights kept of each tensor", "How it was made, and how to run it again"]
    assert "<html" in (tmp_path / "run-0" / "report.html").read_text()
    folders = [str(tmp_path / f"run-{seed}") for seed in (0, 1)]
    both = CliRunner().invoke(cli.app, ["report", *folders, "--out", str(tmp_path / "both.html")])
    assert both.exit_code == 0, (both.output, both.exception)


def test_a_place_that_cannot_be_written_or_is_taken_is_told_first(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    done = CliRunner().invoke(cli.app, [*WORDS, "--out", str(file)])
    assert "it is no folder; choose another place" in str(done.exception)
    assert file.read_text() == "mine"
    (tmp_path / "taken" / "metrics.json").mkdir(parents=True)
    done = CliRunner().invoke(cli.app, [*WORDS, "--out", str(tmp_path / "taken")])
    assert "it is a folder; choose another place" in str(done.exception)
    with only_one(tmp_path / "busy"):
        done = CliRunner().invoke(cli.app, [*WORDS, "--out", str(tmp_path / "busy")])
        assert isinstance(done.exception, BusyError)
    done = CliRunner().invoke(cli.app, [*WORDS, "--method", "rigle", "--out", str(tmp_path / "new" / "deep")])
    assert "did you mean 'rigl'" in str(done.exception)
    assert not (tmp_path / "new").exists()


def test_graphs_images_and_what_is_neither() -> None:
    task, net, epochs, _ = SparseStudy("digits-knn", hidden=4).problem()
    assert (task.metric.name, epochs) == ("accuracy", 200)
    assert sum(p.numel() for p in net.parameters() if p.dim() > 1) == 64 * 4 + 4 * 10
    task, net, epochs, _ = SparseStudy("Digits", model="resnet8", hidden=2).problem()
    assert epochs == 20
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ValueError, match="unknown"):
        SparseStudy("no-such-set").problem()


def test_a_pattern_is_a_keep(tmp_path: Path) -> None:
    found = SparseStudy(method="nm-ste", keep="2:4", hidden=4, epochs=1).run(tmp_path, Console(quiet=True))
    assert found["counts"] == {"1.weight": 128, "3.weight": 8, "5.weight": 20}
