"""What people hand over besides graphs in good order: it works, or one sentence says what is wrong."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data

import graphsparse as gs

RING = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
SCORES = np.array([3.0, 3.0, 1.0, 1.0, 2.0, 2.0])


def sparsified(graph, **options):
    return gs.sparsify(graph, "random", **{"keep": 0.5, **options})


@pytest.mark.parametrize(
    "scores",
    [
        SCORES.astype(">f8"),
        SCORES.astype(">i4"),
        np.repeat(SCORES, 2)[::2],
        SCORES[::-1].copy()[::-1],
        np.frombuffer(SCORES.tobytes()),
        SCORES.astype(np.longdouble),
        SCORES.astype(np.float16),
        SCORES.astype(np.uint64),
        torch.tensor(SCORES, requires_grad=True),
        torch.tensor(SCORES).bfloat16(),
    ],
)
def test_scores_in_any_layout_are_scores(scores):
    expected = [True, True, False, False, True, True]
    assert gs.edges.keep_mask(scores, RING, keep=0.5).tolist() == expected
    assert torch.equal(gs.sparsify(RING, scores, keep=0.5), RING[:, expected])


@pytest.mark.parametrize("scores", [np.array(["a"] * 6), np.array([None] * 6), SCORES.astype(complex), SCORES > 1])
def test_what_is_no_number_is_no_score(scores):
    with pytest.raises(TypeError, match="scores must be real numbers"):
        gs.edges.keep_mask(scores, RING, keep=0.5)


def test_seeds_are_whole_numbers():
    assert torch.equal(sparsified(RING, seed=np.int64(3)), sparsified(RING, seed=3))
    for seed in (1.5, True, "1", None):
        for use in (
            lambda seed=seed: sparsified(RING, seed=seed),
            lambda seed=seed: gs.sparsify(RING, "teddy", keep=1.0, seed=seed),  # no draw and no tie
            lambda seed=seed: gs.edges.score(RING, "dspar", seed=seed),
            lambda seed=seed: gs.edges.sample(RING, "dspar", keep=0.5, seed=seed),
            lambda seed=seed: gs.edges.keep_mask(SCORES, RING, keep=0.5, seed=seed),
            lambda seed=seed: gs.SparsifyEdges("teddy", keep=0.5, seed=seed),
        ):
            with pytest.raises(ValueError, match="seed must be a whole number"):
                use()


def test_rules_and_names_of_a_wrong_kind():
    with pytest.raises(TypeError, match="forest must be True or False, got 'yes'"):
        sparsified(RING, forest="yes")
    with pytest.raises(TypeError, match="names must be an array of uint64, got list"):
        gs.edges.keep_mask(SCORES, RING, keep=0.5, names=[1, 2, 3])
    with pytest.raises(TypeError, match="undirected must be True, False or None"):
        sparsified(RING, undirected=np.ones(2))
    with pytest.raises(TypeError, match=r"dense tensor \[2, num_edges\], got the layout torch.sparse_coo"):
        sparsified(Data(edge_index=torch.eye(2).long().to_sparse()))
    with pytest.raises(TypeError, match="scores must be a dense tensor"):
        gs.edges.keep_mask(torch.tensor(SCORES).to_sparse(), RING, keep=0.5)


def test_the_ids_of_edges_are_cut_where_nodes_are_as_many():
    ring = Data(edge_index=RING, num_nodes=6, e_id=torch.arange(6), n_id=torch.arange(6))
    small = sparsified(ring)
    assert len(small.n_id) == 6
    assert torch.equal(small.edge_index, RING[:, small.e_id])


@pytest.mark.parametrize("nodes", [-1, 2.5, True])
def test_a_number_of_nodes_is_a_whole_number(nodes):
    with pytest.raises(ValueError, match="num_nodes must be"):
        gs.edges.keep_mask(SCORES, RING, keep=0.5, num_nodes=nodes)
    with pytest.raises(ValueError, match="num_nodes must be at least 0, got -1"):
        sparsified(Data(edge_index=RING, num_nodes=-1))


@pytest.mark.parametrize("largest", [2**30, 2**31, 2**31 + 7, 10**12, 2**62])
def test_labels_in_the_place_of_ids_ask_for_no_memory(largest):
    """A bare id of 10^12 asked for 8 TB."""
    labelled = torch.where(RING == 2, largest, RING)
    for graph in (labelled, Data(edge_index=labelled, num_nodes=largest + 1)):
        with pytest.raises(ValueError, match="relabel the nodes"):
            sparsified(graph)
    relabelled = torch.unique(labelled, return_inverse=True)[1]
    assert sparsified(relabelled).shape == (2, 4)


def test_many_isolated_nodes_are_fine():
    assert sparsified(Data(edge_index=RING, num_nodes=1_000_000)).num_nodes == 1_000_000


def test_networkx_classes_that_want_arguments():
    class Named(nx.Graph):
        def __init__(self, owner):
            super().__init__()
            self.owner = owner

    class Directed(nx.DiGraph):
        def __init__(self, owner, data=None):
            super().__init__(data)
            self.owner = owner

    for kind in (Named, Directed):
        graph = kind("me")
        graph.add_edges_from([(0, 1), (1, 2), (2, 0)], colour="red")
        small = sparsified(graph)
        assert type(small) is kind
        assert small.owner == "me"
        assert (graph.number_of_edges(), small.number_of_edges()) == (3, 2)


@pytest.mark.parametrize(
    ("graph", "kind", "said"),
    [
        (RING.float(), TypeError, "int64 or int32"),
        (RING.bool(), TypeError, "int64 or int32"),
        (RING.t(), ValueError, r"shape \[2, num_edges\]"),
        (None, TypeError, "got NoneType"),
        (scipy.sparse.csr_array((2, 3)), ValueError, "square"),
    ],
)
def test_what_is_no_graph_is_told(graph, kind, said):
    with pytest.raises(kind, match=said):
        sparsified(graph)


def test_undirected_is_true_false_or_none():
    with pytest.raises(TypeError, match="undirected must be True, False or None"):
        sparsified(RING, undirected="yes")


@pytest.mark.parametrize("form", ["csr", "csc", "bsr"])
@pytest.mark.parametrize(
    "damage",
    [{"indptr": [0, 9, 3, 4]}, {"indptr": [0, 2, 3, 9]}, {"indices": [1, 2, 9, 0]}, {"indices": [1, -2, 0, 0]}],
)
def test_a_compressed_matrix_that_lies_is_refused_and_not_read(form, damage):
    whole = scipy.sparse.csr_array((np.ones(4), np.array([1, 2, 0, 0]), np.array([0, 2, 3, 4])), shape=(3, 3))
    matrix = whole.tobsr(blocksize=(1, 1)) if form == "bsr" else whole.asformat(form)
    for part, value in damage.items():
        setattr(matrix, part, np.array(value, np.int32))
    with pytest.raises(ValueError, match=f"the {form} matrix is damaged"):
        sparsified(matrix)


def test_labels_of_edges_go_with_them_and_labels_of_pairs_stay():
    """``edge_label`` belongs to ``edge_label_index`` where there is one, and to the edges where there is none."""
    along = Data(edge_index=RING, num_nodes=3, edge_label=torch.arange(6), e_id=torch.arange(6), names=list("abcdef"))
    small = sparsified(along)
    for name in ("edge_label", "e_id", "names"):
        assert len(small[name]) == 4, name
    assert small.names == [along.names[int(i)] for i in small.edge_label]
    pairs = Data(edge_index=RING, num_nodes=3, edge_label=torch.arange(6), edge_label_index=RING.flip(0))
    small = sparsified(pairs)
    assert torch.equal(small.edge_label, pairs.edge_label)
    assert torch.equal(small.edge_label_index, pairs.edge_label_index)
