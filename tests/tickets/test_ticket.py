"""The artefact: hash, save, load, verify, and every way in which it can be damaged."""

import copy
import dataclasses
import hashlib
import json
import math

import pytest
import torch

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.tickets.standing import Standing


def test_save_and_load_give_the_same_ticket_back(ticket, tmp_path, blocks, model):
    ticket.save(tmp_path / "deep" / "folder")
    again = gs.Ticket.load(tmp_path / "deep" / "folder")
    assert again.hash == ticket.hash
    assert again.metrics == ticket.metrics
    for name, mask in ticket.weight_masks.items():
        assert torch.equal(mask, again.weight_masks[name])
        assert torch.equal(ticket.weights[name], again.weights[name])
        assert torch.equal(ticket.theta0[name], again.theta0[name])
    assert sorted(path.suffix for path in (tmp_path / "deep" / "folder").iterdir()) == [".json", ".safetensors"]
    again.verify(blocks, model=model, expected_hash=ticket.hash)


def test_saving_over_an_old_ticket_leaves_one(ticket, tmp_path, blocks, model):
    ticket.save(tmp_path)
    other = gs.find_ticket(model, blocks, edge_keep=0.7, weight_keep=0.3, epochs=3)
    other.save(tmp_path)
    assert gs.Ticket.load(tmp_path).hash == other.hash
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kill_between_the_two_files_leaves_the_old_ticket(ticket, tmp_path, blocks, model, monkeypatch):
    from graphsparse.tickets import ticket_files as module

    ticket.save(tmp_path)
    other = gs.find_ticket(model, blocks, edge_keep=0.7, weight_keep=0.3, epochs=3)
    write = module._replace
    monkeypatch.setattr(
        module, "_replace", lambda path, content: write(path, content) if path.suffix != ".json" else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        other.save(tmp_path)
    assert gs.Ticket.load(tmp_path).hash == ticket.hash


def test_a_graph_with_reordered_edges_still_verifies(ticket, blocks, model):
    order = torch.randperm(blocks.num_edges, generator=torch.Generator().manual_seed(1))
    shuffled = copy.copy(blocks)
    shuffled.edge_index = blocks.edge_index[:, order]
    ticket.verify(shuffled, model=model)
    as_sets = [set(map(tuple, ticket.sparse_graph(g).edge_index.t().tolist())) for g in (blocks, shuffled)]
    assert as_sets[0] == as_sets[1]
    kept = ticket.sparse_graph(shuffled).edge_index
    expected = [arc for arc in shuffled.edge_index.t().tolist() if tuple(arc) in as_sets[0]]
    assert kept.t().tolist() == expected  # the caller's order, not the canonical one


def test_the_hash_ignores_metrics_and_versions_but_no_tensor(ticket):
    assert dataclasses.replace(ticket, metrics={}, versions={"torch": "0"}).hash == ticket.hash
    name = "first.lin.weight"
    weights = {**ticket.weights, name: ticket.weights[name] + 1e-3}
    assert dataclasses.replace(ticket, weights=weights).hash != ticket.hash
    assert dataclasses.replace(ticket, edge_mask=~ticket.edge_mask).hash != ticket.hash
    assert dataclasses.replace(ticket, method="random").hash != ticket.hash


@pytest.mark.parametrize("attribute", ["x", "y", "edge_index", "test_mask", "num_nodes"])
def test_another_graph_is_refused(ticket, blocks, attribute):
    other = copy.copy(blocks)
    if attribute == "edge_index":
        other.edge_index = blocks.edge_index[:, 2:]
    elif attribute == "num_nodes":
        other.num_nodes = 161
    else:
        changed = other[attribute].clone()
        changed.view(-1)[0] = ~changed.view(-1)[0] if changed.dtype == torch.bool else changed.view(-1)[0] + 1
        other[attribute] = changed
    with pytest.raises(TicketError, match="not the ticket's graph"):
        ticket.verify(other)


def test_verify_finds_claims_that_the_outputs_do_not_support(ticket, blocks, model):
    boast = dataclasses.replace(ticket, metrics={**ticket.metrics, "test": 1.0})
    with pytest.raises(TicketError, match=r"claims 1\.0"):
        boast.verify(blocks)
    for claims in ({"test": math.nan}, {"test": "0.9"}, {"val_accuracy": 0.999}, {"edges_kept": 0.01}, {"num_arcs": 9}):
        with pytest.raises(TicketError, match=f"give {next(iter(claims))} .*, the ticket claims"):
            dataclasses.replace(ticket, metrics={**ticket.metrics, **claims}).verify(blocks)
    forgetful = {name: value for name, value in ticket.metrics.items() if name != "weights_kept"}
    with pytest.raises(TicketError, match=r"give weights_kept .*, the ticket claims None"):
        dataclasses.replace(ticket, metrics=forgetful).verify(blocks)
    swapped = dataclasses.replace(ticket, weights={name: -value for name, value in ticket.weights.items()})
    swapped.verify(blocks)  # the stored outputs are fine
    with pytest.raises(TicketError, match="differ from the stored ones"):
        swapped.verify(blocks, model=model)
    with pytest.raises(TicketError, match="expected"):
        ticket.verify(blocks, expected_hash="0" * 64)


def test_a_model_of_another_shape_is_refused(ticket, model):
    with pytest.raises(TicketError, match=r"in the ticket but not in|but not in the ticket"):
        ticket.apply_to(gs.nn.make("gat", 4, 4, 16))
    wide = copy.deepcopy(model)
    wide.first.bias = torch.nn.Parameter(torch.zeros(17))
    with pytest.raises(TicketError, match="shape"):
        ticket.apply_to(wide)


def _flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", ["flip", "truncate", "missing", "edited json", "edited figure", "no json", "not json", "array", "format"]
)
def test_damaged_files_are_refused_with_one_sentence(ticket, tmp_path, damage):
    ticket.save(tmp_path)
    about, tensors = tmp_path / "ticket.json", next(tmp_path.glob("*.safetensors"))
    content = json.loads(about.read_text())
    if damage == "flip":
        _flip(tensors, -5)
    elif damage == "truncate":
        tensors.write_bytes(tensors.read_bytes()[:-10])
    elif damage == "missing":
        tensors.unlink()
    elif damage == "edited json":
        about.write_text(json.dumps({**content, "method": "other"}))
    elif damage == "edited figure":
        about.write_text(json.dumps({**content, "metrics": {**content["metrics"], "dense_test": 0.2}}))
    elif damage == "no json":
        about.unlink()
    elif damage == "not json":
        about.write_text("{")
    elif damage == "array":
        about.write_text("[]")
    else:
        about.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(TicketError):
        gs.Ticket.load(tmp_path)


