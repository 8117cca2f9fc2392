"""Two processes that train together are one process with batches twice as large."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from warm import context


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def nodes() -> Data:
    draw = torch.Generator().manual_seed(0)
    part = torch.randint(3, (90,), generator=draw)
    y = torch.randint(3, (90,), generator=draw)
    x = torch.randn(90, 6, generator=draw) + y[:, None]
    arcs = torch.randint(90, (2, 400), generator=draw)
    data = Data(x=x, y=y, edge_index=torch.cat([arcs, arcs.flip(0)], dim=1))
    data.train_mask, data.val_mask, data.test_mask = part == 0, part == 1, part == 2
    return data


def links() -> Data:
    data = nodes()
    arcs = torch.unique(data.edge_index[:, data.edge_index[0] < data.edge_index[1]], dim=1)
    held = Data(x=data.x, edge_index=torch.cat([arcs, arcs.flip(0)], dim=1), train_pos_edge_index=arcs[:, 40:])
    draw = torch.Generator().manual_seed(1)
    for name, pairs in (("val_pos", arcs[:, :20]), ("test_pos", arcs[:, 20:40])):
        held[f"{name}_edge_index"] = pairs
        held[f"{name.replace('pos', 'neg')}_edge_index"] = torch.randint(90, (2, 30), generator=draw)
    return held


def graphs() -> Data:
    data, batch = nodes(), torch.arange(90) // 3
    inside = batch[data.edge_index[0]] == batch[data.edge_index[1]]
    y = torch.stack([torch.arange(30) % 2, torch.arange(30) % 3 % 2], dim=1).float()
    y[::4, 1] = torch.nan
    part = torch.arange(30) % 3
    many = Data(x=data.x, edge_index=data.edge_index[:, inside], batch=batch, y=y)
    many.train_mask, many.val_mask, many.test_mask = part == 0, part == 1, part == 2
    return many


class OfGraphs(nn.Module):
    """Sums over the neighbours, then over the nodes of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, batch: Tensor) -> Tensor:
        hidden = self.first(x.index_add(0, edge_index[1], x[edge_index[0]])).relu()
        out: Tensor = self.last(hidden.new_zeros(int(batch.max()) + 1, 8).index_add(0, batch, hidden))
        return out


