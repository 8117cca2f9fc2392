"""Sparsifying files: every kind comes back as it was, with fewer edges, and damage changes nothing."""

import json
import os
import sys

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch

import graphsparse as gs
from graphsparse.edges.files import sparsify_file
from graphsparse.errors import DataError

GRAPH = nx.karate_club_graph()
ARCS = np.array([arc for u, v in GRAPH.edges() for arc in ((u, v), (v, u))])
HALF = {"keep": 0.5}


def kept_pairs(arcs) -> set[frozenset[int]]:
    return {frozenset((int(u), int(v))) for u, v in arcs}


EXPECTED = kept_pairs(gs.sparsify(torch.from_numpy(ARCS.T.copy()), keep=0.5).t().tolist())


@pytest.fixture
def written(tmp_path):
    def write(kind):
        path = tmp_path / f"in.{kind}"
        frame = pd.DataFrame({"src": ARCS[:, 0], "dst": ARCS[:, 1], "since": np.arange(len(ARCS))})
        matrix = scipy.sparse.coo_array((np.ones(len(ARCS)), ARCS.T), (34, 34))
        if kind == "csv":
            frame.to_csv(path, index=False)
        elif kind == "parquet":
            frame.to_parquet(path, index=False)
        elif kind == "graphml":
            nx.write_graphml(GRAPH, path)
        elif kind == "mtx":
            scipy.io.mmwrite(path, matrix)
        elif kind == "npz":
            np.savez(path, edge_index=ARCS.T, edge_time=np.arange(len(ARCS)), x=np.ones((34, 2)))
        return path

    return write


def read_arcs(path):
    if path.suffix == ".csv":
        return pd.read_csv(path)[["src", "dst"]].to_numpy()
    if path.suffix == ".parquet":
        return pd.read_parquet(path)[["src", "dst"]].to_numpy()
    if path.suffix == ".graphml":
        return [(int(u), int(v)) for u, v in nx.read_graphml(path).edges()]
    if path.suffix == ".mtx":
        return np.argwhere(scipy.io.mmread(path).toarray())
    return np.load(path)["edge_index"].T


@pytest.mark.parametrize("kind", ["csv", "parquet", "mtx", "npz"])
def test_every_kind_keeps_the_same_edges(written, tmp_path, kind):
    source, target = written(kind), tmp_path / f"out.{kind}"
    before = source.read_bytes()
    report = sparsify_file(source, target, rules=HALF)
    assert "kept 39 of 78 undirected edges (found so) (50.00 %)" in report
    assert kept_pairs(read_arcs(target)) == EXPECTED
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name, target.name]


def test_graphml_keeps_attributes_and_labels(written, tmp_path):
    target = tmp_path / "out.graphml"
    sparsify_file(written("graphml"), target, rules=HALF)
    small = nx.read_graphml(target)
    assert small.number_of_edges() == 39
    assert dict(small.nodes(data="club")) == {str(v): club for v, club in GRAPH.nodes(data="club")}
    assert all(small.edges[u, v]["weight"] == GRAPH.edges[int(u), int(v)]["weight"] for u, v in small.edges())


def test_other_columns_and_arrays_are_cut_along_and_the_rest_stays(written, tmp_path):
    sparsify_file(written("csv"), tmp_path / "out.csv", rules=HALF)
    frame = pd.read_csv(tmp_path / "out.csv")
    assert all(tuple(ARCS[row.since]) == (row.src, row.dst) for row in frame.itertuples())
    sparsify_file(written("npz"), tmp_path / "out.npz", rules=HALF)
    arrays = np.load(tmp_path / "out.npz")
    assert np.array_equal(ARCS[arrays["edge_time"]].T, arrays["edge_index"])
    assert arrays["x"].shape == (34, 2)


