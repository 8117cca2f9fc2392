"""Graphs and tables of other libraries: everything else stays, and order, names and types with it."""

from __future__ import annotations

import sys
import types

import networkx as nx
import numpy as np
import pytest
import torch

import graphsparse as gs
from graphsparse.graphs import open_graph

KARATE = nx.karate_club_graph()
EDGES = list(KARATE.edges())


def in_order(edges):
    return sorted((min(edge), max(edge)) for edge in edges)


EXPECTED = in_order(gs.sparsify(nx.Graph(EDGES), "teddy", keep=0.5).edges())


class TestIgraph:
    """igraph."""

    @pytest.fixture
    def igraph(self):
        return pytest.importorskip("igraph", reason="igraph is not installed")

    def test_attributes_and_order_stay(self, igraph):
        graph = igraph.Graph.from_networkx(KARATE)
        graph["title"] = "club"
        graph.es["number"] = range(78)
        small = gs.sparsify(graph, keep=0.5)
        assert (type(small), small["title"], small.vs["club"]) == (igraph.Graph, "club", graph.vs["club"])
        assert sorted(small.get_edgelist()) == EXPECTED
        assert small.es["number"] == sorted(small.es["number"])  # the edges' own order
        assert [graph.get_edgelist()[at] for at in small.es["number"]] == small.get_edgelist()
        assert [graph.es["weight"][at] for at in small.es["number"]] == small.es["weight"]
        assert graph.ecount() == 78

    def test_weights_and_names(self, igraph):
        graph = igraph.Graph.from_networkx(KARATE)
        plain = gs.sparsify(KARATE, "effective_resistance", keep=0.5)
        assert sorted(gs.sparsify(graph, "effective_resistance", keep=0.5).get_edgelist()) == sorted(plain.edges())
        with pytest.raises(ValueError, match="no edge attribute 'length'"):
            gs.sparsify(graph, keep=0.5, weight="length")
        graph.vs["name"] = [f"v{i}" for i in range(34)]
        named = nx.relabel_nodes(KARATE, {i: f"v{i}" for i in range(34)})
        small = gs.sparsify(graph, "random", keep=0.5)
        kept = {frozenset(small.vs[end]["name"] for end in edge) for edge in small.get_edgelist()}
        assert kept == {frozenset(edge) for edge in gs.sparsify(named, "random", keep=0.5).edges()}
        drawn = gs.edges.sample(graph, "dspar", keep=0.5)
        assert len(drawn.es["weight"]) == 39

    def test_direction(self, igraph):
        graph = igraph.Graph(n=3, edges=[(0, 1), (1, 0), (1, 2), (2, 1)], directed=True)
        assert not open_graph(graph).edges.undirected
        assert open_graph(graph, True).edges.mirrored
        with pytest.raises(ValueError, match="as_directed"):
            open_graph(igraph.Graph(n=2, edges=[(0, 1)]), False)


