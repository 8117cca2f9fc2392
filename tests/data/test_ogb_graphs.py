"""OGB's link and graph tasks as one ``Data``; ogbn-arxiv's real labels and splits on a made-up graph."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.data import GraphSet, join_graphs, load, load_ogb
from graphsparse.errors import DataError
from graphsparse.fit import GraphTask, LinkTask


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GRAPHSPARSE_DATA", raising=False)
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _write(path: Path, rows: Any, fmt: str = "%g") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", compresslevel=1) as file:
        np.savetxt(file, np.asarray(rows), fmt=fmt, delimiter=",")


def _toy_links(root: Path, name: str, splits: dict[str, dict[str, Any]], folder_of_split: str) -> None:
    """A path of 6 nodes with one feature each, in OGB's layout."""
    folder = root / "ogb" / name
    _write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2], [2, 3]])
    _write(folder / "raw/num-node-list.csv.gz", [6])
    _write(folder / "raw/num-edge-list.csv.gz", [3])
    _write(folder / "raw/node-feat.csv.gz", [[0.5 * node] for node in range(6)])
    for extra in ("edge_weight", "edge_year", "node_year"):
        _write(folder / f"raw/{extra}.csv.gz", [1] * 6 if extra == "node_year" else [1, 2, 3])
    (folder / "split" / folder_of_split).mkdir(parents=True)
    for part, content in splits.items():
        torch.save(content, folder / "split" / folder_of_split / f"{part}.pt")


def test_links_in_the_layout_of_collab(tmp_path: Path, cache: Path) -> None:
    train = {"edge": torch.tensor([[0, 1], [1, 2], [2, 3]]), "weight": torch.ones(3), "year": torch.ones(3)}
    judged = {"edge": torch.tensor([[3, 4], [0, 2]]), "edge_neg": torch.tensor([[0, 5]] * 60)}
    _toy_links(tmp_path, "ogbl_collab", {"train": train, "valid": judged, "test": judged}, "time")
    data = load("ogbl-collab", root=tmp_path)
    assert data.edge_index.tolist() == [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    assert data.edge_weight.tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]  # how often two authors wrote together
    assert data.edge_weight.dtype == torch.float32
    assert data.edge_attr.tolist() == [[1.0], [1.0], [2.0], [2.0], [3.0], [3.0]]  # the years, as features
    assert data.train_pos_edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert data.val_pos_edge_index.tolist() == [[3, 0], [4, 2]]
    assert data.test_neg_edge_index.shape == (2, 60)
    assert (data.metric, data.task, data.split, data.x.dtype) == ("hits@50", "link", "public", torch.float32)
    LinkTask(data)


def test_links_in_the_layout_of_citation2(tmp_path: Path, cache: Path) -> None:
    train = {"source_node": np.array([0, 1, 2]), "target_node": np.array([1, 2, 3])}
    judged = {"source_node": np.array([4]), "target_node": np.array([0]), "target_node_neg": np.array([[1, 2, 5]])}
    _toy_links(tmp_path, "ogbl_citation2", {"train": train, "valid": judged, "test": judged}, "time")
    data = load("ogbl-citation2", root=tmp_path)
    assert data.edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert data.val_neg_edge_index.tolist() == [[[4, 4, 4]], [[1, 2, 5]]]
    assert data.metric == "mrr"
    LinkTask(data)


