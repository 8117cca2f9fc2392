"""The approximate Cholesky factor that serves conjugate gradients as a preconditioner."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graphsparse.edges import score
from graphsparse.edges.approximate_cholesky import factorise, solve
from graphsparse.edges.resistance_kernels import NO_FACTOR, conjugate_gradients
from graphsparse.edges.scores import resistance


def arrays(graph, seed=None):
    low, high = np.array(graph.edges).T
    weights = np.ones(len(low)) if seed is None else np.random.default_rng(seed).random(len(low)) + 0.1
    return graph.number_of_nodes(), low, high, weights


def laplacian(nodes, low, high, conductance):
    weights = sp.coo_array((conductance, (low, high)), shape=(nodes, nodes)).tocsr()
    weights = (weights + weights.T).tocsr()
    diagonal = np.asarray(weights.sum(axis=1)).ravel()
    return weights, diagonal, sp.diags_array(diagonal) - weights


def product(nodes, factor):
    """The matrix that a factor stands for: the sum over nodes of ``W (e_v - shares) (e_v - shares)^T``."""
    order, start, rows, shares, pivot = factor
    total = np.zeros((nodes, nodes))
    for at, v in enumerate(order):
        column = np.zeros(nodes)
        column[v] = 1.0
        column[rows[start[at] : start[at + 1]]] -= shares[start[at] : start[at + 1]]
        total += pivot[at] * np.outer(column, column)
    return total


def test_a_tree_is_eliminated_exactly():
    tree = arrays(nx.random_labeled_tree(60, seed=3), 0)
    factor = factorise(*tree, 0)
    assert len(factor[2]) == 59
    matrix = laplacian(*tree)[2].toarray()
    np.testing.assert_allclose(product(60, factor), matrix, atol=1e-12)
    flows = matrix @ np.random.default_rng(1).random((60, 3))
    potentials = flows.copy()
    solve(*factor, potentials)
    np.testing.assert_allclose(matrix @ potentials, flows, atol=1e-10)


def test_the_factor_is_right_in_expectation():
    graph = arrays(nx.gnp_random_graph(12, 0.5, seed=1), 0)
    found = np.array([product(12, factorise(*graph, seed)) for seed in range(2000)])
    error = found.std(0) / len(found) ** 0.5
    assert (np.abs(found.mean(0) - laplacian(*graph)[2].toarray()) <= 5 * error + 1e-12).all()
    assert error.max() > 1e-3  # no single draw is right


def test_parallel_edges_add_up():
    graph = arrays(nx.cycle_graph(9))
    ends = np.random.default_rng(0).permutation(18)
    twice = 9, np.repeat(graph[1], 2)[ends], np.repeat(graph[2], 2)[ends], np.full(18, 0.5)
    np.testing.assert_allclose(product(9, factorise(*graph, 0)).trace(), product(9, factorise(*twice, 0)).trace())


def test_the_same_seed_gives_the_same_factor_and_entries_stay_few():
    graph = arrays(nx.barabasi_albert_graph(3000, 4, seed=0))
    first, second = factorise(*graph, 7), factorise(*graph, 7)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(first[2]) < 6 * len(graph[1])


def test_a_wide_grid_needs_few_iterations():
    graph = arrays(nx.convert_node_labels_to_integers(nx.grid_2d_graph(120, 120)))
    weights, diagonal, _ = laplacian(*graph)
    flows = np.zeros((len(diagonal), 2))
    flows[0, 0], flows[-1, 0], flows[60, 1], flows[-200, 1] = 1.0, -1.0, 1.0, -1.0
    matrix = weights.indptr, weights.indices, weights.data, diagonal
    plain, factored = np.empty_like(flows), np.empty_like(flows)
    by_diagonal = conjugate_gradients(*matrix, NO_FACTOR, flows.copy(), 1e-8, 10_000, plain)
    by_factor = conjugate_gradients(*matrix, factorise(*graph, 0), flows.copy(), 1e-8, 10_000, factored)
    assert by_factor < 50
    assert by_diagonal > 200
    np.testing.assert_allclose(factored - factored[0], plain - plain[0], atol=1e-5)


@pytest.mark.parametrize(
    "graph", [nx.grid_2d_graph(24, 24), nx.barabasi_albert_graph(400, 5, seed=0)], ids=["a grid", "short paths"]
)
def test_resistances_are_those_of_the_exact_inverse(graph, monkeypatch):
    monkeypatch.setattr(resistance, "BAND", 0)
    ends = torch.tensor(list(nx.convert_node_labels_to_integers(graph).edges)).T
    exact = score(ends, "effective_resistance", undirected=True)
    options = {"exact_up_to": 0, "num_projections": 1500, "tolerance": 1e-9}
    estimate = score(ends, "effective_resistance", undirected=True, **options)
    assert float((estimate / exact - 1).square().mean().sqrt()) < 1.3 * (2 / 1500) ** 0.5
