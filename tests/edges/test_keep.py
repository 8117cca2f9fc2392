"""The exact mask: counts, pairs, ties, guards, forests, and what it must not depend on."""

from collections import defaultdict
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphsparse import sorting
from graphsparse.edges import keep as keep_module
from graphsparse.edges import keep_mask
from graphsparse.edges.keep import smallest_keep
from graphsparse.graphs import arcs
from graphsparse.keep_rule import kept_count, mix64

KEEPS = [0.01, 0.3, 0.5, Fraction(2, 3), 0.95, 1.0]
RULES = [{}, {"guard": "cover"}, {"guard": "isolated"}, {"forest": True}, {"guard": "cover", "forest": True}]


@st.composite
def scored(draw, kinds=("directed", "mirrored", "once"), equal_arcs=None, values=(-1.0, 0.0, 0.5, 2.0, torch.inf)):
    """A multigraph with loops, and scores with many ties: (edge_index, scores, undirected)."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
    kind = draw(st.sampled_from(kinds))
    scores = draw(st.lists(st.sampled_from(values), min_size=len(pairs), max_size=len(pairs)))
    if kind == "once":
        pairs = [(min(pair), max(pair)) for pair in pairs]
    if kind == "mirrored":
        loops = [u == v for u, v in pairs]
        mirrors = [(v, u) for u, v in pairs if u != v]
        if equal_arcs is None:
            equal_arcs = draw(st.booleans())
        back = [score for score, loop in zip(scores, loops, strict=True) if not loop]
        if not equal_arcs:
            back = draw(st.lists(st.sampled_from(values), min_size=len(back), max_size=len(back)))
        pairs, scores = pairs + mirrors, scores + back
    order = draw(st.permutations(range(len(pairs))))
    edge_index = torch.tensor([pairs[i] for i in order], dtype=torch.int64).reshape(-1, 2).T
    return edge_index, torch.tensor([scores[i] for i in order], dtype=torch.float64), kind != "directed"


def units_of(edge_index, scores, undirected):
    """Countable elements the slow way: [(ends, score, positions)], each pair's copies best first."""
    tails, heads = edge_index.tolist()
    directions = defaultdict(list)
    for at, (u, v) in enumerate(zip(tails, heads, strict=True)):
        if u != v:
            directions[u, v].append(at)
    for positions in directions.values():
        positions.sort(key=lambda at: (-scores[at].item(), at))
    mirrored = undirected and all(len(directions.get((v, u), ())) == len(at) for (u, v), at in list(directions.items()))
    units = []
    for (u, v), positions in sorted(directions.items()):
        if not mirrored:
            ends = (min(u, v), max(u, v)) if undirected else (u, v)
            units += [(ends, scores[at].item(), (at,)) for at in positions]
        elif u < v:
            for ahead, back in zip(positions, directions[v, u], strict=True):
                units.append(((u, v), max(scores[ahead].item(), scores[back].item()), (ahead, back)))
    return units


def best_first(units, seed):
    copies, ranked = defaultdict(int), []
    for ends, score, positions in units:
        key = int(mix64(seed, *(np.array([part]) for part in (*ends, copies[ends, score])))[0])
        copies[ends, score] += 1
        ranked.append((-score, key, ends, positions))
    return [(ends, positions) for _, _, ends, positions in sorted(ranked)]


def slow_mask(edge_index, scores, undirected, *, keep=None, per_node=None, guard=None, forest=False, seed=0):
    """DESIGN's definitions, word by word."""
    ranked = best_first(units_of(edge_index, scores, undirected), seed)
    chosen = set()
    if per_node is not None:
        count = None
        for node in range(7):
            chosen |= set([i for i, (ends, _) in enumerate(ranked) if node in ends][:per_node])
    else:
        count = kept_count(keep, len(ranked))
    if forest:
        tree = nx.utils.UnionFind()
        for i, ((u, v), _) in enumerate(ranked):
            if tree[u] != tree[v]:
                tree.union(u, v)
                chosen.add(i)
    if guard == "isolated":
        for node in range(7):
            chosen |= set([i for i, (ends, _) in enumerate(ranked) if node in ends][:1])
    if count is not None and len(chosen) > count:
        return len(chosen)
    if guard == "cover":
        covered = {node for i in chosen for node in ranked[i][0]}
        for wanted in (2, 1):
            for i, (ends, _) in enumerate(ranked):
                if len(chosen) < count and i not in chosen and len(set(ends) - covered) == wanted:
                    chosen.add(i)
                    covered |= set(ends)
    if count is not None:
        rest = [i for i in range(len(ranked)) if i not in chosen]
        chosen |= set(rest[: count - len(chosen)])
    mask = edge_index[0] == edge_index[1]
    for i in chosen:
        mask[list(ranked[i][1])] = True
    return mask


