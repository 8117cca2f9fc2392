"""Files of every kind: what is read is what independent readers read, and one kind becomes another."""

from __future__ import annotations

import gzip
import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse as gs
from graphsparse.edges import sparsify_file
from graphsparse.errors import DataError
from graphsparse.graphs import FORMATS, GraphFile, open_file

ALL = {"keep": 1.0}
HALF = {"keep": 0.5}
KARATE = nx.karate_club_graph()
EDGES = sorted(KARATE.edges())
WEIGHTS = {edge: KARATE.edges[edge]["weight"] for edge in EDGES}
EXPECTED = sorted(tuple(sorted(edge)) for edge in gs.sparsify(KARATE, keep=0.5).edges())
KINDS = ["csv", "tsv", "txt", "edgelist", "parquet", "feather", "npz", "mtx", "graphml", "gexf", "graph"]
TEXTS = ["csv", "tsv", "txt", "graphml", "gexf", "graph", "mtx"]


def needs(kind):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed") if kind in ("parquet", "feather") else None


def metis_text(graph):
    lines = [f"{len(graph)} {graph.number_of_edges()} 001"]
    lines += [" ".join(f"{v + 1} {graph[u][v]['weight']}" for v in sorted(graph[u])) for u in range(len(graph))]
    return "% the club\n" + "\n".join(lines) + "\n"


def written_by_others(path, kind):
    """The karate club with its weights, as the libraries that the kind comes from write it."""
    frame = pd.DataFrame([(u, v, w) for (u, v), w in WEIGHTS.items()], columns=["src", "dst", "weight"])
    if kind in ("csv", "tsv"):
        frame.to_csv(path, sep="," if kind == "csv" else "\t", index=False)
    elif kind == "txt":
        path.write_text("# Nodes: 34 Edges: 78\n# src\tdst\n" + "".join(f"{u}\t{v}\n" for u, v in EDGES))
    elif kind == "edgelist":
        nx.write_edgelist(KARATE, path)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "feather":
        frame.to_feather(path)
    elif kind == "npz":
        np.savez(path, edge_index=np.array(EDGES).T, weight=frame["weight"].to_numpy())
    elif kind == "mtx":
        scipy.io.mmwrite(path, scipy.sparse.tril(nx.to_scipy_sparse_array(KARATE)), symmetry="symmetric")
    elif kind == "graphml":
        nx.write_graphml(KARATE, path)
    elif kind == "gexf":
        nx.write_gexf(KARATE, path)
    else:
        path.write_text(metis_text(KARATE))
    return path