def results(share: int, folder: Path | None = None) -> dict[str, Any]:
    """What some trainings come to, with batches of 12 / share."""
    from torch_geometric.nn import GCN, GraphSAGE

    import graphsparse as gs
    from graphsparse.fit import Batches, Distill, GraphTask, LinkTask, NodeTask, fit
    from graphsparse.params import L0Projection

    found: dict[str, Any] = {}
    runs = {
        "sampled": (NodeTask(nodes()), GraphSAGE, (3, 3)),
        "all": (NodeTask(nodes()), GCN, (-1, -1)),
        "links": (LinkTask(links(), metric="hits@5"), GraphSAGE, (3, 3)),
        "graphs": (GraphTask(graphs(), metric="rocauc"), OfGraphs, None),
    }
    for name, (task, kind, neighbors) in runs.items():
        torch.manual_seed(0)
        net = OfGraphs() if kind is OfGraphs else kind(6, 8, num_layers=2, out_channels=3)
        projection = L0Projection(net, sparsity=0.5)
        rows = 30 if name == "graphs" else 90
        teacher = torch.randn(rows, 2 if name == "graphs" else 3, generator=torch.Generator().manual_seed(2))
        distill = None if name == "links" else Distill(teacher, outputs=task.outputs)
        batched = task.in_batches(Batches(12 // share, neighbors))
        checkpoint = None if folder is None else folder / name
        run = fit(net, batched, epochs=3, distill=distill, callbacks=[projection], checkpoint=checkpoint)
        masks = {key: value.clone() for key, value in projection.masks.items()}
        found[name] = {"state": run.state, "masks": masks, "val": run.val, "test": run.test, "history": run.history}
    torch.manual_seed(0)
    ticket = gs.find_ticket(
        GraphSAGE(6, 8, num_layers=2, out_channels=3),
        nodes(),
        method="reliance",
        edge_keep=0.5,
        weight_keep=0.5,
        epochs=2,
        batch_size=12 // share,
        neighbors=(3, 3),
    )
    found["ticket"] = {"state": dict(ticket.weights), "masks": {"edges": ticket.edge_mask, **ticket.weight_masks}}
    return found


def one_of_two(rank: int, port: int, folder: Path) -> None:
    """What each process does."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    import graphsparse as gs
    from graphsparse import ranks
    from graphsparse.fit import Batches, GraphTask, LinkTask, NodeTask, fit

    ranks.join()
    own = folder / f"checkpoints-{rank}"
    own.mkdir()
    found = results(2, own)
    torch.manual_seed(0)
    normed = OfGraphs()
    normed.last = nn.Sequential(nn.BatchNorm1d(8), normed.last)
    found["batch norm"] = fit(normed, GraphTask(graphs(), metric="rocauc").in_batches(Batches(6)), epochs=2).state
    try:
        fit(nn.Linear(6, 3), NodeTask(nodes()), epochs=1)
    except ValueError as error:
        found["refused"] = str(error)
    try:
        fit(nn.Linear(6, 3), LinkTask(links(), metric="hits@5").in_batches(Batches(8)), epochs=1)
    except ValueError as error:
        found["refused links"] = str(error)
    if rank == 0:
        (folder / "first").write_bytes(b"")
    try:
        fit(
            OfGraphs(),
            GraphTask(graphs(), metric="rocauc").in_batches(Batches(8)),
            epochs=1,
            checkpoint=folder / ("first" if rank == 0 else "second"),
        )
    except (gs.DataError, RuntimeError) as error:
        found["not shared"] = str(error)
    found["written"] = sorted(path.name for path in own.iterdir())
    torch.save(found, folder / f"rank-{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of one process, then of each of two."""
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    processes = [context().Process(target=one_of_two, args=(rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    alone = results(1)
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [alone, *(torch.load(folder / f"rank-{rank}.pt") for rank in range(2))]


@pytest.mark.parametrize("name", ["sampled", "all", "links", "graphs", "ticket"])
def test_two_are_one_with_twice_the_batch(found: list[dict[str, Any]], name: str) -> None:
    alone, first, second = (each[name] for each in found)
    for key, mask in alone["masks"].items():
        assert torch.equal(first["masks"][key], second["masks"][key])
        assert torch.equal(mask, first["masks"][key])
    for key, value in alone["state"].items():
        assert torch.equal(first["state"][key], second["state"][key])
        assert torch.allclose(value, first["state"][key], atol=1e-5), key
    if name != "ticket":
        assert (alone["val"], alone["test"]) == (first["val"], first["test"]) == (second["val"], second["test"])
        for one, two in zip(alone["history"], first["history"], strict=True):
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)


def test_what_a_batch_norm_has_seen_is_the_same_everywhere(found: list[dict[str, Any]]) -> None:
    """Each process normalises by its own batches; the first one's running figures go to all."""
    _, first, second = found
    running = [name for name in first["batch norm"] if "running" in name]
    assert len(running) == 2
    assert not torch.equal(first["batch norm"][running[0]], torch.zeros(8))
    for name, value in first["batch norm"].items():
        assert torch.equal(value, second["batch norm"][name]), name


def test_the_first_writes_and_the_whole_graph_is_refused(found: list[dict[str, Any]]) -> None:
    _, first, second = found
    assert first["written"] == ["all", "graphs", "links", "sampled"]
    assert second["written"] == []
    for name in ("refused", "refused links"):
        assert "2 processes share out mini-batches, and this training takes none" in first[name]
    assert "is there for the first process and not for all: use a shared folder" in second["not shared"]


def test_alone_nothing_is_shared() -> None:
    from graphsparse import ranks

    assert ranks.join("auto") == "auto"
    value = torch.ones(2)
    assert ranks.of_first(value) is value
    assert ranks.summed(3.0) == 3.0
