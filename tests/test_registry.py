"""The one kind of table for names."""

from __future__ import annotations

import sys

import pytest

from graphsparse.registry import Registry


@pytest.fixture
def shapes() -> Registry[object]:
    table: Registry[object] = Registry("shape")
    table.register("round", 1)
    table.register("half-round", 2)
    return table


def test_names_are_found_however_they_are_typed(shapes):
    assert shapes.find("Half_Round") == 2
    assert shapes.key("HALF-ROUND") == "half-round"
    assert shapes.names() == ["half-round", "round"]
    assert dict(shapes) == {"round": 1, "half-round": 2}


def test_a_wrong_name_is_told_what_comes_close_and_what_there_is(shapes):
    with pytest.raises(
        ValueError, match=r"unknown shape 'rund' \(did you mean 'round'\?\); known are half-round, round"
    ):
        shapes.find("rund")
    with pytest.raises(ValueError, match="unknown shape 'x'; known are half-round, round"):
        shapes.find("x")
    with pytest.raises(TypeError, match="a shape is named by a string, got int"):
        shapes.find(3)


def test_a_name_is_given_once_and_has_no_colon(shapes):
    with pytest.raises(ValueError, match="already a shape 'round'"):
        shapes.register("round", 3)
    for name in ("", "a:b"):
        with pytest.raises(ValueError, match="cannot name a shape"):
            shapes.register(name, 3)
    with pytest.raises(TypeError, match="the name of a shape is a string"):
        shapes.register(4, 3)
    del shapes["round"]
    assert shapes.register("round", 3) == 3


def test_an_entry_of_ones_own_is_imported_checked_and_hashed(tmp_path, monkeypatch):
    def whole(name: str, entry: object) -> int:
        if not isinstance(entry, int):
            raise TypeError(f"{name} is no number")
        return entry

    table = Registry("number", check=whole)
    (tmp_path / "mine_numbers.py").write_text("seven = 7\ntext = 'x'\n")
    (tmp_path / "mine_broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert table.find("mine_numbers:seven") == 7
    assert len(table.source_hash("mine_numbers:seven")) == 16
    with pytest.raises(TypeError, match="mine_numbers:text is no number"):
        table.find("mine_numbers:text")
    with pytest.raises(ValueError, match="has no 'eight'"):
        table.find("mine_numbers:eight")
    with pytest.raises(ValueError, match="there is no number 'mine_nothing:x'"):
        table.find("mine_nothing:x")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        table.find("mine_broken:x")
    with pytest.raises(TypeError, match="text is no number"):
        table.register("text", "x")
    sys.modules.pop("mine_numbers")


def test_a_folder_is_scanned_when_the_table_is_first_read(tmp_path, monkeypatch):
    folder = tmp_path / "scanned_shapes"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from graphsparse.registry import Registry\nTABLE = Registry('x', folder=__name__)\n"
    )
    (folder / "one.py").write_text("from scanned_shapes import TABLE\nTABLE.register('one', 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import scanned_shapes

    assert "scanned_shapes.one" not in sys.modules
    assert scanned_shapes.TABLE.names() == ["one"]


def test_a_module_of_the_folder_may_be_imported_before_the_table_is_read(tmp_path, monkeypatch):
    """Its neighbours need what it has not defined yet: they are imported once it is whole."""
    folder = tmp_path / "early_shapes"
    folder.mkdir()
    table = "from graphsparse.registry import Registry\nTABLE = Registry('x', folder=__name__)\n"
    (folder / "__init__.py").write_text(table)
    (folder / "first.py").write_text("from early_shapes import TABLE\nTABLE.register('first', 1)\nbase = 1\n")
    (folder / "other.py").write_text(
        "from early_shapes import TABLE\nfrom early_shapes.first import base\nTABLE.register('other', base)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import early_shapes.first

    assert early_shapes.TABLE.names() == ["first", "other"]
    with pytest.raises(ValueError, match="already a x 'other'"):
        early_shapes.TABLE.register("other", 2)


def test_case_hyphens_and_underscores_do_not_matter_and_the_closest_spelling_wins():
    table = Registry("shape")
    for name in ("a-b", "ab", "wd-glt", "local_degree"):
        table.register(name, name)
    for given, meant in {
        "AB": "ab", "A_B": "a-b", "WDGLT": "wd-glt", "Wd Glt": "wd-glt", " localDegree ": "local_degree",
    }.items():  # fmt: skip
        assert table.find(given) == meant
    with pytest.raises(ValueError, match=r"unknown shape 'wd\.glt'"):
        table.find("wd.glt")


def _graph():
    import torch

    from graphsparse.graphs.inner_form import edge_list

    return edge_list(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3, None)


def _names():
    """Calls with an option in another spelling than the usual one, and what is seen of it in the end."""
    import torch
    from torch_geometric.data import Data

    import graphsparse as gs
    from graphsparse.data import load
    from graphsparse.edges.trials import parse
    from graphsparse.fit import Distill, NodeTask, graph_metric, link_metric
    from graphsparse.metanet.channels import check_options
    from graphsparse.metanet.study import find_metanet
    from graphsparse.tickets.compare.plan import Experiment

    x, y = torch.eye(4), torch.arange(4) % 2
    masks = {f"{part}_mask": torch.arange(4) == at for at, part in enumerate(("train", "val", "test"))}
    data = Data(x=x, edge_index=torch.tensor([[0, 1], [1, 0]]), y=y, **masks)
    graph = _graph()
    experiment = Experiment("Digits_kNN", "GCN", 8, "Transductive", ("TEDDY+Units+Cover", "WD_GLT"), split="Random")
    return {
        "protocol": (NodeTask(data, protocol="Inductive").protocol, "inductive"),
        "guard": (gs.sparsify(graph.edge_index, keep=0.5, guard="Cover").shape, (2, 2)),
        "rules after a score": (parse("Local-Degree + FOREST"), ("local_degree", {"forest": True})),
        "normalization": (gs.edges.score(graph.edge_index, "Teddy", normalization="Sqrt").shape, (4,)),
        "experiment": (
            (experiment.dataset, experiment.model, experiment.protocol, experiment.methods, experiment.split),
            ("digits-knn", "gcn", "transductive", ("teddy+cover+units", "wd-glt"), "random"),
        ),
        "split": (load("Digits-KNN", split="Random").split[:6], "random"),
        "metrics": ((link_metric("Hits@20").name, graph_metric("RMSE").maximize), ("hits@20", False)),
        "outputs": (Distill(x, outputs="Labels").outputs, "labels"),
        "distribution of channels": (check_options("Global", 0.2, 1), "global"),
        "metanetwork": ((find_metanet("None"), find_metanet("ResNet_Tiny").mode), (None, "repair")),
    }  # fmt: skip


def test_every_option_that_is_a_name_is_taken_in_any_spelling():
    for what, (found, meant) in _names().items():
        assert found == meant, what
