"""Graphs of every kind go in and come back as the same kind, cut along a mask."""

import copy
import enum
import subprocess
import sys

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data, HeteroData, TemporalData

from graphsparse.graphs import arcs
from graphsparse.graphs.interop import edge_list, open_graph
from graphsparse.graphs.labels import label_names

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
FORMATS = ["coo", "csr", "csc", "lil", "dok", "bsr", "dia"]


@pytest.fixture(params=["torch", "numba"])
def engine(request, monkeypatch):
    monkeypatch.setattr(arcs, "COMPILE_FROM", 0 if request.param == "numba" else 1 << 60)
    return request.param


def picky(num_edges):
    return torch.arange(num_edges) % 2 == 0


class TestDirection:
    """What is undirected, and what is listed once or twice."""

    @pytest.mark.parametrize(
        ("edge_index", "undirected", "expected"),
        [
            ([[0, 1, 1, 2], [1, 0, 2, 1]], None, (True, True)),
            ([[0, 1, 1, 2], [1, 0, 2, 1]], True, (True, True)),
            ([[0, 1, 1, 2], [1, 0, 2, 1]], False, (False, False)),
            ([[0, 1], [1, 2]], None, (False, False)),
            ([[0, 1], [1, 2]], True, (True, False)),
            ([[0, 0, 1], [1, 1, 0]], None, (False, False)),  # two copies and one mirror
            ([[0, 0, 1, 1], [1, 1, 0, 0]], None, (True, True)),
            ([[0, 1, 2], [1, 2, 0]], None, (False, False)),  # a cycle has balanced degrees but no mirrors
            ([[0, 1], [0, 1]], None, (True, True)),  # only loops
            ([[], []], None, (True, True)),
        ],
    )
    def test_by_hand(self, engine, edge_index, undirected, expected):
        edges = edge_list(torch.tensor(edge_index, dtype=torch.int64), 3, undirected)
        assert (edges.undirected, edges.mirrored) == expected

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14),
        st.booleans(),
        st.sampled_from([torch.int32, torch.int64]),
        st.booleans(),
    )
    def test_symmetric_means_equal_counts(self, pairs, mirror, dtype, numba):
        pairs = pairs + [pair[::-1] for pair in pairs] if mirror else pairs
        edge_index = torch.tensor(pairs, dtype=dtype).reshape(-1, 2).T
        counts = np.zeros((6, 6))
        np.add.at(counts, tuple(edge_index.numpy()), 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arcs, "COMPILE_FROM", 0 if numba else 1 << 60)
            found = arcs.survey(edge_index, 6)
        assert found.symmetric == bool((counts == counts.T).all())
        assert found.loops == int(np.trace(counts))
        np.fill_diagonal(counts, 0)
        assert found.degree_out.tolist() == counts.sum(1).tolist()
        assert found.degree_in.tolist() == counts.sum(0).tolist()
        assert found.degree_out.dtype == found.degree_in.dtype == torch.int64

    def test_weights_play_no_part(self):
        matrix = sp.csr_array(np.array([[0, 1.0], [5.0, 0]]))
        assert open_graph(matrix).edges.undirected

    def test_some_pairs_twice_and_some_once_is_refused(self):
        with pytest.raises(ValueError, match=r"\(0, 1\) and \(1, 0\).*each pair once"):
            open_graph(torch.tensor([[0, 1, 1], [1, 0, 2]]), undirected=True)

    def test_copies_in_one_direction_are_pairs_once(self):
        edges = open_graph(torch.tensor([[0, 0, 2], [1, 1, 1]]), undirected=True).edges
        assert (edges.mirrored, edges.num_countable) == (False, 3)

    def test_networkx_goes_by_type(self):
        assert open_graph(nx.path_graph(3)).edges.undirected
        assert not open_graph(nx.path_graph(3)).edges.mirrored
        both = nx.path_graph(3).to_directed()
        assert not open_graph(both).edges.undirected
        assert open_graph(both, undirected=True).edges.mirrored
        with pytest.raises(ValueError, match="to_directed"):
            open_graph(nx.path_graph(3), undirected=False)


