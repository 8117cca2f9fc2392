"""Planetoid graphs: equal to PyG's, and clear about damage."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid
from torch_geometric.transforms import NormalizeFeatures

from graphsparse.data import load
from graphsparse.errors import DataError

_PUBLISHED = [("Cora", 2708, 5278, 7, 1433), ("CiteSeer", 3327, 4552, 6, 3703), ("PubMed", 19717, 44324, 3, 500)]
_MASKS = ("train_mask", "val_mask", "test_mask")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph of 7 nodes in Planetoid's files: 2 labelled, 4 known, tests 6 and 4; node 5 is in no file."""
    folder = tmp_path / "Planetoid" / "Cora" / "raw"
    folder.mkdir(parents=True)
    allx = np.arange(12, dtype=np.float32).reshape(4, 3)
    tx = np.array([[6, 6, 6], [4, 4, 4]], dtype=np.float32)
    ally, ty = np.eye(2, dtype=np.int32)[[0, 1, 1, 0]], np.eye(2, dtype=np.int32)[[1, 0]]
    graph = {node: [] for node in range(7)} | {0: [1, 1, 2], 1: [0], 2: [0, 2], 4: [6], 6: [4]}
    parts = {"x": allx[:2], "tx": tx, "allx": allx, "y": ally[:2], "ty": ty, "ally": ally, "graph": graph}
    for part, content in parts.items():
        stored = scipy.sparse.csr_matrix(content) if part.endswith("x") else content
        (folder / f"ind.cora.{part}").write_bytes(pickle.dumps(stored, protocol=2))
    (folder / "ind.cora.test.index").write_text("6\n4\n")
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    return folder


def test_a_graph_worked_by_hand(toy: Path) -> None:
    data = load("Cora")
    # Row 6 of x belongs to node 6 though tx lists it first; node 5 lies in the gap between 4 and 6: zero.
    assert data.x[:, 0].tolist() == [0, 3, 6, 9, 4, 0, 6]
    assert data.y.tolist() == [0, 1, 1, 0, 0, 0, 1]
    # The doubled edge 0-1 counts once, the loop at 2 not at all.
    assert sorted(map(tuple, data.edge_index.t().tolist())) == [(0, 1), (0, 2), (1, 0), (2, 0), (4, 6), (6, 4)]
    assert data.train_mask.nonzero().flatten().tolist() == [0, 1]
    assert data.test_mask.nonzero().flatten().tolist() == [4, 6]
    assert data.num_classes == 2


@pytest.mark.parametrize(("name", "nodes", "edges", "classes", "features"), _PUBLISHED)
def test_published_counts(
    need: Callable[[str], Path], name: str, nodes: int, edges: int, classes: int, features: int
) -> None:
    need(f"Planetoid/{name}/raw")
    data = load(name)
    assert (data.num_nodes, data.num_edges, data.num_features) == (nodes, 2 * edges, features)
    assert data.num_classes == classes == int(data.y.max()) + 1
    assert data.is_undirected()
    assert not data.has_self_loops()
    assert data.is_coalesced() or data.coalesce().num_edges == 2 * edges
    assert [int(data[mask].sum()) for mask in _MASKS] == [20 * classes, 500, 1000]
    assert (data.name, data.split, data.metric) == (name.lower(), "public", "accuracy")


@pytest.mark.parametrize("name", ["Cora", "CiteSeer"])
def test_equal_to_pyg_bit_for_bit(need: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    # Copied, because PyG writes processed/ beside raw/.
    shutil.copytree(need(f"Planetoid/{name}/raw"), tmp_path / name / "raw")
    theirs = Planetoid(str(tmp_path), name)[0]
    ours = load(name)
    for key in theirs.keys():  # noqa: SIM118  # Data is no dict: iterating it gives pairs
        assert torch.equal(theirs[key], ours[key]), key
        assert theirs[key].dtype == ours[key].dtype, key
    assert torch.equal(NormalizeFeatures()(theirs.clone()).x, load(name, normalize_features=True).x)
    assert not torch.equal(ours.x, load(name, normalize_features=True).x)


def test_random_splits_differ_by_seed(toy: Path) -> None:
    first, again, other = (load("cora", "random", seed=seed) for seed in (0, 0, 1))
    assert first.split == "random 20 per class/500/1000, seed 0"
    assert torch.equal(first.train_mask, again.train_mask)
    assert other.split.endswith("seed 1")


def test_every_call_gives_memory_of_its_own(toy: Path) -> None:
    first: Data = load("cora")
    first.x.zero_()
    first.train_mask.fill_(True)
    assert float(load("cora").x.sum()) > 0
    assert int(load("cora").train_mask.sum()) == 2


@pytest.mark.parametrize(
    ("part", "content", "said"),
    [
        ("graph", {0: [1], 1: [99]}, "ind.cora.graph holds no adjacency lists for node 6"),
        ("graph", {node: [99] for node in range(7)}, "ind.cora.graph: edge 0 is .0, 99., but node ids end at 6"),
        ("graph", {node: [-1] for node in range(7)}, "ind.cora.graph: edge 0"),
        ("graph", {node: ["a"] for node in range(7)}, "ind.cora.graph holds no adjacency lists"),
        ("graph", [1, 2], "ind.cora.graph holds no adjacency lists"),
        ("tx", np.ones((5, 3), dtype=np.float32), "ind.cora.tx has shape"),
        ("allx", np.full((4, 3), np.nan, dtype=np.float32), "ind.cora.allx holds no finite matrix"),
        ("ally", np.ones(4), "ind.cora.ally holds no finite matrix"),
        ("ty", {"a": 1}, "ind.cora.ty holds a dict where a CSR matrix belongs"),
    ],
)
def test_files_that_do_not_fit_are_named(toy: Path, part: str, content: object, said: str) -> None:
    (toy / f"ind.cora.{part}").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=said):
        load("cora")


@pytest.mark.parametrize("index", ["", "6\nx\n", "6\n6\n", "-1\n4\n", "4\n999999999999\n"])
def test_a_damaged_test_index_is_named(toy: Path, index: str) -> None:
    (toy / "ind.cora.test.index").write_text(index)
    with pytest.raises(DataError, match=r"ind\.cora\."):
        load("cora")


def test_a_truncated_and_a_missing_file_are_named(toy: Path) -> None:
    whole = (toy / "ind.cora.allx").read_bytes()
    (toy / "ind.cora.allx").write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"ind\.cora\.allx is damaged"):
        load("cora")
    (toy / "ind.cora.allx").unlink()
    with pytest.raises(DataError, match=r"lacks Planetoid/Cora/raw/ind\.cora\.allx"):
        load("cora")


def test_nothing_is_written_into_the_data_folder(toy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in toy.parent.parent.rglob("*")}
    load("cora")
    assert {path: path.stat().st_mtime_ns for path in toy.parent.parent.rglob("*")} == before
