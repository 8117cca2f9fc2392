"""Tasks of examples: tensors, data sets, loaders, graphs; batches, metric, distillation."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.nn import GCNConv, global_mean_pool

from graphsparse.fit import Distill, DivergedError, Metric, Task, accuracy, fit


@pytest.fixture
def parts() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 6, generator=generator)
    y = (x[:, 0] + x[:, 1] > 0).long()
    return [(x[:90], y[:90]), (x[90:120], y[90:120]), (x[120:], y[120:])]


def mlp() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def kinds(parts: list[tuple[Tensor, Tensor]]) -> dict[str, list[Any]]:
    sets = [TensorDataset(*part) for part in parts]
    return {
        "tensors": list(parts),
        "data sets": sets,
        "loaders": [DataLoader(s, batch_size=16, shuffle=i == 0) for i, s in enumerate(sets)],
        "seeded loaders": [
            DataLoader(s, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(7)) for s in sets
        ],
    }


@pytest.mark.parametrize("kind", ["tensors", "data sets", "loaders", "seeded loaders"])
def test_every_kind_of_part_learns_and_repeats(parts: list[tuple[Tensor, Tensor]], kind: str) -> None:
    task = Task(*kinds(parts)[kind], batch_size=16)
    runs = [fit(mlp(), task, epochs=12) for _ in range(2)]
    assert runs[0].test > 0.85
    assert runs[0].history == runs[1].history
    assert torch.equal(runs[0].logits, runs[1].logits)
    assert runs[0].history != fit(mlp(), task, epochs=12, seed=1).history


def test_tensors_and_data_sets_are_one(parts: list[tuple[Tensor, Tensor]]) -> None:
    tensors, sets = (Task(*kinds(parts)[kind], batch_size=16) for kind in ("tensors", "data sets"))
    model = mlp()
    for part in ("train", "val", "test"):
        assert tensors.score(model, part) == sets.score(model, part)
        torch.testing.assert_close(tensors.predict(model, part), sets.predict(model, part))


def test_batches_cover_the_part_once(parts: list[tuple[Tensor, Tensor]]) -> None:
    task = Task(*parts, batch_size=16)
    batches = list(task.batches("train", shuffle=True))
    rows = torch.cat([batch.rows for batch in batches if batch.rows is not None])
    assert sorted(rows.tolist()) == list(range(90))
    assert [len(batch.targets) for batch in batches] == [16] * 5 + [10]
    for batch in batches:
        assert torch.equal(batch.inputs, parts[0][0][batch.rows])
        assert torch.equal(batch.targets, parts[0][1][batch.rows])


def test_figures_are_those_of_the_reported_weights(parts: list[tuple[Tensor, Tensor]]) -> None:
    task, model = Task(*parts), mlp()
    result = fit(model, task, epochs=10)
    assert result.val == task.score(model, "val")
    assert result.test == task.score(model, "test")
    assert torch.equal(result.logits, task.predict(model, "test"))
    assert result.test == accuracy(result.logits, parts[2][1])


def test_scoring_keeps_the_mode(parts: list[tuple[Tensor, Tensor]]) -> None:
    model = mlp().train()
    task = Task(*parts)
    assert task.score(model, "val") == task.score(model, "val")  # no dropout
    assert model.training


def test_smaller_may_be_better() -> None:
    x = torch.linspace(-1, 1, 60).unsqueeze(1)
    part = (x, 3 * x)
    error = Metric("mae", lambda outputs, targets: float((outputs - targets).abs().mean()), maximize=False)
    result = fit(nn.Linear(1, 1), Task(part, part, part, loss=nn.functional.mse_loss, metric=error), epochs=60, lr=0.2)
    assert result.test == result.val == min(entry["val"] for entry in result.history)
    assert result.test < 0.3


@pytest.mark.parametrize("kind", ["tensors", "data sets"])
def test_distillation_meets_the_right_rows(parts: list[tuple[Tensor, Tensor]], kind: str) -> None:
    """Labels of the training part are noise; only the teacher, row by row, says what is right."""
    (x, y), val, test = parts
    noise = torch.randint(0, 2, (90,), generator=torch.Generator().manual_seed(1))
    teacher = 6.0 * nn.functional.one_hot(y, 2)
    task = Task(*kinds([(x, noise), val, test])[kind], batch_size=16)
    alone = fit(mlp(), task, epochs=20)
    taught = fit(mlp(), task, epochs=20, distill=Distill(teacher, weight=20.0))
    assert taught.test > 0.85
    assert taught.history[-1]["val"] > alone.history[-1]["val"]


def test_distillation_of_some_rows(parts: list[tuple[Tensor, Tensor]]) -> None:
    task, teacher = Task(*parts, batch_size=16), torch.randn(90, 2)
    other = teacher.clone()
    other[45:] += torch.randn(45, 2)
    first_half = torch.arange(90) < 45
    one, two = (fit(mlp(), task, epochs=3, distill=Distill(t, nodes=first_half)) for t in (teacher, other))
    assert one.history == two.history


def test_small_graphs() -> None:
    """Graph tasks go through the same loop, with a forward of their own."""
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for number in range(60):
        label = number % 2
        x = torch.randn(5, 4, generator=generator) + 1.5 * label
        edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        graphs.append(Data(x=x, edge_index=edges, y=torch.tensor([label])))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(4, 2)

        def forward(self, batch: Batch) -> Tensor:
            pooled: Tensor = global_mean_pool(self.conv(batch.x, batch.edge_index), batch.batch)
            return pooled

    for task in (
        Task(graphs[:40], graphs[40:50], graphs[50:], batch_size=8),
        Task(*(GraphLoader(part, batch_size=8) for part in (graphs[:40], graphs[40:50], graphs[50:]))),
    ):
        assert fit(Net(), task, epochs=15, lr=0.05).test > 0.85


def test_forward_may_be_given(parts: list[tuple[Tensor, Tensor]]) -> None:
    model = mlp()
    plain = Task(*parts)
    flipped = Task(*parts, forward=lambda module, x: -module(x))
    assert plain.score(model, "test") == pytest.approx(1 - flipped.score(model, "test"))


def test_of_several_outputs_one_is_judged(parts: list[tuple[Tensor, Tensor]]) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(parts[0][0].shape[1], 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x), x

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[0], targets)

    with pytest.raises(TypeError, match=r"Two gives a tuple, and one tensor is judged; say which by Task\(forward=\)"):
        Task(*parts, loss=loss).score(Two())
    task = Task(*parts, loss=loss, forward=lambda net, x: net(x) if net.training else net(x)[0])
    assert fit(Two(), task, epochs=1).val >= 0


def test_bad_parts(parts: list[tuple[Tensor, Tensor]]) -> None:
    train, val, test = parts
    with pytest.raises(ValueError, match="the val part is empty"):
        Task(train, (val[0][:0], val[1][:0]), test)
    with pytest.raises(ValueError, match="train has 90 inputs but 30 targets"):
        Task((train[0], val[1]), val, test)
    with pytest.raises(TypeError, match=r"test must be a pair of tensors \(x, y\), a data set or a loader, got int"):
        Task(train, val, 3)
    with pytest.raises(ValueError, match="train has NaN among its inputs"):
        Task((train[0] * float("nan"), train[1]), val, test)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Task(train, val, test, batch_size=0)
    with pytest.raises(ValueError, match="no loss named 'hinge'"):
        Task(train, val, test, loss="hinge")
    with pytest.raises(TypeError, match="a batch must be a pair"):
        Task([1, 2], val, test).score(mlp(), "train")
    with pytest.raises(ValueError, match="give a data set, no loader"):
        fit(mlp(), Task(*kinds(parts)["loaders"]), distill=Distill(torch.zeros(90, 2)))
    with pytest.raises(ValueError, match="the teacher has 30 rows of logits for 90 examples"):
        fit(mlp(), Task(*parts), distill=Distill(torch.zeros(30, 2)))


def test_parts_are_not_changed(parts: list[tuple[Tensor, Tensor]]) -> None:
    before = copy.deepcopy(parts)
    fit(mlp(), Task(*parts), epochs=2)
    assert all(torch.equal(a, b) for one, two in zip(before, parts, strict=True) for a, b in zip(one, two, strict=True))


def test_augmentation_is_for_training_alone() -> None:
    x, y = torch.ones(8, 2), torch.arange(8) % 2
    task = Task((x, y), (x, y), (x, y), batch_size=4, augment=lambda inputs: inputs + 1)
    assert all(bool((batch.inputs == 2).all()) for batch in task.batches("train", shuffle=True))
    assert all(bool((batch.inputs == 1).all()) for batch in task.batches("train"))
    assert all(bool((batch.inputs == 1).all()) for batch in task.batches("val"))
    assert bool((x == 1).all())


def test_augmentation_is_part_of_what_a_checkpoint_knows() -> None:
    x, y = torch.ones(8, 2), torch.arange(8) % 2
    plain, augmented = (Task((x, y), (x, y), (x, y), augment=f) for f in (None, torch.neg))
    assert plain.fingerprint() != augmented.fingerprint()


def test_augmentation_needs_tensors() -> None:
    x, y = torch.ones(8, 2), torch.arange(8) % 2
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    with pytest.raises(ValueError, match="augment"):
        Task(loader, (x, y), (x, y), augment=torch.neg)


def test_a_loss_that_is_not_finite_stops_with_its_step_and_what_it_saw() -> None:
    x, y = torch.ones(8, 2), torch.arange(8) % 2
    x[5, 1] = float("inf")
    task = Task((x, y), (x, y), (x, y), batch_size=8)
    said = r"epoch 0 is nan in its step 0 \(1 of 16 inputs NaN or infinite; targets from 0 to 1; \d+ of 16 outputs"
    with pytest.raises(DivergedError, match=said):
        fit(nn.Linear(2, 2), task, epochs=1)
    x[5, 1] = 1.0
    steps = iter(range(10))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum() * (1.0 if next(steps) < 3 else math.nan)

    task = Task((x, y), (x, y), (x, y), batch_size=4, loss=loss)
    said = r"epoch 1 is nan in its step 1, after \S+ in the step before \(inputs from 1 to 1;"
    with pytest.raises(DivergedError, match=said):
        fit(nn.Linear(2, 2), task, epochs=3)