class TestNetworkit:
    """networkit."""

    @pytest.fixture
    def networkit(self):
        return pytest.importorskip("networkit", reason="networkit is not installed")

    def test_weights_ids_and_attributes_stay(self, networkit):
        graph = networkit.nxadapter.nx2nk(KARATE, weightAttr="weight")
        graph.indexEdges()
        colours = graph.attachNodeAttribute("colour", int)
        colours[3] = 7
        numbers = graph.attachEdgeAttribute("number", int)
        ids = {(u, v): graph.edgeId(u, v) for u, v in graph.iterEdges()}
        for at in ids.values():
            numbers[at] = at
        small = gs.sparsify(graph, keep=0.5)
        assert in_order(small.iterEdges()) == EXPECTED
        assert small.getNodeAttribute("colour", int)[3] == 7
        assert all(small.weight(u, v) == graph.weight(u, v) for u, v in small.iterEdges())
        assert all(small.edgeId(u, v) == graph.edgeId(u, v) for u, v in small.iterEdges())
        kept = small.getEdgeAttribute("number", int)
        assert all(kept[small.edgeId(u, v)] == small.edgeId(u, v) for u, v in small.iterEdges())
        assert graph.numberOfEdges() == 78

    def test_parallel_edges_and_new_weights(self, networkit):
        graph = networkit.Graph(3, weighted=True)
        for edge in ((0, 1, 2.0), (0, 1, 5.0), (1, 2, 3.0), (2, 2, 1.0)):
            graph.addEdge(*edge)
        order = [weight for _, _, weight in graph.iterEdgesWeights()]
        scores = torch.tensor([{2.0: 0.0, 5.0: 2.0, 3.0: 1.0, 1.0: 0.0}[weight] for weight in order])
        small = gs.sparsify(graph, scores, keep=0.6)
        assert sorted(small.iterEdgesWeights()) == [(0, 1, 5.0), (1, 2, 3.0), (2, 2, 1.0)]
        plain = networkit.nxadapter.nx2nk(KARATE)
        drawn = gs.edges.sample(plain, "dspar", keep=0.5)
        assert drawn.isWeighted()
        assert max(weight for *_, weight in drawn.iterEdgesWeights()) > 1
        assert not plain.isWeighted()

    def test_direction_and_deleted_nodes(self, networkit):
        graph = networkit.Graph(4, directed=True)
        graph.addEdge(0, 1)
        graph.addEdge(1, 3)
        graph.removeNode(2)
        small = gs.sparsify(graph, torch.tensor([0.0, 1.0]), keep=0.5)
        assert list(small.iterEdges()) == [(1, 3)]
        assert (small.numberOfNodes(), small.upperNodeIdBound()) == (3, 4)
        with pytest.raises(ValueError, match="undirected"):
            open_graph(networkit.Graph(2), False)


def frame(library, **columns):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)


def columns_of(table):
    if hasattr(table, "to_pydict"):
        return table.to_pydict()
    return table.to_dict("list") if hasattr(table, "index") else table.to_dict(as_series=False)


TAILS, HEADS = ([edge[end] for edge in EDGES] for end in (0, 1))
LIBRARIES = ["pandas", "polars", "pyarrow"]


@pytest.mark.parametrize("library", LIBRARIES)
class TestTables:
    """pandas, polars, pyarrow."""

    def test_columns_types_and_order_stay(self, library):
        table = frame(library, since=[f"y{i}" for i in range(78)], target=HEADS, source=TAILS, weight=np.arange(78) / 2)
        small = gs.sparsify(table, keep=0.5, undirected=True)
        found, whole = columns_of(small), columns_of(table)
        assert type(small) is type(table)
        assert list(found) == ["since", "target", "source", "weight"]
        assert sorted(zip(found["source"], found["target"], strict=True)) == EXPECTED
        rows = [int(year[1:]) for year in found["since"]]
        assert rows == sorted(rows)
        assert {name: [whole[name][row] for row in rows] for name in whole} == found

    def test_labels_and_names_of_columns(self, library):
        words = [f"v{i}" for i in range(34)]
        table = frame(library, a=[words[u] for u in TAILS], b=[words[v] for v in HEADS], w=np.ones(78))
        graph = nx.relabel_nodes(nx.Graph(EDGES), dict(enumerate(words)))
        small = columns_of(gs.sparsify(table, "random", keep=0.5, undirected=True, src="a", dst="b"))
        kept = {frozenset(pair) for pair in zip(small["a"], small["b"], strict=True)}
        assert kept == {frozenset(edge) for edge in gs.sparsify(graph, "random", keep=0.5).edges()}
        with pytest.raises(ValueError, match=r"no column 'src'.*given by src= and dst="):
            gs.sparsify(table, keep=0.5)
        with pytest.raises(ValueError, match=r"no column 'c'; it has 'a, b, w'"):
            gs.sparsify(table, keep=0.5, src="a", dst="c")
        with pytest.raises(ValueError, match="name both columns"):
            gs.sparsify(table, keep=0.5, src="a")
        drawn = gs.edges.sample(table, "dspar", keep=0.5, undirected=True, src="a", dst="b", weight="w")
        assert list(columns_of(drawn)) == ["a", "b", "w"]
        assert max(columns_of(drawn)["w"]) > 1

    def test_weights_are_read(self, library):
        values = [1.0 + (7 * u + 3 * v) % 11 for u, v in EDGES]
        graph = nx.Graph()
        graph.add_weighted_edges_from([(u, v, w) for (u, v), w in zip(EDGES, values, strict=True)])
        table = frame(library, src=TAILS, dst=HEADS, weight=values)
        small = columns_of(gs.sparsify(table, "effective_resistance", keep=0.5, undirected=True))
        expected = gs.sparsify(graph, "effective_resistance", keep=0.5)
        assert sorted(zip(small["src"], small["dst"], strict=True)) == in_order(expected.edges())
        gaps = frame(library, src=TAILS, dst=HEADS, weight=[None, *values[1:]])
        with pytest.raises(ValueError, match="the weight of edge 0 is nan"):
            gs.sparsify(gaps, "effective_resistance", keep=0.5, undirected=True)

    @pytest.mark.parametrize(
        ("tails", "error", "said"),
        [
            ([0, None, 2], ValueError, "row 1 lacks an end: 'src' is empty there"),
            (["a", None, "c"], ValueError, "row 1 lacks an end: 'src' is empty there"),
            ([0.5, 1.0, 2.0], TypeError, "'src' holds .*whole numbers or text"),
            ([True, False, True], TypeError, "whole numbers or text"),
        ],
    )
    def test_ends_that_are_none(self, library, tails, error, said):
        with pytest.raises(error, match=said):
            gs.sparsify(frame(library, src=tails, dst=[1, 2, 3]), keep=0.5)

    def test_empty(self, library):
        table = frame(library, src=np.array([], np.int64), dst=np.array([], np.int64))
        assert columns_of(gs.sparsify(table, keep=0.5)) == {"src": [], "dst": []}


