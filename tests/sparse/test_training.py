"""Sparse training of a copy: any task, the same result when it is interrupted, and figures of what is returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.fit import NodeTask, Task, steps_of
from graphsparse.params import METHODS, DropGrow, Project, methods


def images() -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(36, 8, generator=generator)
    y = (x[:, 0] > 0).long()
    return Task((x[:20], y[:20]), (x[20:28], y[20:28]), (x[28:], y[28:]), batch_size=8)


def nodes() -> NodeTask:
    generator = torch.Generator().manual_seed(0)
    n = torch.arange(24)
    edges = torch.randint(24, (2, 80), generator=generator)
    data = Data(
        x=torch.randn(24, 8, generator=generator),
        edge_index=torch.cat([edges, edges.flip(0)], 1).unique(dim=1),
        y=n % 2,
        train_mask=n < 12,
        val_mask=(n >= 12) & (n < 18),
        test_mask=n >= 18,
    )
    return NodeTask(data)


def mlp() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 2))


@pytest.mark.parametrize("method", methods())
def test_every_method_trains_a_gcn_and_leaves_the_given_one_alone(method: str) -> None:
    net = gs.nn.make("gcn", 8, 2, 8, seed=0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    keep: Any = "1:4" if METHODS[method].n_of_m else 0.25
    task = nodes()
    if METHODS[method].modules:
        net = gs.nn.make("gcn", 8, 2, 8, num_layers=5, seed=0)
        before = {name: value.clone() for name, value in net.state_dict().items()}
    result = gs.sparse.train(net, task, method, keep=keep, epochs=8)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert type(result.module) is type(net)
    left = result.module.state_dict().keys()
    if METHODS[method].modules:  # one of four layers of one width stays, and the last
        assert len(left) == 4
        assert result.metrics["weights_kept_matrices"] == (64 + 16) / (4 * 64 + 16)
    else:
        assert left == before.keys()
        assert sum(result.counts.values()) == (8 * 8 + 2 * 8) // 4
        assert result.metrics["weights_kept_matrices"] == 0.25
    for name, mask in result.masks.items():
        assert name not in left or bool((result.module.get_parameter(name)[~mask] == 0).all())
    evaluation = task.start(result.module, torch.device("cpu")).evaluate()
    assert (evaluation.val, evaluation.finish()[0]) == (result.metrics["val"], result.metrics["test"])
    assert result.metrics["val"] == result.fit.val  # the epoch that was chosen was as sparse


def test_steps_are_counted_where_the_task_does_not_say_them() -> None:
    assert steps_of(images(), mlp()) == 3
    assert steps_of(nodes(), gs.nn.make("gcn", 8, 2, 8, seed=0)) == 1
    x = torch.utils.data.TensorDataset(torch.zeros(10, 2), torch.zeros(10))
    loader = torch.utils.data.DataLoader(x, batch_size=3)
    assert steps_of(Task(loader, loader, loader), mlp()) == 4
    assert steps_of(Task(x, x, x, batch_size=7), mlp()) == 2
    assert gs.sparse.train(mlp(), images(), "set", keep=0.5, epochs=2).metrics["steps"] == 6


@pytest.mark.parametrize("method", ["rigl", "nm-sr-ste", "gmp"])
def test_a_run_that_was_interrupted_goes_on_to_the_same_result(method: str, tmp_path: Path) -> None:
    keep: Any = "1:4" if METHODS[method].n_of_m else 0.25
    whole = gs.sparse.train(mlp(), images(), method, keep=keep, epochs=6)

    def stop(done: int, epochs: int, figures: dict[str, float]) -> None:
        if done == 4:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"keep": keep, "epochs": 6, "checkpoint": tmp_path / "run", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        gs.sparse.train(mlp(), images(), method, progress=stop, **options)
    again = gs.sparse.train(mlp(), images(), method, **options)
    assert again.metrics == whole.metrics
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])
    finished = gs.sparse.train(mlp(), images(), method, **options)
    assert finished.metrics == whole.metrics


def test_axes_may_be_given_and_figures_are_those_of_what_is_returned() -> None:
    task = images()
    rule = DropGrow("random", every=2)
    result = gs.sparse.train(mlp(), task, keep=0.3, epochs=3, axes={"rule": rule, "distribution": "uniform"})
    assert sum(result.counts.values()) == 36
    late = gs.sparse.train(mlp(), task, keep=0.1, epochs=2, axes={"rule": Project(every=100)})  # never before the end
    assert sum(late.counts.values()) == 12
    assert late.metrics["test"] == task.score(late.module, "test") == late.metrics["test_accuracy"]


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(ValueError, match="unknown method 'rigle'"):
        gs.sparse.train(mlp(), images(), "rigle", keep=0.1)
    with pytest.raises(ValueError, match="shorter than one update"):
        gs.sparse.train(mlp(), images(), keep=0.1, epochs=2, axes={"rule": DropGrow(every=100)})
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        gs.sparse.train(mlp(), images(), "rigl", keep=0.1, epochs=0)
