"""Node tasks: the two protocols, what each lets the training see, sparse features, bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import APPNP, GATConv, GCNConv, GINConv, SAGEConv, Sequential, SGConv
from torch_geometric.utils import subgraph

from graphsparse.fit import Distill, NodeTask, clear_graph_caches, fit
from graphsparse.fit.features import features_for


def changed(data: Data, **parts: Any) -> Data:
    other = copy.copy(data)
    for name, value in parts.items():
        setattr(other, name, value)
    return other


def test_training_graph_is_the_induced_one(data: Data) -> None:
    task = NodeTask(data, protocol="inductive")
    expected, _ = subgraph(~data.test_mask, data.edge_index, relabel_nodes=True)
    assert torch.equal(task.training_edge_index, expected)
    assert torch.equal(task.training_nodes, (~data.test_mask).nonzero().squeeze())
    whole = NodeTask(data)
    assert torch.equal(whole.training_edge_index, data.edge_index)
    assert len(whole.training_nodes) == 60


def test_new_edges_induce_anew_and_leave_the_task_alone(data: Data) -> None:
    task = NodeTask(data, protocol="inductive")
    kept = data.edge_index[:, ::2]
    other = task.with_edges(kept)
    assert torch.equal(other.training_edge_index, subgraph(~data.test_mask, kept, relabel_nodes=True)[0])
    assert torch.equal(task.edge_index, data.edge_index)
    assert other.protocol == "inductive"
    with pytest.raises(ValueError, match="edge_index names node 60, but there are 60 nodes"):
        task.with_edges(torch.tensor([[0], [60]]))


def test_inductive_training_never_sees_test_nodes(data: Data, net: nn.Module) -> None:
    """Features and edges of test nodes may change at will: weights and validation stay, bit for bit."""
    x = data.x.clone()
    x[data.test_mask] = torch.rand(int(data.test_mask.sum()), 40)
    touches = data.test_mask[data.edge_index].any(dim=0)
    other = changed(data, x=x, edge_index=data.edge_index[:, ~touches])
    results = [fit(copy.deepcopy(net), NodeTask(d, protocol="inductive"), epochs=8) for d in (data, other)]
    assert results[0].history == results[1].history
    for one, two in zip(results[0].state.values(), results[1].state.values(), strict=True):
        assert torch.equal(one, two)
    seen = ~data.test_mask
    assert torch.equal(results[0].logits[seen], results[1].logits[seen])
    assert not torch.equal(results[0].logits[~seen], results[1].logits[~seen])


def test_inductive_outputs_are_of_both_graphs(data: Data, net: nn.Module) -> None:
    task = NodeTask(data, protocol="inductive")
    result = fit(net, task, epochs=5)
    with torch.no_grad():
        whole = net.eval()(data.x, data.edge_index)
        inside = net(data.x[task.training_nodes], task.training_edge_index)
    torch.testing.assert_close(result.logits[data.test_mask], whole[data.test_mask])
    torch.testing.assert_close(result.logits[~data.test_mask], inside)
    assert result.test == task.score(result.logits, "test")
    assert result.val == task.score(result.logits, "val")
    torch.testing.assert_close(task.predict(net), result.logits)


def test_predict_leaves_modes_and_random_state(data: Data, net: nn.Module) -> None:
    net.train()
    net.norm.eval()
    state = torch.get_rng_state()
    NodeTask(data).predict(net)
    assert net.training
    assert net.first.training
    assert not net.norm.training
    assert torch.equal(torch.get_rng_state(), state)


def test_inductive_distillation_takes_training_nodes_only(data: Data, net: nn.Module) -> None:
    teacher = torch.randn(60, 3)
    other = teacher.clone()
    other[data.test_mask, 0] += 5  # of one class: the same more for all of them is the same distribution
    runs = [
        fit(copy.deepcopy(net), NodeTask(data, protocol="inductive"), epochs=4, distill=Distill(t))
        for t in (teacher, other)
    ]
    assert runs[0].history == runs[1].history
    transductive = [fit(copy.deepcopy(net), NodeTask(data), epochs=4, distill=Distill(t)) for t in (teacher, other)]
    assert transductive[0].history != transductive[1].history


def test_distillation_of_test_nodes_alone_is_refused_in_inductive_runs(data: Data, net: nn.Module) -> None:
    distill = Distill(torch.randn(60, 3), nodes=data.test_mask)
    with pytest.raises(ValueError, match="no node of the training graph is left to distil"):
        fit(net, NodeTask(data, protocol="inductive"), epochs=1, distill=distill)


def test_split_picks_the_column(data: Data) -> None:
    masks = {f"{part}_mask": data[f"{part}_mask"] for part in ("train", "val", "test")}
    rolled = {name: torch.stack((mask, mask.roll(1)), dim=1) for name, mask in masks.items()}
    task = NodeTask(changed(data, **rolled), split=1)
    assert torch.equal(task.masks["val"], data.val_mask.roll(1))
    with pytest.raises(ValueError, match=r"split must lie in 0 ... 1, got 2"):
        NodeTask(changed(data, **rolled), split=2)
    with pytest.raises(ValueError, match=r"split must lie in 0 ... 0, got 1"):
        NodeTask(data, split=1)


def test_a_part_that_is_the_same_in_all_splits_has_one_mask(data: Data) -> None:
    """So is the test part of WikiCS."""
    parts = [data.train_mask & (torch.arange(60) % 2 == at) for at in (0, 1)]
    other = changed(data, train_mask=torch.stack(parts, dim=1))
    for split in (0, 1):
        task = NodeTask(other, split=split)
        assert torch.equal(task.masks["train"], parts[split])
        assert torch.equal(task.masks["test"], data.test_mask)
    with pytest.raises(ValueError, match=r"split must lie in 0 ... 1, got 2"):
        NodeTask(other, split=2)


def test_metric_comes_from_the_data(data: Data) -> None:
    assert NodeTask(data).metric.name == "accuracy"
    assert NodeTask(changed(data, metric="rocauc")).metric.name == "rocauc"
    assert NodeTask(changed(data, metric="rocauc"), metric="accuracy").metric.name == "accuracy"


@pytest.mark.parametrize("columns", [1, 2])
def test_two_classes_by_area_under_the_curve(data: Data, columns: int) -> None:
    binary = changed(data, y=(data.y == 1).long().unsqueeze(1), metric="rocauc")
    model = Sequential("x, edge_index", [(GCNConv(40, columns), "x, edge_index -> x")])
    teacher = torch.randn(60, columns)
    result = fit(model, NodeTask(binary), epochs=30, distill=Distill(teacher, weight=0.01))
    assert result.test > 0.6
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_own_loss(data: Data, net: nn.Module) -> None:
    task = NodeTask(data, loss=lambda outputs, y: nn.functional.cross_entropy(outputs, y) + 7)
    assert fit(net, task, epochs=1).history[0]["loss"] > 7


class TakesSparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(40, 3)
        self.layouts: set[torch.layout] = set()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.layouts.add(x.layout)
        return self.lin(x)


class LiesAboutSparse(TakesSparse):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x, edge_index) * (2 if x.layout == torch.sparse_csr else 1)


class RefusesSparseInTraining(TakesSparse):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.training and x.layout == torch.sparse_csr:
            raise RuntimeError("no sparse input here")
        return super().forward(x, edge_index)


@pytest.mark.parametrize(
    ("model", "sparse"),
    [
        (TakesSparse(), True),
        (GCNConv(40, 3), True),
        (GATConv(40, 3), True),
        (SAGEConv(40, 3), False),
        (GINConv(nn.Linear(40, 3)), False),
        (APPNP(2, 0.1), False),
        (LiesAboutSparse(), False),
        (RefusesSparseInTraining(), False),
    ],
)
def test_sparse_features_only_where_they_are_right(data: Data, model: nn.Module, sparse: bool) -> None:
    found = features_for(model, data.x, data.edge_index)
    assert (found.layout == torch.sparse_csr) == sparse
    assert sparse or found is data.x


def test_dense_features_stay_dense(data: Data) -> None:
    assert features_for(TakesSparse(), torch.rand(60, 40), data.edge_index).layout == torch.strided


def test_probing_changes_nothing(data: Data, net: nn.Module) -> None:
    net.train()
    net.second.eval()
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    features_for(net, data.x, data.edge_index)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.second.training
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_sparse_and_dense_features_train_alike(data: Data) -> None:
    """The same weights come out as from a plain loop on dense features."""
    torch.manual_seed(3)
    model = Sequential("x, edge_index", [(GCNConv(40, 3), "x, edge_index -> x")])
    by_hand = copy.deepcopy(model)
    result = fit(model, NodeTask(data), epochs=10)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.01, weight_decay=5e-4)
    for epoch in range(result.best_epoch + 1):
        optimizer.zero_grad()
        outputs = by_hand(data.x, data.edge_index)
        loss = nn.functional.cross_entropy(outputs[data.train_mask], data.y[data.train_mask])
        assert result.history[epoch]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        loss.backward()
        optimizer.step()
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(result.state[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_cached_layers_give_what_uncached_give(data: Data, protocol: str) -> None:
    """Trap 9: a layer that caches its graph must not run another graph on it."""
    kept = data.edge_index[:, ::3]
    outcomes = []
    for cached in (True, False):
        torch.manual_seed(0)
        layers = [
            (SGConv(40, 8, K=2, cached=cached), "x, edge_index -> x"),
            (GCNConv(8, 3, cached=cached), "x, edge_index -> x"),
        ]
        model = Sequential("x, edge_index", layers)
        model(data.x, data.edge_index)  # has cached the dense graph
        task = NodeTask(data, protocol=protocol).with_edges(kept)
        outcomes.append(fit(model, task, epochs=6))
        torch.testing.assert_close(task.predict(model), outcomes[-1].logits)
    assert outcomes[0].history == outcomes[1].history
    assert torch.equal(outcomes[0].logits, outcomes[1].logits)


def test_caches_are_cleared(data: Data) -> None:
    conv, propagated = GCNConv(40, 3, cached=True), SGConv(40, 3, K=2, cached=True)
    model = nn.ModuleList([conv, propagated])
    conv(data.x, data.edge_index)
    propagated(data.x, data.edge_index)
    assert conv._cached_edge_index is not None
    assert propagated._cached_x is not None
    clear_graph_caches(model)
    assert conv._cached_edge_index is None
    assert propagated._cached_x is None


def overlapping(data: Data) -> dict[str, Tensor]:
    return {"val_mask": data.val_mask | data.test_mask}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: {"x": None}, ValueError, "no features: set data.x"),
        (lambda d: {"x": d.x.long()}, TypeError, "data.x must hold floats, got torch.int64"),
        (lambda d: {"x": d.x[0]}, ValueError, r"data.x must have shape \[N, F\]"),
        (
            lambda d: {"x": d.x.index_put((torch.tensor(7), torch.tensor(3)), torch.tensor(float("nan")))},
            ValueError,
            "data.x holds nan at node 7, feature 3",
        ),
        (lambda d: {"y": None}, ValueError, "no labels"),
        (lambda d: {"y": d.y.float()}, TypeError, r"class ids \(integers\), got torch.float32"),
        (lambda d: {"y": d.y[:-1]}, ValueError, r"data.y must have shape \[60\], got \[59\]"),
        (lambda d: {"y": torch.where(torch.arange(60) == 5, -1, d.y)}, ValueError, "the label of node 5 is -1"),
        (lambda d: {"train_mask": None}, ValueError, "the data has no train_mask"),
        (
            lambda d: {"val_mask": d.val_mask.long()},
            TypeError,
            r"val_mask must be boolean, got torch.int64: data.val_mask.bool\(\) makes one",
        ),
        (
            lambda d: {"val_mask": d.val_mask.nonzero()[:, 0]},
            TypeError,
            r"must be boolean, got torch.int64: torch_geometric.utils.index_to_mask\(data.val_mask, 60\) makes one of",
        ),
        (
            lambda d: {"val_mask": d.val_mask.tolist()},
            TypeError,
            r"data.val_mask must be a tensor, got list: data.val_mask = torch.as_tensor\(data.val_mask\)",
        ),
        (lambda d: {"x": d.x.numpy()}, TypeError, "data.x must be a tensor, got ndarray"),
        (lambda d: {"y": d.y.numpy()}, TypeError, "data.y must be a tensor, got ndarray"),
        (lambda d: {"test_mask": torch.zeros(60, dtype=torch.bool)}, ValueError, "test_mask selects no node"),
        (lambda d: {"test_mask": d.test_mask[:9]}, ValueError, r"test_mask must have shape \[60\]"),
        (overlapping, ValueError, "test_mask overlaps another mask"),
        (lambda d: {"val_mask": d.train_mask}, ValueError, "train_mask and val_mask overlap"),
        (lambda d: {"edge_index": d.edge_index.float()}, TypeError, "edge_index must hold integers"),
        (lambda d: {"edge_index": d.edge_index.t()}, ValueError, r"edge_index must be a tensor of shape \[2, E\]"),
        (lambda d: {"edge_index": d.edge_index - 1}, ValueError, "edge_index names node -1"),
        (lambda d: {"metric": "f1"}, ValueError, "unknown metric 'f1'"),
    ],
)
def test_bad_data_is_named(data: Data, change: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        NodeTask(changed(data, **change(data)))


def test_bad_models_are_named(data: Data) -> None:
    with pytest.raises(ValueError, match="protocol must be 'transductive' or 'inductive', got 'both'"):
        NodeTask(data, protocol="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the labels have 3 classes, but the model has 2 outputs"):
        fit(GCNConv(40, 2), NodeTask(data), epochs=1)
    with pytest.raises(ValueError, match="one row of outputs for each of the 60 nodes"):
        fit(
            Sequential("x, edge_index", [(GCNConv(40, 3), "x, edge_index -> x"), (lambda x: x[:3], "x -> x")]),
            NodeTask(data),
            epochs=1,
        )

    class Pair(GCNConv):
        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return super().forward(x, edge_index), x

    with pytest.raises(ValueError, match="one row of outputs for each of the 60 nodes, got a tuple"):
        fit(Pair(40, 3), NodeTask(data), epochs=1)
    with pytest.raises(ValueError, match="the teacher has 59 rows of logits for 60 examples"):
        fit(GCNConv(40, 3), NodeTask(data), epochs=1, distill=Distill(torch.randn(59, 3)))


def test_unlabelled_nodes_may_hold_anything(data: Data) -> None:
    y, train = data.y.clone(), data.train_mask.clone()
    node = int(train.nonzero()[0])
    y[node], train[node] = -1, False
    assert NodeTask(changed(data, y=y, train_mask=train)).num_classes == 3
