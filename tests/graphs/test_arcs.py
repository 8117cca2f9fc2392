"""Degrees, neighbour sums and edge products: by hand, against dense algebra, and one engine against the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.graphs import arcs
from graphsparse.graphs.arcs import edge_products, incident_degrees, neighbour_sums, symmetric_scores
from graphsparse.graphs.interop import edge_list

PATH = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@st.composite
def multigraphs(draw):
    """Edge lists with loops and copies, directed, mirrored, or each pair once."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
    kind = draw(st.sampled_from(["directed", "mirrored", "once"]))
    if kind == "mirrored":
        pairs = pairs + [pair[::-1] for pair in pairs if pair[0] != pair[1]]
    if kind == "once":
        pairs = [(min(pair), max(pair)) for pair in pairs]
    edge_index = torch.tensor(pairs, dtype=draw(st.sampled_from([torch.int32, torch.int64]))).reshape(-1, 2).T
    return edge_list(edge_index, 7, undirected=kind != "directed")


def engines(call):
    """The same call through torch and through numba, for few nodes and for many."""
    results = []
    for compile_from, many in ((1 << 60, 0), (0, 1 << 60), (0, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arcs, "COMPILE_FROM", compile_from)
            patch.setattr(arcs, "MANY_NODES", many)
            results.append(call())
    return results


def adjacency(graph):
    dense = np.zeros((graph.num_nodes, graph.num_nodes), np.int64)
    np.add.at(dense, tuple(graph.edge_index.numpy()), 1)
    np.fill_diagonal(dense, 0)
    return dense + dense.T if graph.undirected and not graph.mirrored else dense


@settings(deadline=None, max_examples=60)
@given(multigraphs())
def test_degrees_and_sums_are_those_of_the_matrix(graph):
    dense = adjacency(graph)
    tails, heads = torch.arange(7) ** 2 - 3, torch.arange(7) + (1 << 32)
    if graph.undirected:
        tails = heads
    for degree_out, degree_in in engines(lambda: incident_degrees(edge_list(graph.edge_index, 7, graph.undirected))):
        assert degree_out.tolist() == dense.sum(1).tolist()
        assert degree_in.tolist() == dense.sum(0).tolist()
    for out_sum, in_sum in engines(lambda: neighbour_sums(graph, tails, heads)):
        assert out_sum.tolist() == (dense @ heads.numpy()).tolist()
        assert in_sum.tolist() == (dense.T @ tails.numpy()).tolist()


@settings(deadline=None, max_examples=60)
@given(multigraphs(), st.integers(0, 100))
def test_products_are_the_same_bits_in_both_engines(graph, seed):
    values = torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    by_torch, by_numba, _ = engines(lambda: edge_products(graph, values[0], values[1]))
    assert torch.equal(by_torch, by_numba)
    loops = graph.edge_index[0] == graph.edge_index[1]
    assert torch.equal(by_torch.isinf(), loops)


@pytest.mark.parametrize("undirected", [False, True])
def test_values_that_span_all_integers(undirected):
    graph = edge_list(PATH, 3, undirected)
    values = torch.tensor([1 << 62, -(1 << 62) - 5, 7])
    for out_sum, in_sum in engines(lambda: neighbour_sums(graph, values, values)):
        assert out_sum.tolist() == in_sum.tolist() == [-(1 << 62) - 5, (1 << 62) + 7, -(1 << 62) - 5]


def test_by_hand():
    graph = edge_list(PATH)
    assert incident_degrees(graph)[0].tolist() == [1, 2, 1]
    ones = torch.tensor([1, 10, 100])
    assert neighbour_sums(graph, ones, ones)[1].tolist() == [10, 101, 10]
    halves = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert edge_products(graph, halves, halves).tolist() == [0.5, 0.5, 2.0, 2.0, torch.inf]


def test_large_lists_on_one_thread_and_on_two(threads, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    edge_index = torch.randint(0, 5_000, (2, 400_000), generator=generator)
    edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    values = torch.randint(0, 1 << 33, (5_000,), generator=generator)
    factors = torch.rand(5_000, dtype=torch.float64, generator=generator)
    found = []
    lists = (edge_index, edge_index, edge_index.int(), edge_index.T.contiguous().T, edge_index)
    for number, ids, many in zip((1, 2, 2, 3, 3), lists, (1 << 20, 1 << 20, 0, 0, 0), strict=True):
        threads(number)
        monkeypatch.setattr(arcs, "MANY_NODES", many)
        graph = edge_list(ids)
        assert graph.mirrored
        scores = edge_products(graph, factors, factors)
        assert symmetric_scores(graph, scores)
        found.append((*incident_degrees(graph), *neighbour_sums(graph, values, values), scores))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_sums_of_many_threads_take_no_more_memory_than_the_edges(threads, monkeypatch):
    threads(8)
    made = []
    zeros = np.zeros
    monkeypatch.setattr(arcs.np, "zeros", lambda *shape: made.append(shape) or zeros(*shape))
    arcs.accumulate(lambda a, b, own: None, 1 << 20, 10 << 20, np.int64)
    assert len(made) == 1
    made.clear()
    arcs.accumulate(lambda a, b, own: None, 1 << 20, 1 << 10, np.int64)
    assert len(made) == 8


@settings(deadline=None, max_examples=60)
@given(multigraphs().filter(lambda graph: graph.mirrored and graph.num_countable), st.data())
def test_symmetric_scores(graph, data):
    tails, heads = graph.edge_index.long()
    weights = data.draw(st.lists(st.sampled_from([0.0, 1.5, -2.0, torch.inf]), min_size=49, max_size=49))
    table = torch.tensor(weights).view(7, 7)
    scores = table[torch.minimum(tails, heads), torch.maximum(tails, heads)]
    scores[tails > heads] *= 1.0
    minus = torch.where((scores == 0) & (tails > heads), -0.0, scores)
    uneven = scores.clone()
    uneven[int((tails != heads).nonzero()[0])] += 1.0
    uneven[int((tails != heads).nonzero()[0])].nan_to_num_(posinf=7.0)
    for dtype in (torch.float32, torch.float64):
        assert engines(lambda dtype=dtype: symmetric_scores(graph, minus.to(dtype))) == [True] * 3
        assert engines(lambda dtype=dtype: symmetric_scores(graph, uneven.to(dtype))) == [False] * 3


@pytest.mark.parametrize(
    ("call", "values", "error", "message"),
    [
        (neighbour_sums, torch.ones(3), TypeError, "of_tails must be int64"),
        (neighbour_sums, torch.ones(2, dtype=torch.int64), ValueError, "3 nodes"),
        (edge_products, torch.ones(3, dtype=torch.int64), TypeError, "float64"),
        (edge_products, torch.ones(3, 1, dtype=torch.float64), ValueError, r"\[3, 1\]"),
    ],
)
def test_wrong_values(call, values, error, message):
    with pytest.raises(error, match=message):
        call(edge_list(PATH), values, values)
