"""Tickets of graphs whose edges carry weights, features or types: found, stored, verified, by every kind of finder."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import FastRGCNConv, GCNConv, LSTMAggregation, NNConv, RGCNConv, SAGEConv

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.fit import NodeTask, fit
from graphsparse.tickets.canonical import graph_hash, with_ordered_copies

FAST = {"epochs": 3, "edge_keep": 0.7, "weight_keep": 0.6, "lr": 0.02}


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(4, 8), GCNConv(8, 4)

    def forward(self, x, edge_index, edge_weight):
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)


class Relational(torch.nn.Module):
    def __init__(self, conv=RGCNConv):
        super().__init__()
        self.first, self.second = conv(4, 8, 3), conv(8, 4, 3)

    def forward(self, x, edge_index, edge_type):
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


class Featured(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = NNConv(4, 4, torch.nn.Linear(2, 16))

    def forward(self, x, edge_index, edge_attr):
        return self.conv(x, edge_index, edge_attr)


MODELS = {
    "weights": Weighted,
    "our gcn": lambda: gs.nn.GCN(4, 8, 4),
    "types": Relational,
    "types at once": lambda: Relational(FastRGCNConv),
    "features": Featured,
}


@pytest.fixture
def carrying(blocks) -> Data:
    """The two arcs of a pair carry different values."""
    generator, number = torch.Generator().manual_seed(5), blocks.num_edges
    blocks.edge_weight = torch.rand(number, generator=generator) + 0.1
    blocks.edge_attr = torch.randn(number, 2, generator=generator)
    blocks.edge_type = torch.randint(3, (number,), generator=generator)
    return blocks


def made(name):
    torch.manual_seed(0)
    return MODELS[name]()


def by_hand(model, data):
    named = {"Weighted": "edge_weight", "GCN": "edge_weight", "Relational": "edge_type", "Featured": "edge_attr"}
    name = named[type(model).__name__]
    with torch.no_grad():
        return model.eval()(data.x, data.edge_index, **{name: data[name]})


CASES = [
    *((name, method) for name in MODELS for method in ("teddy", "reliance", "no-edges")),
    *((name, method) for name in ("weights", "types at once", "features") for method in ("ugs", "wd-glt", "denoise")),
    ("our gcn", "ugs"),
    ("types", "imp"),
    ("weights", "mixture"),
]


@pytest.mark.filterwarnings("ignore:.*has no place for the data's")
@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_ticket_is_the_model_on_the_cut_data(carrying, name, method):
    """Its outputs are those of the plain model on the sparse graph, whatever the order of the edges."""
    ticket = gs.find_ticket(made(name), carrying, method=method, distill=0.5, **FAST)
    model, small = ticket.apply_to(made(name)), ticket.sparse_graph(carrying)
    assert (
        len(small.edge_type) == len(small.edge_weight) == len(small.edge_attr) == small.num_edges < carrying.num_edges
    )
    torch.testing.assert_close(ticket.logits, by_hand(model, small), rtol=1e-4, atol=1e-4)
    order = torch.randperm(carrying.num_edges, generator=torch.Generator().manual_seed(1))
    shuffled = copy.copy(carrying)
    for key in ("edge_weight", "edge_attr", "edge_type"):
        shuffled[key] = carrying[key][order]
    shuffled.edge_index = carrying.edge_index[:, order]
    assert ticket.verify(shuffled, model=made(name))["max_output_error"] < 1e-3


@pytest.mark.filterwarnings("ignore:.*has no place for the data's")
def test_a_relational_ticket_is_a_training_on_the_cut_data(carrying, tmp_path):
    ticket = gs.find_ticket(made("types"), carrying, method="teddy", edge_keep=0.5, epochs=5, distill=0, seed=3)
    again = fit(made("types"), NodeTask(ticket.sparse_graph(carrying)), epochs=5, seed=3)
    torch.testing.assert_close(again.logits, ticket.logits)
    assert again.test == ticket.metrics["test"]
    ticket.save(tmp_path)
    loaded = gs.Ticket.load(tmp_path)
    assert loaded.verify(carrying, model=made("types"), expected_hash=ticket.hash)["max_output_error"] < 1e-4
    other = copy.copy(carrying)
    other.edge_type = (carrying.edge_type + 1) % 3
    with pytest.raises(TicketError, match="not the ticket's graph"):
        loaded.verify(other)
    other.edge_type = None
    with pytest.raises(TicketError, match="not the ticket's graph"):
        loaded.verify(other)


@pytest.mark.filterwarnings("ignore:.*has no place for the data's")
@pytest.mark.parametrize("method", ["teddy", "reliance", "ugs"])
def test_an_inductive_ticket_cuts_its_training_graph_with_what_it_carries(carrying, method):
    ticket = gs.find_ticket(made("weights"), carrying, method=method, protocol="inductive", **FAST)
    small, seen = ticket.sparse_graph(carrying), ~carrying.test_mask
    model = ticket.apply_to(made("weights")).eval()
    inside = seen[small.edge_index].all(dim=0)
    number = seen.long().cumsum(0) - 1
    with torch.no_grad():
        part = model(small.x[seen], number[small.edge_index[:, inside]], small.edge_weight[inside])
    torch.testing.assert_close(ticket.logits[seen], part, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ticket.logits[~seen], by_hand(model, small)[~seen], rtol=1e-4, atol=1e-4)
    ticket.verify(carrying, model=made("weights"))


@pytest.mark.parametrize("method", ["teddy", "ugs", "reliance", "no-edges"])
def test_what_a_model_needs_is_asked_for_before_any_training(blocks, method, monkeypatch):
    monkeypatch.setattr("graphsparse.fit.loop._Trainer.epoch", lambda self: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match="Relational needs edge_type, which the data does not have"):
        gs.find_ticket(made("types at once"), blocks, method=method, **FAST)


def test_layers_by_relation_have_no_soft_masks_and_say_so(carrying):
    carrying.edge_weight = carrying.edge_attr = None
    with pytest.raises(ValueError, match="sends messages along other edges than the graph's, in RGCNConv"):
        gs.find_ticket(made("types"), carrying, method="ugs", **FAST)


@pytest.mark.parametrize("method", ["teddy", "ugs", "mixture"])
def test_a_model_that_needs_sorted_arcs_has_tickets(blocks, method):
    loops = blocks.edge_index[0] == blocks.edge_index[1]
    blocks.edge_index = blocks.edge_index[:, ~loops]
    torch.manual_seed(0)
    net = SAGEConv(4, 4, aggr=LSTMAggregation(4, 4))
    ticket = gs.find_ticket(net, blocks, method=method, protocol="inductive", **FAST)
    assert ticket.verify(blocks, model=net)["max_output_error"] < 1e-4


def test_an_edge_of_two_relations_is_two_edges_in_any_order():
    """The k-th copies of both directions are one edge: they carry the same, wherever they stand in the list."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.combinations(torch.arange(12)).t()[:, ::2]
    twice = torch.cat([pairs, pairs.flip(0), pairs, pairs.flip(0)], dim=1)
    number = pairs.size(1)
    part = torch.randperm(12, generator=generator)
    masks = {f"{name}_mask": part // 4 == k for k, name in enumerate(("train", "val", "test"))}
    data = Data(
        x=torch.randn(12, 4, generator=generator),
        edge_index=twice,
        edge_type=torch.arange(2).repeat_interleave(2 * number),
        y=torch.arange(12) % 4,
        **masks,
    )
    shuffled, order = copy.copy(data), torch.randperm(4 * number, generator=generator)
    shuffled.edge_index, shuffled.edge_type = twice[:, order], data.edge_type[order]
    assert graph_hash(data) == graph_hash(shuffled)
    assert with_ordered_copies(with_ordered_copies(data)).edge_type.tolist() == [0, 1] * (2 * number)
    kept = []
    for graph in (data, shuffled):
        ticket = gs.find_ticket(made("types"), graph, method="random", edge_keep=0.4, epochs=2)
        small = ticket.sparse_graph(graph)
        kept.append(
            {(*arc, kind) for arc, kind in zip(small.edge_index.t().tolist(), small.edge_type.tolist(), strict=True)}
        )
        assert {(v, u, kind) for u, v, kind in kept[-1]} == kept[-1]
        assert ticket.verify(shuffled, model=made("types"))["max_output_error"] < 1e-4
        assert ticket.verify(data, model=made("types"))["max_output_error"] < 1e-4
    assert kept[0] == kept[1]
    assert len({kind for *_, kind in kept[0]}) == 2


def test_real_bonds_reach_a_network_of_graphs_by_name(need):
    """Free energies of solvation: a network that names the bonds' features, in places of its own."""
    need("ogb/ogbg_molfreesolv")
    data = gs.data.load("ogbg-molfreesolv")

    class Bonded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.atoms = torch.nn.Linear(9, 8)
            self.conv, self.out = NNConv(8, 8, torch.nn.Linear(3, 64)), torch.nn.Linear(8, 1)

        def forward(self, x, edge_index, batch, *, edge_attr):
            h = self.conv(self.atoms(x.float()).relu(), edge_index, edge_attr.float()).relu()
            return self.out(gs.nn.graphs.global_mean_pool(h, batch))

    torch.manual_seed(0)
    net = Bonded()
    ticket = gs.find_ticket(net, data, method="teddy", edge_keep=0.7, weight_keep=0.7, epochs=2)
    small = ticket.sparse_graph(data)
    with torch.no_grad():
        expected = ticket.apply_to(net).eval()(small.x, small.edge_index, small.batch, edge_attr=small.edge_attr)
    torch.testing.assert_close(ticket.logits, expected, rtol=1e-3, atol=1e-3)
    ticket.verify(data, model=net)


@pytest.mark.parametrize("method", ["ugs", "imp", "teddy"])
def test_what_a_model_ignores_is_said_once_however_often_it_is_trained(method):
    data = gs.data.load("digits-knn")
    data.edge_attr = torch.rand(data.num_edges, 3)
    net = gs.nn.GCN(data.num_features, 4, data.num_classes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gs.find_ticket(net, data, method=method, edge_keep=0.8, weight_keep=0.7, epochs=1)
    said = [str(each.message) for each in caught if "edge_attr" in str(each.message)]
    assert len(said) == 1
    with pytest.warns(UserWarning, match="edge_attr"):  # another call says it again
        gs.find_ticket(net, data, method="random", edge_keep=0.8, weight_keep=0.7, epochs=1)
