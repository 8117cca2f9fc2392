"""Every kind keeps the edges that the same graph keeps as an ``edge_index``, and comes back as the kind it was."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData

import graphsparse as gs
from graphsparse.graphs import KINDS

NODES = 7


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def dense(arcs):
    matrix = np.zeros((NODES, NODES))
    matrix[tuple(np.array(arcs, np.int64).reshape(-1, 2).T)] = 1.0
    return matrix


def listed(arcs):
    return torch.tensor(arcs, dtype=torch.int64).reshape(-1, 2).t().contiguous()


def hetero(arcs):
    graph = HeteroData()
    graph["v"].num_nodes = NODES
    graph["v", "to", "v"].edge_index = listed(arcs)
    return graph


def table(make):
    def build(arcs):
        tails, heads = np.array(arcs, np.int64).reshape(-1, 2).T
        return make({"src": tails, "dst": heads})

    return build


def igraph(arcs):
    return library("igraph").Graph(n=NODES, edges=arcs, directed=True)


def networkit(arcs):
    graph = library("networkit").Graph(NODES, directed=True)
    for arc in arcs:
        graph.addEdge(*arc)
    return graph


def directed(arcs):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(NODES))
    graph.add_edges_from(arcs)
    return graph


def pairs_of_rows(rows):
    return [(int(u), int(v)) for u, v in rows]


def sparse(layout):
    def build(arcs):
        return torch.from_numpy(dense(arcs)).to_sparse().to_sparse(layout=layout)

    return build


def blocks(layout):
    def build(arcs):
        wide = torch.zeros(8, 8)
        wide[:NODES, :NODES] = torch.from_numpy(dense(arcs))
        return getattr(wide, f"to_sparse_{layout}")((2, 4))

    return build


def entries(matrix):
    return pairs_of_rows(np.argwhere(np.asarray(matrix) != 0))


CASES = {  # how the kind is made of arcs, and how arcs are read from it
    "edge_index": (listed, lambda g: pairs_of_rows(g.t())),
    "edge_index int32": (lambda a: listed(a).int(), lambda g: pairs_of_rows(g.t())),
    "EdgeIndex": (
        lambda a: EdgeIndex(listed(a), sparse_size=(NODES, NODES)),
        lambda g: pairs_of_rows(g.as_tensor().t()),
    ),
    "weighted": (lambda a: (listed(a), torch.ones(len(a))), lambda g: pairs_of_rows(g[0].t())),
    "Data": (lambda a: Data(edge_index=listed(a), num_nodes=NODES), lambda g: pairs_of_rows(g.edge_index.t())),
    "Batch": (
        lambda a: Batch.from_data_list([Data(edge_index=listed(a), num_nodes=NODES)]),
        lambda g: pairs_of_rows(g.edge_index.t()),
    ),
    "HeteroData": (hetero, lambda g: pairs_of_rows(g["v", "to", "v"].edge_index.t())),
    "list of Data": (
        lambda a: [Data(edge_index=listed(a), num_nodes=NODES)],
        lambda g: pairs_of_rows(g[0].edge_index.t()),
    ),
    "adj_t": (
        lambda a: Data(adj_t=torch.from_numpy(dense(a).T.copy()).to_sparse_csr(), num_nodes=NODES),
        lambda g: entries(g.adj_t.to_dense().t()),
    ),
    "COO": (sparse(torch.sparse_coo), lambda g: entries(g.to_dense())),
    "CSR": (sparse(torch.sparse_csr), lambda g: entries(g.to_dense())),
    "CSC": (sparse(torch.sparse_csc), lambda g: entries(g.to_dense())),
    "BSR": (blocks("bsr"), lambda g: entries(g.to_dense())),
    "BSC": (blocks("bsc"), lambda g: entries(g.to_dense())),
    "dense numpy": (dense, entries),
    "dense torch": (lambda a: torch.from_numpy(dense(a)), entries),
    "dense lists": (lambda a: dense(a).tolist(), entries),
    "numpy [2, E]": (lambda a: listed(a).numpy(), lambda g: pairs_of_rows(g.T)),
    "numpy [E, 2]": (lambda a: listed(a).numpy().T, pairs_of_rows),
    "list of pairs": (list, pairs_of_rows),
    "list of triples": (lambda a: [(*arc, 1.5) for arc in a], lambda g: [arc[:2] for arc in g]),
    "two lists": (lambda a: tuple(listed(a).tolist()), lambda g: list(zip(*g, strict=True))),
    "networkx": (directed, lambda g: list(g.edges())),
    "scipy": (lambda a: scipy.sparse.csr_array(dense(a)), lambda g: entries(g.toarray())),
    "pandas": (table(lambda c: library("pandas").DataFrame(c)), lambda g: pairs_of_rows(g.to_numpy())),
    "polars": (table(lambda c: library("polars").DataFrame(c)), lambda g: pairs_of_rows(g.to_numpy())),
    "pyarrow": (
        table(lambda c: library("pyarrow").table(c)),
        lambda g: list(zip(*g.to_pydict().values(), strict=True)),
    ),
    "igraph": (igraph, lambda g: g.get_edgelist()),
    "networkit": (networkit, lambda g: list(g.iterEdges())),
}
AMBIGUOUS = {"numpy [2, E]": "edge-array", "numpy [E, 2]": "edge-pairs"}


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=12)
@given(
    arcs=st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), unique=True, max_size=16),
    mirror=st.booleans(),
    method=st.sampled_from(["teddy", "random"]),
    keep=st.sampled_from([0.3, 0.5, 0.8]),
    undirected=st.sampled_from([None, False]),
)
def test_the_same_edges_are_kept(name, arcs, mirror, method, keep, undirected):
    arcs = sorted({*arcs, *(arc[::-1] for arc in arcs)} if mirror else arcs)
    make, read = CASES[name]
    try:
        graph = make(arcs)
    except ImportError:
        pytest.skip(f"the library of {name} is not installed")
    known = {"igraph", "networkx", "networkit"}  # they say themselves that they are directed
    expected = gs.sparsify(listed(arcs), method, keep=keep, undirected=False if name in known else undirected)
    options = {"kind": AMBIGUOUS[name]} if name in AMBIGUOUS and len(arcs) == 2 else {}
    small = gs.sparsify(graph, method, keep=keep, undirected=undirected, **options)
    assert type(small) is type(graph)
    assert sorted(read(small)) == sorted(map(tuple, expected.t().tolist()))
    assert sorted(read(graph)) == arcs  # it is not changed


def test_the_table_says_what_each_kind_is():
    for name, kind in KINDS.items():
        assert kind.says, name
        assert kind.__doc__, name