class TestBadInput:
    """One clear sentence each."""

    @pytest.mark.parametrize(
        ("edge_index", "error", "message"),
        [
            (torch.rand(2, 3), TypeError, "int64 or int32.*float32"),
            (torch.ones(2, 3, dtype=torch.bool), TypeError, "int64 or int32.*bool"),
            (torch.ones(3, 2, dtype=torch.int64), ValueError, r"\[2, num_edges\], got \[3, 2\]"),
            (torch.ones(4, dtype=torch.int64), ValueError, r"got \[4\]"),
        ],
    )
    def test_wrong_ids(self, edge_index, error, message):
        with pytest.raises(error, match=message):
            open_graph(edge_index)
        with pytest.raises(error, match=message):
            open_graph(Data(edge_index=edge_index, num_nodes=5))

    def test_ids_out_of_range_are_located(self, engine):
        edge_index = torch.tensor([[0, 1, 2], [1, 7, 9]])
        with pytest.raises(ValueError, match=r"node 7 in row 1, column 1.*0\.\.6"):
            open_graph(Data(edge_index=edge_index, num_nodes=7))
        edge_index[0, 2] = -3
        with pytest.raises(ValueError, match="node -3 in row 0, column 2"):
            open_graph(edge_index.int())
        with pytest.raises(ValueError, match="no nodes"):
            open_graph(Data(edge_index=PATH, num_nodes=0))

    @pytest.mark.parametrize(
        ("graph", "line"),
        [
            (None, "got NoneType: .*makes an edge_index"),
            (3, "got int: .*makes an edge_index"),
            ([3, 4], "got list: .*makes an edge_index"),
            ({0: [1]}, "got dict: networkx.from_dict_of_lists"),
            ({(0, 1)}, r"got set: list\(graph\)"),
            (TemporalData(src=PATH[0], dst=PATH[1]), "got TemporalData of torch_geometric: torch.stack"),
            (pd.Series([1]), "got Series of pandas: graph.reset_index"),
        ],
    )
    def test_unknown_kinds(self, graph, line):
        with pytest.raises(TypeError, match=f"a graph must be a torch_geometric Data, .*a networkx graph.*; {line}"):
            open_graph(graph)

    def test_data_that_holds_edges_elsewhere(self):
        hetero = HeteroData()
        hetero["a"].num_nodes = hetero["b"].num_nodes = 3
        hetero["a", "to", "b"].edge_index = PATH
        with pytest.raises(TypeError, match="to_data_list"):
            open_graph(Batch.from_data_list([hetero, hetero]))
        adjacency = torch.sparse_coo_tensor(PATH, torch.ones(4), (3, 3)).to_sparse_csr()
        with pytest.raises(TypeError, match="edge_index and in adj_t"):  # it would keep the edges that were removed
            open_graph(Data(adj_t=adjacency, edge_index=PATH))
        with pytest.raises(TypeError, match="no edge_index"):
            open_graph(Data(x=torch.ones(3, 1)))

    def test_matrices_that_are_no_graph(self):
        with pytest.raises(ValueError, match=r"square, got the shape \(2, 3\)"):
            open_graph(sp.csr_matrix((2, 3)))
        with pytest.raises(ValueError, match="square"):
            open_graph(sp.coo_array(np.array([1, 0, 2])))

    def test_weights_are_checked_where_they_are_used(self):
        weight = torch.tensor([1.0, 1.0, torch.nan, 1.0])
        edges = open_graph(Data(edge_index=PATH, edge_weight=weight, num_nodes=3)).edges
        with pytest.raises(ValueError, match="edge 2 is nan"):
            edges.checked_weight()
        with pytest.raises(TypeError, match="complex"):
            open_graph(sp.csr_array(np.array([[0, 1j], [1j, 0]]))).edges.checked_weight()
        with pytest.raises(ValueError, match="one number for each edge"):
            open_graph(Data(edge_index=PATH, edge_weight=weight[:2], num_nodes=3))
        with pytest.raises(ValueError, match="no edge attribute 'length'"):
            open_graph(Data(edge_index=PATH, num_nodes=3), weight="length")
        graph = nx.Graph([(0, 1, {"weight": "heavy"})])
        with pytest.raises(ValueError, match="edge 0 is nan"):
            open_graph(graph).edges.checked_weight()


class Molecule(Data):
    """A subclass with an attribute of its own beside the tensors."""