def test_labels_of_any_kind_and_directed_edges(tmp_path):
    frame = pd.DataFrame({"src": ["a", "b", "c", "a"], "dst": ["b", "c", "a", "a"]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.csv", "random", rules={"keep": "1/3"})
    assert "kept 1 of 3 directed edges" in report
    assert "1 self-loops" in report
    rows = pd.read_csv(tmp_path / "out.csv").to_numpy().tolist()
    assert ["a", "a"] in rows
    assert len(rows) == 2


def test_rows_edges_and_scipy_matrices_in_npz(tmp_path):
    np.savez(tmp_path / "in.npz", edges=ARCS, num_nodes=40)
    sparsify_file(tmp_path / "in.npz", tmp_path / "out.npz", rules=HALF)
    assert kept_pairs(np.load(tmp_path / "out.npz")["edges"]) == EXPECTED
    matrix = scipy.sparse.csr_matrix((np.arange(1.0, len(ARCS) + 1), ARCS.T), (34, 34))
    scipy.sparse.save_npz(tmp_path / "matrix.npz", matrix)
    sparsify_file(tmp_path / "matrix.npz", tmp_path / "small.npz", rules=HALF)
    small = scipy.sparse.load_npz(tmp_path / "small.npz")
    assert small.format == "csr"
    assert small.nnz == 78
    assert (small.multiply(small != matrix)).nnz == 0  # every kept weight is its own


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", "from,to\n1,2\n", "no column 'src'"),
        ("in.csv", "src,dst\n1,2\n3,\n", "line 3"),
        ("in.csv", "", "it is empty"),
        ("in.parquet", "PAR1 is not enough", r"in\.parquet is not a graph in the format parquet"),
        ("in.graphml", "<graphml><graph>", r"in\.graphml is not a graph in the format graphml"),
        ("in.mtx", "no matrix", r"in\.mtx is not a graph in the format mtx"),
        ("in.npz", "no zip", r"in\.npz is not a graph in the format npz"),
    ],
)
def test_damage_gets_one_sentence_and_the_target_stays(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    target = tmp_path / f"out{(tmp_path / name).suffix}"
    target.write_text("precious")
    with pytest.raises(DataError, match=message):
        sparsify_file(tmp_path / name, target, rules=HALF)
    assert target.read_text() == "precious"


def test_bad_arguments_write_nothing(written, tmp_path):
    source = written("csv")
    for target, rules, message in (
        ("out.xyz", HALF, "not known; known are"),
        ("out.csv", {"keep": 2}, r"\(0, 1\]"),
        ("out.csv", {}, "keep"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            sparsify_file(source, tmp_path / target, rules=rules)
    with pytest.raises(ValueError, match="suffix"):
        sparsify_file(tmp_path / "in.xyz", tmp_path / "out.xyz", rules=HALF)
    np.savez(tmp_path / "out_of_range.npz", edge_index=ARCS.T, num_nodes=10)
    with pytest.raises(DataError, match="10 nodes"):
        sparsify_file(tmp_path / "out_of_range.npz", tmp_path / "out.npz", rules=HALF)
    assert not list(tmp_path.glob("out.*"))


def test_pickles_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "in.npz", edge_index=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"in\.npz .*holds objects"):
        sparsify_file(tmp_path / "in.npz", tmp_path / "out.npz", rules=HALF)


def test_parquet_without_pyarrow_says_which_extra_it_needs(written, tmp_path, monkeypatch):
    source = written("parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"graphsparse\[scale\]"):
        sparsify_file(source, tmp_path / "out.parquet", rules=HALF)


def test_real_graph_from_a_file(need, tmp_path):
    edges = np.load(need("musae_facebook/musae_facebook.npz"))["edges"]
    arcs = edges.T if edges.shape[0] == 2 else edges
    pd.DataFrame(arcs, columns=["src", "dst"]).to_csv(tmp_path / "in.csv", index=False)
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.csv", undirected=True, rules={"keep": 0.3})
    assert f"kept {-(-3 * 170_823 // 10):,} of 170,823 undirected edges (given so)" in report, json.dumps(report)


@pytest.mark.parametrize("name", ["wordnet/wordnet_synsets.npz", "debian/debian_bookworm_deps.npz"])
def test_a_real_graph_keeps_the_same_edges_in_memory_and_in_every_kind_of_file(need, tmp_path, name):
    edges = np.load(need(name))["edges"]
    arcs = np.ascontiguousarray(edges if edges.shape[0] == 2 else edges.T, np.int64)[:, :60_000]
    memory = gs.sparsify(torch.from_numpy(arcs), keep=0.3).t().numpy()
    frame = pd.DataFrame({"src": arcs[0], "dst": arcs[1]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    np.savez(tmp_path / "in.npz", edge_index=arcs)
    for kind in ("csv", "parquet", "npz"):
        sparsify_file(tmp_path / f"in.{kind}", tmp_path / f"out.{kind}", rules={"keep": 0.3})
        assert np.array_equal(np.asarray(read_arcs(tmp_path / f"out.{kind}")), memory), kind


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "graphml", "mtx"])
def test_weights_are_read_by_one_rule_from_every_kind(tmp_path, kind):
    """A resistance needs weights: the same ones in every kind of file, and the report says where they are."""
    graph = nx.Graph()
    graph.add_weighted_edges_from([(u, v, 1.0 + (7 * u + 3 * v) % 11) for u, v in GRAPH.edges()])
    arcs = [(u, v, graph[u][v]["weight"]) for u, v in ARCS.tolist()]
    frame = pd.DataFrame(arcs, columns=["src", "dst", "weight"])
    path, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "npz":
        np.savez(path, edge_index=ARCS.T, weight=frame["weight"])
    elif kind == "graphml":
        nx.write_graphml(graph, path)
    else:
        scipy.io.mmwrite(path, scipy.sparse.coo_array((frame["weight"], ARCS.T), (34, 34)))
    report = sparsify_file(path, out, "effective_resistance", rules=HALF)
    small = gs.sparsify(graph, "effective_resistance", keep=0.5)
    assert kept_pairs(read_arcs(out)) == kept_pairs(small.edges())
    assert "weights are " in report


@pytest.mark.parametrize("cell", ["-1", "nan", "x", "", "0", "inf"])
def test_bad_weights_are_told_with_their_line_where_they_are_used(tmp_path, cell):
    (tmp_path / "in.csv").write_text(f"src,dst,weight\n1,2,1\n2,3,{cell}\n")
    with pytest.raises(DataError, match=r"in\.csv, line 3: the weight of edge 1 .*the column 'weight'"):
        sparsify_file(tmp_path / "in.csv", tmp_path / "out.csv", "effective_resistance", rules=HALF)
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.csv", "teddy", rules=HALF)
    assert "kept 1 of 2" in report


def test_places_that_cannot_be_read_or_written_are_told_first(written, tmp_path, monkeypatch):
    source = written("csv")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(source)
    for name in ("pipe", "device", "folder"):
        with pytest.raises(DataError, match=f"{name}.csv is a folder, a device or a pipe"):
            sparsify_file(tmp_path / f"{name}.csv", tmp_path / "out.csv", rules=HALF)
        with pytest.raises(ValueError, match=f"{name}.csv is a folder or a device"):
            sparsify_file(source, tmp_path / f"{name}.csv", rules=HALF)
    for same in (source, tmp_path / "link.csv"):
        with pytest.raises(ValueError, match="is the file that is read"):
            sparsify_file(source, same, rules=HALF)
    with pytest.raises(ValueError, match=r"folder of .* does not exist"):
        sparsify_file(source, tmp_path / "none" / "out.csv", rules=HALF)
    with pytest.raises(ValueError, match=r"out.parquet.gz: .*compressed in themselves"):
        sparsify_file(source, tmp_path / "out.parquet.gz", rules=HALF)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"out\.csv"):
        sparsify_file(source, tmp_path / "out.csv", rules=HALF)


def test_a_full_disk_names_the_target_and_loses_nothing(written, tmp_path, monkeypatch):
    from graphsparse.graphs.formats import text_lines

    def full(path, pieces):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    target = tmp_path / "out.csv"
    target.write_text("precious")
    monkeypatch.setattr(text_lines, "write_content", full)
    with pytest.raises(OSError, match=r"No space left on device.*out\.csv") as caught:
        sparsify_file(written("csv"), target, rules=HALF)
    assert caught.value.filename == str(target)
    assert target.read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 2
