"""GraphML: dropped edges are taken out of the bytes, and what is no single graph is refused."""

import networkx as nx
import numpy as np
import pytest

from graphsparse.errors import DataError
from graphsparse.graphs.formats import FORMATS, GraphFile, format_of, open_file

TEXT = """<?xml version="1.0" encoding="UTF-8"?>
<!-- a graph -->
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">
  <key id="d0" for="edge" attr.name="weight" attr.type="double"><default>2.50</default></key>
  <key id="d1" for="node" attr.name="name" attr.type="string"><default>none</default></key>
  <graph id="G" edgedefault="undirected">
    <node id="a"><data key="d1">A &amp; B</data></node>
    <node id="b" >  </node><node id='c'/>
    <edge source="a" target="b"><data key="d0">1e0</data></edge>
    <!-- between --><edge id="e1" source="b" target="c"
       />
    <edge sourceport="p" source="c" target="a"><data key="d9"><y:Line><edge/></y:Line></data></edge>
    <edge source="a" target="b"/>
  </graph>
</graphml>
"""


def read(folder, text, **options):
    (folder / "in.graphml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_file(folder / "in.graphml", **options)


def after(file, keep, folder):
    file.write(np.array(keep, bool), folder / "out.graphml")
    return (folder / "out.graphml").read_bytes().decode()


def test_the_bytes_that_stay_stay(tmp_path):
    file = read(tmp_path, TEXT)
    assert file.edges.edge_index.tolist() == [[0, 1, 2, 0], [1, 2, 0, 1]]
    assert file.edges.undirected
    assert file.edges.weight.tolist() == [1.0, 2.5, 2.5, 2.5]
    assert file.weights == "the attribute 'weight'"
    assert file.place(1) == "line 10"
    assert after(file, [1, 1, 1, 1], tmp_path) == TEXT
    dropped = TEXT.replace('<edge id="e1" source="b" target="c"\n       />', "")
    assert after(file, [1, 0, 1, 1], tmp_path) == dropped
    none = after(file, [0, 0, 0, 0], tmp_path)
    assert "<edge" not in none
    assert "<!-- between -->\n  </graph>" in none


@pytest.mark.parametrize("make", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_graphs_of_networkx(tmp_path, make):
    graph = make([("é", "b"), ("b", "c"), ("c", "é"), ("b", "é")])
    nx.write_graphml(graph, tmp_path / "in.graphml")
    file = open_file(tmp_path / "in.graphml")
    assert file.edges.num_edges == graph.number_of_edges()
    assert file.edges.undirected is (not graph.is_directed())
    keep = np.arange(file.edges.num_edges) != 1
    file.write(keep, tmp_path / "out.graphml")
    assert nx.read_graphml(tmp_path / "out.graphml").number_of_edges() == keep.sum()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings(tmp_path, encoding):
    text = TEXT.replace("UTF-8", encoding).replace('"a"', '"é"')
    file = read(tmp_path, text.encode(encoding))
    file.write(np.array([True, False, True, True]), tmp_path / "out.graphml")
    assert '<edge id="e1"' not in (small := (tmp_path / "out.graphml").read_bytes().decode(encoding))
    assert small.count("<edge s") == 3


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
OPEN = "<graphml><graph edgedefault='directed'><node id='a'/><node id='b'/>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no XML"),
        ("<graphml><graph>", "no XML"),
        ("<graphml/>", "no graph"),
        ("<gexf/>", "not with graphml"),
        (f"{OPEN}</graph><graph/></graphml>", "line 1 begins another graph"),
        (f"{OPEN}<node id='c'><graph/></node></graph></graphml>", "graph within a graph"),
        (f"{OPEN}<edge source='a' target='b'><graph/></edge></graph></graphml>", "graph within a graph"),
        (f"{OPEN}<hyperedge/></graph></graphml>", "hyperedge"),
        (f"{OPEN}<edge source='a' target='x'/></graph></graphml>", "'x', which is not in the graph"),
        (f"{OPEN}\n<edge source='a'/></graph></graphml>", "line 2 has an element 'edge' without 'target'"),
        (f"{OPEN}<edge source='a' target='b' directed='false'/></graph></graphml>", "otherwise"),
        (f"{OPEN}<node id='a'/></graph></graphml>", "again"),
        (f"{LAUGHS}{OPEN}</graph></graphml>", "entity 'a'"),
        (f"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>{OPEN}</graph></graphml>", "entity 'a'"),
    ],
)
def test_what_is_no_single_graph_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_direction_that_the_file_contradicts(tmp_path):
    with pytest.raises(DataError, match="cannot be read as directed"):
        read(tmp_path, TEXT, undirected=False)


class Pairs(GraphFile):
    """A format of a user: two ids on a line."""

    def __init__(self, path, undirected, weight):
        from graphsparse.graphs.interop import edge_list

        self.lines = path.read_text().splitlines()
        import torch

        ends = [list(map(int, line.split())) for line in self.lines]
        self.edges = edge_list(torch.tensor(ends).t().contiguous(), None, undirected)

    def write(self, keep, path):
        path.write_text("".join(f"{line}\n" for line, stays in zip(self.lines, keep, strict=True) if stays))


def test_formats_are_open_to_users(tmp_path, monkeypatch):
    assert {"csv", "tsv", "parquet", "npz", "graphml", "mtx"} <= set(FORMATS.names())
    FORMATS.register("pairs", Pairs)
    try:
        (tmp_path / "in.pairs").write_text("0 1\n1 2\n")
        file = open_file(tmp_path / "in.pairs")
        file.write(np.array([False, True]), tmp_path / "out.pairs")
        assert (tmp_path / "out.pairs").read_text() == "1 2\n"
        (tmp_path / "in.pairs").write_text("0 x\n")
        with pytest.raises(DataError, match=r"in\.pairs is not a graph in the format pairs"):
            open_file(tmp_path / "in.pairs")
    finally:
        del FORMATS["pairs"]
    with pytest.raises(TypeError, match="GraphFile"):
        FORMATS.register("wrong", lambda path: None)
    with pytest.raises(ValueError, match="suffix"):
        format_of(tmp_path / "x.xyz")
    (tmp_path / "my_formats.py").write_text(
        "from graphsparse.graphs.formats import FORMATS\nTable = FORMATS.find('csv')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "edges.dat").write_text("src,dst\n1,2\n")
    assert open_file(tmp_path / "edges.dat", file_format="my_formats:Table").edges.num_edges == 1
