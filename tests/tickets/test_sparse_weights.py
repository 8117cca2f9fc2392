"""find_ticket(weights=): the edges by any score, the weights by any method of sparse training."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse import cli
from graphsparse.keep_rule import kept_count
from graphsparse.params import METHODS, Cubic, Hold, Recipe, Rows, Shrink, methods
from graphsparse.tickets.compare.plan import Experiment, by_weights, marks_of

SETTINGS = {"edge_keep": 0.7, "weight_keep": 0.2, "epochs": 25}
# g2g correlates the two ends of linear layers, and a GCN's biases belong to none
OTHERS = {name for name in methods() if METHODS[name].n_of_m or METHODS[name].modules} | {"g2g"}
SHARES = [n for n in methods() if n not in OTHERS and "pattern" not in METHODS[n].choose(100, None)]


@pytest.mark.parametrize("weights", SHARES)
def test_every_method_that_keeps_a_share_makes_a_ticket(blocks, model, weights, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ticket = gs.find_ticket(model, blocks, weights=weights, **SETTINGS)
    total = sum(p.numel() for p in model.parameters())
    assert sum(int(mask.sum()) for mask in ticket.weight_masks.values()) == kept_count(0.2, total)
    assert ticket.config["weights"] == weights
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loaded = gs.Ticket.load(ticket.save(tmp_path))
    assert loaded.config == ticket.config
    assert loaded.verify(blocks, model=model)
    edges = gs.find_ticket(model, blocks, **SETTINGS).edge_mask
    assert torch.equal(ticket.edge_mask, edges)  # the weights have no say in TEDDY's edges


def test_the_default_is_the_projection(blocks, model):
    plain = gs.find_ticket(model, blocks, **SETTINGS)
    named = gs.find_ticket(model, blocks, weights="L0", weight_distribution="global", **SETTINGS)
    assert plain.hash == named.hash
    assert (plain.config["weights"], plain.config["weight_distribution"]) == ("l0", "global")
    erk = gs.find_ticket(model, blocks, weights="rigl", **SETTINGS)
    assert erk.config["weight_distribution"] == "erk"
    uniform = gs.find_ticket(model, blocks, weights="rigl", weight_distribution="uniform", **SETTINGS)
    assert uniform.config["weight_distribution"] == "uniform"
    assert uniform.hash != erk.hash


@pytest.mark.parametrize("method", ["reliance", "random", "jaccard", "mixture", "no-edges"])
def test_any_finder_that_chooses_edges_takes_them(blocks, model, method):
    ticket = gs.find_ticket(model, blocks, method=method, weights="set", **SETTINGS)
    assert (ticket.method, ticket.config["weights"]) == (method, "set")
    assert ticket.verify(blocks, model=model)


def test_a_recipe_of_ones_own(blocks, model):
    own = {"score": "movement", "rule": Shrink(0.9), "distribution": "uniform"}
    ticket = gs.find_ticket(model, blocks, weights=own, **SETTINGS)
    assert ticket.config["weights"]["rule"] == "Shrink(factor=0.9, until=0.75)"
    recipe = Recipe("late", lambda steps, pattern: {"schedule": Cubic(steps // 2), "rule": Hold()}, timed=True)
    assert gs.find_ticket(model, blocks, weights=recipe, **SETTINGS).config["weights"] == {"about": "late"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "rigle"}, r"unknown method for the weights 'rigle' \(did you mean 'rigl'"),
        ({"weights": "nm-ste"}, "keeps N of every M weights, and a ticket keeps the share"),
        ({"weights": "blocks"}, "takes whole blocks out, and a ticket keeps the share"),
        ({"weights": "g2g"}, "'first.bias' is a parameter of GCNConv"),
        ({"weights": {"pattern": "rows"}}, "counted one by one"),
        ({"weights": "group-lasso"}, "counted one by one"),
        ({"weights": {"pattern": Rows(1)}}, "counted one by one"),
        ({"weights": {"rules": Hold()}}, "the axes are pattern"),
        ({"weights": "rigl", "method": "imp"}, "imp chooses weights by a rule of its own"),
        ({"weights": "rigl", "pattern": "units"}, "pattern='units' projects whole units"),
        ({"weights": "rigl", "tolerance": 0.1, "method": "dense-student"}, "dense-student chooses weights"),
    ],
)
def test_what_cannot_serve_is_told_before_training(blocks, model, options, message):
    keeps = {} if "tolerance" in options else {"edge_keep": 0.5, "weight_keep": 0.5}
    with pytest.raises(ValueError, match=message):
        gs.find_ticket(model, blocks, **keeps, epochs=10**9, **options)
    with pytest.raises(TypeError, match="name of a method or a recipe"):
        gs.find_ticket(model, blocks, weights=3, epochs=10**9, edge_keep=0.5)


def test_a_training_too_short_for_an_exchange_is_told_before_it(blocks, model):
    with pytest.raises(ValueError, match="shorter than one update"):
        gs.find_ticket(model, blocks, weights="rigl", edge_keep=0.5, weight_keep=0.5, epochs=1)


def test_it_resumes_and_each_way_has_its_own_checkpoints(blocks, model, tmp_path, monkeypatch):
    whole = {weights: gs.find_ticket(model, blocks, weights=weights, **SETTINGS).hash for weights in ("l0", "rigl")}

    from graphsparse.tickets.finders import sparse_weights

    train, killed = sparse_weights.Problem.train, [True]

    def interrupted(problem, net, task, name, **options):
        if "callbacks" in options and killed:
            options["callbacks"] = [*options["callbacks"], _Stop()]
        return train(problem, net, task, name, **options)

    class _Stop:
        def attach(self, optimizer):
            self.calls = 0
            optimizer.register_step_post_hook(self._count)

        def _count(self, *_):
            self.calls += 1
            if self.calls == 20 and killed:
                raise KeyboardInterrupt

        def detach(self):
            pass

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    monkeypatch.setattr(sparse_weights.Problem, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gs.find_ticket(model, blocks, weights="rigl", checkpoint=tmp_path, **SETTINGS)
    killed.clear()
    for weights in ("rigl", "l0", "rigl"):  # the finished ones are read again
        assert gs.find_ticket(model, blocks, weights=weights, checkpoint=tmp_path, **SETTINGS).hash == whole[weights]


def test_the_commands(tmp_path):
    words = [
        "ticket",
        "--hidden",
        "8",
        "--weights",
        "RigL",
        "--epochs",
        "25",
        "--seeds",
        "1",
        "--points",
        "1",
        "--json",
    ]
    done = CliRunner().invoke(cli.app, [*words, "--json", "--out", str(tmp_path / "ticket")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert gs.Ticket.load(tmp_path / "ticket").config["weights"] == "rigl"
    words = ["bench", "tickets", "--dataset", "digits-knn", "--hidden", "8", "--method", "teddy,imp", "--jobs", "1"]
    words += ["--weights", "l0,set", "--level", "2", "--seeds", "1", "--epochs", "25", "--trials", "1", "--json"]
    done = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "bench")])
    assert done.exit_code == 0, (done.output, done.exception)
    rows = [json.loads(line) for line in (tmp_path / "bench" / "rows.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["dense", "teddy", "teddy+set", "imp"]
    assert rows[1]["ticket"] != rows[2]["ticket"]


def test_names_with_marks():
    assert by_weights(["teddy+cover", "reliance", "ugs", "teddy+units"], ["l0", "RigL"]) == [
        "teddy+cover", "teddy+cover+rigl", "reliance", "reliance+rigl", "ugs", "teddy+units",
    ]  # fmt: skip
    assert marks_of("teddy + isolated + Random_ERK").words == ("isolated", "random-erk")
    assert Experiment("cora", methods=("TEDDY+RigL+Cover",)).methods == ("teddy+cover+rigl",)
    for wrong, message in [
        ("teddy+rigl+set", "more than one method for the weights"),
        ("imp+rigl", "imp chooses weights"),
        ("teddy+nm", "keeps N of every M"),
        ("teddy+rigel", "did you mean 'rigl'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Experiment("cora", methods=(wrong,))
