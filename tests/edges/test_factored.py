"""Masks by the factors of a score: those of the float64 scores bit for bit, however close the scores lie."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse as gs
from graphsparse.edges import factored
from graphsparse.edges.keep import mask_edges
from graphsparse.graphs import arcs
from graphsparse.graphs.interop import edge_list

NODES = 9
FACTORS = {
    "far apart": [1.0, 0.5, 0.25, 3.0, 0.1, 2.0, 0.7, 0.01, 5.0],
    "equal in float32": [1 + k * 2.0**-40 for k in (0, 3, 1, 2, 2, 5, 4, 8, 1)],
    "at float32's roundings": [1 + k * 2.0**-24 for k in (0, 1, 2, 3, 1, 5, 7, 2, 4)],
    "with zeros": [0.0, 1.0, 0.0, 2.0, 1.0, 1.0 + 2.0**-30, 0.0, 1.0, 2.0],
    "too small for float32": [2.0**-k for k in (70, 75, 71, 72, 75, 74, 73, 70, 75)],
    "too large": [2.0**k for k in (70, 75, 71, 72, 75, 74, 73, 70, 75)],
    "negative": [-1.0, 1.0, 2.0, -2.0, 0.5, 1.0, 1.0, 3.0, -1.0],
}


@st.composite
def graphs(draw):
    ends = st.integers(0, NODES - 1)
    pairs = draw(st.lists(st.tuples(ends, ends), min_size=1, max_size=30))
    kind = draw(st.sampled_from(["directed", "mirrored", "once"]))
    if kind == "mirrored":
        pairs = pairs + [pair[::-1] for pair in pairs if pair[0] != pair[1]]
    if kind == "once":
        pairs = [(min(pair), max(pair)) for pair in pairs]
    return edge_list(torch.tensor(pairs).T, NODES, undirected=kind != "directed")


@settings(deadline=None, max_examples=150)
@given(graphs(), st.sampled_from(sorted(FACTORS)), st.permutations(range(NODES)), st.sampled_from([0.1, 0.5, 0.9]))
def test_the_mask_is_that_of_the_scores(graph, name, order, keep):
    tails = torch.tensor(FACTORS[name], dtype=torch.float64)
    heads = tails if graph.undirected else tails[list(order)]
    wanted = mask_edges(graph, arcs.edge_products(graph, tails, heads), keep=keep, seed=3, symmetric=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arcs, "COMPILE_FROM", 0)
        assert torch.equal(factored.mask_products(graph, tails, heads, keep=keep, seed=3), wanted)


@pytest.mark.parametrize("rules", [{"guard": "cover"}, {"per_node": 1, "keep": None}, {"forest": True}, {"keep": 1.0}])
def test_other_rules_have_the_scores(rules):
    graph = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
    rules = {"keep": 0.8} | rules
    by_scores = gs.sparsify(graph, gs.edges.score(graph, "teddy"), **rules)
    assert torch.equal(gs.sparsify(graph, "teddy", **rules), by_scores)


def test_scores_are_not_made(monkeypatch):
    """Long lists are kept by float32 products: half the memory of the scores; few edges are multiplied in float64."""
    generator = torch.Generator().manual_seed(0)
    half = (2000 * torch.rand(2, 40_000, generator=generator) ** 2).long()
    graph = torch.cat([half, half.flip(0)], 1)
    wanted = gs.sparsify(graph, gs.edges.score(graph, "teddy"), keep=0.3)
    made = []
    products = factored.edge_products
    monkeypatch.setattr(factored, "edge_products", lambda *given: made.append(products(*given)) or made[-1])
    assert torch.equal(gs.sparsify(graph, "teddy", keep=0.3), wanted)
    assert [scores.dtype for scores in made] == [torch.float32]
    assert torch.equal(gs.sparsify(graph, "teddy", keep=0.3, normalization="sqrt"), gs.sparsify(
        graph, gs.edges.score(graph, "teddy", normalization="sqrt"), keep=0.3))  # fmt: skip


def test_options_are_checked_as_ever():
    with pytest.raises(TypeError, match="does not take power; its options are normalization"):
        gs.sparsify(torch.tensor([[0], [1]]), "teddy", keep=0.5, power=2)
    with pytest.raises(ValueError, match="normalization must be"):
        gs.sparsify(torch.tensor([[0], [1]]), "teddy", keep=0.5, normalization="no")