def read_by_others(path):
    """The pairs that libraries other than this one find in a file."""
    kind = path.suffix[1:]
    if kind in ("csv", "tsv"):
        pairs = pd.read_csv(path, sep="," if kind == "csv" else "\t")[["src", "dst"]].to_numpy()
    elif kind in ("txt", "edgelist"):
        pairs = nx.read_edgelist(path, nodetype=int, data=False).edges()
    elif kind == "parquet":
        pairs = pd.read_parquet(path)[["src", "dst"]].to_numpy()
    elif kind == "feather":
        pairs = pd.read_feather(path)[["src", "dst"]].to_numpy()
    elif kind == "npz":
        pairs = np.load(path)["edge_index"].T
    elif kind == "mtx":
        pairs = np.argwhere(np.tril(scipy.io.mmread(path).toarray()))
    elif kind == "graphml":
        pairs = [(int(u), int(v)) for u, v in nx.read_graphml(path).edges()]
    elif kind == "gexf":
        pairs = [(int(u), int(v)) for u, v in nx.read_gexf(path).edges()]
    else:
        networkit = pytest.importorskip("networkit", reason="networkit is not installed")
        pairs = networkit.readGraph(str(path), networkit.Format.METIS).iterEdges()
    return sorted((min(int(u), int(v)), max(int(u), int(v))) for u, v in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_as_the_same_kind(tmp_path, kind):
    needs(kind)
    source, target = written_by_others(tmp_path / f"in.{kind}", kind), tmp_path / f"out.{kind}"
    report = sparsify_file(source, target, undirected=True, rules=HALF)
    assert "kept 39 of 78 undirected edges" in report
    assert "does not hold" not in report
    assert read_by_others(target) == EXPECTED
    whole = sparsify_file(source, tmp_path / f"all.{kind}", undirected=True, rules=ALL)
    assert "kept 78 of 78" in whole
    if kind in (*TEXTS, "edgelist"):
        assert (tmp_path / f"all.{kind}").read_bytes() == source.read_bytes()
        assert set(target.read_bytes().splitlines()) - set(source.read_bytes().splitlines()) <= changed(kind, target)


def changed(kind, target):
    """Lines that count what is there, and those of METIS that lose a neighbour."""
    lines = target.read_bytes().splitlines()
    return {"mtx": set(lines[:3]), "graph": set(lines)}.get(kind, set())


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("kind", ["csv", "txt", "npz", "mtx", "graphml", "gexf", "graph", "feather"])
def test_one_kind_becomes_another(tmp_path, kind, into):
    needs(kind), needs(into)
    source, target = written_by_others(tmp_path / f"in.{kind}", kind), tmp_path / f"out.{into}"
    report = sparsify_file(source, target, undirected=True, rules=HALF)
    assert sorted(set(read_by_others(target))) == EXPECTED  # METIS lists both arcs of a pair, and so do its lists
    again = open_file(target, undirected=True)
    assert again.edges.num_countable == 39
    if kind != "txt" and into not in ("txt", "edgelist"):
        names = range(34) if again.labels is None else again.labels
        ends = [(int(names[u]), int(names[v])) for u, v in again.edges.edge_index.t().tolist()]
        found = {(min(end), max(end)): w for end, w in zip(ends, again.edges.weight.tolist(), strict=True)}
        assert found == {pair: WEIGHTS[pair] for pair in EXPECTED}
    if into in ("graphml", "gexf", "graph", "mtx") or FORMATS[kind] is FORMATS[into]:
        assert "read it as undirected" not in report
    elif kind != "graph":
        assert "each pair stands in it once: read it as undirected" in report


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_packed_texts(tmp_path, kind, packing):
    if packing == "zst":
        pytest.importorskip("zstandard", reason="zstandard is not installed")
    plain = written_by_others(tmp_path / f"in.{kind}", kind)
    source, target = tmp_path / f"in.{kind}.{packing}", tmp_path / f"out.{kind}"
    sparsify_file(plain, source, undirected=True, rules=ALL)  # packed on the way
    assert source.read_bytes()[:2] == {"gz": b"\x1f\x8b", "zst": b"\x28\xb5"}[packing]
    sparsify_file(source, target, undirected=True, rules=HALF)
    sparsify_file(plain, tmp_path / f"same.{kind}", undirected=True, rules=HALF)
    assert target.read_bytes() == (tmp_path / f"same.{kind}").read_bytes()


def test_bad_packings(tmp_path, monkeypatch):
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    good = b"0 1\n1 2\n"
    frame = zstandard.ZstdCompressor().compress(good)
    cases = {
        "a.txt.gz": (good, "no gzip file"),
        "b.txt.gz": (gzip.compress(good)[:-4], "no gzip file, or a damaged one"),
        "c.txt.zst": (good, "no zstd file"),
        "d.txt.zst": (frame[:-3], "it ends within a frame"),
        "e.txt.zst": (frame + b"xx", "no zstd file, or a damaged one"),
        "f.txt.zst": (b"", "no zstd file"),
        "g.npz.gz": (gzip.compress(good), "compressed in themselves"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            open_file(tmp_path / name)
    (tmp_path / "two.txt.zst").write_bytes(frame + zstandard.ZstdCompressor().compress(b"2 0\n"))
    assert open_file(tmp_path / "two.txt.zst").edges.num_edges == 3
    from graphsparse.graphs.formats import content

    monkeypatch.setattr(content, "most_unpacked", lambda packed: 1 << 16)  # a bomb, small enough for a test
    for name, packed in (
        ("bomb.txt.gz", gzip.compress(b"0 1\n" * (1 << 20))),
        ("bomb.txt.zst", zstandard.ZstdCompressor().compress(b"0 1\n" * (1 << 20))),
    ):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(DataError, match="unpack into more than 65,536"):
            open_file(tmp_path / name)
    monkeypatch.undo()
    huge = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    wide = zstandard.ZstdCompressor(compression_params=huge).compressobj()
    (tmp_path / "wide.txt.zst").write_bytes(wide.compress(good) + wide.flush())
    with pytest.raises(DataError, match=r"no zstd file.*memory"):  # it asks for a window of 1 GB
        open_file(tmp_path / "wide.txt.zst")


@pytest.mark.parametrize(
    ("text", "options", "edges", "weights"),
    [
        ("0 1\n1 2\n", {}, [(0, 1), (1, 2)], None),
        ("# c\n% d\n\n0\t1\n1\t2\n", {}, [(0, 1), (1, 2)], None),
        ("src dst w\n0 1 5\n1 2 6\n", {"weight": "w"}, [(0, 1), (1, 2)], [5, 6]),
        ("0 1 5\n1 2 6\n", {"weight": "3"}, [(0, 1), (1, 2)], [5, 6]),
        ("5 0 1\n6 1 2\n", {"src": "2", "dst": "3", "weight": "1"}, [(0, 1), (1, 2)], [5, 6]),
        ("1 2\n2 3\n", {"one_based": True}, [(0, 1), (1, 2)], None),
        ("0, 1\n1, 2\n", {}, [(0, 1), (1, 2)], None),
        ("0 1 {'weight': 3, 'x': 'a b'}\n1 2 {}\n", {}, [(0, 1), (1, 2)], [3, 1]),
        ("0 1 {'weight': 3, 'w': 5}\n1 2 {'w': 0.5}\n", {"weight": "w"}, [(0, 1), (1, 2)], [5, 0.5]),
        ('0,1,{"weight": 3}\n1,2,{"weight": 4}\n', {}, [(0, 1), (1, 2)], [3, 4]),
        ("0 1 {'color': 3}\n1 2 {}\n", {}, [(0, 1), (1, 2)], None),
        ("src dst Weight\n0 1 5\n1 2 6\n", {}, [(0, 1), (1, 2)], [5, 6]),
        ("from to\n0 1\n1 2\n", {"src": "from", "dst": "to"}, [(0, 1), (1, 2)], None),
        ("a b\n0 1\n1 2\n", {"header": True, "src": "a", "dst": "b"}, [(0, 1), (1, 2)], None),
        ("0 1\r\n1 2\r\n", {}, [(0, 1), (1, 2)], None),
        ("FromNodeId ToNodeId\n0 1\n1 2\n", {}, [(0, 1), (1, 2)], None),
        ("", {}, [], None),
    ],
)
def test_plain_lists(tmp_path, text, options, edges, weights):
    (tmp_path / "in.txt").write_bytes(text.encode())
    file = open_file(tmp_path / "in.txt", **options)
    names = file.edges.names.astype(np.int64)
    assert [(int(names[u]), int(names[v])) for u, v in file.edges.edge_index.t().tolist()] == edges
    assert (None if weights is None else file.edges.weight.tolist()) == weights
    file.write(np.ones(len(edges), bool), tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("0 1\n1\n", {}, "line 2 has 1 cells, and an edge has two ends"),
        ("0 1\n1 2 3\n", {}, "line 2 has 3 cells, and the first has 2; they are separated by white space"),
        ("0,1\n1 2\n", {}, "line 2 has 1 cells.*separated by ',' as in the first line"),
        ("0,\n1,2\n", {}, "line 1 has 2 cells, and an edge|line 1 has"),
        ("0 1\n1 2\n", {"one_based": True}, "line 1 names node 0, and ids that count from 1"),
        ("a b\n", {"one_based": True}, "whole numbers, and there are other labels"),
        ("0 1 {'a': 1}\n", {"weight": "w"}, "no column 'w' to take weights from; there are 1, 2, 3, a"),
        ("0 1\n", {"weight": "3"}, "no column '3' to take weights from; there are 1, 2"),
        ("0 1\n", {"src": "x", "dst": "y"}, "no column 'x'"),
        ("\x00\x01", {}, "NUL byte"),
    ],
)
def test_plain_lists_that_are_none(tmp_path, text, options, said):
    (tmp_path / "in.txt").write_bytes(text.encode())
    with pytest.raises(DataError, match=rf"in\.txt .*{said}"):
        open_file(tmp_path / "in.txt", **options)


def test_lists_of_networkx(tmp_path):
    graph = nx.Graph([(0, 1, {"weight": 2.5, "name": "a {b}"}), (1, 2, {"weight": 1e-3}), (2, 3, {})])
    nx.write_edgelist(graph, tmp_path / "in.edgelist")
    file = open_file(tmp_path / "in.edgelist")
    assert file.weights == "the attribute 'weight'"
    assert file.edges.weight.tolist() == [2.5, 1e-3, 1.0]
    sparsify_file(tmp_path / "in.edgelist", tmp_path / "out.csv", "random", rules={"keep": 1})
    assert (tmp_path / "out.csv").read_text() == "src,dst,weight\n0,1,2.5\n1,2,0.001\n2,3,1\n"


def test_what_is_no_dictionary_is_told_and_stays(tmp_path):
    for cell in ("{a: 1}", "{1, 2}", "{" + "[" * 9999, "{'a': f()}"):
        (tmp_path / "in.txt").write_text(f"0 1 {cell}\n1 2 {{}}\n")
        file = open_file(tmp_path / "in.txt")
        assert file.edges.weight is None
        assert "what stands behind the ends, such as {" in file.note


@pytest.mark.parametrize("text", ["3,4,0.5\n4,5,0.25\n", "src,dst,w\n3,4,0.5\n4,5,0.25\n"])
def test_tables_without_a_header_are_seen_where_it_is_certain(tmp_path, text):
    (tmp_path / "in.csv").write_text(text)
    headless = text[0] == "3"
    file = open_file(tmp_path / "in.csv", weight="3" if headless else "w")
    assert (file.edges.num_edges, file.edges.weight.tolist()) == (2, [0.5, 0.25])
    assert ("no header (found so)" in file.note) is headless
    (tmp_path / "words.csv").write_text("a,b\nb,c\n")
    assert open_file(tmp_path / "words.csv", header=False).edges.num_edges == 2
    assert open_file(tmp_path / "words.csv", src="a", dst="b").edges.num_edges == 1
    with pytest.raises(DataError, match=r"no column 'src'.*say header=False \(--no-header\)"):
        open_file(tmp_path / "words.csv")
    (tmp_path / "twice.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="two columns are named 'a'"):
        open_file(tmp_path / "twice.csv", src="a", dst="b")
    (tmp_path / "mixed.csv").write_text("src,dst\n1,2\n2;3\n")
    with pytest.raises(DataError, match=r"line 3 has 1 cells, and the header has 2 \(separated by ','\)"):
        open_file(tmp_path / "mixed.csv")
    with pytest.raises(ValueError, match="src is no option of a file in the format graphml"):
        open_file(tmp_path / "x.graphml", src="a")


BOTH_WAYS = [(0, 1), (1, 0), (1, 2), (0, 1), (2, 2), (3, 1)]  # {0, 1} twice, once in both directions


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "parquet"])
def test_edges_in_both_directions_and_in_one_are_taken_together_as_undirected(tmp_path, suffix):
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    weights = [1.0, 5.0, 2.0, 3.0, 9.0, 4.0]
    rows = [(f"n{u}", f"n{v}", w) for (u, v), w in zip(BOTH_WAYS, weights, strict=True)]
    frame = pd.DataFrame(rows, columns=["src", "dst", "weight"])
    if suffix == "parquet":
        frame.to_parquet(source, index=False)
    else:
        frame.to_csv(source, index=False, sep={"csv": ",", "tsv": "\t", "txt": " "}[suffix])
    file = open_file(source, undirected=True)
    assert (file.edges.num_countable, file.edges.num_edges) == (4, 5)  # and a loop
    assert file.edges.weight.tolist() == [5, 2, 3, 9, 4]  # of an edge's two lines the larger
    assert file.both_ways.edge_of.tolist() == [0, 0, 1, 2, 3, 4]
    said = sparsify_file(source, out, "random", undirected=True, rules={"keep": 0.5})
    assert "kept 2 of 4 undirected edges" in said
    assert "1 edge stands in both directions, and is one edge" in said
    for keep in (np.array([True, False, False, True, False]), np.array([False, True, True, True, True])):
        file.write(file.lines_of(keep), out)
        back = open_file(out, undirected=True)
        assert back.edges.num_countable == keep.sum() - keep[3]  # a loop is not counted
        assert back.edges.weight.max() == 9
    said = sparsify_file(source, tmp_path / "out.graphml", undirected=True, rules={"keep": 1})
    assert "does not hold the second line of edges that stand in both directions" in said
    assert open_file(tmp_path / "out.graphml").edges.num_countable == 4
    assert open_file(source).edges.undirected is False  # nobody says that a line is an edge
    same = open_file(source, undirected=True).edges
    turned = frame.iloc[::-1]
    turned.to_csv(tmp_path / "turned.csv", index=False)
    other = open_file(tmp_path / "turned.csv", undirected=True).edges
    assert sorted(map(sorted, _named(same))) == sorted(map(sorted, _named(other)))


def _named(edges):
    return [tuple(edges.names[[u, v]].tolist()) for u, v in edges.edge_index.t().tolist()]


def _texts(file):
    return [(str(file.labels[u]), str(file.labels[v])) for u, v in file.edges.edge_index.t().tolist()]


def test_an_error_names_the_line_of_an_edge_that_stands_in_both_directions(tmp_path):
    (tmp_path / "a.csv").write_text("src,dst,weight\n0,1,1\n1,0,2\n1,2,x\n")
    file = open_file(tmp_path / "a.csv", undirected=True)
    assert file.place(1) == "line 4"


WORDS = ["from", "to", "src", "dst", "u", "alice", "bob", "1", "2", "30"]


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_what_is_written_without_a_header_is_read_back_the_same(tmp_path, suffix):
    """Whatever lines stay, the first of them is not taken for a header, and no header for an edge."""
    drawn = np.random.default_rng(0)
    source, out, tried = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}", 0
    for trial in range(160):
        names = WORDS if trial % 2 else WORDS[-3:]
        pairs = [(drawn.choice(names), drawn.choice(names)) for _ in range(drawn.integers(1, 14))]
        first = [("alice", "bob"), ("u", "to"), ("1", "2"), ("src", "dst")][trial % 4]
        pairs = [first, *pairs] if trial % 3 else [("1", "2"), first, *pairs]
        source.write_text("".join(f"{u},{v}\n" if suffix == "csv" else f"{u} {v}\n" for u, v in pairs))
        try:
            file = open_file(source)
        except DataError:
            continue
        keep = drawn.random(file.edges.num_edges) < 0.4
        if not keep.any():
            continue
        tried += 1
        file.write(keep, out)
        assert _texts(open_file(out)) == list(itertools.compress(_texts(file), keep)), out.read_text()
    assert tried > 40


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("from to\n0 1\n1 2\n", True),
        ("FromNodeId\tToNodeId\n0\t1\n", True),
        ("alice bob\n0 1\n1 2\n", False),
        ("alice bob\n" + "0 1\n" * 10, False),
        ("# no header\nfrom to\n0 1\n", False),
        ("from to\nx y\n", False),
        ("from 1\n0 1\n", False),
    ],
)
def test_a_first_line_of_words_is_a_header_where_it_reads_like_one_and_it_is_told(tmp_path, text, header):
    (tmp_path / "a.txt").write_text(text)
    file = open_file(tmp_path / "a.txt")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert file.edges.num_edges == len(lines) - header
    guessed = not text.startswith("#") and all(cell.isdecimal() for line in lines[1:] for cell in line.split())
    words = not any(cell.isdecimal() for cell in lines[0].split())
    assert ("(found so)" in file.note) is (guessed and words)
    assert ("is a header" in file.note) is header