def columns(edge_index, mask):
    return sorted(map(tuple, edge_index[:, mask].T.tolist()))


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("rules", RULES)
@settings(deadline=None, max_examples=60)
@given(graph=scored(), keep=st.sampled_from(KEEPS), seed=st.integers(0, 3))
def test_masks_are_those_of_the_definition(numba, rules, graph, keep, seed):
    edge_index, scores, undirected = graph
    expected = slow_mask(edge_index, scores, undirected, keep=keep, seed=seed, **rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arcs, "COMPILE_FROM", 0 if numba else 1 << 60)
        patch.setattr(keep_module, "COMPILE_FROM", 0 if numba else 1 << 60)
        patch.setattr(sorting, "RADIX_FROM", 1 if numba else 1 << 60)
        try:
            mask = keep_mask(scores, edge_index, keep=keep, undirected=undirected, num_nodes=7, seed=seed, **rules)
        except ValueError as error:
            assert f"must keep {expected} of" in str(error)  # noqa: PT017  (with what raises the definition must agree)
            return
    assert torch.equal(mask, expected)


@settings(deadline=None, max_examples=60)
@given(graph=scored(), per_node=st.integers(1, 3), seed=st.integers(0, 3))
def test_per_node_is_that_of_the_definition(graph, per_node, seed):
    edge_index, scores, undirected = graph
    mask = keep_mask(scores, edge_index, per_node=per_node, undirected=undirected, num_nodes=7, seed=seed)
    assert torch.equal(mask, slow_mask(edge_index, scores, undirected, per_node=per_node, seed=seed))


@settings(deadline=None, max_examples=60)
@given(graph=scored(), keep=st.sampled_from(KEEPS), rules=st.sampled_from([*RULES, {"per_node": 1}]), data=st.data())
def test_the_order_of_the_edges_does_not_matter(graph, keep, rules, data):
    edge_index, scores, undirected = graph
    order = torch.tensor(data.draw(st.permutations(range(edge_index.size(1)))), dtype=torch.int64)
    rules = rules if "per_node" in rules else {"keep": keep, **rules}
    kept = []
    for ids, values in ((edge_index, scores), (edge_index[:, order], scores[order])):
        try:
            mask = keep_mask(values, ids, undirected=undirected, num_nodes=7, **rules)
        except ValueError:
            kept.append(None)
            continue
        kept.append(sorted(zip(ids[0, mask].tolist(), ids[1, mask].tolist(), values[mask].tolist(), strict=True)))
    assert kept[0] == kept[1]


@settings(deadline=None, max_examples=60)
@given(graph=scored(), keep=st.sampled_from(KEEPS), data=st.data())
def test_the_order_of_the_nodes_does_not_matter_to_names(graph, keep, data):
    edge_index, scores, undirected = graph
    place = torch.tensor(data.draw(st.permutations(range(7))))
    names = np.empty(7, np.uint64)
    names[place.numpy()] = np.arange(7)
    by_id = keep_mask(scores, edge_index, keep=keep, undirected=undirected, num_nodes=7)
    by_name = keep_mask(scores, place[edge_index], keep=keep, undirected=undirected, num_nodes=7, names=names)
    assert torch.equal(by_id, by_name)


@settings(deadline=None, max_examples=40)
@given(graph=scored(), keep=st.sampled_from(KEEPS))
def test_id_types_and_score_types_do_not_matter(graph, keep):
    edge_index, scores, undirected = graph
    mask = keep_mask(scores, edge_index, keep=keep, undirected=undirected)
    assert torch.equal(mask, keep_mask(scores, edge_index.int(), keep=keep, undirected=undirected))
    assert torch.equal(mask, keep_mask(scores.float(), edge_index, keep=keep, undirected=undirected))
    assert torch.equal(mask, keep_mask(scores.numpy(), edge_index, keep=keep, undirected=undirected))


def large_graph(ties):
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.randint(0, 20_000, (2, 150_000), generator=generator)
    scores = torch.randint(0, 5, (150_000,), generator=generator).double() if ties else torch.rand(150_000)
    real = edge_index[0] != edge_index[1]
    both = torch.cat([edge_index, edge_index[:, real].flip(0)], 1)
    order = torch.randperm(both.size(1), generator=generator)
    return both[:, order], torch.cat([scores, scores[real]])[order]