def test_pandas_index_attributes_and_types_stay():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "src": pandas.array([1, 2, 3, 1], dtype="Int32"),
            "dst": pandas.Categorical([2, 3, 1, 3]),
            "when": pandas.to_datetime(["2020-01-01"] * 4),
        },
        index=list("abcd"),
    )
    table.attrs["source"] = "here"
    small = gs.sparsify(table, torch.tensor([1.0, 2.0, 3.0, 0.0]), keep=0.5)
    assert list(small.index) == ["b", "c"]
    assert (small.dtypes == table.dtypes).all()
    assert small.attrs == {"source": "here"}
    twice = pandas.DataFrame([[1, 2, 3]], columns=["src", "dst", "src"])
    with pytest.raises(ValueError, match="two columns are named 'src'"):
        gs.sparsify(twice, keep=0.5)
    with pytest.raises(ValueError, match=r"same rows as columns.*table.to_numpy\(\)"):
        gs.sparsify(nx.to_pandas_adjacency(KARATE), keep=0.5)
    assert len(gs.sparsify(pandas.DataFrame({"src": [], "dst": []}), keep=0.5)) == 0
    lists = pandas.DataFrame({"src": [[1], [2]], "dst": [1, 2]})
    with pytest.raises(TypeError, match="row 0 of 'src' holds a list"):
        gs.sparsify(lists, keep=0.5)


def test_polars_lazy_frames_are_told():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    with pytest.raises(TypeError, match=r"LazyFrame of polars: graph.collect\(\)"):
        gs.sparsify(polars.DataFrame({"src": [1], "dst": [2]}).lazy(), keep=0.5)


def stand_in(monkeypatch, name, **members):
    """A module that follows the documented interface of a library that is not installed here."""
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
        if isinstance(value, type):
            value.__module__ = name
    monkeypatch.setitem(sys.modules, name, module)
    return module