def test_plain_lists_are_read_at_once_as_they_are_line_by_line(tmp_path, monkeypatch):
    from graphsparse.graphs.formats.edge_list_text import EdgeListText

    texts = [
        "0 1\n1 2\n", "0\t1\n1\t2\n", "# c\n\n0 1 5\n1 2 6", "0 1\n# c\n1 2\n", "0  1\n1 2\n", "a b\n b c\n",
        "0 1 \n1 2 \n", "0 1\r\n1 2\r\n", "é 1\n1 2\n", "0\x0b1 2\n3 4\n", "x y z\nz y x\n", "\ufeff0 1\n1 2\n",
        "0 1\n\n1 2\n", "a\tb c\nd\te f\n", '"a" b\nc d\n', "0 1 {}\n1 2 {}\n", "a,b c\nd,e f\n", "from to\n0 1\n",
        "0 1\n1 2\n\n", "% k\n0 1\n1 0\n",
    ]  # fmt: skip
    quick = EdgeListText._plain_rows
    at_once = 0
    for text in texts:
        (tmp_path / "a.txt").write_bytes(text.encode())
        found = []
        for fast in (True, False):
            monkeypatch.setattr(EdgeListText, "_plain_rows", quick if fast else lambda *_: None)
            try:
                file = open_file(tmp_path / "a.txt")
                at_once += type(file.rows).__name__ == "_PlainRows"
                found.append((_texts(file), file.names, file.starts.tolist(), file.note, file.content().columns))
            except DataError as error:
                found.append(str(error))
        assert found[0] == found[1], text
    assert at_once >= 7