@pytest.mark.parametrize("ties", [False, True])
def test_engines_and_threads_do_not_matter(ties, monkeypatch):
    edge_index, scores = large_graph(ties)
    pairs = int((edge_index[0] != edge_index[1]).sum()) // 2
    masks, before = [], torch.get_num_threads()
    try:
        for threads, compile_from in ((1, 1 << 16), (2, 1 << 16), (2, 1 << 60)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(arcs, "COMPILE_FROM", compile_from)
            masks.append(keep_mask(scores, edge_index, keep=0.37))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    kept = edge_index[:, masks[0]]
    assert int((kept[0] != kept[1]).sum()) == 2 * kept_count(0.37, pairs)
    assert columns(kept, slice(None)) == columns(kept.flip(0), slice(None))


@pytest.mark.parametrize("rules", [{"guard": "cover"}, {"guard": "isolated"}, {"forest": True}])
def test_large_graphs_take_the_guards(rules):
    edge_index, scores = large_graph(ties=True)
    mask = keep_mask(scores, edge_index, keep=0.5, **rules)
    kept = edge_index[:, mask]
    real = edge_index[0] != edge_index[1]
    assert int((kept[0] != kept[1]).sum()) == 2 * kept_count(0.5, int(real.sum()) // 2)
    assert set(kept[0, kept[0] != kept[1]].tolist()) == set(edge_index[0, real].tolist())
    if "forest" in rules:
        assert components(kept) == components(edge_index)


def components(edge_index):
    graph = nx.Graph(map(tuple, edge_index.T.tolist()))
    return {frozenset(nodes) for nodes in nx.connected_components(graph)}


def test_the_compiled_cover_is_the_plain_one(monkeypatch):
    from graphsparse.graphs import loops

    edge_index, scores = large_graph(ties=False)
    compiled = keep_mask(scores, edge_index, keep=0.1, guard="cover")
    monkeypatch.setattr(loops, "cover", loops.cover.py_func)
    assert torch.equal(compiled, keep_mask(scores, edge_index, keep=0.1, guard="cover"))


def test_rounding_does_not_split_a_pair():
    """Arcs ranked one by one lost one direction of a pair where float rounding made their scores differ."""
    edge_index = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])
    scores = torch.tensor([0.3, 0.1 + 0.2, 0.5, 0.1, 0.1 + 0.2, 0.3, 0.5, 0.1], dtype=torch.float64)
    for keep in (0.25, 0.5, 0.75):
        mask = keep_mask(scores, edge_index, keep=keep)
        assert int(mask.sum()) == 8 * keep
        assert torch.equal(mask[:4], mask[4:])


def test_an_uneven_pair_counts_once_with_its_better_score():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    mask = keep_mask(torch.tensor([0.0, 9.0, 5.0, 5.0]), edge_index, keep=0.5)
    assert mask.tolist() == [True, True, False, False]


def test_copies_meet_their_mirrors_by_score():
    edge_index = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])
    mask = keep_mask(torch.tensor([1.0, 2.0, 2.0, 1.0]), edge_index, keep=0.5)
    assert mask.tolist() == [False, True, True, False]
    mask = keep_mask(torch.tensor([1.0, 2.0, 1.5, 1.5]), edge_index, keep=0.5)
    assert mask.tolist() == [False, True, True, False]


@pytest.mark.parametrize("loop_score", [-5.0, 0.0, 100.0])
def test_loops_are_kept_and_not_counted(loop_score):
    """Counted loops made a nominal 36 % kept 12 % of the real edges."""
    edge_index = torch.tensor([[0, 1, 1, 2, 0, 1, 2], [1, 0, 2, 1, 0, 1, 2]])
    scores = torch.tensor([2.0, 2.0, 1.0, 1.0, loop_score, loop_score, loop_score])
    assert keep_mask(scores, edge_index, keep=0.5).tolist() == [True, True, False, False, True, True, True]
    assert keep_mask(scores, edge_index, per_node=1).all()
    assert keep_mask(scores[4:], edge_index[:, 4:], keep=0.1).all()