def test_a_path_in_the_json_cannot_leave_the_folder(ticket, tmp_path):
    ticket.save(tmp_path / "a")
    about = tmp_path / "a" / "ticket.json"
    content = json.loads(about.read_text())
    outside = tmp_path / content["tensors"]["file"]
    next((tmp_path / "a").glob("*.safetensors")).rename(outside)
    content["tensors"]["file"] = f"../{outside.name}"
    del content["sha256"]
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()  # a forger's
    about.write_text(json.dumps(content))
    with pytest.raises(TicketError, match="its tensors lie in its own folder"):
        gs.Ticket.load(tmp_path / "a")


def test_a_kept_zero_is_kept(ticket):
    name = "first.lin.weight"
    zeroed = ticket.weights[name].clone()
    zeroed[0] = 0.0
    again = dataclasses.replace(ticket, weights={**ticket.weights, name: zeroed})
    assert int(again.weight_masks[name].sum()) == len(zeroed)


def test_tied_parameters_are_stored_and_come_back(blocks):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(4, 4)
            self.again = torch.nn.Linear(4, 4)
            self.again.weight = self.inner.weight

        def forward(self, x, edge_index):
            return self.again(self.inner(x).relu())

    torch.manual_seed(0)
    model = Tied()
    ticket = gs.find_ticket(model, blocks, edge_keep=0.5, weight_keep=0.5, epochs=4)
    assert sum(mask.numel() for mask in ticket.weight_masks.values()) == 16 + 4 + 4
    ticket.verify(blocks, model=Tied())


@pytest.mark.parametrize(
    ("metric", "direction", "dense", "test", "said"),
    [
        ("accuracy", "max", 0.9, 0.85, "5.00 points below dense"),
        ("accuracy", "max", 0.85, 0.9, None),
        ("mae", "min", 0.85, 0.9, "0.050 above dense"),
        ("mae", "min", 0.9, 0.85, None),
    ],
)
def test_a_ticket_says_in_a_line_how_it_stands(ticket, metric, direction, dense, test, said):
    metrics = {**ticket.metrics, "metric": metric, "dense_test": dense, "test": test}
    other = dataclasses.replace(ticket, metrics=metrics, config={**ticket.config, "direction": direction})
    line = f"test {metric} {test:.4f}, dense {dense:.4f}"
    assert repr(other).startswith("Ticket(teddy, edges 50.07%, weights 30.41%, ")
    assert f"{line}, {other.hash[:12]})" in repr(other) if said is None else f"{line}, {said}, " in repr(other)


def test_seeds_that_differ_by_no_more_than_chance_show_no_difference():
    found = Standing.of([0.90, 0.92, 0.91], [0.91, 0.90, 0.92], maximize=True)
    assert (
        found.sentence
        == "the tickets are 0.00 ± 4.30 points above the dense model (paired over 3 seeds): no difference is shown"
    )
    better = Standing.of([1.0, 1.1], [0.7, 0.8], maximize=False)
    assert better.sentence.startswith("the tickets are 0.300 ± 0.000 below the dense model")
    assert not better.is_below
    assert better.figures()["below_dense"] == pytest.approx(-0.3)
