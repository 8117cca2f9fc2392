"""The rank-degree walk against a plain walk over sets of edges, and by hand."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.edges.score_table import compute
from graphsparse.graphs.interop import EdgeList
from graphsparse.keep_rule import kept_count, mix64


def undirected(graph: nx.Graph) -> EdgeList:
    edge_index = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    return EdgeList(edge_index, graph.number_of_nodes(), undirected=True, mirrored=False)


def plain_walk(graph: nx.Graph, share: float, seeds: float, seed: int) -> dict[frozenset[int], int]:
    """The walk as its docstring tells it, on a copy of the graph that loses its edges."""
    n = graph.number_of_nodes()
    ids = np.arange(n)
    tie, restart = mix64(seed, ids), mix64(seed, ids, np.ones(1, np.int64))
    rest, wave_of, wave = graph.copy(), {}, 0
    queue: list[int] = []
    current: set[int] = set()
    while rest.number_of_edges():
        if not current:
            queue = [v for v in queue if rest.degree(v)] or [
                v for v in sorted(ids.tolist(), key=lambda v: restart[v]) if rest.degree(v)
            ]
            batch = kept_count(seeds, n)
            current, queue = set(queue[:batch]), queue[batch:]
        wave += 1
        picked = set()
        reached = set()
        for v in current:
            best_first = sorted(rest[v], key=lambda u: (-graph.degree(u), tie[u]))
            for u in best_first[: kept_count(share, rest.degree(v))]:
                picked.add(frozenset((u, v)))
                reached.add(u)
        wave_of.update(dict.fromkeys(picked, wave))
        rest.remove_edges_from(tuple(edge) for edge in picked)
        current = {v for v in reached if rest.degree(v)}
    return wave_of


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 30),
    p=st.floats(0, 1),
    share=st.sampled_from([1e-9, 0.1, 0.3, 0.5, 1.0]),
    seeds=st.sampled_from([0.01, 0.1, 1.0]),
    seed=st.integers(0, 9),
)
def test_agrees_with_a_plain_walk(n: int, p: float, share: float, seeds: float, seed: int) -> None:
    graph = nx.gnp_random_graph(n, p, seed=seed)
    scores = compute(undirected(graph), "rank_degree", share=share, seeds=seeds, seed=seed)
    waves = plain_walk(graph, share, seeds, seed)
    assert scores.tolist() == [1 / waves[frozenset(edge)] for edge in graph.edges]


def test_a_walk_by_hand() -> None:
    # one seed in a path of two triangles' hubs: whatever the start, hubs 0 and 1 are joined early
    graph = nx.Graph([(0, 1)] + [(0, leaf) for leaf in range(2, 8)] + [(1, leaf) for leaf in range(8, 14)])
    for seed in range(10):
        scores = compute(undirected(graph), "rank_degree", share=0.01, seed=seed)
        assert scores[0] >= 1 / 2  # from a leaf the walk goes to its hub and on to the other one; from a hub at once


def test_a_whole_share_picks_by_distance_from_the_seed() -> None:
    path = nx.path_graph(101)
    scores = compute(undirected(path), "rank_degree", share=1.0, seeds=1e-9)
    waves = (1 / scores).round().long()
    start = int(waves.argmin())
    steps = (torch.arange(100) - start).abs()
    # the edges beside the seed in wave 1, the next ones in wave 2, and so on
    assert ((waves - steps).abs() <= 1).all()


def test_the_seed_moves_the_start() -> None:
    graph = undirected(nx.connected_watts_strogatz_graph(60, 4, 0.2, seed=1))
    assert not torch.equal(compute(graph, "rank_degree", seed=0), compute(graph, "rank_degree", seed=1))


def test_a_long_walk_of_single_steps_ends() -> None:
    n = 200_000
    path = EdgeList(torch.stack([torch.arange(n - 1), torch.arange(1, n)]), n, undirected=True, mirrored=False)
    scores = compute(path, "rank_degree", seeds=1e-9)
    assert scores.min() > 0
    assert scores.max() == 1


def test_copies_and_directions_of_a_pair_share_its_wave() -> None:
    arcs = torch.tensor([[0, 1, 0, 1, 2], [1, 0, 1, 2, 3]])
    scores = compute(EdgeList(arcs, 4, undirected=False, mirrored=False), "rank_degree").tolist()
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("option", ["share", "seeds"])
@pytest.mark.parametrize("bad", [0, -0.5, 1.1, math.nan])
def test_parts_out_of_range_are_refused(option: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must"):
        compute(undirected(nx.path_graph(3)), "rank_degree", **{option: bad})
