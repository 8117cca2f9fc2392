"""OGB's other names, each through a small stand-in in the layout of OGB's raw files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphsparse as gs
from graphsparse.data import load, load_ogb, papers100m_structure
from graphsparse.errors import DataError
from graphsparse.fit import GraphTask, LinkTask, NodeTask, fit


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GRAPHSPARSE_DATA", raising=False)
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", compresslevel=1) as file:
        np.savetxt(file, np.asarray(rows), fmt="%g", delimiter=",")


def split_file(folder: Path, name: str, part: str, content: dict[str, Any]) -> None:
    target = folder / "split" / name
    target.mkdir(parents=True, exist_ok=True)
    torch.save(content, target / f"{part}.pt")


def judged_links() -> dict[str, torch.Tensor]:
    return {"edge": torch.tensor([[0, 4], [1, 5]]), "edge_neg": torch.tensor([[0, 3]] * 120)}


def test_proteins(root: Path) -> None:
    """112 labels a node, eight features an edge, whose mean is what a node gets."""
    folder, draw = root / "ogb/ogbn_proteins", np.random.default_rng(0)
    write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]])
    features = draw.random((5, 8)).round(3)
    write(folder / "raw/edge-feat.csv.gz", features)
    write(folder / "raw/num-node-list.csv.gz", [6])
    write(folder / "raw/num-edge-list.csv.gz", [5])
    write(folder / "raw/node_species.csv.gz", [1] * 6)
    write(folder / "raw/node-label.csv.gz", np.arange(6)[:, None] % 2 * np.ones((1, 112)))
    for part, ids in {"train": [0, 1], "valid": [2, 3], "test": [4, 5]}.items():
        write(folder / f"split/species/{part}.csv.gz", ids)
    data = load("ogbn-proteins", root=root)
    assert data.y.shape == (6, 112)
    assert data.edge_attr.shape == (10, 8)
    assert torch.allclose(data.x[0], torch.from_numpy(features[0]).float())
    assert torch.allclose(data.x[1], torch.from_numpy(features[:2].mean(0)).float())
    assert data.metric == "rocauc"
    assert NodeTask(data).num_classes == 112


def test_products(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OGB adds the mirrors; copies are merged, and the list is not mirrored once more."""
    folder = root / "ogb/ogbn_products"
    write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2], [3, 2], [1, 0]])
    write(folder / "raw/num-node-list.csv.gz", [6])
    write(folder / "raw/num-edge-list.csv.gz", [4])
    write(folder / "raw/node-feat.csv.gz", np.ones((6, 100)))
    write(folder / "raw/node-label.csv.gz", np.arange(6) % 3)
    for part, ids in {"train": [0, 1], "valid": [2, 3], "test": [4, 5]}.items():
        write(folder / f"split/sales_ranking/{part}.csv.gz", ids)
    monkeypatch.setattr("torch_geometric.utils.to_undirected", None)
    data = load("ogbn-products", root=root)
    assert data.edge_index.tolist() == [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    assert (data.x.shape, data.metric) == ((6, 100), "accuracy")


def test_mag_is_refused_by_what_it_is(root: Path) -> None:
    with pytest.raises(ValueError, match=r"ogbn-mag is no data set for tickets: it has four types.*OGB_MAG"):
        load("ogbn-mag", root=root)
    with pytest.raises(ValueError, match=r"ogbn-mag has several types of nodes.*gs\.sparsify takes the HeteroData"):
        load_ogb("ogbn-mag", root=root)


def papers(root: Path, edges: Any, nodes: int = 5) -> Path:
    path = root / "ogb/ogbn_papers100M/raw/data.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {"num_nodes_list": [nodes], "num_edges_list": [np.shape(edges)[-1]], "node_feat": np.ones((nodes, 2))}
    np.savez_compressed(path, edge_index=edges, node_year=np.ones((nodes, 1)), **held)
    return path


def test_papers100m_gives_its_structure(root: Path, tmp_path: Path) -> None:
    edges = np.array([[0, 1, 4, 2], [1, 2, 0, 2]])
    papers(root, edges)
    data = papers100m_structure(root)
    assert data.num_nodes == 5
    assert data.edge_index.tolist() == edges.tolist()
    kept = gs.sparsify(data.edge_index, "dspar", keep=0.5)
    assert kept.shape[1] == 3  # half of three arcs, rounded up, and the loop
    (unpacked,) = (tmp_path / "cache/ogb").glob("papers100M-*.npy")
    before = unpacked.stat().st_mtime_ns
    data.edge_index[0, 0] = 3  # of this process's copy alone
    assert papers100m_structure(root).edge_index.tolist() == edges.tolist()
    assert unpacked.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"ogbn-papers100m is no data set for tickets.*papers100m_structure"):
        load("ogbn-papers100M", root=root)


