"""Graph tasks: batches cut from the union, missing targets, both kinds of targets, features of edges, bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, GINEConv, global_mean_pool

from graphsparse.data import GraphSet, join_graphs
from graphsparse.fit import DivergedError, GraphTask, fit
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.union import Union


class Net(nn.Module):
    """A PyG model of small graphs as a user writes it."""

    def __init__(self, targets: int = 1) -> None:
        super().__init__()
        self.conv = GINEConv(nn.Linear(4, 8), edge_dim=2)
        self.norm = nn.BatchNorm1d(8)
        self.out = nn.Linear(8, targets)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        x = self.norm(self.conv(x, edge_index, edge_attr)).relu()
        return self.out(global_mean_pool(x, batch))


def new_net(targets: int = 1) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(targets)


def random_graphs(count: int, seed: int = 0) -> list[Data]:
    """Graphs of 1 to 7 nodes, every fifth without an edge; the target is whether their features sum up high."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for number in range(count):
        nodes = int(torch.randint(1, 8, (1,), generator=generator))
        ends = torch.randint(nodes, (2, 0 if number % 5 == 4 else 2 * nodes), generator=generator)
        pairs = torch.unique(ends[:, ends[0] < ends[1]], dim=1)
        bonds = torch.randn(pairs.size(1), 2, generator=generator)
        x = torch.randn(nodes, 4, generator=generator) + 2 * (number % 2)
        graphs.append(
            Data(
                x=x,
                edge_index=torch.cat([pairs, pairs.flip(0)], dim=1),
                edge_attr=torch.cat([bonds, bonds]),
                y=torch.tensor([float(number % 2)]),
            )
        )
    return graphs


@pytest.fixture
def graphs() -> GraphSet:
    data = join_graphs(random_graphs(60), {"train": range(30), "val": range(30, 45), "test": range(45, 60)})
    data.metric = "rocauc"
    return data


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 5), st.lists(st.integers(0, 19), min_size=1, max_size=8, unique=True), st.booleans())
def test_a_batch_is_what_pyg_makes_of_the_same_graphs(seed: int, chosen: list[int], shuffled: bool) -> None:
    parts = random_graphs(20, seed)
    data = join_graphs(parts, {"train": [0], "val": [1], "test": [2]})
    edge_index, edge_attr = data.edge_index, data.edge_attr
    if shuffled:
        order = torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(seed))
        edge_index, edge_attr = edge_index[:, order], edge_attr[order]
    union = Union.of(data.x, edge_index, EdgeData(edge_attr=edge_attr), data.batch, 20)
    x, arcs, edge_data, batch = union.take(torch.tensor(chosen))
    bonds = edge_data.edge_attr
    expected = Batch.from_data_list([parts[number] for number in chosen])
    assert torch.equal(x, expected.x)
    assert torch.equal(batch, expected.batch)
    if not shuffled:
        assert torch.equal(arcs, expected.edge_index)
    as_set = {(*arc, *bond) for arc, bond in zip(arcs.t().tolist(), bonds.tolist(), strict=True)}
    wanted = zip(expected.edge_index.t().tolist(), expected.edge_attr.tolist(), strict=True)
    assert as_set == {(*arc, *bond) for arc, bond in wanted}


def test_it_learns(graphs: GraphSet) -> None:
    result = fit(new_net(), GraphTask(graphs, batch_size=10), epochs=25)
    assert result.test > 0.85
    assert result.logits.shape == (60, 1)


def test_outputs_do_not_depend_on_the_batch(graphs: GraphSet) -> None:
    net, task = new_net(), GraphTask(graphs)
    outputs = task.predict(net)
    for number in (0, 4, 59):
        with torch.no_grad():
            x, arcs, edge_data, batch = task.union.take(torch.tensor([number]))
            alone = net.eval()(x, arcs, edge_data.edge_attr, batch)
        torch.testing.assert_close(outputs[number], alone[0])


def test_every_training_graph_is_in_one_batch_of_nearly_equal_size(graphs: GraphSet) -> None:
    seen: list[Tensor] = []

    class Watch(Net):
        def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x, edge_index, edge_attr, batch)

    list(GraphTask(graphs, batch_size=29).start(Watch(), torch.device("cpu")).losses())
    assert len(seen) == 2  # 15 and 15 graphs, and not 29 and 1
    rows = sorted(map(tuple, torch.cat(seen).tolist()))
    assert rows == sorted(map(tuple, graphs.x[graphs.batch < 30].tolist()))


