"""The graph as PyTorch Geometric, networkx and a reader see it."""

import torch
from metanet_networks import make
from torch import nn

from graphsparse.metanet import NetworkGraph


def small():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
    return module, NetworkGraph.from_module(module.eval(), torch.zeros(4, 2))


def test_data():
    module, graph = small()
    data = graph.to_data()
    data.validate()
    nodes, edges = data["channel"], data["channel", "linear", "channel"]
    assert data.num_nodes == 6
    assert nodes.is_input.tolist() == [True] * 2 + [False] * 4
    assert nodes.is_output.tolist() == [False] * 5 + [True]
    assert edges.edge_index[:, 0].tolist() == [0, 2]
    assert edges.edge_attr[0, 0] == module[0].weight[0, 0]
    column = nodes.x_names.index("gamma")
    assert torch.equal(nodes.x[2:5, column], module[1].weight)
    assert nodes.x[[0, 1, 5], column].tolist() == [0, 0, 0]


def test_data_of_relations_and_positions():
    _, graph = (make("vit")[0], NetworkGraph.from_module(*make("vit")))
    data = graph.to_data()
    data.validate()
    assert torch.equal(data["channel", "q-k", "channel"].edge_index, graph.relations["q-k"])
    assert data["channel", "4x4", "channel"].edge_attr.shape == (24, 16)
    assert data["channel"].x.shape[1] == len(data["channel"].x_names)
    assert "shift[16]" in data["channel"].x_names


def test_networkx():
    module, graph = small()
    out = graph.to_networkx()
    assert out.number_of_nodes() == 6
    assert out.number_of_edges() == 9
    assert out.nodes[0] == {"layer": "input 0", "is_input": True, "is_output": False}
    assert out.nodes[5]["bias"] == module[3].bias.item()
    (edge,) = out.get_edge_data(4, 5).values()
    assert edge == {"kind": "linear", "parameter": "3.weight", "values": [module[3].weight[0, 2].item()]}
    residual = NetworkGraph.from_module(*make("resnet20")).to_networkx()
    assert sum(kind == "add" for *_, kind in residual.edges(data="kind")) == 64


def test_print(capsys):
    _, graph = small()
    graph.print()
    text = capsys.readouterr().out
    for words in ("6 nodes, 9 kernel edges", "0.weight: 6", "gamma: 3 x 1", "relations: none", "outputs: 1 nodes"):
        assert words in text
    assert "banks={'beta': 3" in repr(graph)