class TestDGL:
    """A stand-in of DGLGraph: edges(order), edata, clone, remove_edges, batch_num_nodes; the library is not run."""

    @pytest.fixture
    def make(self, monkeypatch):
        class DGLGraph:
            ntypes, etypes, canonical_etypes = ["_N"], ["_E"], [("_N", "_E", "_N")]

            def __init__(self, ends, size, ndata=(), edata=(), batch=None):
                self.ends, self.size, self.ndata, self.edata = ends, size, dict(ndata), dict(edata)
                self.batch = batch or ([size], [len(ends[0])])

            def edges(self, form="uv", order="eid"):
                assert (form, order) == ("uv", "eid")
                return self.ends

            def num_nodes(self):
                return self.size

            @property
            def batch_size(self):
                return len(self.batch[0])

            def batch_num_nodes(self):
                return torch.tensor(self.batch[0])

            def batch_num_edges(self):
                return torch.tensor(self.batch[1])

            def clone(self):
                return DGLGraph(self.ends, self.size, self.ndata, self.edata, self.batch)

            def remove_edges(self, eids):
                keep = torch.ones(len(self.ends[0]), dtype=torch.bool)
                keep[eids.long()] = False
                parts = keep.split(self.batch[1])
                self.batch = self.batch[0], [int(part.sum()) for part in parts]
                self.ends = tuple(end[keep] for end in self.ends)
                self.edata = {key: value[keep] for key, value in self.edata.items()}

        stand_in(monkeypatch, "dgl", DGLGraph=DGLGraph)
        return DGLGraph

    def test_features_stay_and_those_of_edges_are_cut(self, make):
        ends = torch.tensor([*zip(*EDGES, strict=True)])
        graph = make(
            tuple(ends), 34, {"feat": torch.rand(34, 2)}, {"number": torch.arange(78), "weight": torch.rand(78)}
        )
        small = gs.sparsify(graph, keep=0.5, undirected=True)
        assert type(small) is make
        assert sorted(zip(*(end.tolist() for end in small.edges()), strict=True)) == EXPECTED
        assert torch.equal(torch.stack(small.edges()), ends[:, small.edata["number"]])
        assert torch.equal(small.edata["weight"], graph.edata["weight"][small.edata["number"]])
        assert small.ndata["feat"] is graph.ndata["feat"]
        assert len(graph.edges()[0]) == 78
        assert open_graph(graph).edges.x is graph.ndata["feat"]

    def test_graphs_of_a_batch_keep_their_own_count(self, make):
        ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        ends = torch.cat([ring, ring[:, :3] + 4], 1)
        small = gs.sparsify(make(tuple(ends), 8, batch=([4, 4], [4, 3])), "random", keep=0.5)
        assert small.batch_num_edges().tolist() == [2, 2]
        alone = gs.sparsify(ring, "random", keep=0.5)
        assert torch.equal(torch.stack(small.edges())[:, :2], alone)
        assert gs.edges.score(make(tuple(ends), 8, batch=([4, 4], [4, 3]))).shape == (7,)

    def test_relations_are_told(self, make):
        graph = make(tuple(torch.tensor([[0], [1]])), 2)
        graph.etypes = ["buys", "knows"]
        with pytest.raises(TypeError, match=r"graph\[relation\]"):
            gs.sparsify(graph, keep=0.5)


