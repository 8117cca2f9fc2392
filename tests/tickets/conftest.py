"""A small graph on which tickets are found in a second."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import graphsparse as gs


class PlainGCN(torch.nn.Module):
    """What a user of PyG would write; graphsparse knows nothing of it."""

    def __init__(self, features: int, hidden: int, classes: int, cached: bool = False) -> None:
        super().__init__()
        self.first = GCNConv(features, hidden, cached=cached)
        self.second = GCNConv(hidden, classes, cached=cached)

    def forward(self, x, edge_index):
        x = self.first(x, edge_index).relu()
        return self.second(torch.nn.functional.dropout(x, training=self.training), edge_index)


@pytest.fixture
def make_plain():
    def make(data, seed=0, **options):
        torch.manual_seed(seed)
        return PlainGCN(data.num_features, 16, 4, **options)

    return make


@pytest.fixture
def blocks() -> Data:
    """Four planted blocks of 40 nodes, noisy features, an isolated node in place 0, a self-loop at node 1."""
    graph = nx.planted_partition_graph(4, 40, 0.2, 0.01, seed=3)
    graph.remove_edges_from(list(graph.edges(0)))
    pairs = torch.tensor(list(graph.edges())).t()
    edge_index = torch.cat([pairs, pairs.flip(0), torch.tensor([[1], [1]])], dim=1)
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(160) // 40
    x = torch.nn.functional.one_hot(y, 4).float() + torch.randn(160, 4, generator=generator)
    part = torch.randperm(160, generator=generator)
    masks = {}
    for name, low, high in (("train_mask", 0, 40), ("val_mask", 40, 80), ("test_mask", 80, 160)):
        masks[name] = torch.zeros(160, dtype=torch.bool)
        masks[name][part[low:high]] = True
    return Data(x=x, edge_index=edge_index, y=y, num_classes=4, **masks)


@pytest.fixture
def model(blocks, make_plain):
    return make_plain(blocks)


@pytest.fixture
def ticket(blocks, model):
    return gs.find_ticket(model, blocks, edge_keep=0.5, weight_keep=0.3, epochs=6)
