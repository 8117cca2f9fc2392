"""Jaccard, SCAN and cosine against sets, networkx, scipy and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphsparse.edges.score_table import compute, score
from graphsparse.edges.scores import similarity
from graphsparse.graphs.interop import EdgeList


def undirected(graph: nx.Graph, x: Tensor | None = None) -> EdgeList:
    edge_index = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    return EdgeList(edge_index, graph.number_of_nodes(), undirected=True, mirrored=False, x=x)


class TestNeighbourhoods:
    @settings(deadline=None, max_examples=50)
    @given(n=st.integers(1, 25), p=st.floats(0, 1), seed=st.integers(0, 999))
    def test_agree_with_networkx_and_with_sets(self, n: int, p: float, seed: int) -> None:
        graph = nx.gnp_random_graph(n, p, seed=seed)
        expected = [value for _, _, value in nx.jaccard_coefficient(graph, graph.edges)]
        assert compute(undirected(graph), "jaccard").tolist() == pytest.approx(expected, rel=1e-15)
        closed = {v: {v, *graph[v]} for v in graph}
        expected = [len(closed[u] & closed[v]) / math.sqrt(len(closed[u]) * len(closed[v])) for u, v in graph.edges]
        assert compute(undirected(graph), "scan").tolist() == pytest.approx(expected, rel=1e-15)

    @pytest.mark.parametrize("name", ["facebook", "tolokers"])
    def test_agree_with_products_of_sparse_matrices_on_real_graphs(
        self, name: str, need: Callable[[str], Path]
    ) -> None:
        need({"facebook": "musae_facebook", "tolokers": "heterophilous/tolokers.npz"}[name])
        from graphsparse.data import load

        data = load(name)
        edge_index = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
        tail, head = edge_index.numpy()
        adjacency = sp.coo_array((np.ones(len(tail)), (tail, head)), shape=(data.num_nodes,) * 2).tocsr()
        some = slice(None, None, 50)
        tail, head = tail[some], head[some]
        common = np.asarray(adjacency[tail].multiply(adjacency[head]).sum(1)).ravel()
        degree = np.asarray(adjacency.sum(1)).ravel()
        expected = common / (degree[tail] + degree[head] - common)
        np.testing.assert_allclose(score(edge_index, "jaccard")[some], expected, rtol=1e-14)
        expected = (common + 2) / np.sqrt((degree[tail] + 1) * (degree[head] + 1))
        np.testing.assert_allclose(score(edge_index, "scan")[some], expected, rtol=1e-14)

    def test_copies_directions_and_loops_play_no_part(self) -> None:
        plain = undirected(nx.karate_club_graph())
        doubled = torch.cat([plain.edge_index, plain.edge_index.flip(0)[:, ::3], torch.tensor([[5], [5]])], dim=1)
        arcs = EdgeList(doubled, 34, undirected=False, mirrored=False)
        for method in ("jaccard", "scan"):
            expected = compute(plain, method)
            assert torch.equal(compute(arcs, method), torch.cat([expected, expected[::3], torch.tensor([torch.inf])]))

    def test_a_hub_costs_no_square_of_its_degree(self) -> None:
        n = 300_000  # a product of adjacency matrices would have 9e10 entries
        leaves = torch.arange(1, n)
        star = EdgeList(torch.stack([torch.zeros_like(leaves), leaves]), n, undirected=True, mirrored=False)
        assert compute(star, "jaccard").eq(0).all()


class TestCosine:
    @settings(deadline=None, max_examples=40)
    @given(n=st.integers(2, 12), width=st.integers(1, 9), seed=st.integers(0, 99), sparse=st.booleans())
    def test_agrees_with_scikit_learn(self, n: int, width: int, seed: int, sparse: bool) -> None:
        from sklearn.metrics.pairwise import cosine_similarity

        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, width, generator=generator) * (torch.rand(n, width, generator=generator) < 0.6)
        graph = undirected(nx.complete_graph(n), x.to_sparse_csr() if sparse else x)
        tail, head = graph.edge_index
        expected = cosine_similarity(x.double().numpy())[tail, head]
        np.testing.assert_allclose(compute(graph, "cosine"), expected, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(
        "form",
        [Tensor.to_sparse_csr, Tensor.to_sparse_coo, Tensor.to_sparse_csc, Tensor.double, Tensor.bfloat16, Tensor.bool],
    )
    def test_every_layout_and_type_reads_the_same_numbers(self, form: Callable[[Tensor], Tensor]) -> None:
        x = (torch.rand(34, 20, generator=torch.Generator().manual_seed(1)) < 0.3).float()
        graph = undirected(nx.karate_club_graph(), x)
        torch.testing.assert_close(
            compute(replace(graph, x=form(x)), "cosine"), compute(graph, "cosine"), rtol=1e-14, atol=0
        )

    def test_chunks_play_no_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.randn(34, 7, generator=torch.Generator().manual_seed(1))
        for features in (x, x.to_sparse_csr()):
            graph = undirected(nx.karate_club_graph(), features)
            whole = compute(graph, "cosine")
            with monkeypatch.context() as patch:
                patch.setattr(similarity, "CHUNK", 20)
                assert torch.equal(compute(graph, "cosine"), whole)

    def test_zero_vectors_score_zero(self) -> None:
        x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-2.0, -4.0]])
        for features in (x, x.to_sparse_csr(), torch.zeros(3, 0)):
            scores = compute(undirected(nx.complete_graph(3), features), "cosine").tolist()
            assert scores == pytest.approx([0.0, -1.0 if features.size(1) else 0.0, 0.0])

    @pytest.mark.parametrize("scale", [1e-300, 1e300])
    def test_extreme_features_neither_overflow_nor_vanish(self, scale: float) -> None:
        x = torch.tensor([[3.0, 4.0], [4.0, 3.0]], dtype=torch.float64) * scale
        for features in (x, x.to_sparse_csr()):
            assert compute(undirected(nx.path_graph(2), features), "cosine").item() == pytest.approx(0.96)

    def test_features_that_need_gradients_are_read(self) -> None:
        x = torch.eye(3, requires_grad=True)
        assert not compute(undirected(nx.path_graph(3), x), "cosine").requires_grad

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_features_that_are_no_numbers_are_refused(self, bad: float) -> None:
        x = torch.ones(3, 2)
        x[1, 1] = bad
        for features in (x, x.to_sparse_csr(), x.to_sparse_coo()):
            with pytest.raises(ValueError, match="features must be finite"):
                compute(undirected(nx.path_graph(3), features), "cosine")

    def test_missing_and_misshapen_features_are_refused(self) -> None:
        path = nx.path_graph(3)
        with pytest.raises(ValueError, match="this graph has none"):
            compute(undirected(path), "cosine")
        with pytest.raises(ValueError, match=r"one row for each of the 3 nodes, got \[2, 4\]"):
            compute(undirected(path, torch.ones(2, 4)), "cosine")
        with pytest.raises(TypeError, match="complex"):
            compute(undirected(path, torch.ones(3, 2, dtype=torch.complex64)), "cosine")