GEXF = """<?xml version="1.0"?>
<gexf xmlns="http://gexf.net/1.3" version="1.3">
  <graph defaultedgetype="undirected" mode="static">
    <attributes class="edge"><attribute id="0" title="kind" type="string"><default>x</default></attribute></attributes>
    <nodes><node id="a" label="A"/><node id="b"><nodes><node id="c"/></nodes></node></nodes>
    <edges count="3">
      <edge id="0" source="a" target="b" weight="2.5"><attvalues><attvalue for="0" value="y"/></attvalues></edge>
      <!-- between --><edge id="1" source="b" target="c"/>
      <edge id="2" source="c" target="a" weight="4"/>
    </edges>
  </graph>
</gexf>
"""


def test_gexf_keeps_its_bytes_and_counts(tmp_path):
    (tmp_path / "in.gexf").write_text(GEXF)
    file = open_file(tmp_path / "in.gexf")
    assert (file.edges.undirected, file.edges.weight.tolist()) == (True, [2.5, 1.0, 4.0])
    assert file.place(1) == "line 8"
    file.write(np.ones(3, bool), tmp_path / "all.gexf")
    assert (tmp_path / "all.gexf").read_text() == GEXF
    file.write(np.array([True, False, True]), tmp_path / "out.gexf")
    expected = GEXF.replace('<edge id="1" source="b" target="c"/>', "").replace('count="3"', 'count="2"')
    assert (tmp_path / "out.gexf").read_text() == expected
    assert file.content().columns == {"kind": ["y", "x", "x"], "weight": ["2.5", "1", "4"]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('mode="static"', 'mode="dynamic"', "line 3 begins a dynamic graph"),
        ('target="c"/>', 'target="c" start="2001"/>', "line 8 has an edge with 'start'"),
        ('target="c"/>', 'target="c"><spells><spell start="1"/></spells></edge>', "line 8 .*spells"),
        ('value="y"/>', 'value="y" start="1"/>', "line 7 has a value that changes with time"),
        ('target="c"/>', 'target="c" type="directed"/>', "line 8 has an edge of the type 'directed' beside others"),
        ('id="1" source="b"', 'id="1" source="z"', "line 8 has an edge of the node 'z', which is not in the graph"),
        ('id="1" source="b"', 'id="1"', "line 8 has an element 'edge' without 'source'"),
        ('<node id="c"/>', '<node id="a"/>', "line 5 names the node 'a' again"),
        ("<gexf", '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><gexf', "declares the entity 'a'"),
        ("</gexf>", "", "is no XML"),
        ("gexf", "graphml", "begins with the element 'graphml', not with gexf"),
    ],
)
def test_gexf_that_is_no_static_graph(tmp_path, old, new, said):
    (tmp_path / "in.gexf").write_text(GEXF.replace(old, new))
    with pytest.raises(DataError, match=said):
        open_file(tmp_path / "in.gexf")