def test_papers100m_by_ogbs_own_class(root: Path) -> None:
    folder = papers(root, np.array([[0, 1], [1, 2]])).parents[1]
    np.savez_compressed(folder / "raw/node-label.npz", node_label=np.arange(5.0)[:, None])
    for part, ids in {"train": [0, 1], "valid": [2], "test": [3]}.items():
        write(folder / f"split/time/{part}.csv.gz", ids)
    task = load_ogb("ogbn-papers100M", root=root)
    assert task.data.edge_index.tolist() == [[0, 1], [1, 2]]
    assert task.data.x.shape == (5, 2)


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (np.array([[0, 9], [1, 2]]), "names node 9 of 5"),
        (np.array([[0, -1], [1, 2]]), "names node -1 of 5"),
        (np.array([0, 1]), r"edges of int64 \[2\]"),
        (np.array([[0.5], [1.0]]), r"edges of float64 \[2, 1\]"),
    ],
)
def test_wrong_papers_are_refused(root: Path, edges: Any, said: str) -> None:
    papers(root, edges)
    with pytest.raises(DataError, match=said):
        papers100m_structure(root)


def test_missing_and_damaged_papers(root: Path) -> None:
    with pytest.raises(DataError, match="ogbn-papers100M is not here and has no public download"):
        papers100m_structure(root)
    path = papers(root, np.array([[0], [1]]))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is damaged or not OGB's binary file"):
        papers100m_structure(root)


def test_ppa_links(root: Path) -> None:
    folder = root / "ogb/ogbl_ppa"
    write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2], [2, 3]])
    write(folder / "raw/num-node-list.csv.gz", [6])
    write(folder / "raw/num-edge-list.csv.gz", [3])
    write(folder / "raw/node-feat.csv.gz", np.eye(6, 58))
    split_file(folder, "throughput", "train", {"edge": torch.tensor([[0, 1], [1, 2], [2, 3]])})
    for part in ("valid", "test"):
        split_file(folder, "throughput", part, judged_links())
    data = load("ogbl-ppa", root=root)
    assert data.x.shape == (6, 58)
    assert (data.metric, data.edge_index.size(1)) == ("hits@100", 6)
    LinkTask(data)


def test_vessel(root: Path) -> None:
    """OGB packs it as arrays, its arcs one way."""
    folder = root / "ogb/ogbl_vessel"
    (folder / "raw").mkdir(parents=True)
    np.savez_compressed(
        folder / "raw/data.npz",
        edge_index=np.array([[0, 1, 2], [1, 2, 3]]),
        num_nodes_list=[6],
        num_edges_list=[3],
        node_feat=np.ones((6, 3), np.float32),
        edge_feat=np.arange(3.0, dtype=np.float32)[:, None],
    )
    split_file(folder, "spatial", "train", judged_links() | {"edge": torch.tensor([[0, 1], [1, 2], [2, 3]])})
    for part in ("valid", "test"):
        split_file(folder, "spatial", part, judged_links())
    data = load("ogbl-vessel", root=root)
    assert (data.metric, data.edge_index.tolist()) == ("rocauc", [[0, 1, 2], [1, 2, 3]])
    assert data.edge_attr.tolist() == [[0.0], [1.0], [2.0]]
    both = load("ogbl-vessel-undirected", root=root)
    assert both.is_undirected()
    assert both.edge_index.size(1) == 6
    where = {
        tuple(pair): float(value) for pair, value in zip(both.edge_index.t().tolist(), both.edge_attr, strict=True)
    }
    assert where[2, 1] == where[1, 2] == 1.0
    assert torch.equal(both.train_pos_edge_index, data.train_pos_edge_index)
    LinkTask(both)


