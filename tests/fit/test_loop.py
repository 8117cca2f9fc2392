"""The loop: determinism, selection on validation only, distillation, callbacks, divergence."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, Linear

from graphsparse.errors import GraphsparseError
from graphsparse.fit import BaseTask, Distill, DivergedError, Evaluation, Metric, NodeTask, fit
from graphsparse.nn import GCN
from graphsparse.params import L0Projection


def same_results(one: Any, two: Any) -> bool:
    figures = (one.best_epoch, one.val, one.test, one.history) == (two.best_epoch, two.val, two.test, two.history)
    states = all(torch.equal(a, b) for a, b in zip(one.state.values(), two.state.values(), strict=True))
    return figures and states and torch.equal(one.logits, two.logits)


class Scripted(BaseTask):
    """A task whose validation and test figures are given; counts what is looked at."""

    def __init__(self, vals: list[float], *, maximize: bool = True, loss: list[float] | None = None) -> None:
        self.metric = Metric("scripted", lambda outputs, targets: 0.0, maximize)
        self.vals, self.steps = vals, loss or [1.0] * len(vals)
        self.tested: list[int] = []
        self.epoch = -1

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Scripted:
        self.model = model
        return self

    def losses(self) -> Any:
        self.epoch += 1
        yield next(self.model.parameters()).sum() * 0 + self.steps[self.epoch]

    def evaluate(self) -> Evaluation:
        def finish() -> tuple[float, Tensor]:
            self.tested.append(self.epoch)
            return 10.0 + self.epoch, torch.full((1, 1), float(self.epoch))

        return Evaluation(self.vals[self.epoch], finish)

    def generators(self) -> list[torch.Generator]:
        return []

    def fingerprint(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("vals", "maximize", "best", "tested"),
    [
        ([0.1, 0.5, 0.3, 0.5, 0.2], True, 3, [0, 1, 3]),
        ([0.5, 0.5, 0.5], True, 2, [0, 1, 2]),
        ([3.0, 1.0, 2.0, 1.0], False, 3, [0, 1, 3]),
        ([0.9, 0.1], True, 0, [0]),
    ],
)
def test_best_epoch_is_the_last_of_the_best(vals: list[float], maximize: bool, best: int, tested: list[int]) -> None:
    task = Scripted(vals, maximize=maximize)
    result = fit(nn.Linear(1, 1), task, epochs=len(vals))
    assert (result.best_epoch, result.val, result.test) == (best, vals[best], 10.0 + best)
    assert result.logits.item() == best
    assert task.tested == tested  # the test part is looked at only when it may be reported
    assert [entry["val"] for entry in result.history] == vals


def test_test_labels_have_no_influence(data: Data, net: nn.Module) -> None:
    """Trap 8: whatever the test labels are, the same epoch and weights are chosen."""
    other = copy.copy(data)
    other.y = torch.where(data.test_mask, (data.y + 1) % 3, data.y)
    one, two = (fit(copy.deepcopy(net), NodeTask(d), epochs=12) for d in (data, other))
    assert (one.best_epoch, one.history) == (two.best_epoch, two.history)
    assert torch.equal(one.logits, two.logits)
    assert one.test != two.test


def test_equal_calls_give_equal_results(data: Data, net: nn.Module) -> None:
    task = NodeTask(data)
    torch.manual_seed(1)
    one = fit(copy.deepcopy(net), task, epochs=10, seed=3)
    torch.manual_seed(2)  # the global state must not matter
    assert same_results(one, fit(copy.deepcopy(net), task, epochs=10, seed=3))
    assert one.history != fit(copy.deepcopy(net), task, epochs=10, seed=4).history


@pytest.mark.parametrize("name", ["gcn", "gin", "gat", "sage", "transformer"])
def test_backbones_are_deterministic(data: Data, name: str) -> None:
    from graphsparse.nn import make

    runs = [fit(make(name, 40, 3, 16, seed=0), NodeTask(data, protocol="inductive"), epochs=5) for _ in range(2)]
    assert same_results(*runs)


def test_global_generators_are_left_alone(data: Data, net: nn.Module) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    fit(net, NodeTask(data), epochs=2)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


def test_the_model_ends_with_the_best_weights(data: Data, net: nn.Module) -> None:
    result = fit(net, NodeTask(data), epochs=30, lr=0.5)
    assert result.best_epoch < 29  # else this shows nothing
    assert not net.training
    assert not any(module.training for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, result.state[name])
    with torch.no_grad():
        torch.testing.assert_close(net(data.x, data.edge_index), result.logits)
    net.first.bias.data += 1  # the result is a copy
    assert not torch.equal(net.first.bias, result.state["first.bias"])


def test_batch_statistics_belong_to_the_best_epoch(data: Data, net: nn.Module) -> None:
    result = fit(net, NodeTask(data), epochs=15)
    assert int(result.state["norm.num_batches_tracked"]) == result.best_epoch + 1


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("some", [False, True])
def test_distillation_by_hand(data: Data, temperature: float, some: bool) -> None:
    """CE(train) + w T^2 / N sum over nodes of sum over classes p log(p / q)."""
    torch.manual_seed(0)
    model, teacher = GCNConv(40, 3), 3 * torch.randn(60, 3)
    nodes = torch.tensor([1, 5, 9, 30]) if some else None
    chosen = slice(None) if nodes is None else nodes
    with torch.no_grad():
        student = model(data.x, data.edge_index)
    p = (teacher / temperature).softmax(1)[chosen]
    q = (student / temperature).softmax(1)[chosen]
    divergence = (p * (p / q).log()).sum() / len(p) * temperature**2
    expected = functional.cross_entropy(student[data.train_mask], data.y[data.train_mask]) + 0.7 * divergence
    distill = Distill(teacher, weight=0.7, nodes=nodes, temperature=temperature)
    assert fit(model, NodeTask(data), epochs=1, distill=distill).history[0]["loss"] == pytest.approx(expected.item())


def test_mask_and_ids_distil_the_same_nodes(data: Data) -> None:
    torch.manual_seed(0)
    model, teacher = GCNConv(40, 3), torch.randn(60, 3)
    mask = torch.arange(60) % 7 == 0
    one, two = (
        fit(copy.deepcopy(model), NodeTask(data), epochs=3, distill=Distill(teacher, nodes=nodes)).history
        for nodes in (mask, mask.nonzero().squeeze())
    )
    assert one == two


def test_zero_weight_is_no_distillation(data: Data, net: nn.Module) -> None:
    teacher = torch.randn(60, 3)
    zero = fit(copy.deepcopy(net), NodeTask(data), epochs=3, distill=Distill(teacher, weight=0))
    assert same_results(zero, fit(copy.deepcopy(net), NodeTask(data), epochs=3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weight": -1}, "weight must be at least 0, got -1"),
        ({"weight": math.nan}, "weight must be at least 0"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"teacher_logits": torch.full((60, 3), math.nan)}, "teacher_logits must be a finite matrix"),
        ({"teacher_logits": torch.zeros(60)}, "teacher_logits must be a finite matrix"),
    ],
)
def test_bad_distillation(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Distill(**{"teacher_logits": torch.zeros(60, 3), **options})


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        (torch.tensor([60]), r"distilled nodes must be ids in 0 ... 59"),
        (torch.zeros(60, dtype=torch.bool), "no node is left to distil"),
        (torch.ones(59, dtype=torch.bool), r"must have shape \[60\], got \[59\]"),
    ],
)
def test_bad_distilled_nodes(data: Data, nodes: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit(GCNConv(40, 3), NodeTask(data), epochs=1, distill=Distill(torch.zeros(60, 3), nodes=nodes))


class Watcher:
    """A callback that records what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.steps = 0

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        self.events.append("attach")
        self.handle = optimizer.register_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.steps += 1

    def detach(self) -> None:
        self.events.append("detach")
        self.handle.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def test_callbacks_live_for_the_run(data: Data, net: nn.Module) -> None:
    watcher = Watcher()
    fit(net, NodeTask(data), epochs=5, callbacks=[watcher])
    assert watcher.events == ["attach", "detach"]
    assert watcher.steps == 5


