"""Weights, features and types of edges: they reach a model by the names of its forward, cut along with the edges."""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, GCNConv, NNConv, RGCNConv, Sequential, global_mean_pool

import graphsparse as gs
from graphsparse.data import join_graphs
from graphsparse.fit import GraphTask, LinkTask, NodeTask, fit
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.graph_call import Forward, GraphCall


def carrying(data: Data, **parts: Any) -> Data:
    other = copy.copy(data)
    for name, value in parts.items():
        other[name] = value
    return other


@pytest.fixture
def carried(data: Data) -> Data:
    """The graph of the other tests, its arcs with a weight, two features and one of three types."""
    generator = torch.Generator().manual_seed(1)
    number = data.edge_index.size(1)
    return carrying(
        data,
        edge_weight=torch.rand(number, generator=generator) + 0.1,
        edge_attr=torch.randn(number, 2, generator=generator),
        edge_type=torch.randint(3, (number,), generator=generator),
    )


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(40, 8), GCNConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)


class Relational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RGCNConv(40, 8, 3), RGCNConv(8, 3, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


class Featured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = NNConv(40, 3, nn.Linear(2, 120))

    def forward(self, x: Tensor, edge_index: Tensor, *, edge_attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_attr)


MODELS = {"edge_weight": Weighted, "edge_type": Relational, "edge_attr": Featured}


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
@pytest.mark.parametrize("name", MODELS)
def test_training_is_that_by_hand(carried: Data, name: str, protocol: str) -> None:
    """The same steps on the cut data, written out: every loss and every output."""
    model, other = made(MODELS[name]), made(MODELS[name])
    mask = torch.rand(carried.edge_index.size(1), generator=torch.Generator().manual_seed(2)) < 0.6
    result = fit(model, NodeTask(carried, protocol=protocol).with_mask(mask), epochs=4, lr=0.02, weight_decay=0)
    arcs, values = carried.edge_index[:, mask], carried[name][mask]
    inside = torch.ones(60, dtype=torch.bool) if protocol == "transductive" else ~carried.test_mask
    both = inside[arcs[0]] & inside[arcs[1]]
    number = inside.long().cumsum(0) - 1
    seen, train = number[arcs[:, both]], carried.train_mask[inside]
    optimizer = torch.optim.Adam(other.parameters(), lr=0.02, fused=True)
    losses = []
    for _ in range(4):
        outputs = other(carried.x[inside], seen, **{name: values[both]})
        loss = nn.functional.cross_entropy(outputs[train], carried.y[inside][train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert [entry["loss"] for entry in result.history] == pytest.approx(losses, rel=1e-4)
    with torch.no_grad():
        whole = model(carried.x, arcs, **{name: values})
    torch.testing.assert_close(result.logits[carried.test_mask], whole[carried.test_mask], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [Weighted, lambda: gs.nn.GCN(40, 8, 3), lambda: pyg.GCN(40, 8, 2, 3)])
def test_an_edge_of_weight_zero_is_no_edge_to_a_gcn(carried: Data, make: Any) -> None:
    gone = torch.rand(carried.edge_index.size(1), generator=torch.Generator().manual_seed(3)) < 0.5
    zeroed = carrying(carried, edge_weight=carried.edge_weight.masked_fill(gone, 0), edge_attr=None, edge_type=None)
    cut = NodeTask(zeroed).with_mask(~gone)
    one, other = (fit(made(make), task, epochs=5, seed=1) for task in (NodeTask(zeroed), cut))
    torch.testing.assert_close(one.logits, other.logits)
    plain = fit(made(make), NodeTask(carrying(zeroed, edge_weight=None)), epochs=5, seed=1)
    assert not torch.allclose(one.logits, plain.logits, atol=1e-3)


def test_our_gcn_with_weights_is_that_of_pyg_along_both_of_its_ways(carried: Data) -> None:
    """The remembered matrix is found again by the weights, too: other weights on the same arcs are another graph."""
    net = made(lambda: gs.nn.GCN(40, 8, 3)).eval()
    plain = pyg.GCN(40, 8, 2, 3, dropout=0.5).eval()
    plain.load_state_dict(net.state_dict())
    for weight in (carried.edge_weight, carried.edge_weight.flip(0), None, carried.edge_weight):
        expected = plain(carried.x, carried.edge_index, edge_weight=weight)
        for fast in (True, False):
            net.fast = fast
            torch.testing.assert_close(net(carried.x, carried.edge_index, weight), expected)
    net.fast = True
    weight = carried.edge_weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(carried.x, carried.edge_index, weight).sum(), weight)
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("kind", [gs.nn.GAT, gs.nn.GraphTransformer])
def test_attention_sees_features_of_edges_where_it_is_built_for_them(carried: Data, kind: Any) -> None:
    net = made(lambda: kind(40, 16, 3, edge_dim=2)).eval()
    task = NodeTask(carried)
    outputs = task.predict(net)
    torch.testing.assert_close(outputs, net(carried.x, carried.edge_index, carried.edge_attr).detach())
    assert not torch.allclose(outputs, net(carried.x, carried.edge_index, carried.edge_attr.flip(0)))
    with pytest.raises(ValueError, match=r"built for 2 features an edge \(edge_dim\): give edge_attr"):
        net(carried.x, carried.edge_index)
    with pytest.raises(ValueError, match="edge_dim must be at least 1"):
        kind(40, 16, 3, edge_dim=0)


def wrappers() -> dict[str, Any]:
    class HandsOn(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.other = net, nn.Linear(2, 2)

        def forward(self, *args: Any, **named: Any) -> Any:
            return self.net(*args, **named)

    return {
        "itself": lambda net: net,
        "compiled": lambda net: torch.compile(net, backend="eager"),
        "parallel": nn.DataParallel,
        "averaged": torch.optim.swa_utils.AveragedModel,
        "handed on": HandsOn,
        "twice": lambda net: HandsOn(nn.DataParallel(net)),
        "link net": lambda net: gs.nn.LinkNet(net, 3),
        "scripted": torch.jit.script,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", wrappers())
def test_names_are_found_under_wrappers(carried: Data, how: str) -> None:
    net = made(Weighted)
    expected = net(carried.x, carried.edge_index, carried.edge_weight).detach()
    wrapped = wrappers()[how](net)
    arguments = NodeTask(carried).arguments(wrapped)
    assert list(arguments.named) == ["edge_weight"]
    torch.testing.assert_close(NodeTask(carried).predict(wrapped), expected)


def test_what_a_partial_has_set_is_left_alone(carried: Data) -> None:
    net = made(Weighted)
    own = torch.ones_like(carried.edge_weight)
    expected = net(carried.x, carried.edge_index, own).detach()
    net.forward = functools.partial(net.forward, edge_weight=own)
    assert not NodeTask(carried).arguments(net).named
    torch.testing.assert_close(NodeTask(carried).predict(net), expected)


def test_a_sequential_of_pyg_names_its_inputs(carried: Data) -> None:
    net = Sequential("x, edge_index, edge_weight", [(GCNConv(40, 3), "x, edge_index, edge_weight -> x")])
    assert list(NodeTask(carried).arguments(net).named) == ["edge_weight"]
    with pytest.raises(ValueError, match="Sequential needs edge_weight, which the data does not have"):
        fit(net, NodeTask(carrying(carried, edge_weight=None)), epochs=1)
    assert Forward.of(nn.ModuleList()).names == frozenset()


def told(model: nn.Module, task: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(model, task, epochs=1)
    return [str(entry.message) for entry in found if "same edges without" in str(entry.message)]


def test_what_a_model_has_no_place_for_is_said_in_one_line(carried: Data, data: Data) -> None:
    assert told(made(Weighted), NodeTask(data)) == []
    assert told(made(Weighted), NodeTask(carrying(carried, edge_attr=None, edge_type=None))) == []
    (line,) = told(made(Weighted), NodeTask(carried))
    assert line.startswith("Weighted has no place for the data's edge_attr and edge_type (its forward names none)")


@pytest.mark.parametrize("name", ["weight", "weights", "edge_feat"])
def test_what_edges_carry_under_another_name_is_said_in_one_line(data: Data, name: str) -> None:
    """PyG's `from_networkx` makes ``weight`` of the weights."""
    other = carrying(data, **{name: torch.rand(data.edge_index.size(1))})
    with pytest.warns(UserWarning, match=rf"^no model gets the data's {name} \(of edges edge_weight, edge_attr and"):
        gs.find_ticket(Weighted(), other, method="random", edge_keep=0.5, epochs=1, protocol="inductive")


def test_what_belongs_to_nodes_or_to_links_is_no_data_of_edges(data: Data, recwarn: Any) -> None:
    number = data.edge_index.size(1)
    other = carrying(data, pos=torch.rand(60, 3), edge_label=torch.rand(number), edge_year=torch.arange(number))
    fit(Weighted(), NodeTask(other), epochs=1)
    assert not recwarn.list


CALLS = {
    "data": ("def forward(self, data): pass", r"model\(x, edge_index\), and its forward takes data by place"),
    "named": ("def forward(self, *, x, edge_index): pass", r"and its forward takes nothing by place"),
    "pos": ("def forward(self, x, edge_index, pos): pass", r"and its forward needs pos, too: give a module"),
    "more": ("def forward(self, x, edge_index, *, ew, batch): pass", r"its forward needs batch, ew, too"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_forward_that_cannot_be_called_so_is_told_before_training(data: Data, name: str) -> None:
    found: dict[str, Any] = {}
    exec(CALLS[name][0], found)
    model = type("Odd", (Weighted,), {"forward": found["forward"]})()
    with pytest.raises(ValueError, match=rf"Odd is called as .*{CALLS[name][1]}"):
        gs.find_ticket(model, data, method="random", edge_keep=0.5, epochs=1)
    with pytest.raises(ValueError, match="Odd is called as "):
        fit(model, NodeTask(data), epochs=1)


def test_edges_that_are_no_tensor_are_one_sentence(data: Data) -> None:
    for edges, said in ((data.edge_index.tolist(), "must be a tensor, got list"), (None, "the data has no edges")):
        with pytest.raises((TypeError, ValueError), match=said):
            gs.find_ticket(Weighted(), carrying(data, edge_index=edges), method="random", edge_keep=0.5)


def test_what_a_model_takes_and_drops_is_said_in_one_line(carried: Data) -> None:
    """PyG's GAT without edge_dim drops edge_attr without a word, its GCN whatever is no weight."""
    only = carrying(carried, edge_weight=None, edge_type=None)
    (line,) = told(pyg.GAT(40, 8, 1, 3), NodeTask(only))
    assert line.startswith("GAT takes edge_attr and makes nothing of it; layers of PyG need edge_dim= for it")
    assert told(pyg.GAT(40, 8, 1, 3, edge_dim=2), NodeTask(only)) == []
    (line,) = told(pyg.GCN(40, 8, 1, 3), NodeTask(carrying(carried, edge_type=None)))
    assert line.startswith("GCN takes edge_attr and makes nothing of it")


def test_a_gate_that_is_zero_at_first_is_no_deaf_ear(carried: Data) -> None:
    class Gated(Weighted):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
            return super().forward(x, edge_index, None) + self.gate * super().forward(x, edge_index, edge_weight)

    net = made(Gated)
    assert told(net, NodeTask(carrying(carried, edge_attr=None, edge_type=None))) == []


def test_the_look_at_a_model_leaves_no_trace(carried: Data) -> None:
    net = made(Weighted)
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    NodeTask(carrying(carried, edge_attr=None, edge_type=None)).check(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training


def test_what_a_model_needs_and_the_data_lacks_is_one_sentence(data: Data, carried: Data) -> None:
    with pytest.raises(
        ValueError, match=r"Relational needs edge_type, which the data does not have: set data\.edge_type"
    ):
        fit(made(Relational), NodeTask(data), epochs=1)
    with pytest.raises(ValueError, match="Featured needs edge_attr, which the data does not have"):
        NodeTask(carrying(carried, edge_attr=None)).predict(made(Featured))


def test_values_that_a_model_cannot_take_are_one_sentence(carried: Data) -> None:
    class Unbuilt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GATv2Conv(40, 3)  # no edge_dim: its assertion says nothing

        def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
            return self.conv(x, edge_index, edge_attr)

    with pytest.raises(
        ValueError, match=r"Unbuilt cannot be called with the data's edge_attr, torch.float32 \[\d+, 2\]"
    ):
        fit(Unbuilt(), NodeTask(carried), epochs=1)


@pytest.mark.parametrize(
    ("name", "values", "kind", "said"),
    [
        ("edge_weight", lambda n: torch.ones(n - 1), ValueError, r"data.edge_weight must have shape \[\d+\]"),
        ("edge_weight", lambda n: torch.ones(n, 2), ValueError, r"one number for each edge, got \[\d+, 2\]"),
        ("edge_weight", lambda n: torch.full((n,), torch.nan), ValueError, "data.edge_weight holds nan at edge 0"),
        ("edge_weight", lambda n: torch.ones(n, dtype=torch.complex64), TypeError, "must hold real numbers"),
        ("edge_attr", lambda n: torch.ones(n + 1, 2), ValueError, r"one row for each of \d+ edges, got"),
        ("edge_attr", lambda n: torch.ones(()), ValueError, "got a single number"),
        ("edge_attr", lambda n: torch.full((n, 2), torch.inf), ValueError, "data.edge_attr holds inf at edge 0"),
        ("edge_type", torch.zeros, TypeError, "data.edge_type must hold the numbers of relations"),
        ("edge_type", lambda n: torch.full((n,), -1), ValueError, "data.edge_type holds -1 at edge 0"),
        ("edge_type", lambda n: torch.zeros(n, 3).long(), ValueError, r"data.edge_type must have shape \[\d+\]"),
    ],
)
def test_bad_edge_data_gets_one_sentence(data: Data, name: str, values: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        NodeTask(carrying(data, **{name: values(data.edge_index.size(1))}))


def test_columns_and_whole_numbers_are_read_as_they_are_meant(data: Data) -> None:
    number = data.edge_index.size(1)
    counts = torch.arange(number)
    read = EdgeData.of(carrying(data, edge_weight=counts[:, None], edge_type=counts[:, None].int()), data.edge_index)
    assert torch.equal(read.edge_weight, counts.float())
    assert torch.equal(read.edge_type, counts)
    task = NodeTask(carrying(data, edge_weight=counts.double()))
    assert task.arguments(made(Weighted)).named["edge_weight"].dtype == torch.float32


def test_edges_in_another_order_bring_what_they_carry(carried: Data) -> None:
    task, net = NodeTask(carried), made(Relational)
    order = torch.randperm(carried.edge_index.size(1), generator=torch.Generator().manual_seed(4))
    expected = task.predict(net)
    assert torch.equal(task.with_positions(order).edge_data.edge_type, carried.edge_type[order])
    torch.testing.assert_close(task.with_positions(order).predict(net), expected)
    with pytest.raises(ValueError, match="is not an edge of the task's graphs"):
        task.with_edges(torch.tensor([[0], [0]]))


def test_copies_of_an_edge_with_types_of_their_own_are_cut_one_by_one(data: Data) -> None:
    """An edge of two relations is two edges."""
    arcs = torch.tensor([[0, 1, 0, 1, 2, 2], [1, 0, 1, 0, 2, 3]])
    twice = carrying(data, edge_index=arcs, edge_type=torch.tensor([0, 0, 1, 1, 2, 2]))
    task = NodeTask(twice).with_mask(torch.tensor([True, True, False, False, True, True]))
    assert task.edge_data.edge_type.tolist() == [0, 0, 2, 2]
    with pytest.raises(ValueError, match="some copies of a parallel edge are left out"):
        NodeTask(twice).with_edges(arcs[:, :2])
    assert torch.equal(NodeTask(twice).with_edges(arcs.flip(1)).edge_data.edge_type, torch.tensor([2, 2, 0, 0, 1, 1]))


def test_checkpoints_of_other_edge_data_are_those_of_another_run(carried: Data, tmp_path: Any) -> None:
    one = carrying(carried, edge_attr=None, edge_type=None)
    fit(made(Weighted), NodeTask(one), epochs=2, checkpoint=tmp_path / "a")
    other = carrying(one, edge_weight=one.edge_weight + 1)
    with pytest.raises(gs.errors.DataError, match="belongs to another run: task edge_weight differ"):
        fit(made(Weighted), NodeTask(other), epochs=2, checkpoint=tmp_path / "a")


class Pooled(nn.Module):
    """A network of graphs whose forward has names in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = GCNConv(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return self.out(global_mean_pool(self.conv(x, edge_index, edge_weight).relu(), batch))


@pytest.fixture
def many() -> Data:
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for number in range(12):
        path = torch.arange(3 + number % 3)
        arcs = torch.stack([path[:-1], path[1:]])
        graphs.append(
            Data(
                x=torch.randn(len(path), 4, generator=generator),
                edge_index=torch.cat([arcs, arcs.flip(0)], dim=1),
                edge_attr=torch.randn(2 * arcs.size(1), 2, generator=generator),
                y=torch.tensor([float(number % 2)]),
            )
        )
    data = join_graphs(graphs, {"train": range(6), "val": range(6, 9), "test": range(9, 12)})
    data.edge_weight = torch.rand(data.edge_index.size(1), generator=generator) + 0.1
    data.metric = "rocauc"
    return data


def test_networks_of_graphs_get_weights_and_batch_by_their_own_names(many: Data) -> None:
    net = made(Pooled)
    (line,) = told(net, GraphTask(many))
    assert line.startswith("Pooled has no place for the data's edge_attr")
    mask = torch.ones(many.edge_index.size(1), dtype=torch.bool)
    mask[::5] = False
    outputs = GraphTask(many).with_mask(mask).predict(net)
    with torch.no_grad():
        expected = net(many.x, many.edge_index[:, mask], many.batch, many.edge_weight[mask])
    torch.testing.assert_close(outputs, expected)


def test_a_batch_brings_the_weights_of_its_graphs(many: Data) -> None:
    task, net = GraphTask(many), made(Pooled).eval()
    call = GraphCall(net)
    alone = call.arguments(*task.union.take(torch.tensor([7, 2]))).run(net)
    torch.testing.assert_close(alone.detach(), task.predict(net)[[7, 2]])


def test_a_place_of_another_name_gets_the_features_as_ever(many: Data) -> None:
    class Bonds(Pooled):
        def forward(self, x: Tensor, edge_index: Tensor, bonds: Tensor, of: Tensor) -> Tensor:
            return self.out(global_mean_pool(self.conv(x, edge_index, bonds.norm(dim=1)).relu(), of))

    net = made(Bonds)
    with torch.no_grad():
        expected = net(many.x, many.edge_index, many.edge_attr, many.batch)
    torch.testing.assert_close(GraphTask(many).predict(net), expected)


def test_features_that_a_network_of_graphs_needs_are_asked_for(many: Data) -> None:
    class Needs(Pooled):
        def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
            return self.out(global_mean_pool(self.conv(x, edge_index, edge_attr[:, 0].abs()).relu(), batch))

    many.edge_attr = None
    with pytest.raises(ValueError, match="Needs needs edge_attr, which the data does not have"):
        fit(made(Needs), GraphTask(many), epochs=1)


def test_links_are_predicted_along_weighted_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    links = torch.randint(20, (2, 30), generator=generator)
    other = torch.randint(20, (2, 10), generator=generator)
    data = Data(
        edge_index=torch.cat([links, links.flip(0)], dim=1),
        edge_weight=(torch.rand(30, generator=generator) + 0.1).repeat(2),
        num_nodes=20,
        train_pos_edge_index=links,
        metric="hits@5",
        **{f"{part}_{kind}_edge_index": other for part in ("val", "test") for kind in ("pos", "neg")},
    )
    net = gs.nn.make_link_net("gcn", 20, 0, 8, seed=0).eval()
    task = LinkTask(data)
    mask = torch.arange(60) % 3 > 0
    z = task.with_mask(mask).node_outputs(net)
    with torch.no_grad():
        expected = net(None, data.edge_index[:, mask], edge_weight=data.edge_weight[mask])
        plain = net(None, data.edge_index[:, mask])
    torch.testing.assert_close(z, expected)
    assert not torch.allclose(z, plain, atol=1e-4)
    assert told(net, task) == []
    (line,) = told(gs.nn.make_link_net("sage", 20, 0, 8, seed=0), task)
    assert "has no place for the data's edge_weight" in line


class Aggregating(nn.Module):
    def __init__(self, aggr: Any) -> None:
        super().__init__()
        self.conv = pyg.SAGEConv(40, 3, aggr=aggr)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


SORTED = {
    "lstm": lambda: pyg.LSTMAggregation(40, 40),
    "gru": lambda: pyg.GRUAggregation(40, 40),
    "lcm": lambda: pyg.LCMAggregation(40, 40),
    "several": lambda: pyg.MultiAggregation([pyg.LSTMAggregation(40, 40), pyg.MeanAggregation()], mode="sum"),
}


@pytest.mark.parametrize("name", SORTED)
def test_arcs_are_sorted_for_the_models_that_need_it(data: Data, name: str) -> None:
    """Their aggregation refused the edges of nearly every graph, or, of none at all, said "math domain error"."""
    net = made(lambda: Aggregating(SORTED[name]()))
    order = torch.argsort(data.edge_index[1], stable=True)
    with torch.no_grad():
        expected = net(data.x, data.edge_index[:, order])
    torch.testing.assert_close(NodeTask(data).predict(net), expected)
    fit(net, NodeTask(data, protocol="inductive"), epochs=1)
    bare = carrying(data, edge_index=torch.empty(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="Aggregating cannot be called without edges, and the graph has none"):
        fit(net, NodeTask(bare), epochs=1)


def test_arcs_of_other_models_stay_in_the_order_of_the_data(data: Data) -> None:
    task = NodeTask(data)
    for net in (Aggregating("mean"), Aggregating("median"), made(Weighted)):
        assert task.arguments(net).edge_index is task.edge_index


def test_what_sorted_arcs_carry_is_sorted_with_them(carried: Data) -> None:
    class Scaled(pyg.MessagePassing):
        def __init__(self) -> None:
            super().__init__(aggr=pyg.LSTMAggregation(40, 3))

        def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, edge_weight=edge_weight)

        def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
            return edge_weight[:, None] * x_j

    net, order = made(Scaled), torch.argsort(carried.edge_index[1], stable=True)
    with torch.no_grad():
        expected = net(carried.x, carried.edge_index[:, order], carried.edge_weight[order])
    torch.testing.assert_close(NodeTask(carried).predict(net), expected)


def test_features_come_in_the_type_of_the_model(data: Data) -> None:
    """numpy's float64 is common; whole numbers are told."""
    double = carrying(data, x=data.x.double())
    one, other = (fit(made(Weighted), NodeTask(graph), epochs=2) for graph in (data, double))
    assert torch.equal(one.logits, other.logits)
    assert fit(made(Weighted).double(), NodeTask(data), epochs=1).logits.dtype == torch.float64
    with pytest.raises(TypeError, match=r"data\.x must hold floats, got torch\.int64"):
        NodeTask(carrying(data, x=data.x.long()))
