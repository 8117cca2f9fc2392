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


def _renumbered(graph: nx.Graph, order: int) -> nx.Graph:
    """The same graph with nodes and edges in another order, each edge named from either end."""
    random = np.random.default_rng(order)
    other = nx.Graph()
    for node in random.permutation(graph.number_of_nodes()):
        other.add_node(int(node))
    edges = list(graph.edges)
    for edge in random.permutation(len(edges)):
        u, v = edges[edge]
        other.add_edge(*((u, v) if random.random() < 0.5 else (v, u)))
    return other


@pytest.mark.parametrize("method", sorted(set(SCORES) - {"cosine"}))
def test_ties_break_by_name_under_every_order(method):
    for name, labelled in SYMMETRIC.items():
        graph = nx.convert_node_labels_to_integers(labelled)
        masks = set()
        for order in range(8):
            small = gs.sparsify(_renumbered(graph, order), method, keep=0.4)
            masks.add(frozenset(frozenset(edge) for edge in small.edges))
        assert len(masks) == 1, name


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