def test_missing_targets_are_ignored(graphs: GraphSet) -> None:
    graphs.y = torch.stack([graphs.y, 1 - graphs.y], dim=1)
    graphs.y[::3, 1] = float("nan")
    task = GraphTask(graphs)
    outputs = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = task.loss(outputs, task.y)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert not gradient[task.y.isnan()].any()
    known = ~task.y.isnan()
    expected = nn.functional.binary_cross_entropy_with_logits(outputs[known], task.y[known])
    torch.testing.assert_close(loss, expected)
    fit(new_net(2), task, epochs=2)
    nothing = task.loss(outputs, torch.full_like(task.y, float("nan")))
    assert float(nothing.detach()) == 0  # a batch of unlabelled graphs moves nothing


def test_regression_minimises_and_keeps_the_smallest_error(graphs: GraphSet) -> None:
    graphs.y = 3 * graphs.y - 1
    task = GraphTask(graphs, metric="rmse")
    result = fit(new_net(), task, epochs=15)
    assert result.val == min(entry["val"] for entry in result.history)
    difference = (result.logits - graphs.y[:, None])[graphs.test_mask]
    assert result.test == pytest.approx(float(difference.double().square().mean().sqrt()))
    torch.testing.assert_close(task.loss(result.logits, task.y), (result.logits - task.y).square().mean())


def test_training_never_sees_other_graphs(graphs: GraphSet) -> None:
    other = copy.copy(graphs)
    other.x = graphs.x.clone()
    other.x[graphs.test_mask[graphs.batch]] = 7.0
    runs = [fit(new_net(), GraphTask(data), epochs=3) for data in (graphs, other)]
    assert runs[0].history == runs[1].history
    assert torch.equal(runs[0].logits[:45], runs[1].logits[:45])
    assert GraphTask(graphs).training_nodes.tolist() == (graphs.batch < 30).nonzero().view(-1).tolist()


def test_edges_keep_their_features(graphs: GraphSet) -> None:
    task, net = GraphTask(graphs), new_net()
    mask = torch.rand(graphs.num_edges, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = GraphTask(_cut(graphs, mask)).predict(net)
    torch.testing.assert_close(task.with_mask(mask).predict(net), expected)
    shuffled = graphs.edge_index[:, mask][:, torch.randperm(int(mask.sum()))]
    torch.testing.assert_close(task.with_edges(shuffled).predict(net), expected)
    empty = task.with_edges(torch.empty(2, 0, dtype=torch.long))
    assert empty.predict(net).shape == (60, 1)
    assert torch.equal(task.edge_index, graphs.edge_index)
    with pytest.raises(ValueError, match=r"is not an edge of the task's graphs"):
        task.with_edges(torch.tensor([[0], [0]]))


def test_copies_of_an_edge_need_a_mask() -> None:
    pair = Data(
        x=torch.ones(2, 4),
        edge_index=torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]]),
        edge_attr=torch.arange(8.0).view(4, 2),
        y=torch.ones(1),
    )
    task = GraphTask(join_graphs([pair] * 3, {"train": [0], "val": [1], "test": [2]}), metric="rmse")
    mask = torch.ones(12, dtype=torch.bool)
    mask[[0, 2]] = False
    assert task.with_mask(mask).union.edge_data.edge_attr[:2].tolist() == [[2, 3], [6, 7]]
    with pytest.raises(ValueError, match="with_mask"):
        task.with_edges(task.edge_index[:, mask])


def _cut(graphs: GraphSet, mask: Tensor) -> GraphSet:
    other = copy.copy(graphs)
    other.edge_index, other.edge_attr = graphs.edge_index[:, mask], graphs.edge_attr[mask]
    return other


@pytest.mark.parametrize("metric", ["rocauc", "rmse"])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(graphs: GraphSet, metric: str) -> None:
    task, net = GraphTask(graphs, metric=metric), new_net()
    net.norm.track_running_stats = False  # the student's outputs in training are those of evaluation
    net.norm.running_mean = net.norm.running_var = None
    task.batch_size = 30
    with torch.no_grad():
        outputs = task.predict(net)
        x, arcs, edge_data, batch = task.union.take(torch.arange(30))
        outputs[:30] = net.train()(x, arcs, edge_data.edge_attr, batch)
    losses = []
    for term in (None, task.teach(net, outputs, 1.0), task.teach(net, outputs + 1, 1.0)):
        torch.manual_seed(0)
        losses.append(next(iter(task.start(net, torch.device("cpu"), term).losses())).detach())
    torch.testing.assert_close(losses[0], losses[1])
    assert float(losses[2] - losses[0]) > 0.01
    if metric == "rmse":
        assert float(losses[2] - losses[0]) == pytest.approx(1.0, rel=1e-4)


