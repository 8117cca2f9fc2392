"""Tickets that are found in mini-batches: of the same kind, verified in the same way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.nn import GraphSAGE
from warm import command

import graphsparse as gs
from graphsparse.fit import Batches, NodeTask
from graphsparse.tickets import Ticket


@pytest.fixture(scope="module")
def data() -> Any:
    return gs.data.load("digits-knn")


def sage() -> GraphSAGE:
    torch.manual_seed(0)
    return GraphSAGE(64, 16, num_layers=2, out_channels=10)


def test_a_ticket_of_one_batch_is_that_of_the_whole_graph(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"edge_keep": 0.6, "weight_keep": 0.3, "epochs": 3, "guard": "cover"}
    whole = gs.find_ticket(sage(), data, **options)
    ticket = gs.find_ticket(sage(), data, batch_size=data.num_nodes, neighbors=(-1, -1), **options)
    assert ticket.hash == whole.hash
    monkeypatch.setattr(Batches, "are_all", lambda self, number: False)  # cut out of the graph all the same
    ticket = gs.find_ticket(sage(), data, batch_size=data.num_nodes, neighbors=(-1, -1), **options)
    assert torch.equal(whole.edge_mask, ticket.edge_mask)
    assert all(torch.equal(mask, ticket.weight_masks[name]) for name, mask in whole.weight_masks.items())
    assert all(torch.allclose(v, ticket.weights[name], atol=1e-5) for name, v in whole.weights.items())
    assert torch.allclose(whole.logits, ticket.logits, atol=1e-4)
    for name in ("test", "val", "dense_test", "macs", "dense_macs"):
        assert whole.metrics[name] == ticket.metrics[name]


@pytest.mark.parametrize("method", ["reliance", "imp"])
def test_finders_in_small_batches(data: Any, method: str, tmp_path: Path) -> None:
    ticket = gs.find_ticket(
        sage(), data, method=method, edge_keep=0.9, weight_keep=0.8, epochs=2, batch_size=600, neighbors=(4, 3)
    )
    assert ticket.config["batch_size"] == 600
    assert ticket.config["neighbors"] == [4, 3]
    assert ticket.config["evaluated"] == "on the whole graph, layer by layer, over all neighbours"
    ticket.save(tmp_path)
    read = Ticket.load(tmp_path)
    assert read.hash == ticket.hash
    assert read.verify(data, model=sage())["test"] == ticket.metrics["test"]
    again = NodeTask(data).with_mask(ticket.mask_for(data)).predict(ticket.apply_to(sage()))
    assert torch.allclose(again, ticket.logits, atol=1e-4)


def test_seeds_and_workers(data: Any) -> None:
    options: dict[str, Any] = {"edge_keep": 0.6, "weight_keep": 0.3, "epochs": 1}
    found = [
        gs.find_ticket(sage(), data, batch_size=Batches(600, (4, 3), workers=workers), seed=seed, **options).hash
        for seed, workers in ((0, 0), (0, 1), (1, 0))
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("method", ["ugs", "wd-glt", "mixture", "denoise"])
def test_learned_masks_of_all_edges_are_refused_before_training(data: Any, method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} learns a mask of every edge, so it takes the whole graph"):
        gs.find_ticket(sage(), data, method=method, edge_keep=0.6, epochs=10**6, batch_size=64, neighbors=(5, 5))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"neighbors": (5, 5)}, ValueError, "give batch_size=, too"),
        ({"batch_size": 64}, ValueError, "say how many neighbours a batch draws"),
        ({"batch_size": 0, "neighbors": (5, 5)}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": "many", "neighbors": (5, 5)}, ValueError, "batch_size must be a whole number"),
        ({"batch_size": Batches(8, (5, 5)), "neighbors": (5, 5)}, ValueError, "say them there"),
        ({"batch_size": 64, "neighbors": (5,)}, ValueError, "neighbors lists 1 hop, but GraphSAGE reads 2"),
    ],
)
def test_bad_batches_are_told_before_training(
    data: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        gs.find_ticket(sage(), data, edge_keep=0.6, epochs=10**6, **options)


def test_an_interrupted_ticket_resumes_to_the_same(data: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"edge_keep": 0.6, "weight_keep": 0.3, "epochs": 2}
    whole = gs.find_ticket(sage(), data, batch_size=600, neighbors=(4, 3), **options)
    first = gs.find_ticket(sage(), data, batch_size=600, neighbors=(4, 3), checkpoint=tmp_path, **options)
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "dense"
    again = gs.find_ticket(sage(), data, batch_size=600, neighbors=(4, 3), checkpoint=tmp_path, **options)
    assert whole.hash == first.hash == again.hash
    with pytest.raises(gs.DataError, match="task batches differ"):
        gs.find_ticket(sage(), data, batch_size=601, neighbors=(4, 3), checkpoint=tmp_path, **options)


def test_the_command(tmp_path: Path) -> None:
    words = "ticket --model sage --hidden 8 --epochs 1 --seeds 1 --points 1 --batch-size 900 --neighbors 4,4"
    done = command(*words.split(), "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    ticket = Ticket.load(tmp_path / "run")
    assert ticket.config["neighbors"] == [4, 4]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "trained in mini-batches of 900 nodes with 4, 4 neighbours at each layer, and evaluated on the whole" in page
    done = command("ticket", "--neighbors", "4,4", "--out", tmp_path / "other")
    assert done.returncode == 1
    assert done.stderr == "error: --neighbors says how mini-batches are made: give --batch-size, too\n"


def test_units_are_cut_in_batches(data: Any) -> None:
    ticket = gs.find_ticket(
        sage(), data, edge_keep=0.6, weight_keep=0.5, pattern="units", epochs=1, batch_size=600, neighbors=(4, 3)
    )
    assert ticket.verify(data, model=sage())["test"] == ticket.metrics["test"]


def test_a_config_that_was_damaged_is_told(data: Any) -> None:
    ticket = gs.find_ticket(sage(), data, edge_keep=0.6, epochs=1, batch_size=900, neighbors=(2, 2))
    wrong = dataclasses.replace(ticket, config={**ticket.config, "neighbors": "many"})
    with pytest.raises(gs.TicketError, match="says nothing readable of mini-batches"):
        wrong.verify(data)
