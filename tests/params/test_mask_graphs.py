"""Networks as graphs and back: chains, skips, recurrent layers with gates."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from graphsparse.params import (
    Fixed,
    Sparsifier,
    graph_figures,
    graph_of_masks,
    layered_network,
    masks_from_graph,
)


class Tagger(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 5)
        self.cells = kind(5, 6, num_layers=2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(self.embed(x))[0])
        return out


def drawn(net: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(p.shape, generator=generator) < 0.4 for n, p in net.named_parameters() if p.dim() == 2}


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)),
        Tagger(nn.RNN),
        Tagger(nn.GRU),
        Tagger(nn.LSTM),
        nn.LSTMCell(3, 4),
        nn.GRUCell(3, 4),
        nn.RNNCell(3, 4),
        layered_network(nx.barabasi_albert_graph(12, 2, seed=0), 4, 3),
    ],
    ids=["mlp", "rnn", "gru", "lstm", "lstm cell", "gru cell", "rnn cell", "layered"],
)
def test_masks_become_a_graph_and_come_back(net: nn.Module) -> None:
    masks = drawn(net)
    graph = graph_of_masks(net, masks)
    back = masks_from_graph(net, graph)
    assert back.keys() == masks.keys()
    assert all(torch.equal(back[name], mask) for name, mask in masks.items())


def test_a_trained_networks_graph_has_as_many_edges_as_weights() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    masks = Sparsifier(net, "magnitude", keep=0.25).finish()
    graph = graph_of_masks(net)
    assert graph.number_of_edges() == sum(int(mask.sum()) for mask in masks.values()) == 20
    assert graph.has_edge(2, 6 + 3) == bool(masks["0.weight"][3, 2])
    assert graph.in_degree(6 + 8 + 1) == int(masks["2.weight"][1].sum())


def test_a_layered_network_computes_what_its_graph_says() -> None:
    """Beside a walk over the nodes one by one."""
    graph = nx.watts_strogatz_graph(14, 4, 0.4, seed=1)
    net = layered_network(graph, 3, 2)
    masks = masks_from_graph(net, graph)
    first, last = next(iter(masks)), list(masks)[-1]
    assert masks[first].all()
    assert masks[last].all()
    assert sum(int(m.sum()) for n, m in masks.items() if n not in (first, last)) == graph.number_of_edges()
    Fixed(masks).project_({name: net.get_parameter(name) for name in masks})
    x = torch.randn(5, 3)
    layer: dict[int, int] = {}
    for node in graph:  # in order, so that those before it have theirs
        layer[node] = max((layer[other] + 1 for other in graph[node] if other < node), default=0)
    order = sorted(graph, key=lambda node: (layer[node], node))
    column = {node: i for i, node in enumerate(order)}
    values: dict[int, Tensor] = {}
    for node in order:
        unit = [other for other in order if layer[other] == layer[node]].index(node)
        linear = net.layers[layer[node]]
        assert isinstance(linear, nn.Linear)
        if layer[node] == 0:
            out = x @ linear.weight[unit]
        else:
            before = [other for other in graph[node] if other < node]
            out = sum((values[o] * linear.weight[unit, column[o]] for o in before), torch.zeros(5))
        values[node] = (out + linear.bias[unit]).relu()
    hidden = torch.stack([values[node] for node in order], dim=1)
    assert torch.allclose(net(x), net.layers[-1](hidden), atol=1e-6)


def test_a_graph_between_time_steps_masks_every_gate() -> None:
    net = Tagger(nn.GRU)
    net.cells = nn.GRU(5, 6)
    graph = nx.cycle_graph(6)
    masks = masks_from_graph(net, graph)
    expected = torch.from_numpy(nx.to_numpy_array(graph) > 0)
    assert torch.equal(masks["cells.weight_hh_l0"], expected.repeat(3, 1))
    assert masks["cells.weight_ih_l0"].all()
    assert masks["head.weight"].all()
    directed = nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 0)])
    hidden = masks_from_graph(nn.LSTMCell(2, 4), directed)["weight_hh"]
    assert torch.equal(hidden[4:8], torch.from_numpy(nx.to_numpy_array(directed).T > 0))


def test_a_graph_of_all_layers_masks_the_ends_too() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    masks = masks_from_graph(net, nx.DiGraph([("a", "c"), ("b", "d"), ("c", "e"), ("d", "e")]))
    assert masks["0.weight"].tolist() == [[True, False], [False, True]]
    assert masks["1.weight"].tolist() == [[True, True]]


def test_figures_are_those_of_networkx() -> None:
    graph = nx.watts_strogatz_graph(30, 4, 0.2, seed=0)
    graph.add_edge("x", "y")
    figures = graph_figures(graph)
    assert figures["degree"] == pytest.approx(np.mean([d for _, d in graph.degree()]))
    assert figures["connected"] == 30 / 32
    assert figures["clustering"] == nx.average_clustering(graph)


def test_what_fits_no_network_is_told() -> None:
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    for graph, said in (
        (nx.DiGraph([(0, 1), (1, 2), (2, 0)]), r"has a cycle, through \[0, 1, 2\]"),
        (nx.DiGraph([(0, 0), (0, 1)]), "has a cycle"),
        (nx.empty_graph(3), r"the nodes \[0, 1, 2\] have no edges"),
        (nx.Graph(), "no nodes"),
        (nx.path_graph(4), r"layers have \[1, 1, 1, 1\] nodes, the network's \[4, 2, 2, 1\]"),
    ):
        with pytest.raises(ValueError, match=said):
            masks_from_graph(net, graph)
    skip = nx.DiGraph([(0, 1), (1, 2), (0, 2)])
    with pytest.raises(ValueError, match=r"the edge \(0, 2\) leads from layer 0 to layer 2, and the network has no"):
        masks_from_graph(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), skip)
    with pytest.raises(ValueError, match=r"of 3 units is for one recurrent layer of as many; there are 1, of \[4\]"):
        masks_from_graph(nn.LSTMCell(2, 4), nx.path_graph(3))
    with pytest.raises(ValueError, match="they are no chain"):
        graph_of_masks(nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)))
    with pytest.raises(ValueError, match="no Linear or recurrent layer"):
        graph_of_masks(nn.Conv2d(1, 1, 1))
    for other in (nn.Conv1d(2, 2, 1), nn.MultiheadAttention(2, 1), nn.Bilinear(2, 2, 2), GCNConv(2, 2)):
        with pytest.raises(ValueError, match=r"'0\..*weight' is a weight of .*: a graph of units has Linear"):
            graph_of_masks(nn.Sequential(other, nn.Linear(2, 1)))
    words = nn.ModuleList([nn.Embedding(5, 2), nn.GRU(2, 3), nn.Linear(3, 1)])  # the words are looked up
    assert len(graph_of_masks(words)) == 2 + 3 + 1
    with pytest.raises(ValueError, match="bidirectional"):
        graph_of_masks(nn.GRU(2, 2, bidirectional=True))
    with pytest.raises(ValueError, match="not those of the network"):
        masks_from_graph(nn.Linear(2, 3), graph_of_masks(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match="is no parameter of the model"):
        graph_of_masks(net, {"7.weight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(TypeError, match="one of networkx, got list"):
        masks_from_graph(net, [(0, 1)])  # type: ignore[arg-type]