def test_distillation_reads_training_graphs_only(graphs: GraphSet) -> None:
    task = GraphTask(graphs)
    teacher = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    other = teacher.clone()
    other[30:] = 100.0
    runs = [fit(new_net(), task, epochs=2, distill=task.teach(new_net(), t, 1.0)) for t in (teacher, other)]
    assert runs[0].history == runs[1].history


def test_layers_that_cache_their_graph_see_every_batch(graphs: GraphSet) -> None:
    class Cached(nn.Module):
        def __init__(self, cached: bool) -> None:
            super().__init__()
            self.conv, self.out = GCNConv(4, 8, cached=cached), nn.Linear(8, 1)

        def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
            return self.out(global_mean_pool(self.conv(x, edge_index), batch))

    results = []
    for cached in (False, True):
        torch.manual_seed(0)
        results.append(fit(Cached(cached), GraphTask(graphs, batch_size=10), epochs=2))
    assert results[0].history == results[1].history


def test_diverging_says_so(graphs: GraphSet) -> None:
    net = new_net()
    with torch.no_grad():
        net.out.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="loss of epoch 0 is nan"):
        fit(net, GraphTask(graphs), epochs=1)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("x", None, ValueError, "the data has no features"),
        ("y", torch.zeros(59), ValueError, r"shape \[60\] or \[60, T\]"),
        ("y", torch.full((60,), 0.5), ValueError, "targets must be 0, 1 or NaN"),
        ("y", torch.full((60,), float("inf")), ValueError, "target of graph 0 is infinite"),
        ("y", torch.full((60,), float("nan")), ValueError, "of one class only|known target"),
        ("y", torch.zeros(60), ValueError, "rocauc is undefined: val_mask"),
        ("y", torch.zeros(60, dtype=torch.complex64), TypeError, "must hold numbers"),
        ("train_mask", torch.zeros(60, dtype=torch.bool), ValueError, "train_mask selects no graph"),
        ("train_mask", torch.zeros(60), TypeError, "must be boolean"),
        ("test_mask", torch.ones(60, dtype=torch.bool), ValueError, "graph 0 is in two of"),
        ("val_mask", torch.ones(61, dtype=torch.bool), ValueError, "one entry a graph"),
        ("metric", "precision", ValueError, "the metric of graphs must be .rocauc., .ap., .rmse. or .accuracy."),
        ("metric", None, ValueError, "say how graphs are judged"),
    ],
)
def test_bad_data_gets_one_clear_sentence(
    graphs: GraphSet, name: str, value: Any, error: type[Exception], said: str
) -> None:
    graphs[name] = value
    with pytest.raises(error, match=said):
        GraphTask(graphs)


def test_bad_graphs_get_one_clear_sentence(graphs: GraphSet) -> None:
    def refused(error: type[Exception], said: str, **parts: Any) -> None:
        other = copy.copy(graphs)
        for name, value in parts.items():
            other[name] = value
        with pytest.raises(error, match=said):
            GraphTask(other)

    refused(
        ValueError,
        "nan at edge 2, feature 1",
        edge_attr=graphs.edge_attr.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(float("nan"))),
    )
    refused(ValueError, "one row for each of", edge_attr=graphs.edge_attr[1:])
    refused(
        ValueError, "joins two graphs, 0 and 59", edge_index=torch.tensor([[0], [graphs.num_nodes - 1]]), edge_attr=None
    )
    refused(ValueError, "names node 9999", edge_index=torch.tensor([[0], [9999]]), edge_attr=None)
    refused(TypeError, "must hold integers", edge_index=graphs.edge_index.float())
    refused(ValueError, "ascend from 0 by steps of one", batch=graphs.batch.flip(0))
    refused(ValueError, "ascend from 0 by steps of one", batch=2 * graphs.batch)
    refused(TypeError, "graph numbers", batch=graphs.batch.float())
    refused(ValueError, r"data\.batch must have shape", batch=graphs.batch[1:])


def test_bad_options_and_models_get_one_clear_sentence(graphs: GraphSet) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        GraphTask(graphs, batch_size=0)
    for options in ({"protocol": "transductive"}, {"split": 2}):
        with pytest.raises(ValueError, match=r"inductive|split"):
            GraphTask.of(graphs, **options)
    with pytest.raises(ValueError, match=r"outputs \[15, 1\] for 15 graphs with 1 targets"):
        GraphTask(graphs).predict(new_net(targets=3))
