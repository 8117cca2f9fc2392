"""Random search over neurons, and the features that a network needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT

import graphsparse as gs
from graphsparse.fit import Metric, NodeTask, Task
from graphsparse.sparse import features, search


def task(test: int = 0) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 10, generator=generator)
    y = (x[:, 2] - x[:, 7] > 0).long()
    return Task((x[:48], y[:48]), (x[48:56], y[48:56]), (x[56:], (y[56:] + test) % 2), batch_size=16)


def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, 2))


def test_the_search_takes_the_draw_of_least_training_loss() -> None:
    net, state = mlp(), torch.get_rng_state()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = search(task(), net, 0.3, tries=6)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert list(found.masks) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for name, kept in (("0", 6), ("2", 3)):
        rows, bias = found.masks[f"{name}.weight"], found.masks[f"{name}.bias"]
        assert torch.equal(rows.all(1), rows.any(1))
        assert torch.equal(rows.all(1), bias)
        assert int(bias.sum()) == kept
    twin = mlp()
    with torch.no_grad():
        for name, mask in found.masks.items():
            twin.get_parameter(name).masked_fill_(~mask, 0)
    x, y = task().parts["train"]
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(twin(x), y)), rel=1e-5)
    assert found.loss == min(found.losses)
    assert len(set(found.losses)) == 6
    assert search(task(test=1), net, 0.3, tries=6).losses == found.losses, "test data have no say"
    assert search(task(), net, 0.3, tries=6, seed=1).losses != found.losses
    assert search(task(), net, 0.3, tries=2).losses == found.losses[:2]


def test_layers_of_a_gnn_have_their_bias_outside() -> None:
    data = gs.data.load("digits-knn")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 8, seed=0)
    found = search(NodeTask(data), net, 0.5, tries=2)
    assert {name: int(mask.sum()) for name, mask in found.masks.items() if mask.dim() == 1} == {
        name: 4 for name in found.masks if name.endswith("bias")
    }
    assert any(name.endswith("bias") for name in found.masks)
    result = gs.sparse.soup(net, NodeTask(data), found.masks, members=1, epochs=1)
    assert 0 <= result.metrics["val_accuracy"] <= 1


def test_a_network_without_hidden_neurons_is_told() -> None:
    with pytest.raises(ValueError, match="no hidden layer"):
        search(task(), nn.Sequential(nn.Linear(10, 2)), 0.5)
    for options in ({"keep": 0}, {"keep": 0.5, "tries": 0}):
        with pytest.raises(ValueError, match=r"keep|tries"):
            search(task(), mlp(), **options)  # type: ignore[arg-type]


def test_features_that_matter_are_found_and_the_others_read_nothing() -> None:
    generator, wanted = torch.Generator().manual_seed(0), {2, 7, 12, 21}
    x = torch.randn(600, 30, generator=generator)
    y = (x[:, 2] - x[:, 7] + x[:, 12] - x[:, 21] > 0).long()
    planted = Task((x[:400], y[:400]), (x[400:500], y[400:500]), (x[500:], y[500:]), batch_size=64)
    net = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2))
    found = features(planted, net, keep=8, epochs=40, every=14)
    assert wanted <= set(found.features.tolist())
    weight = found.training.module.get_parameter("0.weight")
    assert set(weight.any(0).nonzero().view(-1).tolist()) <= set(found.features.tolist())  # one that just came is zero
    assert bool(found.training.module.get_parameter("2.weight").all()), "only the first matrix is made sparse"
    assert int(net[0].weight.count_nonzero()) == 600


def test_features_rotate_by_chance() -> None:
    found = features(task(), mlp(), keep=2, grow="random", epochs=60, lr=0.02)
    assert found.training.metrics["seen"] > 0.6, "others were tried"


def test_words_of_a_graph() -> None:
    data = gs.data.load("digits-knn")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 8, seed=0)
    found = features(NodeTask(data), net, keep=10, epochs=20)
    assert len(set(found.features.tolist())) == 10
    x = data.x.clone()
    others = torch.ones(x.size(1), dtype=torch.bool)
    others[found.features] = False
    data.x = x.masked_fill(others, 0)
    with torch.no_grad():
        assert NodeTask(data).score(NodeTask(data).predict(found.training.module), "test") == pytest.approx(
            found.training.metrics["test"]
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 11}, "more than the 10 features"),
        ({"keep": 0}, "keep"),
        ({"matrix": "1.weight"}, "matrix must be one"),
    ],
)
def test_features_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features(task(), mlp(), **options)  # type: ignore[arg-type]


def test_one_output_and_one_input_are_layers_too() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 8, generator=generator)
    y = 2 * x[:, 3:4]
    error = Metric("mse", lambda outputs, targets: float((outputs - targets).square().mean()), maximize=False)
    parts = [(x[i : i + 30], y[i : i + 30]) for i in (0, 30, 60)]
    squares = Task(*parts, loss=nn.functional.mse_loss, metric=error, batch_size=10)
    assert features(squares, nn.Linear(8, 1), keep=2, epochs=60).features[0] == 3
    with pytest.raises(ValueError, match="keep=1 would never be exchanged"):
        features(squares, nn.Linear(8, 1), keep=1)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))
    assert list(search(squares, net, 0.5, tries=2).masks) == ["0.weight", "0.bias"]
    narrow = Task(*((x[:, 3:4], y) for x, y in parts), loss=nn.functional.mse_loss, metric=error)
    deep = nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1))
    assert list(search(narrow, deep, 0.5, tries=2).masks) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_vectors_of_attention_read_no_features_and_words_are_no_neurons() -> None:
    data = gs.data.load("digits-knn")
    net = GAT(data.num_features, 8, 2, data.num_classes, heads=2)
    found = features(NodeTask(data), net, keep=10, epochs=4)
    assert list(found.training.masks) == ["convs.0.lin.weight"]
    assert list(search(NodeTask(data), net, 0.5, tries=2).masks) == ["convs.0.lin.weight", "convs.0.bias"]
    words = nn.Sequential(nn.Embedding(12, 4), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    ids = torch.arange(24).view(12, 2) % 12
    part = (ids, torch.arange(12) % 2)
    assert list(search(Task(part, part, part), words, 0.5, tries=2).masks) == ["2.weight", "2.bias"]