@pytest.mark.parametrize(
    ("ready", "vals", "best"),
    [
        ([0, 0, 1, 1], [0.9, 0.8, 0.1, 0.2], 3),  # better ones that were not ready do not count
        ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], 2),
        ([0, 0, 0, 0], [0.1, 0.9, 0.9, 0.2], 2),  # none was: the best of all
        ([1, 0, 0, 1], [0.1, 0.9, 0.8, 0.0], 0),  # one that is ready no more does not take its place
        ([1, 0, 0, 1], [0.1, 0.9, 0.8, 0.2], 3),
    ],
)
@pytest.mark.parametrize("stops", [None, 1, 2, 3])
def test_an_epoch_that_is_not_ready_is_chosen_only_if_none_is(
    tmp_path: Path, ready: list[int], vals: list[float], best: int, stops: int | None
) -> None:
    task = Scripted(vals)

    class Slow(Watcher):
        @property
        def ready(self) -> bool:
            return bool(ready[self.steps - 1])

    def run(progress: Any = None) -> Any:
        path = tmp_path / "run"
        return fit(
            nn.Linear(1, 1), task, epochs=4, callbacks=[Slow()], checkpoint=path, checkpoint_every=1, progress=progress
        )

    def stop(done: int, *_: Any) -> None:
        if done == stops:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    if stops is not None:
        with pytest.raises(KeyboardInterrupt):
            run(stop)
        torch.manual_seed(0)
    result = run()
    assert (result.best_epoch, result.val, result.test) == (best, vals[best], 10.0 + best)
    assert [name for name in ("history", "state", "logits") if name in repr(result)] == []


