"""Models that keep a graph are refused before training and by verify, wherever they keep it; all others are not."""

import copy
import functools
import threading

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    APPNP,
    ChebConv,
    GATConv,
    GCNConv,
    GRUAggregation,
    LCMAggregation,
    SAGEConv,
    SGConv,
    global_add_pool,
)
from torch_geometric.nn.norm import BatchNorm, GraphNorm, PairNorm

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.fit import GraphTask, LinkTask, NodeTask
from graphsparse.tickets.memory_probe import check_forgets

SHARED = {}


def adjacency(edge_index, number):
    a = torch.zeros(number, number)
    a[edge_index[1], edge_index[0]] = 1.0
    a += torch.eye(number)
    return a / a.sum(1, keepdim=True)


@functools.lru_cache
def by_number(number, token):
    return adjacency(SHARED["now"], number)


class Keeper(nn.Module):
    """Two layers of a @ (x w), whose adjacency comes from somewhere."""

    def __init__(self, where, features=4, outputs=4):
        super().__init__()
        self.one, self.two = nn.Linear(features, 8), nn.Linear(8, outputs)
        self.where, self.kept, self.table = where, None, {}
        self.register_buffer("stored", torch.zeros(0))
        held = []

        def closure(edge_index, number):
            held.append(adjacency(edge_index, number)) if not held else None
            return held[0]

        self.closure = closure

    def matrix(self, edge_index, number):
        make = functools.partial(adjacency, edge_index, number)
        if self.where == "nowhere":
            return make()
        if self.where == "attribute":
            self.kept = make() if self.kept is None else self.kept
            return self.kept
        if self.where == "in training":
            if self.kept is None and self.training:
                self.kept = make()
            return make() if self.kept is None else self.kept
        if self.where == "buffer":
            self.stored = self.stored if self.stored.numel() else make()
            return self.stored
        if self.where == "closure":
            return self.closure(edge_index, number)
        if self.where == "lru_cache":
            SHARED["now"] = edge_index
            return by_number(number, id(type(self)))
        if self.where == "module":
            return SHARED.setdefault(("module", number), make())
        key = {
            "number": number,
            "shape": tuple(edge_index.shape),
            "id": id(edge_index),
            "address": edge_index.data_ptr(),
            "content": tuple(edge_index.flatten().tolist()),
        }[self.where.removeprefix("shared ")]
        table = SHARED if self.where.startswith("shared") else self.table
        return table.setdefault((self.where, key), make())

    def forward(self, x, edge_index):
        a = self.matrix(edge_index, len(x))
        return a @ self.two((a @ self.one(x)).relu())


KEEPERS = [
    "attribute", "in training", "buffer", "closure", "lru_cache", "module", "number", "shape", "id", "address",
    "shared number", "shared shape", "shared id", "shared address",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_shared():
    SHARED.clear()
    by_number.cache_clear()


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.problem.fit", lambda *args, **options: pytest.fail("it was trained"))


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("where", KEEPERS)
def test_a_model_that_keeps_its_graph_is_refused_before_training(blocks, where, called, untrained):
    model = Keeper(where)
    if called:
        model(blocks.x, blocks.edge_index)
        if model.kept is not None:
            model.kept = model.kept.detach()
    with pytest.raises(
        TicketError, match=r"Keeper keeps a graph.* Compute what depends on edge_index in every forward"
    ):
        gs.find_ticket(model, blocks, method="random", edge_keep=0.01)


@pytest.mark.parametrize("where", ["attribute", "closure", "number", "shared shape"])
def test_verify_asks_the_same(blocks, where):
    ticket = gs.find_ticket(Keeper("nowhere"), blocks, method="random", edge_keep=0.2, weight_keep=1, epochs=2)
    ticket.verify(blocks, model=Keeper("content"))
    with pytest.raises(TicketError, match="Keeper keeps a graph"):
        ticket.verify(blocks, model=Keeper(where))
    filled = Keeper("attribute")
    with torch.no_grad():
        filled(blocks.x, blocks.edge_index)
    with pytest.raises(TicketError, match="Keeper keeps a graph"):
        ticket.verify(blocks, model=filled)


@pytest.mark.parametrize("where", ["nowhere", "content", "shared content"])
def test_a_cache_that_knows_its_edges_is_none_of_our_business(blocks, where):
    model = Keeper(where)
    with torch.no_grad():
        model(blocks.x, blocks.edge_index)
    check_forgets(model, NodeTask(blocks))


class Half(Keeper):
    """One layer obeys the edges, the other keeps them."""

    def forward(self, x, edge_index):
        kept = self.matrix(edge_index, len(x))
        return adjacency(edge_index, len(x)) @ self.two((kept @ self.one(x)).relu())


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("where", ["attribute", "closure", "number"])
def test_a_model_that_keeps_half_of_it_is_refused(blocks, where, called):
    model = Half(where)
    if called:
        with torch.no_grad():
            model(blocks.x, blocks.edge_index)
    with pytest.raises(TicketError, match="Half keeps a graph"):
        check_forgets(model, NodeTask(blocks))


def test_a_model_that_cannot_be_copied_is_told_why(blocks):
    model = Keeper("attribute")
    model.kept = model.one(torch.ones(1, 4))
    with pytest.raises(TicketError, match=r"Keeper cannot be copied: .* keep no tensor of an earlier forward pass"):
        gs.find_ticket(model, blocks, edge_keep=0.5)
    model.kept, model.table = None, {"lock": threading.Lock()}
    with pytest.raises(TicketError, match="Keeper cannot be copied: "):
        gs.find_ticket(model, blocks, edge_keep=0.5)


class Layers(nn.Module):
    """A few layers, called with the edges if they take them."""

    def __init__(self, *layers, act=True):
        super().__init__()
        self.layers, self.act = nn.ModuleList(layers), act

    def forward(self, x, edge_index):
        for layer in self.layers:
            x = layer(x, edge_index) if hasattr(layer, "propagate") and not isinstance(layer, Free) else layer(x)
        return x


class Free(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Counting(nn.Module):
    """Its state moves with every call, whatever the graph."""

    def __init__(self):
        super().__init__()
        self.conv, self.calls, self.generator = GCNConv(4, 4), 0, torch.Generator()

    def forward(self, x, edge_index):
        self.calls += 1
        return self.conv(x, edge_index) * self.calls + torch.rand(len(x), 4, generator=self.generator)


class Named(nn.Module):
    """A node has a place of its own, and feels all others."""

    def __init__(self):
        super().__init__()
        self.place, self.conv = nn.Embedding(160, 4), GCNConv(4, 4)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x, edge_index):
        x = x + self.place.weight
        return self.conv(x, edge_index) + self.attention(x[None], x[None], x[None])[0][0]


class Needy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 4, add_self_loops=False)

    def forward(self, x, edge_index):
        if not (edge_index[0] != edge_index[1]).any():
            raise ZeroDivisionError("no edge")
        return self.conv(x, edge_index)