METIS = "% a comment\n4 4 011 1\n7 2 5 3 6\n8 1 5\n9 1 6 4 2\n% between\n10 3 2\n"


def test_metis_by_hand(tmp_path):
    (tmp_path / "in.graph").write_text(METIS.replace("4 4 011", "4 3 011"))
    file = open_file(tmp_path / "in.graph")
    assert file.edges.edge_index.tolist() == [[0, 0, 1, 2, 2, 3], [1, 2, 0, 0, 3, 2]]
    assert file.edges.weight.tolist() == [5, 6, 5, 6, 2, 2]
    file.write(np.array([1, 0, 1, 0, 1, 1], bool), tmp_path / "out.graph")
    assert (tmp_path / "out.graph").read_text() == "% a comment\n4 2 011 1\n7 2 5\n8 1 5\n9 4 2\n% between\n10 3 2\n"
    assert file.content().lost == ("what the nodes carry",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (METIS, "its header promises 4 edges.*list 6 neighbours"),
        ("5 1\n2\n1\n\n\n", "promises 5 nodes, and 4 lines follow"),
        ("2 1\n2\n1\n1\n", "promises 2 nodes, and 3 lines follow"),
        ("3 1\n2\n3\n\n", "line 2 names 2 as a neighbour of 1, and line 3 does not name it"),
        ("2 1\n1\n1\n", "line 2 names node 1 as its own neighbour"),
        ("2 1\n3\n1\n", "line 2 names the neighbour b'3', and ids go from 1 to 2"),
        ("2 1 1\n2\n1 1\n", "line 2 has 1 numbers, which do not fit the header"),
        ("2 one\n", "line 1 must be the header"),
        ("2 1 7\n2\n1\n", "format '007'"),
        ("", "it is empty"),
    ],
)
def test_metis_that_lies(tmp_path, text, said):
    (tmp_path / "in.graph").write_text(text)
    with pytest.raises(DataError, match=said):
        open_file(tmp_path / "in.graph")


