"""Graphs from npz files: counts of the real ones, toys worked by hand, and damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.datasets import HeterophilousGraphDataset

from graphsparse.data import load, names
from graphsparse.errors import DataError

_MASKS = ("train_mask", "val_mask", "test_mask")


def _heterophilous() -> dict[str, Any]:
    masks = np.zeros((3, 10, 4), dtype=bool)
    for number in range(10):
        masks[0, number, number % 4] = masks[1, number, (number + 1) % 4] = masks[2, number, (number + 2) % 4] = True
    return {
        "node_features": np.eye(4, 3, dtype=np.float32),
        "node_labels": np.array([0, 1, 1, 0]),
        "edges": np.array([[0, 1], [1, 2], [0, 1]]),
        "train_masks": masks[0],
        "val_masks": masks[1],
        "test_masks": masks[2],
    }


def _facebook() -> dict[str, Any]:
    return {
        "edges": np.array([[0, 1], [1, 2]], dtype=np.int32),
        "feat_row": np.array([0, 0, 2], dtype=np.int32),
        "feat_col": np.array([1, 3, 0], dtype=np.int32),
        "num_features": np.int64(4),
        "labels": np.array([0, 1, 1], dtype=np.int8),
    }


def _wordnet() -> dict[str, Any]:
    return {
        "edges": np.array([[0, 1], [0, 1], [2, 2]], dtype=np.int32),
        "edge_type": np.array([3, 5, 0], dtype=np.uint8),
        "labels": np.array([0, 1, 1], dtype=np.uint8),
        "feat_indices": np.array([1, 0, 1], dtype=np.uint16),
        "feat_indptr": np.array([0, 1, 1, 3], dtype=np.int32),
        "vocab": np.array(["a", "b"]),
    }


def _debian() -> dict[str, Any]:
    return {
        "edges": np.array([[0, 1], [2, 0]], dtype=np.int32),
        "labels": np.array([0, 1, 1], dtype=np.uint8),
        "desc": np.array(["a game of war", "war game", "fonts"]),
    }


def _facebook_128() -> dict[str, Any]:
    return {
        "edges": np.array([[0, 1], [1, 0]]),
        "features": np.array([[0.5, 1.0], [2.0, 3.0]]),
        "target": np.array([1, 0]),
    }


_TOYS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "tolokers": ("heterophilous/tolokers.npz", _heterophilous),
    "roman-empire": ("heterophilous/roman_empire.npz", _heterophilous),
    "facebook": ("musae_facebook/musae_facebook.npz", _facebook),
    "facebook-128": ("FacebookPagePage/raw/facebook.npz", _facebook_128),
    "wordnet": ("wordnet/wordnet_synsets.npz", _wordnet),
    "debian": ("debian/debian_bookworm_deps.npz", _debian),
}


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a toy of a data set, with arrays changed or left out, and gives its folder."""

    def write(name: str, **changes: Any) -> Path:
        file, make = _TOYS[name]
        arrays = {key: value for key, value in {**make(), **changes}.items() if value is not None}
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / file, **arrays)
        return tmp_path

    return write


def _arcs(data: Any) -> list[tuple[int, ...]]:
    return sorted(map(tuple, data.edge_index.t().tolist()))


def test_heterophilous_edges_are_mirrored_and_doubles_dropped(toy: Callable[..., Path]) -> None:
    data = load("Roman_Empire", 3, root=toy("roman-empire"))
    assert _arcs(data) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert (data.name, data.split, data.metric) == ("roman-empire", "3 of 10", "accuracy")
    assert [data[mask].nonzero().item() for mask in _MASKS] == [3, 0, 1]


def test_facebook_by_hand(toy: Callable[..., Path]) -> None:
    data = load("facebook", root=toy("facebook"))
    assert data.x.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert _arcs(data) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert data.split == "random 60/20/20, seed 0"


def test_pygs_facebook_is_another_data_set(toy: Callable[..., Path]) -> None:
    root = toy("facebook-128")
    data = load("facebook-128", root=root)
    assert data.x.tolist() == [[0.5, 1.0], [2.0, 3.0]]
    assert data.y.tolist() == [1, 0]
    with pytest.raises(DataError, match="facebook-128"):
        load("facebook", root=root)


def test_wordnet_keeps_direction_copies_loops_and_types(toy: Callable[..., Path]) -> None:
    data = load("wordnet", root=toy("wordnet"))
    assert data.edge_index.tolist() == [[0, 0, 2], [1, 1, 2]]
    assert data.edge_type.tolist() == [3, 5, 0]
    assert data.is_edge_attr("edge_type")
    assert data.x.tolist() == [[0, 1], [0, 0], [1, 1]]


