"""Many graphs at once: each keeps what it would keep alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphsparse.edges import SCORES, keep_mask
from graphsparse.edges.each import mask_each
from graphsparse.edges.transform import edge_mask, score_edges
from graphsparse.graphs.interop import open_graph


def union(seed: int, count: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Random graphs of 1 to 9 nodes side by side, some without edges, some with loops, arcs shuffled.

    Returns arcs [2, E], the graph of each node [N] and of each arc [E].
    """
    generator = torch.Generator().manual_seed(seed)
    arcs, batch, start = [], [], 0
    for number in range(count):
        nodes = int(torch.randint(1, 10, (1,), generator=generator))
        pairs = torch.combinations(torch.arange(nodes)).t()
        pairs = pairs[:, torch.rand(pairs.size(1), generator=generator) < 0.5]
        loop = torch.zeros(2, number % 3 == 0, dtype=torch.long)
        arcs.append(torch.cat([pairs, pairs.flip(0), loop], dim=1) + start)
        batch += [number] * nodes
        start += nodes
    edge_index = torch.cat(arcs, dim=1)
    edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    of_nodes = torch.tensor(batch)
    return edge_index, of_nodes, of_nodes[edge_index[0]]


RULES: list[dict[str, Any]] = [{}, {"guard": "cover"}, {"forest": True}]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 20), st.sampled_from([0.1, 0.5, 0.7, 1.0]), st.sampled_from([{}, {"guard": "cover"}]), st.booleans()
)
def test_each_graph_keeps_what_it_would_keep_alone(seed: int, keep: float, rules: dict[str, Any], tied: bool) -> None:
    edge_index, batch, graph_of = union(seed)
    values = torch.rand(batch.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (values[edge_index[0]] + values[edge_index[1]]) * (0.0 if tied else 1.0)
    graph = open_graph(edge_index).edges
    mask = mask_each(graph, scores, batch, keep=keep, seed=3, **rules)
    for number in range(int(batch[-1]) + 1):
        own = graph_of == number
        nodes = (batch == number).nonzero().view(-1)
        alone = keep_mask(
            scores[own],
            edge_index[:, own] - nodes[0],
            keep=keep,
            seed=3,
            undirected=True,
            num_nodes=len(nodes),
            names=nodes.numpy().astype(np.uint64),
            **rules,
        )
        assert torch.equal(mask[own], alone)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.fractions(0, 1).filter(lambda value: value > 0))
def test_counts_are_exact_in_each_graph(seed: int, keep: Any) -> None:
    edge_index, batch, graph_of = union(seed)
    graph = open_graph(edge_index).edges
    mask = edge_mask(graph, "teddy", 0, {"keep": keep}, {}, batch)
    loops = edge_index[0] == edge_index[1]
    assert bool(mask[loops].all())
    kept = set(map(tuple, edge_index[:, mask].t().tolist()))
    assert kept == {(v, u) for u, v in kept}  # both directions of an edge together
    for number in range(int(batch[-1]) + 1):
        own = (graph_of == number) & ~loops
        pairs = int(own.sum()) // 2
        assert int((mask & own).sum()) // 2 == (max(1, math.ceil(keep * pairs)) if pairs else 0)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("method", ["teddy", "random"])
def test_the_mask_does_not_depend_on_the_order_of_the_arcs(rules: dict[str, Any], method: str) -> None:
    edge_index, batch, _ = union(5)
    rules = {"keep": 0.9, **rules}
    order = torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(0))
    one, two = (
        edge_mask(open_graph(arcs).edges, method, 0, rules, {}, batch) for arcs in (edge_index, edge_index[:, order])
    )
    assert torch.equal(one[order], two)


# random and local_degree read names, which are those of the union; rank_degree walks over all graphs
@pytest.mark.parametrize("method", sorted(set(SCORES) - {"cosine", "rank_degree", "random", "local_degree"}))
def test_scoring_all_graphs_at_once_is_scoring_each(method: str) -> None:
    edge_index, batch, graph_of = union(7)
    together = score_edges(open_graph(edge_index, True).edges, method, 0, {})[0]
    for number in range(int(batch[-1]) + 1):
        own, start = graph_of == number, int((batch < number).sum())
        alone = score_edges(open_graph(edge_index[:, own] - start, True).edges, method, 0, {})[0]
        torch.testing.assert_close(torch.as_tensor(together)[own], torch.as_tensor(alone))


def test_random_edges_differ_from_graph_to_graph() -> None:
    """The same molecule many times: a hash of its own node numbers alone would drop the same bond of each."""
    ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    ring = torch.cat([ring, ring.flip(0)], dim=1)
    edge_index = torch.cat([ring + 6 * number for number in range(50)], dim=1)
    batch = torch.arange(50).repeat_interleave(6)
    mask = edge_mask(open_graph(edge_index).edges, "random", 0, {"keep": 0.5}, {}, batch).view(50, 12)[:, :6]
    assert bool((mask.sum(dim=1) == 3).all())
    assert len(torch.unique(mask, dim=0)) > 10


def test_graphs_without_edges_and_a_union_without_any() -> None:
    none = torch.empty(2, 0, dtype=torch.long)
    graph = open_graph(none).edges
    assert mask_each(graph, torch.empty(0), torch.tensor([0, 1, 2]), keep=0.5).shape == (0,)


def test_strict_guards_name_the_graph_that_has_too_few_edges() -> None:
    star = torch.tensor([[0, 1, 1, 1], [1, 2, 3, 4]]) + 2
    edge_index = torch.cat([torch.tensor([[0], [1]]), star], dim=1)
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    batch = torch.tensor([0, 0, 1, 1, 1, 1, 1])
    graph = open_graph(edge_index).edges
    with pytest.raises(ValueError, match=r"graph 1: .*must keep 4 of 4 edges, but keep leaves 2"):
        mask_each(graph, torch.ones(10), batch, keep=0.5, guard="isolated")


@pytest.mark.parametrize(
    ("options", "said"), [({"keep": 0}, r"\(0, 1\]"), ({"keep": 0.5, "guard": "all"}, "guard must be")]
)
def test_bad_rules(options: dict[str, Any], said: str) -> None:
    edge_index, batch, _ = union(1)
    with pytest.raises(ValueError, match=said):
        mask_each(open_graph(edge_index).edges, torch.ones(edge_index.size(1)), batch, **options)


def test_nan_scores_are_refused() -> None:
    edge_index, batch, _ = union(1)
    with pytest.raises(ValueError, match="NaN"):
        mask_each(open_graph(edge_index).edges, torch.full((edge_index.size(1),), torch.nan), batch, keep=0.5)