def test_callbacks_are_detached_when_training_fails(data: Data, net: nn.Module) -> None:
    watcher = Watcher()

    def stop(done: int, total: int, figures: Any) -> None:
        raise KeyboardInterrupt

    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fit(net, NodeTask(data), epochs=5, callbacks=[watcher], progress=stop)
    assert watcher.events == ["attach", "detach"]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_callback_that_is_busy_elsewhere_stays_there(data: Data) -> None:
    model = GCN(40, 16, 3)
    elsewhere = L0Projection(model, sparsity=0.9).attach(torch.optim.Adam(model.parameters()))
    watcher = Watcher()
    with pytest.raises(ValueError, match="attached already"):
        fit(model, NodeTask(data), epochs=1, callbacks=[watcher, elsewhere])
    assert watcher.events == ["attach", "detach"]
    assert elsewhere.attached


def test_projection_holds_in_every_evaluation(data: Data) -> None:
    model = GCN(40, 16, 3)
    projection = L0Projection(model, sparsity=0.9)
    result = fit(model, NodeTask(data), epochs=10, callbacks=[projection])
    total = sum(parameter.numel() for parameter in model.parameters())
    kept = sum(int(result.state[name].count_nonzero()) for name, _ in model.named_parameters())
    assert kept == math.ceil(total / 10)
    assert not projection.attached


def test_progress_is_told(data: Data, net: nn.Module) -> None:
    calls: list[tuple[int, int, list[str]]] = []
    fit(net, NodeTask(data), epochs=3, progress=lambda done, total, figures: calls.append((done, total, [*figures])))
    assert calls == [(n, 3, ["loss", "val"]) for n in (1, 2, 3)]


def test_other_optimizers(data: Data, net: nn.Module) -> None:
    made: list[dict[str, float]] = []

    def factory(parameters: Any, **options: float) -> torch.optim.Optimizer:
        made.append(options)
        return torch.optim.SGD(parameters, **options)

    fit(net, NodeTask(data), epochs=1, lr=0.3, weight_decay=0.1, optimizer=factory)
    assert made == [{"lr": 0.3, "weight_decay": 0.1}]


def test_frozen_parameters_stay(data: Data, net: nn.Module) -> None:
    net.first.lin.weight.requires_grad_(False)
    before = net.first.lin.weight.clone()
    fit(net, NodeTask(data), epochs=3)
    assert torch.equal(net.first.lin.weight, before)


def test_divergence_is_an_error_of_both_kinds() -> None:
    with pytest.raises(DivergedError, match="the loss of epoch 2 is nan") as caught:
        fit(nn.Linear(1, 1), Scripted([0.1] * 4, loss=[1, 1, math.nan, 1]), epochs=4)
    assert isinstance(caught.value, FloatingPointError)
    assert isinstance(caught.value, GraphsparseError)
    with pytest.raises(DivergedError, match="the validation scripted of epoch 1 is nan"):
        fit(nn.Linear(1, 1), Scripted([0.1, math.nan]), epochs=2)


def test_outputs_that_are_not_finite_are_never_chosen(data: Data) -> None:
    model = GCNConv(40, 3)
    with pytest.raises(DivergedError):
        fit(model, NodeTask(data), epochs=50, lr=1e38)


def test_outputs_that_are_not_finite_where_nothing_is_chosen_are_told(data: Data) -> None:
    """Training and validation see finite figures; the outputs that a ticket would store are not."""

    class Half(GCNConv):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return super().forward(x, edge_index).masked_fill(data.test_mask[:, None], math.inf)

    with pytest.raises(DivergedError, match="the outputs of epoch 0 are not finite; a smaller learning rate may help"):
        fit(Half(40, 3), NodeTask(data), epochs=2)


def test_bad_calls(data: Data) -> None:
    task = NodeTask(data)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fit(GCNConv(40, 3), task, epochs=0)
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        fit(GCNConv(40, 3), task, checkpoint_every=0)
    with pytest.raises(ValueError, match="no trainable parameter"):
        fit(nn.Identity(), task)
    lazy = nn.Sequential(Linear(-1, 3))
    with pytest.raises(ValueError, match="lazy parameters without values: call it once"):
        fit(lazy, task)


def test_cora(need: Any) -> None:
    """Real data, all of the room: a small GCN on Cora is as good as it is known to be."""
    need("Planetoid/Cora/raw")
    from graphsparse.data import load
    from graphsparse.nn import make

    data = load("cora")
    task = NodeTask(data)
    result = fit(make("gcn", task.num_features, task.num_classes, 64, seed=0), task, epochs=60)
    assert result.test > 0.78
    inductive = NodeTask(data, protocol="inductive")
    result = fit(make("gcn", task.num_features, task.num_classes, 64, seed=0), inductive, epochs=60)
    assert result.test > 0.74
