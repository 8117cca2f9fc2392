"""Checkpoints: whole or not at all, no code, and a run that was interrupted ends as one that was not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.data import Data

from graphsparse.errors import DataError
from graphsparse.fit import Distill, DivergedError, FitResult, NodeTask, Task, fit
from graphsparse.fit.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from graphsparse.hashing import named_hash
from graphsparse.nn import make
from graphsparse.params import L0Projection

RUN = {"seed": "0"}
TAUGHT = Distill(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)))
leaves = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(-5, 5), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and math.isnan(one):
        return isinstance(two, float) and math.isnan(two)
    if isinstance(one, dict):
        return [*one] == [*two] and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


@settings(deadline=None, max_examples=50)
@given(tree=trees)
def test_plain_values_come_back(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.mktemp("state") / "file"
    save_checkpoint(path, {"tree": tree}, RUN)
    assert same(load_checkpoint(path, RUN)["tree"], tree)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_tensors_come_back(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    save_checkpoint(
        tmp_path / "a", {"nested": [{"t": tensor, "view": tensor.t() if tensor.dim() == 2 else tensor}]}, RUN
    )
    found = load_checkpoint(tmp_path / "a", RUN)["nested"][0]
    assert torch.equal(found["t"], tensor)
    assert found["t"].dtype == dtype
    assert found["view"].shape == (tensor.t() if tensor.dim() == 2 else tensor).shape


def test_it_is_safetensors_and_json(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", {"weight": torch.ones(2)}, RUN)
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert json.loads(file.metadata()["tree"])["run"] == RUN
        assert [*file.keys()] == ["0"]


@pytest.mark.parametrize("value", [object(), {1.5: 2}, {True: 2}, b"bytes", {1, 2}])
def test_what_cannot_be_held_is_refused_and_the_old_file_kept(tmp_path: Path, value: Any) -> None:
    save_checkpoint(tmp_path / "a", {"epoch": 1}, RUN)
    with pytest.raises(TypeError, match="a checkpoint cannot hold a"):
        save_checkpoint(tmp_path / "a", {"epoch": value}, RUN)
    assert load_checkpoint(tmp_path / "a", RUN) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "a", {"epoch": 1}, RUN)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path / "a", {"epoch": 2}, RUN)
    assert load_checkpoint(tmp_path / "a", RUN) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@settings(deadline=None, max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), cut=st.booleans())
def test_any_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, where: float, cut: bool) -> None:
    """A byte flipped or an end cut off, anywhere in header, JSON or tensors."""
    path = tmp_path_factory.mktemp("damage") / "file"
    save_checkpoint(path, {"weight": torch.arange(50.0), "epoch": 7, "name": "x"}, RUN)
    content = bytearray(path.read_bytes())
    position = int(where * len(content))
    before = load_checkpoint(path, RUN)
    if cut:
        del content[position:]
    else:
        content[position] ^= 0x20
    path.write_bytes(bytes(content))
    try:
        after = load_checkpoint(path, RUN)
    except DataError:
        return
    # What slips through is harmless: white space, or the case of a letter in an unread part of the header.
    assert after["epoch"] == before["epoch"]
    assert torch.equal(after["weight"], before["weight"])


def test_other_files_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(DataError, match="is no training checkpoint of this version"):
        load_checkpoint(tmp_path / "other", RUN)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="is damaged"):
        load_checkpoint(tmp_path / "text", RUN)


def test_other_runs_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", {"epoch": 1}, {"seed": "0", "lr": "0.01", "epochs": "9"})
    with pytest.raises(DataError, match="belongs to another run: lr, seed differ"):
        load_checkpoint(tmp_path / "a", {"seed": "1", "lr": "0.1", "epochs": "9"})


def train(data: Data, **options: Any) -> FitResult:
    """A run with all that has a state: dropout, Adam, projection, teacher."""
    model = make("gcn", 40, 3, 16, seed=0)
    projection = L0Projection(model, sparsity=0.8)
    settings = {"epochs": 17, "distill": TAUGHT, "callbacks": [projection], "checkpoint_every": 4, **options}
    return fit(model, NodeTask(data), **settings)


def assert_same(one: FitResult, two: FitResult) -> None:
    assert (one.best_epoch, one.val, one.test, one.history) == (two.best_epoch, two.val, two.test, two.history)
    assert torch.equal(one.logits, two.logits)
    for name, value in one.state.items():
        assert torch.equal(value, two.state[name]), name


class StopError(Exception):
    """What interrupts the runs below."""


def stop_at(epoch: int) -> Any:
    def report(done: int, total: int, figures: Any) -> None:
        if done == epoch:
            raise StopError

    return report


@pytest.mark.parametrize("epoch", [1, 4, 6, 16])
def test_an_interrupted_run_ends_as_one_that_was_not(data: Data, tmp_path: Path, epoch: int) -> None:
    path = tmp_path / "runs" / "a"
    with pytest.raises(StopError):
        train(data, checkpoint=path, progress=stop_at(epoch))
    assert path.exists() == (epoch >= 4)
    torch.manual_seed(99)
    assert_same(train(data, checkpoint=path), train(data))


def test_interrupted_twice(data: Data, tmp_path: Path) -> None:
    for epoch in (5, 10):
        with pytest.raises(StopError):
            train(data, checkpoint=tmp_path / "a", progress=stop_at(epoch))
    assert_same(train(data, checkpoint=tmp_path / "a"), train(data))


def test_a_finished_run_returns_at_once(data: Data, tmp_path: Path) -> None:
    first = train(data, checkpoint=tmp_path / "a")
    told: list[int] = []
    again = train(data, checkpoint=tmp_path / "a", progress=lambda done, total, figures: told.append(done))
    assert told == []
    assert_same(first, again)
    assert again.seconds == first.seconds > 0


def test_seconds_are_those_of_all_sittings(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # one second from a look to the next; an epoch looks twice
    monkeypatch.setattr("graphsparse.fit.loop.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    whole = train(data)
    assert whole.seconds == len(whole.history)
    with pytest.raises(StopError):
        train(data, checkpoint=tmp_path / "a", progress=stop_at(4))
    assert train(data, checkpoint=tmp_path / "a").seconds == len(whole.history)


SCRIPT = """
import os, signal, torch
from torch_geometric.data import Data
from graphsparse.fit import NodeTask, fit
from graphsparse.nn import make

