"""A mask does not hang on how nodes and edges are numbered, where scores tie, too: symmetric graphs, every score."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.edges import SCORES

SYMMETRIC = {
    "grid": nx.grid_2d_graph(5, 5),
    "torus": nx.grid_2d_graph(5, 4, periodic=True),
    "Petersen": nx.petersen_graph(),
    "ladder": nx.circular_ladder_graph(9),
    "bipartite": nx.complete_bipartite_graph(4, 6),
    "complete": nx.complete_graph(8),
    "two parts": nx.compose(nx.star_graph(6), nx.cycle_graph(range(20, 29))),
}


def _reordered(graph: nx.Graph, order: int) -> nx.Graph:
    """The same graph, nodes and edges in another order and each edge named from either end.

    Labels are strings: those that are 0..N-1 would be the ids themselves, whatever the order of the nodes.
    """
    random = np.random.default_rng(order)
    other = nx.Graph()
    nodes = list(graph.nodes)
    for node in random.permutation(len(nodes)):
        other.add_node(f"node {nodes[node]}")
    edges = list(graph.edges(data=True))
    for edge in random.permutation(len(edges)):
        u, v, attributes = edges[edge]
        ends = (u, v) if random.random() < 0.5 else (v, u)
        other.add_edge(*(f"node {end}" for end in ends), **attributes)
    return other


def _masks(graph: nx.Graph, method: str, keep: float) -> set[frozenset[frozenset[str]]]:
    """The kept edges under eight orders: one set where the mask hangs on names alone."""
    small = [gs.sparsify(_reordered(graph, order), method, keep=keep) for order in range(8)]
    return {frozenset(frozenset(edge) for edge in graph.edges) for graph in small}


@pytest.mark.parametrize("method", sorted(set(SCORES) - {"cosine"}))
def test_ties_break_by_name_under_every_order(method):
    for name, graph in SYMMETRIC.items():
        assert len(_masks(graph, method, 0.4)) == 1, name


def test_weighted_ties_of_resistances_break_by_name():
    """Conductances that differ a millionfold, where the noise of a solution is a million times larger."""
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(6, 6, periodic=True))
    for u, v in graph.edges:
        graph[u][v]["weight"] = 1.0 if abs(u - v) in (6, 30) else 1e6
    assert len(_masks(graph, "effective_resistance", 0.7)) == 1


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_cosine_keeps_its_bits_under_every_order(layout):
    """Nodes of a ``Data`` are named by their places, so it is the scores that must not change."""
    graph = nx.gnm_random_graph(40, 160, seed=1)
    edge_index, generator = torch.tensor(list(graph.edges)).t(), torch.Generator().manual_seed(0)
    x = torch.randn(40, 33, generator=generator) * (torch.rand(40, 33, generator=generator) < 0.4)

    def scored(place, order):
        moved = x[place.argsort()]
        moved = moved.to_sparse_csr() if layout == torch.sparse_csr else moved
        return gs.edges.score(Data(x=moved, edge_index=place[edge_index][:, order]), "cosine", undirected=True)

    expected = scored(torch.arange(40), torch.arange(160))
    for _ in range(4):
        place, order = (torch.randperm(size, generator=generator) for size in (40, 160))
        assert torch.equal(scored(place, order), expected[order])


def test_ties_of_cosine_break_by_name():
    """It reads the features of a ``Data``, whose nodes are named by their places."""
    edges = torch.tensor(list(nx.convert_node_labels_to_integers(SYMMETRIC["torus"]).edges))
    x = torch.randint(0, 3, (20, 4), generator=torch.Generator().manual_seed(0)).float()
    masks = set()
    for order in range(8):
        shuffled = edges[torch.randperm(len(edges), generator=torch.Generator().manual_seed(order))].t()
        small = gs.sparsify(Data(x=x, edge_index=shuffled), "cosine", keep=0.4, undirected=True)
        masks.add(frozenset(map(tuple, small.edge_index.t().tolist())))
    assert len(masks) == 1


def test_ties_of_resistances_break_by_seed():
    """They were rounding noise of about 1e-15, so 20 node orders gave 20 masks and 20 seeds gave one."""
    graph = nx.convert_node_labels_to_integers(SYMMETRIC["torus"])
    masks = {frozenset(gs.sparsify(graph, "effective_resistance", keep=0.3, seed=seed).edges) for seed in range(20)}
    assert len(masks) > 15
    data = gs.edges.score(torch.tensor(list(graph.edges)).t(), "effective_resistance", undirected=True)
    assert len(data.unique()) <= 2  # one level for each of the two directions


def test_resistances_that_differ_stay_apart():
    path = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    weights = torch.tensor([1.0, 1 + 1e-7, 1 + 1e-12, 2.0], dtype=torch.float64)
    scores = gs.edges.score(
        Data(edge_index=path, edge_weight=weights, num_nodes=5), "effective_resistance", undirected=True
    )
    assert scores[0] == scores[2]
    assert scores[0] > scores[1] > scores[3]