def test_what_another_kind_cannot_hold_is_said_in_one_line(tmp_path):
    (tmp_path / "in.csv").write_text("src,dst,note\na b,c,x y\nc,d,z\n")
    with pytest.raises(ValueError, match=r"out\.txt: the label 'a b' cannot stand"):
        sparsify_file(tmp_path / "in.csv", tmp_path / "out.txt", rules=ALL)
    assert not (tmp_path / "out.txt").exists()
    with pytest.raises(ValueError, match=r"METIS files hold undirected graphs: give --undirected"):
        sparsify_file(tmp_path / "in.csv", tmp_path / "out.graph", rules=ALL)
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.mtx", rules=ALL)
    assert "out.mtx does not hold the labels of nodes (they are numbered as they appear), the column 'note'" in report
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.npz", rules=ALL)
    arrays = np.load(tmp_path / "out.npz")
    assert arrays["labels"].tolist() == ["a b", "c", "d"]
    assert arrays["note"].tolist() == ["x y", "z"]
    assert "does not hold" not in report
    np.savez(tmp_path / "in.npz", edge_index=np.array([[0, 1], [1, 2]]), num_nodes=5, x=np.ones((5, 2)))
    report = sparsify_file(tmp_path / "in.npz", tmp_path / "out.csv", rules=ALL)
    assert "out.csv does not hold the array 'x', 2 nodes without an edge" in report
    sparsify_file(tmp_path / "in.csv", tmp_path / "out.graphml", rules=ALL)
    assert nx.read_graphml(tmp_path / "out.graphml").edges["a b", "c"] == {"note": "x y"}


