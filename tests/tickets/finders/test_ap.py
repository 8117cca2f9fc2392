"""IMP(also="ap"): negative weights that moved least go, too, counts stay exact, and dead ReLUs are reported."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.nn import GCNConv

import graphsparse as gs
from graphsparse.fit.relus import dead_relus
from graphsparse.keep_rule import kept_count
from graphsparse.tickets import FINDERS, IMP, register


@pytest.fixture
def finders():
    names = {"imp-ap": IMP(weight_step="0.5", also="AP"), "imp-half": IMP(weight_step="0.5")}
    for name, finder in names.items():
        register(name, finder)
    yield
    for name in names:
        del FINDERS[name]


def test_a_tenth_of_a_round_are_negative_weights_that_moved_least(blocks, model, finders):
    settings = {"edge_keep": 1, "weight_keep": 0.5, "epochs": 20}
    both = {name: gs.find_ticket(model, blocks, method=name, **settings) for name in ("imp-half", "imp-ap")}
    first = gs.find_ticket(model, blocks, method="imp-half", edge_keep=1, weight_keep=1, epochs=20)
    masks = {name: ticket.weight_masks for name, ticket in both.items()}
    total = sum(mask.numel() for mask in masks["imp-ap"].values())
    for found in masks.values():
        assert sum(int(mask.sum()) for mask in found.values()) == kept_count("0.5", total)
    trained = dict(first.apply_to(model).named_parameters())
    start = dict(model.named_parameters())
    out = int(0.1 * (total - kept_count("0.5", total)))
    gone = {name: masks["imp-half"][name] & ~masks["imp-ap"][name] for name in trained}
    assert 0 < sum(int(mask.sum()) for mask in gone.values()) <= out
    negative = [trained[name].detach()[mask] for name, mask in gone.items()]
    assert all(bool((values < 0).all()) for values in negative)
    assert not any(bool(gone[name].any()) for name in gone if name.endswith("bias"))
    moved = {name: (trained[name] - start[name]).detach().abs() for name in gone}
    matrices = [name for name in gone if not name.endswith("bias")]
    stay = {name: masks["imp-ap"][name] & masks["imp-half"][name] & (trained[name] < 0) for name in matrices}
    rest = [moved[name][stay[name]] for name in matrices]
    furthest = max(float(moved[name][mask].max()) for name, mask in gone.items() if bool(mask.any()))
    assert furthest <= min(float(values.min()) for values in rest if len(values))
    assert both["imp-ap"].verify(blocks, model=model)


def test_dead_relus_are_reported(blocks, model, finders):
    ticket = gs.find_ticket(model, blocks, method="imp-ap", edge_keep=0.6, weight_keep=0.3, epochs=5)
    sparse, net = ticket.sparse_graph(blocks), ticket.apply_to(model).eval()
    with torch.no_grad():
        hidden = net.first(sparse.x, sparse.edge_index)
    assert ticket.metrics["dead_relus"] == pytest.approx(float((hidden <= 0).float().mean()))
    assert 0 < ticket.metrics["dense_dead_relus"] < 1
    assert ticket.metrics["also"] == "ap"
    assert "dead_relus" not in gs.find_ticket(model, blocks, method="imp-half", edge_keep=1, weight_keep=1).metrics


class Smooth(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(4, 8), GCNConv(8, 4)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).tanh(), edge_index)


def test_what_has_no_relu_and_what_is_not_global_is_refused_before_training(blocks, model, finders):
    settings = {"method": "imp-ap", "edge_keep": 0.5, "weight_keep": 0.5, "epochs": 10**9}
    with pytest.raises(ValueError, match="Smooth has no ReLU"):
        gs.find_ticket(Smooth(), blocks, **settings)
    for options in ({"pattern": "units"}, {"weight_distribution": "erk"}):
        with pytest.raises(ValueError, match="all tensors together"):
            gs.find_ticket(model, blocks, **settings, **options)
    with pytest.raises(ValueError, match="also must be None or 'ap'"):
        IMP(also="pa")
    assert dataclasses.replace(IMP(), also="ap") != IMP()


def test_all_spellings_of_a_relu_are_seen():
    x = torch.tensor([-1.0, 1.0])
    functional = torch.nn.functional
    calls = (torch.nn.ReLU(), torch.nn.ReLU(inplace=True), torch.relu, functional.relu, functional.relu6)
    for call in (*calls, lambda x: x.relu(), lambda x: x.clone().relu_(), lambda x: functional.relu_(x.clone())):
        assert dead_relus(lambda call=call: call(x.clone())) == 0.5