class TestData:
    """PyG graphs."""

    def graph(self):
        return Molecule(
            x=torch.arange(6.0).view(3, 2),
            edge_index=PATH,
            edge_attr=torch.arange(8.0).view(4, 2),
            edge_weight=torch.arange(4.0),
            edge_kind=np.array(["a", "b", "c", "d"]),
            edge_name=["p", "q", "r", "s"],
            edge_pair=("p", "q", "r", "s"),
            y=torch.tensor([1, 0, 1]),
            train_mask=torch.tensor([True, False, True]),
            energy=torch.tensor([0.5]),
            edge_label_index=torch.tensor([[0, 0, 1, 2], [0, 1, 2, 2]]),
            edge_label=torch.tensor([0, 1, 1, 0]),
            name="tiny",
        )

    def test_attributes_stay_and_those_of_edges_are_cut(self):
        data = self.graph()
        before = copy.deepcopy(data)
        small = open_graph(data).cut(torch.tensor([True, False, False, True]))
        assert type(small) is Molecule
        assert small.edge_index.tolist() == [[0, 2], [1, 1]]
        assert small.edge_attr.tolist() == [[0.0, 1.0], [6.0, 7.0]]
        assert small.edge_weight.tolist() == [0.0, 3.0]
        assert small.edge_kind.tolist() == ["a", "d"]
        assert small.edge_name == ["p", "s"]
        assert small.edge_pair == ("p", "s")
        for key in ("x", "y", "train_mask", "energy", "edge_label_index", "edge_label"):  # a list of pairs of its own
            assert torch.equal(small[key], data[key])
        assert small.name == "tiny"
        assert small.keys() == data.keys()
        for key in before.keys():  # noqa: SIM118  (a Data iterates over pairs)
            same = torch.equal if isinstance(before[key], torch.Tensor) else np.array_equal
            assert same(data[key], before[key])

    def test_as_many_nodes_as_edges(self):
        data = Data(
            x=torch.rand(4, 2),
            edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]),
            edge_attr=torch.rand(4, 1),
            y=torch.rand(4),
            node_names=["a", "b", "c", "d"],
            edge_names=["e", "f", "g", "h"],
        )
        small = open_graph(data).cut(picky(4))
        assert (small.x.size(0), small.y.size(0), small.edge_attr.size(0)) == (4, 4, 2)
        assert small.node_names == ["a", "b", "c", "d"]
        assert small.edge_names == ["e", "g"]
        assert small.num_nodes == 4

    def test_nodes_stay_when_their_edges_go(self):
        data = Data(edge_index=torch.tensor([[0, 1, 4], [1, 0, 4]]))
        small = open_graph(data).cut(torch.tensor([True, True, False]))
        assert small.num_nodes == 5
        assert "num_nodes" not in data

    def test_no_edges_and_no_nodes(self):
        for num_nodes in (0, 3):
            data = Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=num_nodes)
            opened = open_graph(data)
            assert opened.edges.num_countable == 0
            assert opened.cut(torch.ones(0, dtype=torch.bool)).num_nodes == num_nodes

    def test_new_weights_and_another_name_for_them(self):
        data = self.graph()
        mask = torch.tensor([True, False, False, True])
        small = open_graph(data).cut(mask, torch.tensor([5.0, 6.0, 7.0, 8.0]))
        assert small.edge_weight.tolist() == [5.0, 8.0]
        assert data.edge_weight.tolist() == [0.0, 1.0, 2.0, 3.0]
        data.length = torch.ones(4, 1)
        opened = open_graph(data, weight="length")
        assert opened.edges.weight.shape == (4,)
        assert opened.cut(mask, torch.tensor([5.0, 6.0, 7.0, 8.0])).length.tolist() == [5.0, 8.0]

    def test_sparse_features_reach_the_scores(self):
        data = Data(x=torch.eye(3).to_sparse_csr(), edge_index=PATH)
        opened = open_graph(data)
        assert opened.edges.x.layout == torch.sparse_csr
        assert opened.cut(picky(4)).x is data.x

    def test_edge_index_that_is_not_contiguous(self, engine):
        edge_index = PATH.T.contiguous().T
        assert not edge_index.is_contiguous()
        assert open_graph(edge_index).cut(picky(4)).tolist() == [[0, 1], [1, 2]]

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.booleans(), max_size=40), st.sampled_from([torch.int32, torch.int64]))
    def test_compress_is_indexing(self, mask, dtype):
        edge_index = torch.arange(2 * len(mask), dtype=dtype).view(2, -1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arcs, "COMPILE_FROM", 0)
            small = arcs.compress(edge_index, torch.tensor(mask, dtype=torch.bool))
        assert small.dtype == dtype
        assert torch.equal(small, edge_index[:, torch.tensor(mask, dtype=torch.bool)])


