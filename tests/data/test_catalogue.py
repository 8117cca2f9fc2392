"""Data sets of one's own: registered, or named by the file that they are in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.data import DATASETS, IMAGES, GraphSet, RawImages, join_graphs, load, load_images
from graphsparse.errors import DataError

RING = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
RING = torch.cat([RING, RING.flip(0)], dim=1)


def ring(**more: object) -> Data:
    return Data(x=torch.eye(12), edge_index=RING, y=torch.arange(12) % 3, **more)


@pytest.fixture
def own():
    """Registers for the length of a test."""
    names = []

    def add(read, name="own", table=DATASETS):
        table.register(name, read)
        names.append((table, name))
        return name

    yield add
    for table, name in names:
        del table[name]


def test_a_registered_function_is_a_data_set_like_any_other(own):
    load_own = own(ring)
    data = load(load_own, seed=3)
    assert "own" in gs.data.names()
    assert (data.name, data.metric, data.task, data.num_classes) == ("own", "accuracy", "node", 3)
    assert data.split == "random 60/20/20, seed 3"
    assert int((data.train_mask | data.val_mask | data.test_mask).sum()) == 12
    with pytest.raises(ValueError, match="own has no split 'public'; possible: 'random'"):
        load("own", "public")


def test_the_data_folder_reaches_a_function_that_asks_for_it(own, tmp_path):
    asked = []

    def read(root):
        asked.append(root)
        return ring()

    load(own(read), root=tmp_path)
    assert asked == [tmp_path]


def test_a_file_of_ones_own_is_named_by_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "mine_data.py").write_text(
        "import torch\nfrom torch_geometric.data import Data\n"
        "def triangle():\n"
        "    e = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])\n"
        "    return Data(x=torch.eye(3), edge_index=e, y=torch.tensor([0, 1, 1]))\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = load("mine_data:triangle")
    assert data.num_nodes == 3
    assert len(DATASETS.source_hash("mine_data:triangle")) == 16
    with pytest.raises(TypeError, match="is no data set: it is a int"):
        load("mine_data:number")
    with pytest.raises(ValueError, match="has no 'square'"):
        load("mine_data:square")
    sys.modules.pop("mine_data")


def test_masks_splits_metric_and_what_edges_carry_come_along(own):
    masks = torch.zeros(3, 12, 2, dtype=torch.bool)
    masks[0, :4], masks[1, 4:8], masks[2, 8:, 0], masks[2, 8:10, 1] = True, True, True, True
    named = dict(zip(("train_mask", "val_mask", "test_mask"), masks, strict=True))
    weight, kind = torch.rand(24), torch.arange(24) % 2
    data = load(own(lambda: ring(metric="rocauc", edge_weight=weight, edge_type=kind, **named)))
    assert (data.split, data.metric) == ("0 of 2", "rocauc")
    assert torch.equal(data.edge_weight, weight)
    assert torch.equal(data.edge_type, kind)
    assert int(load("own", 1).test_mask.sum()) == 2
    one = {name: mask[:, 0] for name, mask in named.items()}
    own(lambda: ring(**one), "one-split")
    assert load("one-split").split == "public"


def test_several_labels_a_node(own):
    y = (torch.rand(12, 4) > 0.5).float()
    y[0, 0] = float("nan")
    data = load(own(lambda: Data(x=torch.eye(12), edge_index=RING, y=y)))
    assert (data.metric, data.num_classes, data.y.dtype) == ("rocauc", 4, torch.float32)
    assert torch.equal(data.y.isnan(), y.isnan())
    assert [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [7, 3, 2]


def test_graphs_and_links_are_taken_as_they_are(own):
    small = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([1.0]))
    molecules = join_graphs([small, small, small], {"train": [0], "val": [1], "test": [2]})
    molecules.task, molecules.metric = "graph", "rmse"
    data = load(own(lambda: molecules))
    assert isinstance(data, GraphSet)
    assert (data.name, data.split) == ("own", "public")
    with pytest.raises(ValueError, match="possible: 'public'"):
        load("own", 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": None}, "has no tensor x"),
        ({"y": None}, "has no tensor y"),
        ({"edge_index": None}, "has no tensor edge_index"),
        ({"x": torch.full((12, 1), torch.nan)}, "NaN"),
        ({"edge_index": torch.tensor([[0], [12]])}, "node ids end at 11"),
        ({"y": torch.zeros(5, dtype=torch.int64)}, "labels must be 12"),
        ({"y": torch.full((12, 2), 7.0)}, "0, 1 or NaN"),
        ({"train_mask": torch.ones(12, dtype=torch.bool)}, "three masks"),
        ({f"{part}_mask": torch.ones(12, dtype=torch.bool) for part in ("train", "val", "test")}, "in two of training"),
    ],
)
def test_what_does_not_fit_is_told(own, change, said):
    data = ring()
    for key, value in change.items():
        data[key] = value
    with pytest.raises(DataError, match=said):
        load(own(lambda: data))


def test_what_is_no_data_is_told(own):
    with pytest.raises(TypeError, match=r"the data set 'own' is a int; it must be a torch_geometric\.data\.Data"):
        load(own(lambda: 3))
    with pytest.raises(ValueError, match="already a data set 'cora'"):
        gs.data.register("cora", ring)
    with pytest.raises(TypeError, match="is no data set"):
        gs.data.register("number", 3)


def test_images_of_ones_own(own):
    x = np.arange(40 * 4, dtype=np.uint8).reshape(40, 1, 2, 2)
    y, is_test = np.arange(40) % 2, np.arange(40) >= 30
    raw = RawImages(x, y, is_test, ("even", "odd"), "my images")
    own(lambda: raw, "my-images", IMAGES)
    images = load_images("My_Images", val=5)
    assert [len(part[1]) for part in (images.train, images.val, images.test)] == [25, 5, 10]
    assert images.note == "my images"
    own(lambda: x, "no-images", IMAGES)
    with pytest.raises(TypeError, match=r"a set of images is a graphsparse\.data\.RawImages"):
        load_images("no-images")
    for bad in (
        (x[0], y, is_test),
        (x, y[:3], is_test),
        (x, y + 1, is_test),
        (x, y, is_test.astype(int)),
        (x, y, y < 0),
    ):
        with pytest.raises(DataError, match="my images"):
            RawImages(*bad, ("even", "odd"), "my images")


def test_a_ticket_of_a_data_set_of_ones_own(own, tmp_path: Path):
    data = load(own(ring))
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 8, seed=0)
    ticket = gs.find_ticket(net, data, method="random", edge_keep=0.5, weight_keep=0.5, epochs=2)
    assert ticket.metrics["edges_kept"] == 0.5
