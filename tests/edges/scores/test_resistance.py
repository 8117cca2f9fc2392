"""Effective resistance against networkx, pseudo-inverses, Foster's theorem and circuits worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.edges.score_table import compute, score
from graphsparse.edges.scores import resistance
from graphsparse.errors import GraphsparseError
from graphsparse.graphs.interop import EdgeList

METHOD = "effective_resistance"


def weighted(graph: nx.Graph, seed: int = 0) -> EdgeList:
    """The pairs of a graph, each once, with random conductances (also written to the graph)."""
    rng = np.random.default_rng(seed)
    for *_, data in graph.edges(data=True):
        data["weight"] = float(rng.uniform(0.1, 10))
    return plain(graph, torch.tensor([data["weight"] for *_, data in graph.edges(data=True)], dtype=torch.float64))


def plain(graph: nx.Graph, weight: torch.Tensor | None = None) -> EdgeList:
    edge_index = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    return EdgeList(edge_index, graph.number_of_nodes(), undirected=True, mirrored=False, weight=weight)


def by_pseudo_inverse(graph: EdgeList) -> np.ndarray:
    low, high = graph.edge_index.numpy()
    weight = np.ones(len(low)) if graph.weight is None else graph.weight.numpy()
    laplacian = np.zeros((graph.num_nodes, graph.num_nodes))
    for u, v, w in zip(low, high, weight, strict=True):
        laplacian[[u, v], [u, v]] += w
        laplacian[[u, v], [v, u]] -= w
    inverse = np.linalg.pinv(laplacian)
    return inverse[low, low] + inverse[high, high] - 2 * inverse[low, high]


class TestExact:
    def test_circuits_by_hand(self) -> None:
        square = plain(nx.cycle_graph(4))
        assert compute(square, METHOD).tolist() == pytest.approx([3 / 4] * 4)
        in_series = plain(nx.path_graph(3), torch.tensor([2.0, 0.5]))
        assert compute(in_series, METHOD).tolist() == pytest.approx([0.5, 2.0])
        complete = plain(nx.complete_graph(6))
        assert compute(complete, METHOD).tolist() == pytest.approx([2 / 6] * 15)

    @pytest.mark.parametrize("with_weights", [False, True])
    def test_agrees_with_networkx(self, with_weights: bool) -> None:
        graph = nx.connected_watts_strogatz_graph(25, 4, 0.3, seed=1)
        edges = weighted(graph) if with_weights else plain(graph)
        expected = nx.resistance_distance(graph, weight="weight" if with_weights else None, invert_weight=False)
        assert compute(edges, METHOD).tolist() == pytest.approx([expected[u][v] for u, v in graph.edges], rel=1e-9)

    @settings(deadline=None, max_examples=40)
    @given(n=st.integers(1, 30), p=st.floats(0, 0.5), seed=st.integers(0, 999))
    def test_agrees_with_the_pseudo_inverse_and_fosters_theorem(self, n: int, p: float, seed: int) -> None:
        graph = nx.gnp_random_graph(n, p, seed=seed)  # often in several components
        edges = weighted(graph, seed)
        scores = compute(edges, METHOD).numpy()
        np.testing.assert_allclose(scores, by_pseudo_inverse(edges), rtol=1e-8)
        components = nx.number_connected_components(graph)
        assert float((scores * edges.weight.numpy()).sum()) == pytest.approx(n - components, rel=1e-9, abs=1e-12)

    def test_many_components_of_all_sizes(self) -> None:
        graph = nx.disjoint_union_all(
            [nx.complete_graph(k % 7 + 1) for k in range(300)] + [nx.cycle_graph(270), nx.cycle_graph(400)]
        )
        expected = [
            2 / (graph.degree(u) + 1) if graph.degree(u) != 2 else None for u, _ in graph.edges
        ]  # cliques; triangles and cycles below
        scores = compute(plain(graph), METHOD).tolist()
        sizes = {v: len(c) for c in nx.connected_components(graph) for v in c}
        for (u, _), got, clique in zip(graph.edges, scores, expected, strict=True):
            assert got == pytest.approx(clique if clique is not None else 1 - 1 / sizes[u])

    def test_copies_add_up_and_directions_are_averaged(self) -> None:
        twice = EdgeList(torch.tensor([[0, 1, 0], [1, 2, 1]]), 3, undirected=True, mirrored=False)
        assert compute(twice, METHOD).tolist() == pytest.approx([0.5, 1.0, 0.5])
        arcs = torch.tensor([[0, 1, 1], [1, 0, 2]])
        digraph = EdgeList(arcs, 3, undirected=False, mirrored=False, weight=torch.tensor([1.0, 3.0, 1.0]))
        assert compute(digraph, METHOD).tolist() == pytest.approx([0.5, 0.5, 2.0])

    def test_both_arcs_of_a_pair_are_equal_whatever_their_weights(self) -> None:
        once = nx.karate_club_graph()
        pairs = plain(once).edge_index
        weight = torch.rand(2 * pairs.size(1), generator=torch.Generator().manual_seed(0)) + 0.1
        both = EdgeList(torch.cat([pairs, pairs.flip(0)], 1), 34, undirected=True, mirrored=True, weight=weight)
        there, back = compute(both, METHOD).view(2, -1)
        assert torch.equal(there, back)
        mean = plain(once, weight.view(2, -1).double().mean(0))
        torch.testing.assert_close(there, compute(mean, METHOD), rtol=1e-9, atol=0)

    def test_weights_of_some_orders_of_magnitude(self) -> None:
        path = plain(nx.path_graph(5), torch.tensor([1e-4, 1e4, 1e-4, 1.0], dtype=torch.float64))
        assert compute(path, METHOD).tolist() == pytest.approx([1e4, 1e-4, 1e4, 1.0])

    def test_weights_of_too_many_orders_are_an_error_and_no_noise(self) -> None:
        path = plain(nx.path_graph(4), torch.tensor([1e20, 1.0, 1e20], dtype=torch.float64))
        with pytest.raises(GraphsparseError, match="too many orders of magnitude"):
            compute(path, METHOD)


class TestEstimate:
    @pytest.mark.parametrize("band", [0, 10**9])
    def test_stays_within_epsilon(self, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resistance, "BAND", band)  # 0: conjugate gradients, else sparse LU
        graph = nx.disjoint_union(
            nx.connected_watts_strogatz_graph(120, 6, 0.2, seed=2), nx.barabasi_albert_graph(90, 4, seed=2)
        )
        edges = weighted(graph)
        exact = compute(edges, METHOD)
        estimate = compute(edges, METHOD, exact_up_to=0, epsilon=0.3, seed=1)
        ratio = estimate / exact
        assert ratio.min() >= 0.7
        assert ratio.max() <= 1.3
        assert abs(float((estimate * edges.weight).sum()) - (210 - 2)) < 4  # Foster, in the mean
        assert not torch.equal(estimate, compute(edges, METHOD, exact_up_to=0, epsilon=0.3, seed=2))

    def test_both_solvers_give_the_same_estimate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        edges = weighted(nx.connected_watts_strogatz_graph(200, 6, 0.2, seed=2))
        options = {"exact_up_to": 0, "num_projections": 70, "tolerance": 1e-9}
        factorised = compute(edges, METHOD, **options)
        monkeypatch.setattr(resistance, "BAND", 0)
        torch.testing.assert_close(compute(edges, METHOD, **options), factorised, rtol=1e-5, atol=0)
        monkeypatch.setattr(resistance, "BATCH", 1)  # one projection at a time
        torch.testing.assert_close(compute(edges, METHOD, **options), factorised, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("band", [0, 10**9])
    def test_small_components_beside_one_that_is_estimated(self, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resistance, "BAND", band)
        graph = nx.disjoint_union(nx.barabasi_albert_graph(60, 3, seed=2), nx.cycle_graph(5))
        graph.add_nodes_from([100, 101])  # isolated
        edges = plain(nx.convert_node_labels_to_integers(graph))
        exact = compute(edges, METHOD)
        rough = compute(edges, METHOD, exact_up_to=10, num_projections=300)
        torch.testing.assert_close(rough[-5:], exact[-5:], rtol=1e-9, atol=0)
        assert float((rough / exact - 1).abs().max()) < 0.5

    def test_more_projections_come_closer(self) -> None:
        edges = plain(nx.gnp_random_graph(150, 0.08, seed=3))
        exact = compute(edges, METHOD)
        errors = [
            float((compute(edges, METHOD, exact_up_to=0, num_projections=k) / exact - 1).square().mean().sqrt())
            for k in (10, 1000)
        ]
        assert errors[1] < errors[0] / 3
        assert errors[1] < 1.5 * math.sqrt(2 / 1000)

    def test_a_tree_is_exact_and_large_components_alone_are_estimated(self) -> None:
        tree = nx.random_labeled_tree(400, seed=1)
        edges = weighted(nx.disjoint_union(tree, nx.cycle_graph(5)))
        exact = compute(edges, METHOD)
        rough = compute(edges, METHOD, exact_up_to=50, num_projections=200)
        torch.testing.assert_close(rough[-5:], exact[-5:], rtol=1e-9, atol=0)
        inner = (1 / edges.weight)[:-5]
        assert (rough[:-5] <= inner * (1 + 1e-12)).all()  # no more than the edge alone
        leaves = torch.tensor([1 in (tree.degree(u), tree.degree(v)) for u, v in tree.edges])
        torch.testing.assert_close(rough[:-5][leaves], inner[leaves], rtol=1e-12, atol=0)

    def test_names_carry_the_signs_of_nodes_that_are_renumbered(self) -> None:
        edges = weighted(nx.gnp_random_graph(80, 0.15, seed=4))
        new_id = torch.randperm(80, generator=torch.Generator().manual_seed(0))
        names = np.arange(80, dtype=np.uint64)
        moved = replace(edges, edge_index=new_id[edges.edge_index], names=names[np.argsort(new_id.numpy())])
        options = {"exact_up_to": 0, "num_projections": 20}
        torch.testing.assert_close(
            compute(moved, METHOD, **options), compute(edges, METHOD, **options), rtol=1e-9, atol=0
        )

    def test_the_two_arcs_of_a_pair_are_equal_bit_for_bit(self) -> None:
        pairs = plain(nx.gnp_random_graph(80, 0.15, seed=4)).edge_index
        scores = score(torch.cat([pairs, pairs.flip(0)], 1), METHOD, exact_up_to=0, num_projections=5)
        assert torch.equal(*scores.view(2, -1))

    def test_no_convergence_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resistance, "BAND", 0)
        monkeypatch.setattr(resistance, "ITERATIONS", 0)
        with pytest.raises(GraphsparseError, match="did not reach the tolerance"):
            compute(plain(nx.cycle_graph(9)), METHOD, exact_up_to=0)


class TestBadInput:
    @pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
    def test_weights_that_conduct_nothing_are_refused(self, bad: float) -> None:
        with pytest.raises(ValueError, match="the weight of edge 2 is"):
            compute(plain(nx.path_graph(4), torch.tensor([1.0, 1.0, bad])), METHOD)

    def test_the_weight_of_a_loop_plays_no_part(self) -> None:
        graph = EdgeList(torch.tensor([[0, 1], [1, 1]]), 2, True, False, weight=torch.tensor([2.0, 0.0]))
        assert compute(graph, METHOD).tolist() == [0.5, math.inf]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epsilon": 0.0}, "epsilon must lie in"),
            ({"epsilon": 1.0}, "epsilon must lie in"),
            ({"tolerance": 0}, "tolerance must lie in"),
            ({"num_projections": 0}, "num_projections must be at least 1"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            compute(plain(nx.path_graph(2)), METHOD, **options)

    def test_a_negative_weight_in_networkx_is_named(self) -> None:
        graph = nx.Graph()
        graph.add_edge("a", "b", weight=-2)
        with pytest.raises(ValueError, match=r"the weight of edge 0 is -2\.0"):
            score(graph, METHOD)


def test_exact_and_estimate_agree_on_real_data(need: Callable[[str], object]) -> None:
    need("Planetoid/Cora/raw")
    from graphsparse.data import load

    data = load("cora")
    exact = score(data, METHOD)
    real = data.edge_index[0] != data.edge_index[1]
    nodes, components = data.num_nodes, 78
    assert float(exact[real].sum()) / 2 == pytest.approx(nodes - components, rel=1e-9)
    rough = score(data, METHOD, exact_up_to=100, num_projections=400)
    error = (rough[real] / exact[real] - 1).square().mean().sqrt()
    assert error < 1.5 * math.sqrt(2 / 400)
