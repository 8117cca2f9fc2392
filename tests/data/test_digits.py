"""The embedded digits graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from graphsparse.data import load


def test_it_needs_neither_data_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("GRAPHSPARSE_DATA", "/no/such/folder")
    data = load("digits-knn")
    assert (data.num_nodes, data.num_features, data.num_classes) == (1797, 64, 10)
    assert data.is_undirected()
    assert not data.has_self_loops()
    assert data.is_coalesced()
    assert data.x.dtype == torch.float32
    assert (float(data.x.min()), float(data.x.max())) == (0.0, 1.0)


def test_every_node_has_its_ten_nearest_and_ties_go_to_the_lower_id() -> None:
    data = load("digits-knn")
    pixels = load_digits().data.astype(np.int64)
    adjacent = [set(data.edge_index[1, data.edge_index[0] == node].tolist()) for node in range(0, 200)]
    for node in range(0, 200, 7):
        distance = ((pixels - pixels[node]) ** 2).sum(axis=1)
        ranked = sorted((int(d), other) for other, d in enumerate(distance) if other != node)
        assert {other for _, other in ranked[:10]} <= adjacent[node]


def test_the_edges_agree_with_scikit_learn_up_to_ties() -> None:
    data = load("digits-knn")
    pixels = load_digits().data
    reach, _ = NearestNeighbors(n_neighbors=11).fit(pixels).kneighbors(pixels)
    length = np.linalg.norm(pixels[data.edge_index[0]] - pixels[data.edge_index[1]], axis=1)
    tenth = reach[:, -1]
    # An edge is there because one of its ends counts the other among its ten nearest.
    assert bool((length <= np.maximum(tenth[data.edge_index[0]], tenth[data.edge_index[1]]) + 1e-9).all())


def test_the_split_is_seeded_and_semi_supervised() -> None:
    data, other = load("digits-knn"), load("digits-knn", seed=1)
    assert data.split == "random 5 per class/500/rest, seed 0"
    assert data.y[data.train_mask].bincount().tolist() == [5] * 10
    assert int(data.val_mask.sum()) == 500
    assert bool((data.train_mask.int() + data.val_mask.int() + data.test_mask.int() == 1).all())
    assert torch.equal(data.edge_index, other.edge_index)
    assert not torch.equal(data.train_mask, other.train_mask)