class TestGraphTool:
    """A stand-in of graph_tool.Graph: get_edges, property maps by edge index, GraphView, prune; it is not run."""

    @pytest.fixture
    def library(self, monkeypatch):
        class PropertyMap:
            def __init__(self, values):
                self.a = values

        class Graph:
            edge_index = "edge_index"

            def __init__(self, g=None, directed=True, prune=False):
                if g is None:
                    self.table, self.size, self.directed, self.ep = np.empty((0, 3), int), 0, directed, {}
                    return
                assert prune
                keep = g.efilt.a[g.table[:, 2]].astype(bool)
                self.table, self.size, self.directed = g.table[keep].copy(), g.size, g.directed
                self.ep = {name: PropertyMap(value.a[self.table[:, 2]]) for name, value in g.ep.items()}
                self.table[:, 2] = np.arange(len(self.table))

            def get_edges(self, eprops=()):
                assert list(eprops) == ["edge_index"]
                return self.table

            def is_directed(self):
                return self.directed

            def num_vertices(self, ignore_filter=False):
                return self.size

            @property
            def edge_properties(self):
                return self.ep

            def new_edge_property(self, kind):
                return PropertyMap(
                    np.zeros(1 + max(self.table[:, 2], default=-1), {"bool": bool, "double": float}[kind])
                )

        class GraphView(Graph):
            def __init__(self, g, efilt=None):
                self.table, self.size, self.directed, self.ep, self.efilt = g.table, g.size, g.directed, g.ep, efilt

        return stand_in(monkeypatch, "graph_tool", Graph=Graph, GraphView=GraphView, PropertyMap=PropertyMap)

    def test_property_maps_follow_the_edge_index(self, library):
        graph = library.Graph(directed=False)
        numbers = np.arange(78)[::-1] + 5  # the index of an edge is not its place in the array
        graph.table, graph.size = np.column_stack([np.array(EDGES), numbers]), 34
        weights = np.zeros(90)
        weights[numbers] = [KARATE.edges[edge]["weight"] for edge in EDGES]
        graph.ep["weight"] = library.PropertyMap(weights)
        small = gs.sparsify(graph, "effective_resistance", keep=0.5)
        expected = gs.sparsify(KARATE, "effective_resistance", keep=0.5)
        assert type(small) is library.Graph
        assert sorted(map(tuple, small.table[:, :2].tolist())) == in_order(expected.edges())
        assert small.ep["weight"].a.tolist() == [KARATE.edges[edge]["weight"] for edge in small.table[:, :2].tolist()]
        drawn = gs.edges.sample(graph, "dspar", keep=0.5)
        assert drawn.ep["weight"].a.max() > 1
        with pytest.raises(ValueError, match="no edge property 'far'"):
            gs.sparsify(graph, keep=0.5, weight="far")
        with pytest.raises(ValueError, match="undirected=False"):
            gs.sparsify(graph, keep=0.5, undirected=False)

    def test_the_edge_array_is_a_graph_by_itself(self):
        array = np.array(EDGES)
        small = gs.sparsify(array, keep=0.5, undirected=True)
        assert sorted(map(tuple, small.tolist())) == EXPECTED


class TestSparseTensor:
    """A stand-in of torch_sparse.SparseTensor: coo, sparse_sizes, the constructor by keywords; it is not run."""

    @pytest.fixture
    def make(self, monkeypatch):
        class SparseTensor:
            def __init__(self, row=None, rowptr=None, col=None, value=None, sparse_sizes=None, is_sorted=False):
                self.row, self.col, self.value, self.sizes = row, col, value, sparse_sizes

            def coo(self):
                return self.row, self.col, self.value

            def sparse_sizes(self):
                return self.sizes

        stand_in(monkeypatch, "torch_sparse", SparseTensor=SparseTensor)
        return SparseTensor

    @pytest.mark.parametrize("value", [None, torch.arange(78.0), torch.rand(78, 2)])
    def test_values_stay_with_their_entries(self, make, value):
        order = sorted(range(78), key=lambda at: EDGES[at])
        row, col = torch.tensor([EDGES[at] for at in order]).t()
        matrix = make(row=row, col=col, value=value, sparse_sizes=(34, 34))
        small = gs.sparsify(matrix, keep=0.5, undirected=True)
        assert type(small) is make
        assert sorted(zip(small.row.tolist(), small.col.tolist(), strict=True)) == EXPECTED
        assert small.sizes == (34, 34)
        assert (small.value is None) if value is None else (len(small.value) == 39)

    def test_in_data_and_not_square(self, make):
        from torch_geometric.data import Data

        matrix = make(row=torch.tensor([0, 1, 2]), col=torch.tensor([1, 2, 0]), sparse_sizes=(3, 3))
        small = gs.sparsify(Data(adj_t=matrix, num_nodes=3), torch.tensor([1.0, 2.0, 3.0]), keep=0.6)
        assert small.adj_t.row.tolist() == [1, 2]
        with pytest.raises(ValueError, match="square"):
            gs.sparsify(make(row=torch.tensor([0]), col=torch.tensor([4]), sparse_sizes=(3, 5)), keep=0.5)