def test_molecules_are_joined_as_ogb_lists_them(need: Callable[[str], Path]) -> None:
    need("ogb/ogbg_molfreesolv")
    task = load_ogb("ogbg-molfreesolv")
    split = {"train": task.splits["train"], "val": task.splits["valid"], "test": task.splits["test"]}
    expected, data = join_graphs(task.dataset, split), load("ogbg-molfreesolv")
    for name in ("x", "edge_index", "edge_attr", "y", "batch", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(data[name], expected[name])
    assert (data.metric, data.task, data.num_graphs, data.num_node_features) == ("rmse", "graph", 642, 9)
    assert data.is_undirected()
    GraphTask(data)


@pytest.mark.parametrize("name", ["ogbg-molbace", "ogbg-molbbbp", "ogbg-molesol", "ogbg-molhiv-rebuilt"])
def test_real_molecules_fit_their_task(need: Callable[[str], Path], name: str) -> None:
    need(f"ogb/{name.replace('-', '_')}")
    data = load(name)
    task = GraphTask(data)
    assert data.name == name
    assert task.num_graphs == sum(int(mask.sum()) for mask in task.masks.values())
    mask = gs.tickets.Problem(torch.nn.Linear(1, 1), data, task, gs.tickets.Training()).edge_mask("teddy", 0.5)
    arcs = torch.bincount(data.batch[data.edge_index[0]], minlength=task.num_graphs)
    kept = torch.bincount(data.batch[data.edge_index[0][mask]], minlength=task.num_graphs)
    assert torch.equal(kept, 2 * ((arcs // 2 + 1) // 2))  # half of each molecule's bonds, rounded up


def test_one_split_and_no_bags_of_words(need: Callable[[str], Path]) -> None:
    need("ogb/ogbg_molfreesolv")
    with pytest.raises(ValueError, match="possible: 'public'"):
        load("ogbg-molfreesolv", split=1)
    with pytest.raises(ValueError, match="bags of words"):
        load("ogbg-molfreesolv", normalize_features=True)
    with pytest.raises(ValueError, match="did you mean 'ogbg-molbace'"):
        load("ogbg-molbase")


def _graph(nodes: int, **more: Any) -> Data:
    return Data(x=torch.zeros(nodes, 1), edge_index=torch.empty(2, 0, dtype=torch.long), y=torch.zeros(1), **more)


def test_what_cannot_be_joined_is_named() -> None:
    split = {"train": [0], "val": [1], "test": []}
    with pytest.raises(ValueError, match="no graph to join"):
        join_graphs([], split)
    with pytest.raises(ValueError, match="graph 1 has no node"):
        join_graphs([_graph(2), _graph(0)], split)
    with pytest.raises(ValueError, match="1 of 2 graphs have edge_attr"):
        join_graphs([_graph(2), _graph(2, edge_attr=torch.empty(0, 1))], split)
    with pytest.raises(ValueError, match="the val split names graph 1, but there are 1"):
        join_graphs([_graph(2)], split)
    assert isinstance(join_graphs([_graph(2), _graph(1)], split), GraphSet)


@pytest.fixture
def arxiv(need: Callable[[str], Path], tmp_path: Path, cache: Path) -> Path:
    """ogbn-arxiv's real labels, years and splits in OGB's raw layout; edges and features are made up.

    A stand-in: 200,000 citations, mostly within a class, and 4 features.
    """
    real, folder = need("ogb/ogbn_arxiv_partial"), tmp_path / "ogb/ogbn_arxiv"
    for part in ("split", "mapping"):
        shutil.copytree(real / part, folder / part)
    (folder / "raw").mkdir()
    for file in ("node-label", "node_year", "num-node-list"):
        shutil.copy(real / f"raw/{file}.csv.gz", folder / "raw")
    labels = np.loadtxt(real / "raw/node-label.csv.gz", dtype=np.int64)
    random = np.random.default_rng(0)
    order = np.argsort(labels, kind="stable")
    tails = random.integers(len(labels), size=200_000)
    heads = (tails + random.integers(1, 40, size=tails.size)) % len(labels)
    _write(folder / "raw/edge.csv.gz", np.stack([order[tails], order[heads]], axis=1), "%d")
    _write(folder / "raw/num-edge-list.csv.gz", [tails.size], "%d")
    _write(
        folder / "raw/node-feat.csv.gz", np.stack([labels % 7, labels // 7, labels * 0, labels * 0 + 1], axis=1), "%d"
    )
    return tmp_path


def test_a_stand_in_for_arxiv_with_its_real_labels_and_splits(arxiv: Path, need: Callable[[str], Path]) -> None:
    real = need("ogb/ogbn_arxiv_partial")
    data = load("ogbn-arxiv", root=arxiv)
    assert data.num_nodes == 169_343
    assert torch.equal(data.y, torch.from_numpy(np.loadtxt(real / "raw/node-label.csv.gz", dtype=np.int64)))
    for part, official in (("train", "train"), ("val", "valid"), ("test", "test")):
        ids = np.loadtxt(real / f"split/time/{official}.csv.gz", dtype=np.int64)
        assert torch.equal(data[f"{part}_mask"].nonzero().view(-1), torch.from_numpy(np.sort(ids)))
    assert (data.num_classes, data.metric, data.split, data.x.dtype) == (40, "accuracy", "public", torch.float32)
    assert data.is_undirected()
    net = gs.nn.make("sage", 4, 40, 4, seed=0)
    ticket = gs.find_ticket(net, data, epochs=1, edge_keep=0.5, weight_keep=0.5)
    pairs = int((data.edge_index[0] < data.edge_index[1]).sum())
    assert ticket.metrics["num_arcs_kept"] == 2 * -(-pairs // 2)
    task = load_ogb("ogbn-arxiv", root=arxiv)
    test = task.splits["test"]
    predicted = ticket.logits[test].argmax(dim=1, keepdim=True)
    official = task.evaluator.eval({"y_true": task.data.y[test], "y_pred": predicted})
    assert ticket.metrics["test"] == pytest.approx(official["acc"])


def test_a_stand_in_that_lacks_an_edge_is_refused(arxiv: Path) -> None:
    _write(arxiv / "ogb/ogbn_arxiv/raw/num-edge-list.csv.gz", [200_001], "%d")
    with pytest.raises(DataError, match="the files hold"):
        load("ogbn-arxiv", root=arxiv)