def run(path, kill_at):
    generator = torch.Generator().manual_seed(0)
    part = torch.arange(60) % 3
    x = (torch.rand(60, 40, generator=generator) < 0.05).float()
    edge_index = torch.randint(0, 60, (2, 300), generator=generator)
    y = torch.randint(0, 3, (60,), generator=generator)
    data = Data(x=x, edge_index=edge_index, y=y, train_mask=part == 0, val_mask=part == 1, test_mask=part == 2)

    def report(done, total, figures):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return fit(make("gat", 40, 3, 16, seed=0), NodeTask(data, protocol="inductive"), epochs=15,
               checkpoint=path, checkpoint_every=3, progress=report)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_resumes_to_the_same_result(tmp_path: Path) -> None:
    code = f"{SCRIPT}\nrun({str(tmp_path / 'killed')!r}, 8)"
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with safe_open(tmp_path / "killed", framework="pt") as file:
        assert '"epochs_done", 6' in file.metadata()["tree"]
    here: dict[str, Any] = {}
    exec(SCRIPT, here)
    resumed, whole = here["run"](tmp_path / "killed", -1), here["run"](tmp_path / "whole", -1)
    assert_same(resumed, whole)


@pytest.mark.parametrize("loader", [False, True])
def test_shuffling_resumes_too(tmp_path: Path, loader: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 5, generator=generator), torch.randint(0, 2, (80,), generator=generator)

    def run(**options: Any) -> FitResult:
        train: Any = (x[:60], y[:60])
        if loader:
            own = torch.Generator().manual_seed(5)
            train = DataLoader(TensorDataset(*train), batch_size=8, shuffle=True, generator=own)
        task = Task(train, (x[60:70], y[60:70]), (x[70:], y[70:]), batch_size=8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 2))
        return fit(model, task, epochs=9, checkpoint_every=2, **options)

    with pytest.raises(StopError):
        run(checkpoint=tmp_path / "a", progress=stop_at(5))
    assert_same(run(checkpoint=tmp_path / "a"), run())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"lr": 0.02}, "lr"),
        ({"weight_decay": 0.0}, "weight_decay"),
        ({"epochs": 18}, "epochs"),
        ({"optimizer": torch.optim.SGD}, "optimizer"),
        ({"distill": None}, "distill"),
        ({"distill": Distill(torch.zeros(60, 3))}, "distill"),
        ({"distill": dataclasses.replace(TAUGHT, temperature=2.0)}, "distill"),
        ({"distill": dataclasses.replace(TAUGHT, weight=0.25)}, "distill"),
        ({"distill": dataclasses.replace(TAUGHT, outputs="values")}, "distill"),
        ({"callbacks": []}, "callbacks"),
    ],
)
def test_a_checkpoint_serves_its_own_run_only(data: Data, tmp_path: Path, options: dict[str, Any], named: str) -> None:
    train(data, checkpoint=tmp_path / "a")
    with pytest.raises(DataError, match=f"another run: {named} differ"):
        train(data, checkpoint=tmp_path / "a", **options)


