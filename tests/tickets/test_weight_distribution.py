"""find_ticket(weight_distribution=): every finder that projects or holds weights gives each tensor its share."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import nn
from torch_geometric.nn import GCNConv

import graphsparse as gs
from graphsparse.errors import DataError
from graphsparse.keep_rule import kept_count
from graphsparse.params import allot
from graphsparse.tickets.finders.masked import largest_weights

SETTINGS = {"edge_keep": 0.7, "weight_keep": 0.2, "epochs": 2}


@pytest.fixture(scope="module")
def data():
    return gs.data.load("digits-knn")


def net(data, hidden=8):
    return gs.nn.make("gcn", data.num_features, data.num_classes, hidden, seed=0)


@pytest.mark.parametrize("method", ["teddy", "reliance", "magnitude", "imp", "random-weights", "ugs", "random"])
def test_each_tensor_keeps_its_share(data, method):
    model = net(data)
    ticket = gs.find_ticket(model, data, method=method, weight_distribution="erk", **SETTINGS)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    total = sum(p.numel() for p in model.parameters())
    counts = allot("erk", shapes, kept_count(0.2, total))
    assert {name: int(mask.sum()) for name, mask in ticket.weight_masks.items()} == counts
    assert ticket.config["weight_distribution"] == "erk"
    assert ticket.verify(data, model=model)


def test_the_default_is_one_pool(data, tmp_path):
    model = net(data)
    plain = gs.find_ticket(model, data, **SETTINGS)
    named = gs.find_ticket(model, data, weight_distribution="global", **SETTINGS)
    assert plain.hash == named.hash
    assert plain.config["weight_distribution"] == "global"
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    given = gs.find_ticket(model, data, weight_distribution=dict.fromkeys(sizes, 0.5), **SETTINGS)
    uniform = gs.find_ticket(model, data, weight_distribution="uniform", **SETTINGS)
    assert given.hash == uniform.hash != plain.hash
    assert given.config["weight_distribution"] == dict.fromkeys(sizes, "1/2")
    assert gs.Ticket.load(given.save(tmp_path)).config == given.config


@pytest.mark.parametrize("method", ["teddy", "magnitude"])
def test_runs_of_other_distributions_have_other_checkpoints(data, method, tmp_path):
    model = net(data)
    for distribution in ("global", "erk", "global", "erk"):
        settings = SETTINGS | {"method": method, "weight_distribution": distribution}
        try:
            kept = gs.find_ticket(model, data, checkpoint=tmp_path, **settings)
        except DataError as error:  # pragma: no cover - says why the test fails
            pytest.fail(str(error))
        assert kept.hash == gs.find_ticket(model, data, **settings).hash


def test_what_cannot_be_distributed_is_told_before_training(data):
    model = net(data)
    fit = {"epochs": 10**9, **{name: SETTINGS[name] for name in ("edge_keep", "weight_keep")}}
    with pytest.raises(ValueError, match=r"unknown weight distribution 'unifrom' \(did you mean 'uniform'"):
        gs.find_ticket(model, data, weight_distribution="unifrom", **fit)
    with pytest.raises(ValueError, match="has no density for"):
        gs.find_ticket(model, data, weight_distribution={"nothing": 1}, **fit)
    for wrong in (1.5, True, "1", 2**63, -1):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            gs.find_ticket(model, data, seed=wrong, **fit)


class Head(nn.Module):
    """A GCN layer and a head that is given."""

    def __init__(self, data, head):
        super().__init__()
        self.conv, self.head = GCNConv(data.num_features, 8), head

    def forward(self, x, edge_index):
        return self.head(self.conv(x, edge_index).relu())


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("method", ["teddy", "ugs", "magnitude"])
@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        (nn.utils.weight_norm, ValueError, r"'head\.weight' is computed from 'head\.weight_"),
        (nn.utils.parametrizations.weight_norm, ValueError, r"'head\.weight' is computed from 'head\.parametrizations"),
        (lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5), ValueError, r"'head\.weight' is masked"),
        (lambda layer: layer.to(torch.complex64), TypeError, r"head\.weight must be a dense floating-point tensor"),
    ],
    ids=["weight_norm", "parametrized", "pruned", "complex"],
)  # fmt: skip
def test_models_whose_weights_cannot_be_projected_are_told_before_training(data, method, head, error, message):
    model = Head(data, head(nn.Linear(8, 10)))
    settings = {"edge_keep": 0.5, "weight_keep": 0.5, "epochs": 10**9}
    with pytest.raises(error, match=message):
        gs.find_ticket(model, data, method=method, **settings)


def test_a_parametrized_layer_may_be_left_out(data):
    model = Head(data, nn.utils.parametrizations.weight_norm(nn.Linear(8, 10)))
    for method in ("teddy", "ugs"):
        ticket = gs.find_ticket(model, data, method=method, which=("conv.*",), **SETTINGS)
        assert int(ticket.weight_masks["conv.lin.weight"].sum() + ticket.weight_masks["conv.bias"].sum()) == 104


def test_the_highest_scores_of_each_tensor_within_what_is_alive():
    torch.manual_seed(0)
    scores = {"a": torch.rand(4, 5) + 10, "b": torch.rand(30), "c": torch.rand(2, 3, 2)}
    alive = {name: torch.rand(value.shape) < 0.7 for name, value in scores.items()}
    left = {name: int(mask.sum()) for name, mask in alive.items()}
    for keep in ("0.1", "0.4", "0.6"):
        count = math.ceil(float(keep) * 62)
        masks = largest_weights(scores, gs.params.L0(keep).kept, alive, "uniform")
        assert sum(int(mask.sum()) for mask in masks.values()) == min(count, sum(left.values()))
        for name, mask in masks.items():
            assert not bool((mask & ~alive[name]).any())
            dropped = scores[name][alive[name] & ~mask]
            assert not len(dropped) or not mask.any() or scores[name][mask].min() >= dropped.max()
