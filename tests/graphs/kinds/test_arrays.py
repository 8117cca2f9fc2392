"""Arrays, lists, and sparse tensors: which kind they are, what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

import graphsparse as gs
from graphsparse.graphs import open_graph
from graphsparse.graphs.interop import kind_of

RING = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
PAIRS = [tuple(pair) for pair in RING.t().tolist()]


def name_of(graph):
    return kind_of(graph).__name__


@pytest.mark.parametrize(
    ("graph", "kind"),
    [
        (np.zeros((2, 3), int), "EdgeArray"),
        (np.zeros((3, 2), int), "EdgePairs"),
        (np.zeros((2, 0), np.int32), "EdgeArray"),
        (np.zeros((0, 2), int), "EdgePairs"),
        (np.zeros((3, 3), int), "Adjacency"),
        (np.zeros((2, 2)), "Adjacency"),
        (np.zeros((2, 2), bool), "Adjacency"),
        (np.zeros((0, 0)), "Adjacency"),
        (np.zeros((1, 1), int), "Adjacency"),
        (torch.zeros(2, 2, dtype=torch.int64), "BareGraph"),
        (torch.zeros(2, 2), "Adjacency"),
        (torch.zeros(3, 3, dtype=torch.int64), "Adjacency"),
        (torch.zeros(3, 3, dtype=torch.bool), "Adjacency"),
        (torch.zeros(2, 5, dtype=torch.int32), "BareGraph"),
        ([], "EdgePairs"),
        ([(0, 1), (1, 2)], "EdgePairs"),
        ([[0, 1]], "EdgePairs"),
        ([[0, 1], [1, 2], [2, 0]], "EdgePairs"),
        ([[0, 1, 2], [1, 2, 0]], "EdgeArray"),
        (([0, 1], [1, 2]), "EdgeArray"),
        ((np.array([0, 1]), np.array([1, 2])), "EdgeArray"),
        ((torch.tensor([0, 1]), torch.tensor([1, 2])), "EdgeArray"),
        ([(0, 1, 0.5), (1, 2, 0.7)], "EdgePairs"),
        ([("a", "b"), ("b", "c")], "EdgePairs"),
        ([[0, 1, 0, 0]] * 4, "Adjacency"),
        ([RING, RING], "ManyGraphs"),
        ([scipy.sparse.csr_array(np.eye(3))], "ManyGraphs"),
    ],
)
def test_which_kind_it_is(graph, kind):
    assert name_of(graph) == kind
    open_graph(graph)


@pytest.mark.parametrize(
    "graph",
    [
        np.array([[0, 1], [1, 0]]),
        [[0, 1], [1, 0]],
        ((0, 1), (1, 0)),
        [[0, 1, 2], [1, 2, 0], [2, 0, 1]],
    ],
)
def test_what_could_be_two_things_has_to_be_said(graph):
    with pytest.raises(ValueError, match=r'say which by kind="edge-array", "edge-pairs" or "adjacency"'):
        gs.sparsify(graph, keep=0.5)


def test_what_is_said_is_done():
    """Three readings of four numbers: 0->1 and 0->0; 0->0 and 1->0 ... are other graphs."""
    square = np.array([[0, 0], [1, 0]])
    ends = {kind: open_graph(square, kind=kind).edges.edge_index.tolist() for kind in ("edge-array", "edge-pairs")}
    assert ends == {"edge-array": [[0, 0], [1, 0]], "edge-pairs": [[0, 1], [0, 0]]}
    assert open_graph(square, kind="adjacency").edges.edge_index.tolist() == [[1], [0]]
    assert open_graph(torch.tensor(square), kind="adjacency").edges.edge_index.tolist() == [[1], [0]]
    triples = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert open_graph(triples, kind="edge-pairs").edges.weight.tolist() == [2.0, 0.0, 1.0]
    assert open_graph(triples, kind="adjacency").edges.num_edges == 6
    assert gs.SparsifyEdges(keep=0.5, kind="adjacency")(np.ones((2, 2))).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(TypeError, match="kind='networkx' is a networkx graph, got ndarray of numpy"):
        open_graph(square, kind="networkx")
    with pytest.raises(ValueError, match=r"unknown graph kind 'adjacent'.*did you mean 'adjacency'"):
        open_graph(square, kind="adjacent")
    with pytest.raises(ValueError, match=r"weight= is no option of a dense adjacency matrix.*takes none"):
        open_graph(square, kind="adjacency", weight="w")


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64, ">i4", np.uint64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_they_were(dtype, order):
    rows = np.array(RING.numpy(), dtype=dtype, order=order)
    small = gs.sparsify(rows, "random", keep=0.5)
    assert small.dtype == rows.dtype
    assert small.tolist() == gs.sparsify(RING, "random", keep=0.5).tolist()
    pairs = gs.sparsify(np.array(rows.T, order=order), "random", keep=0.5)
    assert pairs.dtype == rows.dtype
    assert pairs.T.tolist() == small.tolist()


def test_lists_come_back_as_they_were():
    expected = [tuple(pair) for pair in gs.sparsify(RING, "random", keep=0.5).t().tolist()]
    assert gs.sparsify(PAIRS, "random", keep=0.5) == expected
    assert gs.sparsify(tuple(PAIRS), "random", keep=0.5) == tuple(expected)
    assert gs.sparsify([list(pair) for pair in PAIRS], "random", keep=0.5) == [list(pair) for pair in expected]
    assert gs.sparsify(tuple(RING.tolist()), "random", keep=0.5) == tuple(map(list, zip(*expected, strict=True)))
    tails, heads = gs.sparsify((RING[0], RING[1]), "random", keep=0.5)  # as DGL's g.edges() gives them
    assert list(zip(tails.tolist(), heads.tolist(), strict=True)) == expected
    weighted = [(*pair, {"weight": 2.0, "colour": "red"}) for pair in PAIRS]
    assert gs.sparsify(weighted, "random", keep=0.5) == [(*pair, {"weight": 2.0, "colour": "red"}) for pair in expected]
    assert open_graph(weighted).edges.weight.tolist() == [2.0] * 8
    assert open_graph([("a", "likes", "b")][:0]).edges.num_edges == 0


def test_labels_in_lists():
    words = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), (1, "a"), ("a", 1)]
    edges = open_graph(words).edges
    assert (edges.num_nodes, edges.undirected) == (4, True)
    assert len(gs.sparsify(words, keep=0.5)) == 4
    relations = [("a", "b", "likes"), ("b", "c", "knows")]
    assert open_graph(relations).edges.weight is None


@pytest.mark.parametrize("dtype", [np.float32, np.int8, bool, np.complex64, np.uint16, ">f8"])
def test_dense_matrices_come_back_as_they_were(dtype):
    matrix = np.asfortranarray(np.array([[0, 2, 0, 1], [2, 5, 3, 0], [0, 3, 0, 4], [1, 0, 4, 0]]).astype(dtype))
    small = gs.sparsify(matrix, "random", keep=0.5)
    assert (small.dtype, small.flags.f_contiguous) == (matrix.dtype, True)
    assert (small != 0).sum() == 5  # four arcs and the loop
    assert (small[small != 0] == matrix[small != 0]).all()
    if np.dtype(dtype).kind != "c" and np.dtype(dtype).byteorder != ">":
        tensor = torch.from_numpy(matrix.astype(np.int32) if dtype == np.uint16 else matrix)
        assert gs.sparsify(tensor, "random", keep=0.5).tolist() == small.tolist()
        assert gs.sparsify(tensor, "random", keep=0.5).stride() == tensor.stride()


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_numpy_matrix_stays_one():
    small = gs.sparsify(np.matrix([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), keep=0.5)
    assert isinstance(small, np.matrix)
    assert small.sum() == 4


def test_dense_weights_and_gradients():
    matrix = torch.tensor([[0.0, 2.0, 0.0], [2.0, 0.0, 0.5], [0.0, 0.5, 0.0]], requires_grad=True)
    small = gs.sparsify(matrix, "random", keep=0.5)
    small.sum().backward()
    assert matrix.grad.tolist() == [
        [float(i == j or matrix[i, j] == 0 or small[i, j] != 0) for j in range(3)] for i in range(3)
    ]
    assert torch.equal(open_graph(matrix).edges.weight, torch.tensor([2.0, 2.0, 0.5, 0.5]))
    drawn = gs.edges.sample(np.array([[0, 2, 1], [2, 0, 1], [1, 1, 0]]), keep=0.5)
    assert drawn.dtype == np.float64
    assert drawn.max() > 2
    assert gs.edges.sample(torch.ones(3, 3).fill_diagonal_(0).int(), keep=0.5).dtype == torch.float64


@pytest.mark.parametrize(
    ("graph", "error", "said"),
    [
        (np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]]), TypeError, r"row 0 holds float64.*array.astype\(int\)"),
        (np.array([[0.0, 1.0], [1.0, 2.0], [2, 3]]), TypeError, "the array holds float64"),
        (np.zeros((2, 3), bool), TypeError, "row 0 holds bool"),
        (np.array([[0, 1], [1, "a"], [2, 3]], object), TypeError, r"holds object.*array.tolist\(\), for labels"),
        (np.array([["a", "b"]]), TypeError, r"holds <U1.*array.tolist\(\)"),
        (np.array([[0, 1, 2], [1, -2, 0]]), ValueError, "row 1 names node -2 at 1"),
        (np.array([[0, 1], [1, -2], [2, 0]]), ValueError, "the array names node -2 at 1"),
        (np.array([[0, 1 << 63, 2], [1, 2, 0]], np.uint64), ValueError, "names node 9223372036854775808 at 1"),
        (np.array([[0, 1 << 40, 2], [1, 2, 0]]), ValueError, "relabel the nodes"),
        (np.zeros((4, 3), int), ValueError, r"\[2, E\] or \[E, 2\].*\[N, N\]; got \[4, 3\]: array\[:, :2\]"),
        (np.zeros((4, 3)), ValueError, r"got \[4, 3\]"),
        (np.zeros(4, int), ValueError, r"got \[4\]"),
        (np.zeros((2, 2, 2), int), ValueError, r"got \[2, 2, 2\]"),
        (np.array([[None, 1], [1, None]]), TypeError, "holds numbers, got object"),
        (torch.zeros(3, 2, dtype=torch.int64), ValueError, r"got \[3, 2\]: edge_index.t\(\) has it"),
        ([[0, 1], [1, 2], [3]], ValueError, "row 2 has 1 entries and row 0 has 2"),
        ([[0, 1, 2], [1, 2]], ValueError, "row 0 has 3 entries and row 1 has 2: every edge has two ends"),
        ([(0, 1), (1, 2, 3)], ValueError, "row 1 has 3 entries"),
        ([[0, 1, 2, 3], [1, 2, 3, 4], [0, 0, 0, 0]], ValueError, "row 0 has 4 entries: an edge is a pair"),
        ([(0, 1.5), (1, 2)], TypeError, "row 0 holds 1.5 as an end"),
        ([(0, 1.0), (1, 2)], TypeError, "row 0 holds 1.0 as an end: nodes are named by whole numbers or text"),
        ([(0, True), (1, 2)], TypeError, "row 0 holds True"),
        ([(0, 1), (1, None)], TypeError, "row 1 holds None"),
        ([(0, 1), (1, [2])], TypeError, "row 1 holds a list"),
        ([(0, 1), (1, -2)], ValueError, "row 1 names node -2"),
        ([(0, 1), (1, 1 << 70)], ValueError, "row 1 names node"),
        ([[0, 1, 2], [0, 1, 0.5]], TypeError, "row 1 holds 0.5 at 2"),
        ([[0, 1, 2, -1], [0, 1, 0, 3]], ValueError, "row 0 names node -1 at 3"),
        ([[0, 1, 0, 0], [0], [0, 0, 0, 0], [1, 1, 1, 1]], ValueError, "row 1 of the adjacency matrix"),
        (np.ma.masked_array(np.ones((3, 3)), np.eye(3)), TypeError, r"array.filled\(0\)"),
        ([[RING, RING], [RING, RING[:, :4]], [RING, RING]], TypeError, "row 0 holds a Tensor as an end"),
        (scipy.sparse.csr_array((2, 3)), ValueError, r"square, got the shape \(2, 3\); of 2 x 3 .*undirected=True"),
        (torch.eye(3)[:2].to_sparse(), ValueError, r"square, got the shape \(2, 3\)"),
        (torch.zeros(3, 3, 3).to_sparse(), ValueError, "3 sparse dims"),
        (torch.zeros(3).to_sparse(), ValueError, "1 sparse dims"),
    ],
)
def test_what_is_no_graph_gets_one_sentence(graph, error, said):
    with pytest.raises(error, match=said):
        gs.sparsify(graph, keep=0.5)


def test_a_weight_that_is_nan_is_told_where_weights_are_used():
    dense = np.array([[0, np.nan, 1], [np.nan, 0, 1], [1, 1, 0.0]])
    for graph in (
        dense,
        torch.from_numpy(dense),
        torch.from_numpy(dense).to_sparse_csr(),
        scipy.sparse.csr_array(dense),
    ):
        with pytest.raises(ValueError, match="the weight of edge 0 is nan"):
            gs.sparsify(graph, "effective_resistance", keep=0.5)
        assert gs.edges.score(graph, "teddy").shape == (6,)


LAYOUTS = {
    "coo": torch.sparse_coo,
    "csr": torch.sparse_csr,
    "csc": torch.sparse_csc,
    "bsr": torch.sparse_bsr,
    "bsc": torch.sparse_bsc,
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool, torch.complex64])
def test_sparse_tensors_come_back_as_they_were(name, dtype):
    dense = torch.tensor([[0, 2, 0, 1], [2, 5, 3, 0], [0, 3, 0, 4], [1, 0, 4, 0]]).to(dtype)
    matrix = dense.to_sparse(layout=LAYOUTS[name], blocksize=(2, 2) if name.startswith("bs") else None)
    edges = open_graph(matrix).edges
    assert edges.num_edges == 9
    assert torch.equal(edges.weight, dense[tuple(edges.edge_index)])
    small = gs.sparsify(matrix, "random", keep=0.5)
    assert (small.layout, small.dtype, small.shape) == (matrix.layout, dtype, matrix.shape)
    assert small.is_coalesced() if name == "coo" else True
    assert small.to_dense().tolist() == gs.sparsify(dense.numpy(), "random", keep=0.5).tolist()
    assert torch.equal(matrix.to_dense(), dense)
    if name in ("csr", "bsr"):
        assert small.crow_indices().dtype == matrix.crow_indices().dtype
        assert torch.equal(small @ torch.eye(4), small.to_dense()) if dtype == torch.float32 else True


def test_copies_stored_zeros_and_vectors_in_sparse_tensors():
    twice = torch.sparse_coo_tensor([[0, 0, 1, 2], [1, 1, 2, 0]], [1.0, 0.0, 3.0, 4.0], (3, 3))
    assert open_graph(twice).edges.num_edges == 4
    small = gs.sparsify(twice, torch.tensor([1.0, 2.0, 3.0, 0.0]), keep=0.5)
    assert (small._nnz(), small.is_coalesced(), small._values().tolist()) == (2, False, [0.0, 3.0])
    vectors = torch.sparse_coo_tensor([[0, 1], [1, 2]], [[1.0, 2.0], [3.0, 4.0]], (3, 3, 2))
    edges = open_graph(vectors).edges
    assert (edges.num_nodes, edges.weight) == (3, None)
    small = gs.sparsify(vectors, torch.tensor([0.0, 1.0]), keep=0.5)
    assert small.shape == (3, 3, 2)
    assert small._values().tolist() == [[3.0, 4.0]]


def test_empty_blocks_go_and_indices_keep_their_type():
    wide = torch.zeros(6, 6)
    wide[0, 5], wide[5, 0], wide[2, 3], wide[3, 2] = 1, 1, 2, 2
    blocks = wide.to_sparse_bsr((2, 3))
    small = gs.sparsify(blocks, torch.tensor([1.0, 2.0, 2.0, 1.0]), keep=0.5)
    assert (small.values().shape[1:], len(small.values())) == ((2, 3), 2)
    ints = torch.sparse_csr_tensor(
        torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([1, 0], dtype=torch.int32), torch.ones(2), (2, 2)
    )
    assert gs.sparsify(ints, keep=0.5).col_indices().dtype == torch.int32


def test_a_sparse_tensor_that_lies_is_refused():
    for starts, columns in (([0, 3, 2, 4], [1, 2, 0, 0]), ([0, 2, 3, 4], [1, 2, 9, 0]), ([0, 2, 3, 4], [1, -2, 0, 0])):
        parts = torch.tensor(starts), torch.tensor(columns), torch.ones(4)
        matrix = torch.sparse_csr_tensor(*parts, (3, 3), check_invariants=False)
        with pytest.raises(ValueError, match=r"damaged|names node"):
            gs.sparsify(matrix, keep=0.5)
    with pytest.raises(ValueError, match="names node 7"):
        gs.sparsify(torch.sparse_coo_tensor([[0, 7], [1, 2]], torch.ones(2), (3, 3), check_invariants=False), keep=0.5)
