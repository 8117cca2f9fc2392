"""Edges allotted by need: the exact count, the greedy choice step by step, and what it leaves alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphsparse.edges import allot
from graphsparse.edges.allot import mask_by_need
from graphsparse.graphs.interop import open_graph
from graphsparse.keep_rule import kept_count

Pairs = list[tuple[int, int]]


def random_graph(
    seed: int, nodes: int = 9, chance: float = 0.5
) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]:
    """Arcs [2, E] of an undirected graph with a loop, needs [N], helps [E], and its pairs."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(nodes)).t()
    pairs = pairs[:, torch.rand(pairs.size(1), generator=generator) < chance]
    benefit = torch.rand(pairs.size(1), generator=generator, dtype=torch.double)
    arcs = torch.cat([pairs, pairs.flip(0), torch.full((2, 1), nodes - 1)], dim=1)
    need = torch.rand(nodes, generator=generator, dtype=torch.double)
    return arcs, need, torch.cat([benefit, benefit, torch.ones(1)]), [tuple(pair) for pair in pairs.t().tolist()]


def worth(chosen: list[int], pairs: Pairs, need: Tensor, benefit: Tensor, offset: float) -> float:
    have = [offset] * len(need)
    for i in chosen:
        for end in pairs[i]:
            have[end] += float(benefit[i])
    return math.fsum(float(n) * math.log(h / offset) for n, h in zip(need, have, strict=True))


@given(seed=st.integers(0, 10_000), keep=st.floats(0.05, 1.0), offset=st.sampled_from([0.01, 0.05, 1.0]))
@settings(max_examples=60, deadline=None)
def test_each_step_takes_the_edge_that_gains_most(seed, keep, offset):
    arcs, need, benefit, pairs = random_graph(seed)
    if not pairs:
        return
    mask = mask_by_need(open_graph(arcs).edges, need, benefit, keep=keep, offset=offset)
    count = kept_count(keep, len(pairs))
    assert int(mask[: len(pairs)].sum()) == count
    assert torch.equal(mask[: len(pairs)], mask[len(pairs) : -1]), "both arcs of a pair stay or go together"
    assert bool(mask[-1]), "the loop stays"
    chosen: list[int] = []
    for _ in range(count):
        others = [i for i in range(len(pairs)) if i not in chosen]
        chosen.append(max(others, key=lambda i: worth([*chosen, i], pairs, need, benefit, offset)))
    assert sorted(chosen) == mask[: len(pairs)].nonzero().view(-1).tolist()


def test_the_greedy_choice_is_near_the_best_of_all():
    for seed in range(20):
        arcs, need, benefit, pairs = random_graph(seed, nodes=6)
        count = kept_count(0.4, len(pairs))
        mask = mask_by_need(open_graph(arcs).edges, need, benefit, keep=0.4, offset=0.05)
        best = max(worth(list(c), pairs, need, benefit, 0.05) for c in itertools.combinations(range(len(pairs)), count))
        found = worth(mask[: len(pairs)].nonzero().view(-1).tolist(), pairs, need, benefit, 0.05)
        assert (1 - 1 / math.e) * best <= found <= best + 1e-9