def test_citation2_with_messages_both_ways(root: Path) -> None:
    folder = root / "ogb/ogbl_citation2"
    write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2], [2, 3], [1, 0]])
    write(folder / "raw/num-node-list.csv.gz", [6])
    write(folder / "raw/num-edge-list.csv.gz", [4])
    write(folder / "raw/node-feat.csv.gz", np.ones((6, 2)))
    write(folder / "raw/node_year.csv.gz", [2000] * 6)
    pairs = {"source_node": torch.tensor([4]), "target_node": torch.tensor([0])}
    split_file(folder, "time", "train", {"source_node": torch.tensor([0, 1]), "target_node": torch.tensor([1, 2])})
    for part in ("valid", "test"):
        split_file(folder, "time", part, pairs | {"target_node_neg": torch.tensor([[1, 2, 5]])})
    one, both = load("ogbl-citation2", root=root), load("ogbl-citation2-undirected", root=root)
    assert one.edge_index.size(1) == 4
    assert sorted(map(tuple, both.edge_index.t().tolist())) == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]
    assert torch.equal(both.train_pos_edge_index, one.train_pos_edge_index)
    assert torch.equal(both.val_neg_edge_index, one.val_neg_edge_index)


def graphs_of(folder: Path, split: str) -> None:
    """Nine paths of three nodes."""
    write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2]] * 9)
    write(folder / "raw/num-node-list.csv.gz", [3] * 9)
    write(folder / "raw/num-edge-list.csv.gz", [2] * 9)
    for number, part in enumerate(("train", "valid", "test")):
        write(folder / f"split/{split}/{part}.csv.gz", range(3 * number, 3 * number + 3))


class Mean(torch.nn.Module):
    """The mean of each graph's features of edges, mapped to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(7, 3)

    def forward(self, x: Any, edge_index: Any, edge_attr: Any, batch: Any) -> Any:
        sums = edge_attr.new_zeros(int(batch.max()) + 1, 7).index_add(0, batch[edge_index[0]], edge_attr)
        return self.last(sums)


def test_ppa_graphs_have_one_of_many_classes(root: Path) -> None:
    folder = root / "ogb/ogbg_ppa"
    graphs_of(folder, "species")
    classes = np.array([0, 1, 2] * 3)
    write(folder / "raw/edge-feat.csv.gz", np.eye(3, 7)[classes.repeat(2)])
    write(folder / "raw/graph-label.csv.gz", classes)
    data = load("ogbg-ppa", root=root)
    assert (data.metric, data.x.shape, data.x.dtype) == ("accuracy", (27, 1), torch.int64)
    assert data.y.tolist() == np.eye(3)[classes].tolist()
    torch.manual_seed(0)
    result = fit(Mean(), GraphTask(data), epochs=30, lr=0.1)
    assert result.test == 1.0
    ticket = gs.find_ticket(Mean(), data, edge_keep=0.5, weight_keep=0.8, epochs=3)
    assert ticket.metrics["metric"] == "accuracy"
    assert 0 <= ticket.metrics["test_accuracy"] <= 1
    data.y[4] = 1
    with pytest.raises(ValueError, match="a one at its class and zeros elsewhere; graph 4 has not"):
        GraphTask(data)


def test_code2_is_refused_for_tickets_and_read_for_others(root: Path) -> None:
    with pytest.raises(ValueError, match=r"ogbg-code2 is no data set for tickets: it predicts sequences of words"):
        load("ogbg-code2", root=root)
    folder = root / "ogb/ogbg_code2"
    graphs_of(folder, "project")
    write(folder / "raw/node-feat.csv.gz", np.ones((27, 2)))
    for name in ("node_is_attributed", "node_dfs_order", "node_depth"):
        write(folder / f"raw/{name}.csv.gz", np.ones((27, 1)))
    with gzip.open(folder / "raw/graph-label.csv.gz", "wt") as file:
        file.writelines("get name\n" for _ in range(9))
    task = load_ogb("ogbg-code2", root=root)
    assert task.metric == "F1"
    assert task.dataset[0].y == ["get", "name"]


@pytest.mark.parametrize("name", ["ogbl-wikikg2", "ogbl-biokg"])
def test_knowledge_graphs_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no data set for tickets: it completes a knowledge graph"):
        load(name)
