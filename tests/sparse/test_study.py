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
from graphsparse.errors import DataError
from graphsparse.params import load_masks
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
