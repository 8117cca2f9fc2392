"""A trace is made once per architecture, and never used for another."""

import copy

import pytest
import torch
from metanet_networks import ResNet, make, randomised, same_bits
from torch import nn

from graphsparse.metanet import NetworkGraph, clear_cache


@pytest.fixture
def exports(monkeypatch):
    clear_cache()
    made, export = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: made.append(1) or export(*args, **kwargs))
    return made


@pytest.mark.parametrize("name", ["resnet20", "gcn", "vit-torch"])
def test_one_export_for_an_architecture(name, exports):
    for seed in (0, 1):
        module, inputs = make(name, seed)
        assert same_bits(NetworkGraph.from_module(module, inputs).to_state_dict(), module.state_dict())
        NetworkGraph.from_module(copy.deepcopy(module).train(), inputs)
    assert len(exports) == 1


def test_another_width_input_or_attribute_is_another_architecture(exports):
    class Scaled(nn.Linear):
        def __init__(self, options):
            super().__init__(3, 3)
            self.options = options

        def forward(self, x):
            y = super().forward(x)
            return x + y if self.options["residual"] else y

    NetworkGraph.from_module(ResNet(20, (4, 4, 4)), torch.zeros(1, 3, 8, 8))
    NetworkGraph.from_module(ResNet(20, (4, 4, 6)), torch.zeros(1, 3, 8, 8))
    NetworkGraph.from_module(ResNet(20, (4, 4, 4)), torch.zeros(2, 3, 8, 8))
    assert len(exports) == 3
    graphs = [NetworkGraph.from_module(Scaled({"residual": flag}), torch.zeros(1, 3)) for flag in (True, False)]
    assert len(exports) == 5
    assert [set(graph.relations) for graph in graphs] == [{"add"}, set()]


def test_ties_are_part_of_the_architecture(exports):
    free, tied = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    tied[1].weight = tied[0].weight
    graphs = [NetworkGraph.from_module(module, torch.zeros(1, 3)) for module in (free, tied)]
    assert [len(graph.slots("0.weight")) for graph in graphs] == [1, 2]
    assert len(exports) == 2


def test_buffers_that_choose_are_part_of_it(exports):
    class Chosen(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)
            self.register_buffer("order", torch.tensor(order))

        def forward(self, x):
            return self.second(self.first(x)[:, self.order])

    for order in ([0, 1, 2], [2, 0, 1], [0, 1, 2]):
        module = randomised(Chosen(order))
        graph = NetworkGraph.from_module(module, torch.zeros(1, 2))
        (slot,) = graph.slots("second.weight")
        start = int(graph.edges[()].src[slot.row][slot.element == 1])
        hidden = torch.nonzero(graph.layer == graph.layer_names.index("first")).view(-1)
        assert start == hidden[order[1]]
        assert same_bits(graph.to_state_dict(), module.state_dict())
    assert len(exports) == 2


def test_edges_of_the_data_graph_are_read(exports):
    module, (x, edge_index) = make("gcn")
    NetworkGraph.from_module(module, (x, edge_index))
    NetworkGraph.from_module(module, (x, edge_index.flip(0)))
    assert len(exports) == 2


def test_running_counts_are_not(exports):
    module, inputs = make("resnet20")
    NetworkGraph.from_module(module, inputs)
    module.stem[1].num_batches_tracked += 1
    graph = NetworkGraph.from_module(module, inputs)
    assert len(exports) == 1
    assert graph.to_module().stem[1].num_batches_tracked == 1