def test_other_data_and_weights_are_another_run(data: Data, tmp_path: Path) -> None:
    def run(model_seed: int, task: NodeTask) -> FitResult:
        return fit(make("gcn", 40, 3, 8, seed=model_seed), task, epochs=2, checkpoint=tmp_path / "a")

    task = NodeTask(data)
    run(0, task)
    with pytest.raises(DataError, match="initial weights differ"):
        run(1, task)
    with pytest.raises(DataError, match="task edge_index differ"):
        run(0, task.with_edges(data.edge_index[:, 1:]))
    with pytest.raises(DataError, match="task protocol differ"):
        run(0, NodeTask(data, protocol="inductive"))


@pytest.mark.parametrize(("options", "first"), [({}, 51), ({"checkpoint_every": 1}, 53)])
def test_a_run_goes_on_after_its_last_checkpoint(
    data: Data, tmp_path: Path, options: dict[str, Any], first: int
) -> None:
    """One is written after every 50th epoch, or as often as was asked for."""
    seen: list[int] = []

    def stop(done: int, total: int, figures: Any) -> None:
        if done == 52:
            raise KeyboardInterrupt

    settings = {"epochs": 53, "checkpoint": tmp_path / "a", **options}
    with pytest.raises(KeyboardInterrupt):
        fit(make("gcn", 40, 3, 8, seed=0), NodeTask(data), progress=stop, **settings)
    fit(make("gcn", 40, 3, 8, seed=0), NodeTask(data), progress=lambda done, *_: seen.append(done), **settings)
    assert seen[0] == first