class TestNetworkX:
    """networkx graphs of all four types."""

    @pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
    def test_attributes_and_nodes_stay(self, kind):
        graph = kind(name="g")
        graph.add_node("alone", colour="red")
        graph.add_edge("a", "b", length=1)
        graph.add_edge("b", "c", length=2)
        graph.add_edge("b", "b", length=3)
        if graph.is_multigraph():
            graph.add_edge("a", "b", key="second", length=4)
        opened = open_graph(graph)
        assert opened.edges.num_edges == graph.number_of_edges()
        assert opened.edges.num_countable == graph.number_of_edges() - 1
        mask = torch.tensor([data["length"] != 1 for _, _, data in graph.edges(data=True)])
        small = opened.cut(mask)
        assert type(small) is kind
        assert small.graph == {"name": "g"}
        assert dict(small.nodes(data=True)) == dict(graph.nodes(data=True))
        assert [data for *_, data in small.edges(data=True)] == [
            data for *_, data in graph.edges(data=True) if data["length"] != 1
        ]
        if graph.is_multigraph():
            assert list(small["a"]["b"]) == ["second"]
        assert graph.number_of_edges() == opened.edges.num_edges

    def test_weights(self):
        graph = nx.Graph([(0, 1, {"weight": 2.0}), (1, 2)])
        opened = open_graph(graph)
        assert opened.edges.weight.tolist() == [2.0, 1.0]
        small = opened.cut(torch.tensor([False, True]), torch.tensor([3.0, 4.0]))
        assert list(small.edges(data="weight")) == [(1, 2, 4.0)]
        assert "weight" not in graph[1][2]
        assert open_graph(nx.path_graph(3)).edges.weight is None
        assert open_graph(nx.Graph([(0, 1, {"far": 2})]), weight="far").edges.weight.tolist() == [2.0]

    def test_labels_that_are_ids_are_the_ids(self):
        graph = nx.Graph()
        graph.add_nodes_from([2, 0, 1])
        graph.add_edge(2, 1)
        edges = open_graph(graph).edges
        assert edges.names is None
        assert sorted(edges.edge_index.flatten().tolist()) == [1, 2]

    def test_a_frozen_graph_and_a_view(self):
        graph = nx.freeze(nx.path_graph(4))
        assert open_graph(graph).cut(torch.tensor([True, False, True])).number_of_edges() == 2
        view = nx.path_graph(5).subgraph([1, 2, 3])
        assert list(open_graph(view).cut(torch.tensor([True, False])).edges) == [(1, 2)]

    def test_empty(self):
        for graph in (nx.Graph(), nx.empty_graph(3)):
            assert open_graph(graph).cut(torch.ones(0, dtype=torch.bool)).number_of_nodes() == len(graph)


class Colour(enum.Enum):
    """A label with a name of its own."""

    RED = 1


class TestNames:
    """Labels are named by value."""

    def test_integers_name_themselves(self):
        labels = [3, -1, True, np.int32(4), 5.0]
        assert label_names(labels).tolist() == [3, 2**64 - 1, 1, 4, 5]

    def test_equal_labels_have_equal_names(self):
        assert label_names([(1, 2.0)]) == label_names([(1.0, 2)])
        assert label_names([frozenset({"a", "b", "c"})]) == label_names([frozenset({"c", "b", "a"})])
        assert label_names([0.5]) == label_names([np.float64(0.5)])

    def test_different_labels_have_different_names(self):
        labels = ["1", b"1", 1, 1.5, None, (1,), ("1",), ((1,),), frozenset({1}), (), "", 2**70, Colour.RED, 2j]
        labels += [("a", "b"), ("ab", ""), float("inf"), float("-inf")]
        assert len(set(label_names(labels).tolist())) == len(labels)

    def test_names_do_not_change_with_the_process(self):
        labels = "['a', ('b', 1), frozenset({'x', 'y', 'z'}), None, 1.5]"
        code = f"from graphsparse.graphs.labels import label_names; print(label_names({labels}).tolist())"
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
        )
        assert run.stdout.strip() == str(label_names(eval(labels)).tolist())

    def test_a_label_without_a_value_is_refused(self):
        for label in (object(), ("a", object()), lambda: 0):
            with pytest.raises(TypeError, match=r"repr is an address.*relabel"):
                label_names([label])
        graph = nx.Graph()
        graph.add_edge("a", object())
        with pytest.raises(TypeError, match="relabel"):
            open_graph(graph)