class NeedyKeeper(Keeper):
    def forward(self, x, edge_index):
        if not (edge_index[0] != edge_index[1]).any():
            raise ZeroDivisionError("no edge")
        return super().forward(x, edge_index)


def nearest(x):
    """The mean of the three nodes with the most similar features: a graph of the model's own making."""
    return x[torch.cdist(x, x).topk(3, largest=False).indices].mean(dim=1)


def good():
    torch.manual_seed(0)
    yield "cached", Layers(GCNConv(4, 8, cached=True), nn.ReLU(), GCNConv(8, 4, cached=True))
    yield "sgconv", Layers(SGConv(4, 4, K=2, cached=True))
    yield "appnp", Layers(nn.Linear(4, 4), APPNP(3, 0.1, cached=True))
    yield "cheb", Layers(ChebConv(4, 4, K=3))
    yield "batch norm", Layers(GCNConv(4, 8), BatchNorm(8), nn.ReLU(), GATConv(8, 4), nn.BatchNorm1d(4))
    yield "graph norm", Layers(GCNConv(4, 8), GraphNorm(8), nn.ReLU(), GCNConv(8, 4), PairNorm())
    yield "batch statistics", Layers(GCNConv(4, 8), nn.BatchNorm1d(8, track_running_stats=False), GCNConv(8, 4))
    yield "random", Layers(GCNConv(4, 8), Free(lambda x: x + torch.randn_like(x)), GCNConv(8, 4))
    yield "dropout", Layers(GCNConv(4, 8), Free(lambda x: nn.functional.dropout(x, 0.5)), GCNConv(8, 4))
    yield "mlp", Layers(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    yield "named", Named()
    yield "counting", Counting()
    yield "needy", Needy()
    yield "gru", Layers(SAGEConv(4, 4, aggr=GRUAggregation(4, 4)))
    yield "lcm", Layers(SAGEConv(4, 4, aggr=LCMAggregation(4, 4)))
    yield "its own neighbours", Layers(nn.Linear(4, 4), Free(nearest))
    yield "its own neighbours, with ties", Layers(Free(torch.sign), nn.Linear(4, 4), Free(nearest))
    yield from ((name, gs.nn.make(name, 4, 4, 8, seed=0)) for name in ("gcn", "gin", "gat", "sage", "transformer"))


@pytest.mark.parametrize(("name", "model"), list(good()))
def test_whatever_obeys_its_edges_passes_and_nothing_is_changed(blocks, name, model):
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check_forgets(model, NodeTask(blocks))
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("where", ["attribute", "number"])
def test_a_model_that_needs_edges_is_probed_with_a_few(blocks, where):
    with pytest.raises(TicketError, match="NeedyKeeper keeps a graph"):
        check_forgets(NeedyKeeper(where), NodeTask(blocks))


@pytest.mark.parametrize("where", ["nowhere", "attribute", "closure", "number"])
@pytest.mark.parametrize("called", [False, True])
def test_models_of_links_without_features(blocks, where, called):
    class Embedded(Keeper):
        def __init__(self):
            super().__init__(where)
            self.rows = nn.Embedding(160, 4)

        def forward(self, x, edge_index):
            return super().forward(self.rows.weight, edge_index)

    pairs = blocks.edge_index[:, blocks.edge_index[0] < blocks.edge_index[1]]
    other = torch.stack([torch.arange(40), torch.arange(100, 140)])
    parts = {"train_pos": pairs[:, :300], "val_pos": pairs[:, 300:340], "test_pos": pairs[:, 340:380]}
    parts |= {"val_neg": other, "test_neg": other.flip(0)}
    data = Data(edge_index=blocks.edge_index, num_nodes=160, **{f"{name}_edge_index": p for name, p in parts.items()})
    model, task = Embedded(), LinkTask(data, metric="hits@10")
    if called:
        with torch.no_grad():
            model(None, blocks.edge_index)
    if where == "nowhere":
        check_forgets(model, task)
        return
    with pytest.raises(TicketError, match="Embedded keeps a graph"):
        check_forgets(model, task)


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("where", ["nowhere", "attribute", "closure", "number"])
def test_models_of_whole_graphs(where, called):
    class Pooled(Keeper):
        def forward(self, x, edge_index, edge_attr, batch):
            return global_add_pool(super().forward(x, edge_index), batch)

    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    ring = torch.cat([ring, ring.flip(0)], dim=1)
    x = torch.randn(45, 4, generator=torch.Generator().manual_seed(0))
    data = Data(x=x, edge_index=torch.cat([ring + 5 * i for i in range(9)], dim=1))
    data.batch, data.y = torch.arange(9).repeat_interleave(5), (torch.arange(9) % 2).float()[:, None]
    for start, part in enumerate(("train_mask", "val_mask", "test_mask")):
        data[part] = torch.arange(9) // 3 == start
    model, task = Pooled(where, outputs=1), GraphTask(data, metric="rocauc")
    if called:
        with torch.no_grad():
            model(*task.inputs())
    if where == "nowhere":
        check_forgets(model, task)
        return
    with pytest.raises(TicketError, match="Pooled keeps a graph"):
        check_forgets(model, task)


class Held(nn.Module):
    """One layer that obeys its edges, beside something with a row for each node that was made of the first graph."""

    def __init__(self, what, held=None):
        super().__init__()
        self.what, self.layer, self.own = what, nn.Linear(4, 4), nn.Embedding(160, 4)
        self.register_buffer("held", held)

    def forward(self, x, edge_index):
        a = adjacency(edge_index, len(x))
        if self.held is None:
            self.held = {"degrees": a.count_nonzero(1), "walks": (a @ a).diagonal(), "sums": a @ a @ x}[self.what]
        if self.what == "sums":
            return self.layer(self.held)
        return a @ self.layer(x * self.held.view(len(x), -1) + self.own.weight)


@pytest.mark.parametrize("what", ["degrees", "walks", "sums"])
def test_what_was_made_of_the_first_graph_is_refused_while_it_is_not_there_yet(blocks, what, untrained):
    with pytest.raises(TicketError, match="Held keeps a graph"):
        gs.find_ticket(Held(what), blocks, method="random", edge_keep=0.1)


def test_sums_over_neighbours_that_a_model_holds_are_refused(blocks, untrained):
    model = Held("sums")
    model(blocks.x, blocks.edge_index)
    with pytest.raises(TicketError, match="Held keeps a graph: its outputs are the same whatever edges and features"):
        gs.find_ticket(model, blocks, method="random", edge_keep=0.1)


@pytest.mark.parametrize("what", ["degrees", "walks"])
def test_rows_of_nodes_that_a_model_holds_are_told(blocks, what):
    model = Held(what)
    model(blocks.x, blocks.edge_index)
    with pytest.warns(UserWarning, match=r"Held holds a row for each node \(held\), neither features nor parameters"):
        check_forgets(model, NodeTask(blocks))


def test_rows_that_tell_no_node_apart_are_none_of_our_business(blocks, recwarn):
    check_forgets(Held("degrees", torch.ones(160)), NodeTask(blocks))
    embedded = Layers(GCNConv(4, 4))
    embedded.own, embedded.mask = nn.Embedding(160, 4), torch.arange(160) < 9  # held, and not used
    check_forgets(embedded, NodeTask(blocks))
    check_forgets(Named(), NodeTask(blocks))
    assert not recwarn.list


def test_a_model_of_embeddings_alone_holds_no_graph(blocks):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.Embedding(160, 4)

        def forward(self, x, edge_index):
            return self.rows.weight

    check_forgets(Rows(), NodeTask(blocks))