def test_where_epochs_are_long_a_checkpoint_follows_every_minute(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of training is not lost with the 49th epoch."""
    now, seen = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def stop(done: int, total: int, figures: Any) -> None:
        now[0] += 40  # seconds that an epoch takes
        if done == 6:
            raise KeyboardInterrupt

    settings = {"epochs": 8, "checkpoint": tmp_path / "a"}
    with pytest.raises(KeyboardInterrupt):
        fit(make("gcn", 40, 3, 8, seed=0), NodeTask(data), progress=stop, **settings)
    fit(make("gcn", 40, 3, 8, seed=0), NodeTask(data), progress=lambda done, *_: seen.append(done), **settings)
    assert seen[0] == 6  # after the third and the fifth


def test_the_seed_is_0_and_the_time_it_took_makes_no_other_result(data: Data) -> None:
    results = [fit(make("gcn", 40, 3, 8, seed=0), NodeTask(data), epochs=3, **seed) for seed in ({}, {"seed": 0})]
    assert torch.equal(results[0].logits, results[1].logits)
    other = fit(make("gcn", 40, 3, 8, seed=0), NodeTask(data), epochs=3, seed=-1 % 2**32)
    assert not torch.equal(results[0].logits, other.logits)
    assert dataclasses.replace(results[0], seconds=1e9) == results[0]


def test_divergence_keeps_the_last_checkpoint(data: Data, tmp_path: Path) -> None:
    def loss(outputs: Any, y: Any) -> Any:
        calls.append(1)
        return nn.functional.cross_entropy(outputs, y) * (math.nan if len(calls) == 7 else 1)

    calls: list[int] = []
    task = NodeTask(data, loss=loss)
    model = make("gcn", 40, 3, 8, seed=0)
    with pytest.raises(DivergedError):
        fit(model, task, epochs=12, checkpoint=tmp_path / "a", checkpoint_every=3)
    result = fit(make("gcn", 40, 3, 8, seed=0), task, epochs=12, checkpoint=tmp_path / "a", checkpoint_every=3)
    assert len(result.history) == 12
    assert len(calls) == 7 + 6  # it went on from epoch 6


def _written(path: Path, tree: str, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    metadata = {"format": FORMAT, "tree": tree, "sha256": named_hash(tree, tensors)}
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "tree",
    [
        "",
        "[]",
        "3",
        "nonsense",
        '{"run": {}}',
        '{"state": {}}',
        '{"run": [], "state": {"$dict": []}}',
        '{"run": {"seed": "0"}, "state": []}',
        '{"run": {"seed": "0"}, "state": {"$dict": 3}}',
        '{"run": {"seed": "0"}, "state": {"$dict": [[1]]}}',
        '{"run": {"seed": "0"}, "state": {"$dict": [["a", {"$tensor": "9"}]]}}',
        '{"run": {"seed": "0"}, "state": {"$dict": [["a", {"$tensor": ["0"]}]]}}',
        '{"run": {"seed": "0"}, "state": {"$dict": [["a", {}]]}}',
        '{"run": {"seed": "0"}, "state": {"$dict": [["a", {"x": 1, "y": 2}]]}}',
        '{"run": {"seed": "0"}, "state": {"$dict": [["a", {"$float": "word"}]]}}',
        '{"run": {"seed": "0"}, "state": ' + 100_000 * "[" + 100_000 * "]" + "}",
    ],
)
def test_a_file_that_lies_is_one_error_with_its_name(tmp_path: Path, tree: str) -> None:
    """Its hash is right: whoever wrote it knew how."""
    _written(tmp_path / "odd-file", tree, {"0": torch.ones(2)})
    with pytest.raises(DataError, match="odd-file"):
        load_checkpoint(tmp_path / "odd-file", RUN)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\xff" * 8, b"\xff" * 64, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}"]
)
def test_a_file_of_other_bytes_is_one_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd-file").write_bytes(content)
    with pytest.raises(DataError, match="odd-file"):
        load_checkpoint(tmp_path / "odd-file", RUN)


def test_what_is_no_regular_file_is_one_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        load_checkpoint(tmp_path / "missing", RUN)
    with pytest.raises(DataError, match=tmp_path.name):
        load_checkpoint(tmp_path, RUN)
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="zero is no regular file"):
        load_checkpoint(tmp_path / "zero", RUN)


@pytest.mark.parametrize("change", ["lacks", "list", "shape", "optimizer"])
def test_a_state_of_another_form_is_one_error_with_the_files_name(data: Data, tmp_path: Path, change: str) -> None:
    """The file is whole and of this run, but does not hold what the loop goes on from."""
    from safetensors.torch import load

    from graphsparse.fit import checkpoint

    path = tmp_path / "odd-file"
    train(data, epochs=8, checkpoint=path)
    with safe_open(path, framework="pt") as file:
        run = json.loads(file.metadata()["tree"])["run"]
    assert load(path.read_bytes())
    state = checkpoint.load_checkpoint(path, run)
    if change == "lacks":
        del state["history"]
    elif change == "list":
        state["model"] = [1, 2]
    elif change == "shape":
        state["model"] = {name: torch.ones(1) for name in state["model"]}
    else:
        state["optimizer"] = {"state": 3}
    save_checkpoint(path, state, run)
    with pytest.raises(DataError, match="odd-file is not a whole checkpoint"):
        train(data, epochs=8, checkpoint=path)