def test_debian_words_are_hashed(toy: Callable[..., Path]) -> None:
    data = load("debian", root=toy("debian"))
    assert data.x.shape == (3, 512)
    assert torch.allclose(data.x.norm(dim=1), torch.ones(3))
    assert float(data.x[0] @ data.x[1]) > 0.5  # both are about a war game
    assert float(data.x[0] @ data.x[2]) == 0.0
    assert _arcs(data) == [(0, 1), (2, 0)]


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "classes", "metric"),
    [
        ("tolokers", 11758, 519000, 2, "rocauc"),
        ("minesweeper", 10000, 39402, 2, "rocauc"),
        ("actor", 7600, 26659, 5, "accuracy"),
        ("squirrel-filtered", 2223, 46998, 5, "accuracy"),
        ("chameleon-filtered", 890, 8854, 5, "accuracy"),
        ("facebook", 22470, 170823, 4, "accuracy"),
    ],
)
def test_published_counts_of_undirected_graphs(
    need: Callable[[str], Path], name: str, nodes: int, edges: int, classes: int, metric: str
) -> None:
    need(_TOYS["facebook"][0] if name == "facebook" else f"heterophilous/{name.replace('-', '_')}.npz")
    data = load(name)
    assert (data.num_nodes, data.num_edges, data.num_classes, data.metric) == (nodes, 2 * edges, classes, metric)
    assert data.is_undirected()
    assert data.is_coalesced()
    assert bool((sum(data[mask].int() for mask in _MASKS) == 1).all())


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "classes"), [("wordnet", 117659, 377592, 45), ("debian", 63436, 321700, 58)]
)
def test_published_counts_of_directed_graphs(
    need: Callable[[str], Path], name: str, nodes: int, edges: int, classes: int
) -> None:
    need(_TOYS[name][0])
    data = load(name)
    assert (data.num_nodes, data.num_edges, data.num_classes) == (nodes, edges, classes)
    assert not data.is_undirected()
    shares = [float(data[mask].float().mean()) for mask in _MASKS]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.001)


def test_ten_splits_are_pygs_columns(need: Callable[[str], Path], tmp_path: Path) -> None:
    raw = tmp_path / "minesweeper" / "raw"
    raw.mkdir(parents=True)
    shutil.copy(need("heterophilous/minesweeper.npz"), raw)
    theirs = HeterophilousGraphDataset(str(tmp_path), "Minesweeper")[0]
    for split in (0, 9):
        ours = load("minesweeper", split)
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
        assert torch.equal(ours.edge_index, theirs.edge_index)
        assert all(torch.equal(ours[mask], theirs[mask][:, split]) for mask in _MASKS)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("tolokers", {"edges": np.array([[0, 1], [2, 4]])}, r"edge 1 is \[2, 4\], but node ids end at 3"),
        ("tolokers", {"edges": np.array([[0, -1]])}, r"edge 0 is \[0, -1\]"),
        ("tolokers", {"edges": np.array([[0.0, 1.0]])}, "edges must be integers"),
        ("tolokers", {"edges": np.array([0, 1])}, "edges must be integers of shape"),
        ("tolokers", {"node_labels": np.array([0, 1])}, "labels must be 4"),
        ("tolokers", {"node_labels": np.array([0, 1, -1, 0])}, "labels must be 4 non-negative"),
        ("tolokers", {"node_features": np.full((4, 3), np.nan)}, "NaN or infinite"),
        ("tolokers", {"node_features": np.ones(4)}, "features must be a matrix"),
        ("tolokers", {"train_masks": np.ones((10, 4), dtype=bool)}, "in two of training"),
        ("tolokers", {"val_masks": np.ones((9, 4), dtype=bool)}, "masks must be bool"),
        ("tolokers", {"val_masks": np.ones((10, 4))}, "masks must be bool"),
        ("tolokers", {"val_masks": None}, "lacks the arrays val_masks"),
        ("tolokers", {"edges": np.array([[0, {}]], dtype=object)}, "holds objects"),
        ("facebook", {"feat_col": np.array([1, 3, 4])}, "a feature's column is 4, outside 0 ... 3"),
        ("facebook", {"feat_row": np.array([0, 0, -1])}, "a feature's row is -1, outside"),
        ("facebook", {"feat_row": np.array([0, 0])}, "equally long"),
        ("facebook", {"num_features": np.array([4, 4])}, "num_features must be one whole number"),
        ("wordnet", {"feat_indptr": np.array([0, 1, 3])}, "feat_indptr does not cut"),
        ("wordnet", {"feat_indptr": np.array([0, 3, 1, 3])}, "feat_indptr does not cut"),
        ("wordnet", {"edge_type": np.array([1])}, "labels must be 3"),
        ("debian", {"desc": np.array([1, 2, 3])}, "desc must be 3 texts"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    toy: Callable[..., Path], name: str, changes: dict[str, Any], said: str
) -> None:
    root = toy(name, **changes)
    with pytest.raises(DataError, match=rf"{Path(_TOYS[name][0]).name}.*{said}"):
        load(name, root=root)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut", None])
def test_files_that_are_no_archives_are_named(toy: Callable[..., Path], content: bytes | None) -> None:
    root = toy("tolokers")
    path = root / _TOYS["tolokers"][0]
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(DataError, match=r"tolokers\.npz is damaged or no \.npz"):
        load("tolokers", root=root)


def test_a_flipped_bit_is_noticed(toy: Callable[..., Path]) -> None:
    root = toy("tolokers")
    path = root / _TOYS["tolokers"][0]
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 150] ^= 0xFF  # within the first array's values
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"tolokers\.npz"):
        load("tolokers", root=root)


def test_unknown_names_get_close_matches() -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'coral' \(did you mean 'cora'"):
        load("coral")
    with pytest.raises(ValueError, match="known are actor, amazon-ratings, chameleon-filtered"):
        load("zzzz")


def test_a_name_is_a_text() -> None:
    with pytest.raises(TypeError, match="named by a string, got int"):
        load(3)


def test_a_wrong_split_says_which_there_are(toy: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="tolokers has no split 10; possible: 0-9, 'random'"):
        load("tolokers", 10, root=toy("tolokers"))


def test_every_name_is_known_and_missing_data_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(url: str, **_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", dead)
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for name in names():
        if name == "digits-knn":
            continue
        files = name.removesuffix("-undirected")  # read from those of the directed one
        with pytest.raises(DataError, match=f"{files}.* (not here|is not here).*GRAPHSPARSE_DATA"):
            load(name, root=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