def test_two_arcs_that_carry_different_things(tmp_path):
    (tmp_path / "in.csv").write_text("src,dst,weight\n0,1,1\n1,0,2\n1,2,3\n2,1,3\n2,2,9\n")
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.graphml", rules=ALL)
    assert "does not hold what the second arc of a pair carries in weight" in report
    assert sorted(nx.read_graphml(tmp_path / "out.graphml").edges(data="weight")) == [
        ("0", "1", 1),
        ("1", "2", 3),
        ("2", "2", 9),
    ]
    report = sparsify_file(tmp_path / "in.csv", tmp_path / "out.graph", rules=ALL)
    assert "1 self-loops" in report
    assert (tmp_path / "out.graph").read_text() == "3 2 001\n2 1\n1 1 3 3\n2 3\n"


@pytest.mark.parametrize("name", ["Planetoid/Cora", "wordnet/wordnet_synsets.npz"])
def test_real_graphs_through_every_kind_of_file(need, tmp_path, name):
    needs("parquet")
    need(name)
    if "wordnet" in name:
        edges = np.load(need(name))["edges"]
        arcs = np.ascontiguousarray(edges if edges.shape[0] == 2 else edges.T, np.int64)[:, :8000]
        arcs = np.unique(arcs, return_inverse=True)[1].reshape(2, -1)
    else:
        arcs = gs.data.load("cora").edge_index.numpy()
    arcs = arcs[:, np.sort(np.unique(arcs, axis=1, return_index=True)[1])]
    expected = gs.sparsify(torch.from_numpy(arcs), keep=0.4)
    pairs = sorted(map(tuple, expected.t().tolist()))
    if "wordnet" not in name:
        pairs = [(u, v) for u, v in pairs if u <= v]
    np.savez(tmp_path / "in.npz", edge_index=arcs)
    for kind in KINDS:
        if kind == "graph" and "wordnet" in name:
            continue  # it is directed
        report = sparsify_file(tmp_path / "in.npz", tmp_path / f"out.{kind}", rules={"keep": 0.4})
        assert "does not hold" not in report or kind == "graph" or "nodes without an edge" in report
        file = open_file(tmp_path / f"out.{kind}")
        names = range(file.edges.num_nodes) if file.labels is None else file.labels
        both = sorted((int(names[u]), int(names[v])) for u, v in file.edges.edge_index.t().tolist())
        both = both if "wordnet" in name else sorted({(min(pair), max(pair)) for pair in both})
        assert both == pairs, kind


