"""FLOPs and parameters: counted, spread over a graph, and what a mask leaves of them."""

from fractions import Fraction

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from metanet_networks import CUT_WHOLE, SHALLOW, graph_of, make
from torch import nn

from graphsparse.metanet import Channels, NetworkGraph, shrink
from graphsparse.metanet.channels import Evidence, importance, least_pruned
from graphsparse.metanet.channels.budget import (
    Budget,
    count_flops,
    count_parameters,
    first_reaching,
    flop_cost,
    parameter_cost,
    prefix_for,
)
from graphsparse.metanet.channels.sets import keep_after, removal_order


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(CUT_WHOLE), st.integers(0, 10**6), st.floats(0, 1))
def test_what_a_mask_leaves_is_what_the_cut_module_has(name, seed, share):
    module, inputs, graph = graph_of(name)
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of), generator=torch.Generator().manual_seed(seed))
    steps = removal_order(channels, importance)
    keep = keep_after(channels, steps[: round(share * len(steps))])
    small, _ = shrink(graph, keep, inputs)
    assert flop_cost(graph, module, inputs).left(graph, keep) == count_flops(small, inputs)
    assert parameter_cost(graph, module).left(graph, keep) == count_parameters(small)


@pytest.mark.parametrize("name", SHALLOW)
def test_the_whole_is_the_whole(name):
    module, inputs, graph = graph_of(name)
    everything = torch.ones(graph.num_nodes, dtype=torch.bool)
    flops, parameters = flop_cost(graph, module, inputs), parameter_cost(graph, module)
    assert flops.left(graph) == flops.left(graph, everything) == count_flops(module, inputs)
    assert parameters.left(graph) == parameters.left(graph, everything) == count_parameters(module)


def test_flops_of_a_small_convolution_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 2))
    x = torch.zeros(1, 3, 5, 5)
    assert count_flops(net, x) == 2 * (25 * 4 * 3 * 9 + 100 * 2)
    assert count_flops(net, (x,)) == count_flops(net, x)
    assert count_parameters(net) == 4 * 27 + 4 + 200 + 2
    graph = NetworkGraph.from_module(net, x)
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    keep[3] = False  # one of four channels
    assert flop_cost(graph, net, x).left(graph, keep) == 2 * (25 * 3 * 27 + 75 * 2)
    assert parameter_cost(graph, net).left(graph, keep) == 3 * 27 + 3 + 150 + 2


@pytest.mark.parametrize("name", ["vgg19", "resnet20-downsampled", "bottleneck"])
def test_flops_are_twice_the_macs_of_torch_pruning(name):
    """It also counts norms, biases and pooling: these are taken out of its count, layer by layer."""
    module, inputs = make(name)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.bias = None
    net = _without_norms_and_pooling(module)
    one = tuple(x[:1] for x in inputs)
    macs, parameters = tp.utils.count_ops_and_params(net, one[0])
    assert count_flops(net, one) == 2 * macs
    assert count_parameters(net) == parameters


def _without_norms_and_pooling(module):
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.ReLU | nn.Dropout):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, _Every(child.stride))
        else:
            _without_norms_and_pooling(child)
    return module


class _Every(nn.Module):
    """Every n-th pixel: pooling without operations."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[..., :: self.stride, :: self.stride]


def test_a_layer_used_twice_on_other_sizes_counts_for_each_use():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            x = self.conv(nn.functional.max_pool2d(self.conv(self.stem(x)), 2))
            return self.head(x.mean((2, 3)))

    net, x = Twice(), torch.zeros(1, 1, 4, 4)
    graph = NetworkGraph.from_module(net, x)
    assert count_flops(net, x) == 2 * (16 * 4 + 16 * 16 + 4 * 16 + 8)
    cost = flop_cost(graph, net, x)
    assert cost.rest == 0
    assert cost.left(graph) == count_flops(net, x)
    assert parameter_cost(graph, net).left(graph) == count_parameters(net) == 8 + 20 + 10
    keep = ~torch.isin(Channels.of(graph).set_of, Channels.of(graph).set_of[1:2])  # one of four channels everywhere
    assert cost.left(graph, keep) == 2 * (16 * 3 + 16 * 9 + 4 * 9 + 6)
    assert parameter_cost(graph, net).left(graph, keep) == 6 + 12 + 8


def test_a_scalar_of_all_channels_and_an_unused_layer_stay():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.unused = nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(9, 9)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.second(self.first(x) * self.scale)

    net = Scaled()
    graph = NetworkGraph.from_module(net, torch.zeros(1, 2))
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    keep[2:5] = False
    cost = parameter_cost(graph, net)
    assert cost.rest == 90 + 1
    assert cost.left(graph, keep) == 91 + 3 + 4


def test_counting_changes_nothing():
    module, inputs = make("resnet20-equal")
    module.train()
    module.stages[0].eval()
    modes = [part.training for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    graph = NetworkGraph.from_module(module, inputs)
    flop_cost(graph, module, inputs)
    assert modes == [part.training for part in module.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(part._forward_hooks for part in module.modules())


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 50))
def test_first_reaching_finds_the_first_from_any_guess(steps, first, guess):
    guess = min(guess, steps)
    tried = []

    def reaches(k):
        assert 0 <= k <= steps
        tried.append(k)
        return k >= first

    assert first_reaching(steps, reaches, guess) == min(first, steps + 1)
    assert len(set(tried)) == len(tried)
    assert len(tried) <= 14


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 100))
def test_prefix_for_is_the_first_that_is_cheap_enough(drops, target):
    costs = [100 - sum(drops[:k]) for k in range(len(drops) + 1)]
    expected = next((k for k, cost in enumerate(costs) if cost <= target), len(costs))
    assert prefix_for(len(drops), costs.__getitem__, target) == expected
    assert prefix_for(len(drops), costs.__getitem__, Fraction(target)) == expected


class OfParameters(nn.Module):
    """Hands a parameter to a module, as a class token does to a dropout."""

    def __init__(self):
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(self.token) + x


def test_flops_of_a_module_that_is_given_a_parameter():
    assert count_flops(OfParameters(), torch.zeros(1, 3)) == 24


@pytest.mark.parametrize(("widths", "speedup", "left"), [((6, 9), 2, 96), ((6, 11), 2, 110), ((6, 9), 3, 64)])
def test_a_budget_is_filled_by_an_exchange_between_groups_where_steps_are_coarse(widths, speedup, left):
    """A perceptron 4-6-9-2 has 192 FLOPs; of 96 that may stay, units one by one leave 92 and 5 and 4 units all."""
    x = torch.zeros(1, 4)
    torch.manual_seed(0)
    layers = [nn.Linear(4, widths[0]), nn.ReLU(), nn.Linear(*widths), nn.ReLU(), nn.Linear(widths[1], 2)]
    net = nn.Sequential(*layers)
    graph = NetworkGraph.from_module(net, x)
    score = importance(Evidence(graph), "group-l2")
    _, (small, _), _ = least_pruned(
        graph,
        lambda channels: removal_order(channels, score, min_keep=0.1),
        flop_cost(graph, net, x),
        lambda found: count_flops(found, x),
        Budget(speedup=speedup).limit(net, (x,)),
        x,
    )
    assert count_flops(small, x) == left