def test_the_scores_are_not_changed():
    """A score tensor changed in place by the first round made every later round arbitrary."""
    edge_index, scores, _ = torch.tensor([[0, 1, 2, 1], [1, 2, 2, 0]]), torch.rand(4), None
    before, ids = scores.clone(), edge_index.clone()
    first = keep_mask(scores, edge_index, keep=0.5, undirected=False)
    for rules in ({"keep": 0.5}, {"keep": 1.0}, {"per_node": 1}, {"keep": 1.0, "guard": "cover"}):
        keep_mask(scores, edge_index, undirected=False, **rules)
    assert torch.equal(scores, before)
    assert torch.equal(edge_index, ids)
    assert torch.equal(first, keep_mask(scores, edge_index, keep=0.5, undirected=False))


def test_the_mask_is_in_the_order_of_the_edges():
    """A mask built in CSR order and applied in COO order."""
    edge_index = torch.tensor([[3, 0, 2, 1], [0, 1, 1, 3]])
    assert keep_mask(torch.tensor([4.0, 1.0, 3.0, 2.0]), edge_index, keep=0.5).tolist() == [True, False, True, False]


def test_all_ties_are_broken_by_the_seed():
    cycle = torch.tensor([list(range(40)), [*range(1, 40), 0]])
    cycle = torch.cat([cycle, cycle.flip(0)], 1)
    masks = {tuple(keep_mask(torch.ones(80), cycle, keep=0.5, seed=seed).tolist()) for seed in range(5)}
    assert len(masks) == 5
    assert {sum(mask) for mask in masks} == {40}
    assert torch.equal(keep_mask(torch.ones(80), cycle, keep=0.5), keep_mask(torch.ones(80), cycle, keep=0.5, seed=0))


def test_keeping_everything_and_the_smallest_share():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    assert keep_mask(torch.zeros(4), edge_index, keep=1.0).all()
    assert keep_mask(torch.tensor([1.0, 1.0, 2.0, 2.0]), edge_index, keep=1e-12).tolist() == [False, False, True, True]
    nothing = torch.empty(2, 0, dtype=torch.int64)
    for rules in (*({"keep": 0.5, **rule} for rule in RULES), {"per_node": 2}):
        assert keep_mask(torch.empty(0), nothing, num_nodes=3, **rules).shape == (0,)
        assert keep_mask(torch.empty(0), nothing, **rules).shape == (0,)


def test_infinite_and_negative_scores():
    edge_index = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 0, 3]])
    scores = torch.tensor([-torch.inf, -3.0, torch.inf, -2.0, 0.0])
    for keep, kept in ((0.25, [2]), (0.5, [2, 3]), (0.75, [1, 2, 3])):
        mask = keep_mask(scores, edge_index, keep=keep)
        assert mask.nonzero().view(-1).tolist() == [*kept, 4]
    everywhere = torch.full((5,), torch.inf)
    assert int(keep_mask(everywhere, edge_index, keep=0.5).sum()) == 3


@pytest.mark.parametrize("rules", [{"guard": "isolated"}, {"forest": True}, {"guard": "isolated", "forest": True}])
@settings(deadline=None, max_examples=60)
@given(graph=scored(), count=st.integers(1, 14))
def test_the_smallest_feasible_keep_works(rules, graph, count):
    edge_index, scores, undirected = graph
    total = len(units_of(edge_index, scores, undirected))
    assume(total >= count)
    options = {"undirected": undirected, "num_nodes": 7, **rules}
    try:
        keep_mask(scores, edge_index, keep=Fraction(count, total), **options)
    except ValueError as error:
        named = str(error).split()[-1]
        mask = keep_mask(scores, edge_index, keep=named, **options)
        arcs_each = 2 if undirected and total * 2 == int((edge_index[0] != edge_index[1]).sum()) else 1
        kept = int((mask & (edge_index[0] != edge_index[1])).sum()) // arcs_each
        with pytest.raises(ValueError, match="smallest feasible keep"):
            keep_mask(scores, edge_index, keep=Fraction(kept - 1, total), **options)


@given(st.integers(1, 10**12), st.integers(0, 10**12))
def test_smallest_keep_reaches_its_count(count, more):
    assert kept_count(smallest_keep(count, count + more), count + more) == count


def test_a_forest_is_that_of_networkx():
    graph = nx.gnm_random_graph(60, 200, seed=4)
    scores = torch.randperm(200, generator=torch.Generator().manual_seed(0)).double()
    for at, (u, v) in enumerate(graph.edges):
        graph[u][v]["weight"] = float(scores[at])
    tree = nx.maximum_spanning_tree(graph)
    edge_index = torch.tensor(list(graph.edges)).T
    mask = keep_mask(scores, edge_index, keep=Fraction(tree.number_of_edges(), 200), undirected=True, forest=True)
    assert {frozenset(edge) for edge in edge_index[:, mask].T.tolist()} == {frozenset(edge) for edge in tree.edges}