def test_needs_are_met_with_diminishing_returns():
    # two stars; the node 0 needs most, but after its first edge the node 4 gains more
    star = torch.tensor([[0, 1], [0, 2], [0, 3], [4, 5], [4, 6], [4, 7]]).t()
    arcs = torch.cat([star, star.flip(0)], dim=1)
    need = torch.tensor([3.0, 0, 0, 0, 2.0, 0, 0, 0])
    benefit = torch.tensor([1.0, 0.5, 0.2, 1.0, 0.5, 0.2]).repeat(2)
    mask = mask_by_need(open_graph(arcs).edges, need, benefit, keep=0.3, offset=0.05)
    assert mask[:6].tolist() == [True, False, False, True, False, False]


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_edges_has_no_say_even_among_ties(seed):
    arcs, _, benefit, _ = random_graph(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(arcs.size(1), generator=generator)
    same, ones = torch.ones(9), torch.ones_like(benefit)
    mask = mask_by_need(open_graph(arcs, None).edges, same, ones, keep=0.4, offset=0.1, seed=seed)
    again = mask_by_need(open_graph(arcs[:, order]).edges, same, ones, keep=0.4, offset=0.1, seed=seed)
    assert torch.equal(mask[order], again)


def test_the_compiled_loop_does_as_the_plain_one(monkeypatch):
    arcs, need, benefit, _ = random_graph(5, nodes=60)
    graph = open_graph(arcs).edges
    plain = mask_by_need(graph, need, benefit, keep=0.3, offset=0.05)
    monkeypatch.setattr(allot, "COMPILE_FROM", 0)
    assert torch.equal(mask_by_need(graph, need, benefit, keep=0.3, offset=0.05), plain)
    directed = torch.tensor([[0, 0, 2], [1, 2, 1]])
    assert mask_by_need(open_graph(directed).edges, torch.ones(3), torch.ones(3), keep=0.6, offset=0.05).sum() == 2


def test_an_arc_without_a_mirror_serves_its_head_alone():
    arcs = torch.tensor([[0, 0, 1], [1, 2, 2]])
    graph = open_graph(arcs).edges
    assert not graph.undirected
    mask = mask_by_need(graph, torch.tensor([9.0, 1.0, 0.1]), torch.ones(3), keep=0.3, offset=0.05)
    assert mask.tolist() == [True, False, False], "the tail's need of 9 must not count"


def test_pairs_that_are_written_once_serve_both_ends():
    once = torch.tensor([[0, 1], [1, 2]])
    need, ones = torch.tensor([0.1, 9.0, 1.0]), torch.ones(2)
    masks = [
        mask_by_need(open_graph(arcs, undirected=True).edges, need, ones, keep=0.5, offset=0.05)
        for arcs in (once, once.flip(0))
    ]
    assert masks[0].tolist() == masks[1].tolist() == [False, True]


def test_each_graph_of_a_union_gets_what_it_would_get_alone():
    parts = [random_graph(seed) for seed in range(6)]
    arcs = torch.cat([part[0] + 9 * number for number, part in enumerate(parts)], dim=1)
    need, benefit = (torch.cat([part[at] for part in parts]) for at in (1, 2))
    batch = torch.arange(6).repeat_interleave(9)
    mask = mask_by_need(open_graph(arcs).edges, need, benefit, keep=0.5, offset=0.05, batch=batch)
    alone = [mask_by_need(open_graph(a).edges, n, h, keep=0.5, offset=0.05) for a, n, h, _ in parts]
    assert torch.equal(mask, torch.cat(alone))


@given(seed=st.integers(0, 10_000), begun=st.floats(0.1, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_choice_that_was_begun_is_completed_as_it_would_have_gone_on(seed, begun):
    arcs, need, benefit, pairs = random_graph(seed)
    if not pairs:
        return
    graph, rest = open_graph(arcs).edges, {"offset": 0.05, "keep": 0.7}
    start = mask_by_need(graph, need, benefit, keep=begun, offset=0.05)
    assert torch.equal(
        mask_by_need(graph, need, benefit, start=start, **rest), mask_by_need(graph, need, benefit, **rest)
    )


def test_only_the_edges_among_which_to_choose_are_added_to_those_that_are_there():
    path = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    graph = open_graph(torch.cat([path, path.flip(0)], dim=1)).edges
    need, ones = torch.ones(5), torch.ones(8)
    start, among = (torch.tensor(mask).repeat(2) for mask in ([True, False, False, False], [False, True, True, False]))
    mask = mask_by_need(graph, need, ones, keep=0.5, offset=0.05, start=start, among=among)
    assert mask[:4].tolist() == [True, False, True, False], "1 has an edge already, 3 has none; the last is not asked"
    for keep in (0.25, 1.0):
        few = {"keep": keep, "start": start | among} if keep < 1 else {"keep": keep, "start": start, "among": among}
        with pytest.raises(ValueError, match="leave no choice of the size that keep asks for"):
            mask_by_need(graph, need, ones, offset=0.05, **few)


def test_nothing_to_choose_from_is_no_error():
    lonely = open_graph(torch.tensor([[0, 1], [0, 1]])).edges
    assert mask_by_need(lonely, torch.ones(2), torch.ones(2), keep=0.5, offset=0.05).all()
    empty = open_graph(torch.zeros(2, 0, dtype=torch.long)).edges
    assert mask_by_need(empty, torch.ones(0), torch.ones(0), keep=0.5, offset=0.05).shape == (0,)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"need": torch.tensor([1.0, -1.0])}, "need must be finite and not negative"),
        ({"need": torch.tensor([1.0, math.nan])}, "need must be finite"),
        ({"need": torch.ones(3)}, "need must have 2 numbers"),
        ({"benefit": torch.tensor([math.inf, 1.0])}, "benefit must be finite"),
        ({"benefit": torch.ones(1)}, "benefit must have 2 numbers"),
        ({"offset": 0.0}, "offset must be above 0"),
        ({"keep": 0.0}, "keep"),
        ({"keep": 1.5}, "keep"),
    ],
)
def test_bad_input_gets_one_sentence(change, sentence):
    graph = open_graph(torch.tensor([[0, 1], [1, 0]])).edges
    given = {"need": torch.ones(2), "benefit": torch.ones(2), "keep": 0.5, "offset": 0.05} | change
    with pytest.raises(ValueError, match=sentence):
        mask_by_need(graph, given.pop("need"), given.pop("benefit"), **given)