class TestScipy:
    """Sparse matrices and arrays of every format."""

    @pytest.mark.parametrize("kind", ["array", "matrix"])
    @pytest.mark.parametrize("layout", FORMATS)
    @pytest.mark.parametrize("dtype", [np.float32, np.int16, bool, np.complex128])
    def test_format_class_and_dtype_stay(self, kind, layout, dtype):
        dense = np.array([[1, 2, 0, 0], [0, 0, 3, 0], [4, 0, 0, 5], [0, 0, 6, 0]]).astype(dtype)
        matrix = getattr(sp, f"{layout}_{kind}")(dense)
        before = matrix.copy()
        opened = open_graph(matrix)
        tails, heads = opened.edges.edge_index
        assert opened.edges.num_edges == 6
        assert np.array_equal(opened.edges.weight.numpy(), dense[tails, heads])
        mask = tails != 1
        small = opened.cut(mask)
        dense[1] = 0
        assert type(small) is type(matrix)
        assert small.dtype == matrix.dtype
        assert np.array_equal(small.toarray(), dense)
        assert (matrix != before).nnz == 0
        assert open_graph(small).edges.num_edges == 5

    @pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
    def test_stored_zeros_and_copies_are_edges(self, layout):
        coo = sp.coo_array(([0.0, 2.0, 3.0, 4.0], ([0, 0, 0, 1], [1, 1, 2, 2])), shape=(3, 3))
        matrix = coo
        if layout == "csr":
            matrix = sp.csr_array((coo.data, coo.col, [0, 3, 4, 4]), shape=(3, 3))
        if layout == "csc":
            matrix = sp.csc_array((coo.data, coo.row, [0, 0, 2, 4]), shape=(3, 3))
        opened = open_graph(matrix)
        assert opened.edges.num_edges == 4
        small = opened.cut(torch.tensor([True, True, False, True]))
        assert small.nnz == 3
        assert small.data.tolist() == [0.0, 2.0, 4.0]
        assert small.indices.tolist() == ([1, 1, 2] if layout == "csr" else [0, 0, 1]) if layout != "coo" else True

    def test_padding_is_no_edge(self):
        matrix = sp.bsr_array(np.kron(np.eye(2), [[1.0, 2.0], [0.0, 3.0]]), blocksize=(2, 2))
        assert matrix.nnz == 8
        opened = open_graph(matrix)
        assert opened.edges.num_edges == 6
        assert opened.cut(torch.ones(6, dtype=torch.bool)).blocksize == (2, 2)

    def test_new_weights(self):
        matrix = sp.csr_matrix(np.array([[0, 1], [2, 0]]))
        small = open_graph(matrix).cut(torch.tensor([True, False]), torch.tensor([0.5, 0.7]))
        assert small.toarray().tolist() == [[0, 0.5], [0, 0]]
        assert matrix.dtype == np.int64

    def test_the_result_shares_no_memory(self):
        matrix = sp.csr_array(np.array([[0, 1.0], [2.0, 0]]))
        same = open_graph(matrix).cut(torch.ones(2, dtype=torch.bool))
        same.data[:] = 0
        same.indptr[:] = 0
        assert matrix.toarray().tolist() == [[0, 1], [2, 0]]

    def test_empty(self):
        assert open_graph(sp.csr_array((0, 0))).edges.num_nodes == 0
        assert open_graph(sp.dok_array((3, 3))).cut(torch.ones(0, dtype=torch.bool)).shape == (3, 3)


def test_a_bare_edge_index_and_its_weights():
    assert open_graph(PATH).cut(picky(4)).tolist() == [[0, 1], [1, 2]]
    small, weight = open_graph(PATH.int()).cut(picky(4), torch.arange(4.0))
    assert small.dtype == torch.int32
    assert weight.tolist() == [0.0, 2.0]


def test_networkx_is_not_imported_for_other_kinds():
    code = (
        "import sys, torch; from graphsparse.graphs.interop import open_graph; was = 'networkx' in sys.modules;"
        "open_graph(torch.tensor([[0], [1]])); assert was or 'networkx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