def test_a_forest_covers_before_the_guard_does():
    """Every end of the forest is covered, so the guard spends what is left by score: 1-2 and 1-3, not 1-2 and 3-4."""
    edge_index = torch.tensor([[0, 0, 0, 0, 1, 1, 3], [1, 2, 3, 4, 2, 3, 4]])
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 3.0, 2.0, 1.0])
    for order in (torch.arange(7), torch.arange(7).flip(0)):
        options = {"keep": Fraction(6, 7), "undirected": True, "guard": "cover", "forest": True}
        mask = keep_mask(scores[order], edge_index[:, order], **options)
        assert scores[order][mask].sort().values.tolist() == [2.0, 3.0, 6.0, 7.0, 8.0, 9.0]


@pytest.mark.parametrize("keep", [0.4, 1.0])
def test_a_nan_is_found_behind_infinities(keep):
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    scores = torch.tensor([torch.inf, -torch.inf, torch.inf, torch.nan])
    for rules in ({}, {"guard": "isolated"}, {"guard": "cover", "forest": True}):
        with pytest.raises(ValueError, match="position 3 is NaN"):
            keep_mask(scores, edge_index, keep=keep, undirected=True, **rules)
    with pytest.raises(ValueError, match="position 3 is NaN"):
        keep_mask(scores, edge_index, per_node=1)


def test_cover_by_hand():
    """Path 0-1-2-3: the middle edge is best, but two outer ones cover all."""
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    scores = torch.tensor([1.0, 3.0, 2.0])
    for count, kept in ((1, [1]), (2, [1, 2])):
        mask = keep_mask(scores, edge_index, keep=Fraction(count, 3), undirected=True, guard="cover")
        assert mask.nonzero().view(-1).tolist() == kept
    star = torch.tensor([[0, 0, 0, 4], [1, 2, 3, 5]])
    mask = keep_mask(torch.tensor([4.0, 3.0, 2.0, 1.0]), star, keep=0.5, undirected=True, guard="cover")
    assert mask.tolist() == [True, False, False, True]  # by score alone nodes 4 and 5 would be isolated


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"keep": 0.0}, ValueError, r"\(0, 1\]"),
        ({"keep": 1.5}, ValueError, r"\(0, 1\]"),
        ({"keep": "half"}, ValueError, "finite number"),
        ({"keep": None}, TypeError, "either keep"),
        ({"per_node": 2}, TypeError, "either keep"),
        ({"keep": None, "per_node": 0}, ValueError, "at least 1"),
        ({"keep": None, "per_node": 1.5}, TypeError, "integer"),
        ({"keep": None, "per_node": 1, "guard": "cover"}, ValueError, "per_node has none"),
        ({"keep": None, "per_node": 1, "forest": True}, ValueError, "per_node has none"),
        ({"guard": "all"}, ValueError, "'cover' or 'isolated', got 'all'"),
        ({"scores": torch.ones(3)}, ValueError, r"each of 4 edges, got \[3\]"),
        ({"scores": torch.ones(4, 1)}, ValueError, r"got \[4, 1\]"),
        ({"scores": torch.ones(4, dtype=torch.complex64)}, TypeError, "real"),
        ({"scores": torch.ones(4, dtype=torch.bool)}, TypeError, "real numbers, got torch.bool"),
        ({"scores": torch.tensor([0.0, torch.nan, 1.0, torch.nan])}, ValueError, "position 1 is NaN"),
        ({"scores": torch.tensor([0.0, torch.nan, 1.0, 1.0]), "keep": 1.0}, ValueError, "position 1 is NaN"),
        ({"scores": torch.tensor([0.0, torch.nan, 1.0, 1.0]), "guard": "cover"}, ValueError, "position 1 is NaN"),
        ({"num_nodes": 2}, ValueError, "node 2 in row"),
        ({"edge_index": torch.rand(2, 4)}, TypeError, "int64 or int32"),
        ({"names": np.zeros(2, np.uint64)}, ValueError, r"3 nodes, got \[2\]"),
        ({"names": np.zeros(3)}, TypeError, "uint64"),
    ],
)
def test_bad_input(change, error, message):
    options = {"scores": torch.ones(4), "edge_index": torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), "keep": 0.5} | change
    with pytest.raises(error, match=message):
        keep_mask(**options)