def test_a_path_is_a_graph(tmp_path):
    source = written_by_others(tmp_path / "in.csv", "csv")
    for path in (source, str(source)):
        small = gs.sparsify(path, keep=0.5, undirected=True)
        assert (small.num_edges, small.edge_index.shape) == (39, (2, 39))
        assert small.write(tmp_path / "out.csv") == ""
        assert read_by_others(tmp_path / "out.csv") == EXPECTED
    assert repr(small) == "KeptFile(in.csv: 39 of 78 edges)"
    assert "each pair stands in it once" in small.write(tmp_path / "out.tsv")
    assert gs.sparsify(small, keep=0.5).num_edges == 20
    assert gs.edges.score(source, undirected=True).shape == (78,)
    (tmp_path / "named.csv").write_text("a,b\n1,2\n2,3\n")
    assert gs.sparsify(tmp_path / "named.csv", keep=0.5, src="a", dst="b").num_edges == 1
    with pytest.raises(DataError, match="does not exist"):
        gs.sparsify(tmp_path / "none.csv", keep=0.5)
    (tmp_path / "graph.xyz").write_text("0 1\n")
    with pytest.raises(ValueError, match=r"suffix '\.xyz', which is not known; known are .*\.csv.*--format"):
        gs.sparsify(tmp_path / "graph.xyz", keep=0.5)
    with pytest.raises(DataError, match="is a folder"):
        gs.sparsify(tmp_path, keep=0.5)
    with pytest.raises(DataError, match=r"cora does not exist; data sets are loaded by graphsparse.data.load"):
        gs.sparsify("cora", keep=0.5)
    with pytest.raises(ValueError, match="new weights are not written into a file"):
        gs.edges.sample(source, keep=0.5, undirected=True)


def test_users_formats_that_convert_nothing(tmp_path):
    class Plain(FORMATS["txt"]):
        content = GraphFile.content

    FORMATS.register("mine", Plain)
    try:
        (tmp_path / "in.mine").write_text("0 1\n1 2\n")
        with pytest.raises(ValueError, match="written as the same kind only"):
            sparsify_file(tmp_path / "in.mine", tmp_path / "out.csv", rules=ALL)
        sparsify_file(tmp_path / "in.mine", tmp_path / "out.mine", rules=ALL)
    finally:
        del FORMATS["mine"]


DAMAGE = [b"", b"9", b"\n", b'"', b"-1", b" ", b"\xff", b"<a>", b"1 1", b"\0"]


@pytest.mark.parametrize("kind", ["csv", "txt", "gexf", "graphml", "graph", "mtx"])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_damaged_texts_are_read_or_refused(kind, data, tmp_path_factory):
    """Any bytes cut out, doubled or exchanged: a graph, or one DataError with the file's name; never anything else."""
    folder = tmp_path_factory.mktemp("damage")
    path = written_by_others(folder / f"a.{kind}", kind)
    whole = path.read_bytes()
    content = bytearray(whole[:600] + whole[-200:] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at, size = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 12))
        content[at : at + size] = data.draw(st.sampled_from(DAMAGE))
    path.write_bytes(content)
    try:
        file = open_file(path)
        file.write(np.arange(file.edges.num_edges) % 2 == 0, folder / f"b.{kind}")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
