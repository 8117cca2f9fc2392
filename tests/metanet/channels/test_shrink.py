"""Cutting: the small module computes what the masked one does, and keeps what it should."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metanet_networks import CUT_WHOLE, NETWORKS, ResNet, graph_of, images, some_inputs
from torch import nn

from graphsparse.metanet import Channels, NetworkGraph, ShrinkError, masked, shrink
from graphsparse.metanet.channels.budget import count_flops, flop_cost
from graphsparse.metanet.channels.cutting import cut
from graphsparse.metanet.channels.search import cuttable, least_pruned
from graphsparse.metanet.channels.sets import keep_after, removal_order

IN_PART = ["resnet20", "shuffle", "vit", "vit-fused"]


def tame(module, seed=0):
    """Weights of the size that training starts with, all norms different: outputs stay finite."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
                for tensor in (layer.weight, layer.bias, getattr(layer, "running_mean", None)):
                    if tensor is not None:
                        tensor.copy_(1 + 0.5 * torch.randn(tensor.shape, generator=generator))
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=generator))
    return module.eval()


def some_keep(graph, seed, share):
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of), generator=torch.Generator().manual_seed(seed))
    steps = removal_order(channels, importance)
    return keep_after(channels, steps[: round(share * len(steps))])


def prepared(name):
    torch.manual_seed(0)
    module, inputs = NETWORKS[name]()
    tame(module)
    return module, inputs, NetworkGraph.from_module(module, inputs)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(CUT_WHOLE), st.integers(0, 10**6), st.floats(0.05, 1))
def test_the_small_module_computes_what_the_masked_one_does(name, seed, share):
    _, inputs, graph = prepared(name)
    keep = some_keep(graph, seed, share)
    small, _ = shrink(graph, keep, inputs)
    wide, some = masked(graph, keep).to_module(), some_inputs(inputs, seed)
    with torch.no_grad():
        expected = wide(*some)
        assert bool(torch.isfinite(expected).all())
        torch.testing.assert_close(small(*some), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet20-equal", "densenet", "resnext"])
def test_a_small_network_is_a_network(name):
    _, inputs, graph = prepared(name)
    keep = some_keep(graph, 0, 0.5)
    small, _ = shrink(graph, keep, inputs)
    again = NetworkGraph.from_module(small, inputs)
    assert again.num_nodes == int(keep.sum())
    assert again.layer_names == graph.layer_names


def test_kept_indices_and_values_by_hand():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(2, 2, 4, 4)
    tame(net)
    graph = NetworkGraph.from_module(net, x)
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    keep[[2, 4]] = False  # channels 0 and 2
    small, kept = shrink(graph, keep, x)
    assert kept == {"0": [1, 3]}
    assert torch.equal(small[0].weight, net[0].weight[[1, 3]])
    assert torch.equal(small[1].running_mean, net[1].running_mean[[1, 3]])
    assert torch.equal(small[4].weight, net[4].weight.view(3, 4, 4)[:, [1, 3]].reshape(3, 8))
    assert torch.equal(small[4].bias, net[4].bias)


def test_the_network_is_untouched_and_modes_and_frozen_parameters_stay():
    module, inputs, _ = prepared("resnet20-equal")
    module.train()
    module.stages[1].eval()
    module.head.weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    graph = NetworkGraph.from_module(module, inputs)
    small, kept = shrink(graph, some_keep(graph, 0, 0.5), inputs)
    assert kept
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert [p.training for p in small.modules()] == [p.training for p in module.modules()]
    assert {n: p.requires_grad for n, p in small.named_parameters()} == {
        n: p.requires_grad for n, p in module.named_parameters()
    }
    assert all(p.grad is None for p in small.parameters())


def test_everything_kept_is_the_same_network():
    module, inputs, graph = prepared("bottleneck")
    small, kept = shrink(graph, torch.ones(graph.num_nodes, dtype=torch.bool), inputs)
    assert kept == {}
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in module.state_dict().items())


def test_torn_masks_are_refused():
    _, inputs, graph = graph_of("resnet20-equal")
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    keep[3] = False  # one channel of the stem without those of its stage
    with pytest.raises(ValueError, match="tears channels apart"):
        shrink(graph, keep, inputs)


class Tied(nn.Module):
    """Two layers with one weight, between coupled channels; or one layer that is used twice."""

    def __init__(self, layers):
        super().__init__()
        self.first, self.middle, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.again = self.middle if layers == 1 else nn.Linear(8, 8)
        self.again.weight = self.middle.weight

    def forward(self, x):
        return self.head(self.again(self.middle(self.first(x)).relu()).relu())


@pytest.mark.parametrize("layers", [1, 2])
def test_tied_weights_stay_tied(layers):
    torch.manual_seed(0)
    net, x = Tied(layers), torch.randn(5, 4)
    graph = NetworkGraph.from_module(net, x)
    keep = some_keep(graph, 0, 0.5)
    small, kept = shrink(graph, keep, x)
    assert kept
    assert small.again.weight is small.middle.weight
    assert len(list(small.parameters())) == len(list(net.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked(graph, keep).to_module()(x), rtol=1e-4, atol=1e-5)


class Scalars(nn.Module):
    """Scalars that all channels share: a slope and a factor."""

    def __init__(self):
        super().__init__()
        self.first, self.slope, self.second = nn.Linear(4, 8), nn.PReLU(1), nn.Linear(8, 2)
        self.factor = nn.Parameter(torch.tensor([3.0]))

    def forward(self, x):
        return self.second(self.slope(self.first(x)) * self.factor)


def test_a_scalar_that_channels_share_stays_what_it_is():
    """Zero for the dropped channels, averaged with the others, would be another scalar for all."""
    torch.manual_seed(0)
    net, x = Scalars(), torch.randn(5, 4)
    graph = NetworkGraph.from_module(net, x)
    keep = some_keep(graph, 0, 0.5)
    wide = masked(graph, keep).to_module()
    assert wide.factor.item() == 3.0
    assert wide.slope.weight.item() == 0.25
    small, kept = shrink(graph, keep, x)
    assert kept
    torch.testing.assert_close(small(x), wide(x), rtol=1e-4, atol=1e-5)


class HardCoded(nn.Module):
    """Counts on a width in its code."""

    def __init__(self):
        super().__init__()
        self.free, self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.second(self.first(self.free(x).relu()).view(-1, 2, 4).reshape(-1, 8))


class Sliced(nn.Module):
    """Runs on fewer channels, too, and computes something else then."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.second(x * torch.linspace(1, 2, x.shape[1]))


def drop_one(graph, name):
    sets = Channels.of(graph).set_of
    return sets != sets[torch.nonzero(graph.layer == graph.layer_names.index(name))[0, 0]]


@pytest.mark.parametrize("fill", [torch.zeros, torch.randn])
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (HardCoded(), r"its code spells out 4, and 3 would be left, in test_shrink.py:\d+ `return self.second"),
        (Sliced(), "computes something else than the masked one"),
    ],
)
def test_code_that_counts_on_a_width_is_found_out(net, message, fill):
    inputs = fill(2, 3)
    graph = NetworkGraph.from_module(net, inputs)
    with pytest.raises(ShrinkError, match=message):
        shrink(graph, drop_one(graph, "first"), inputs)


def test_an_embedding_is_cut():
    _, inputs, graph = graph_of("mixed")
    channels = Channels.of(graph)
    table = channels.set_of[torch.nonzero(graph.layer == graph.layer_names.index("table"))[0, 0]]
    keep = channels.set_of != table
    small, kept = shrink(graph, keep, inputs)
    assert small.table.weight.shape == (11, 5)
    assert small.table.embedding_dim == small.conv.in_channels == 5
    assert kept["table"] == kept["position"] == [1, 2, 3, 4, 5]
    again = cut(graph.to_module(), kept, inputs)
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_cut_names_what_is_wrong():
    def net():
        return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))

    x = torch.zeros(1, 2)
    assert cut(net(), {"0": [0, 2]}, x)[0].weight.shape == (2, 2)
    with pytest.raises(ShrinkError, match="no linear or convolution layer named '7'"):
        cut(net(), {"7": [0]}, x)
    for stay in ([], [0, 3], [-1], [0, 0]):
        with pytest.raises(ShrinkError, match="layer '0' has 3 channels"):
            cut(net(), {"0": stay}, x)


def test_cut_leaves_modes_as_they_were_even_when_it_fails():
    net = HardCoded().train()
    net.first.weight.requires_grad_(False)
    with pytest.raises(ShrinkError):
        cut(net, {"first": [0]}, torch.zeros(1, 5))  # an input that it cannot run on
    assert net.training
    assert not net.first.weight.requires_grad


@pytest.mark.parametrize("name", IN_PART)
def test_what_cannot_be_cut_stays_whole_and_the_rest_goes(name):
    module, inputs, graph = prepared(name)
    importance = torch.rand(len(Channels.of(graph).group_of), generator=torch.Generator().manual_seed(1))
    cost = flop_cost(graph, module, inputs)
    limit = 0.9 * count_flops(module, inputs)
    keep, (small, kept), _ = least_pruned(
        graph,
        lambda channels: removal_order(channels, importance),
        cost,
        lambda found: count_flops(found, inputs),
        limit,
        inputs,
    )
    assert kept
    assert count_flops(small, inputs) <= limit
    some = some_inputs(inputs)
    with torch.no_grad():
        if name == "resnet20":  # norms of the others average over channels
            torch.testing.assert_close(small(*some), masked(graph, keep).to_module()(*some), rtol=1e-4, atol=1e-4)


def test_padded_shortcuts_leave_the_insides_of_blocks():
    net = tame(ResNet(14, (4, 8, 12)))
    graph = NetworkGraph.from_module(net, images(8))
    channels = Channels.of(graph)
    keep = some_keep(graph, 0, 1.0)
    with pytest.raises(ShrinkError) as error:
        shrink(graph, keep, images(8))
    left = cuttable(graph, channels, keep, images(8), error.value)
    layers = {
        graph.layer_names[layer]
        for group in torch.unique(left.group_of[left.prunable]).tolist()
        for layer in left.layers[group]
    }
    assert layers == {f"stages.{i}.first.0" for i in range(6)}


def test_nothing_to_cut_is_one_sentence():
    net, x = HardCoded(), torch.randn(2, 3)
    graph = NetworkGraph.from_module(net, x)
    keep = drop_one(graph, "first")
    with pytest.raises(ShrinkError) as refusal:
        shrink(graph, keep, x)
    with pytest.raises(ShrinkError, match="no channels can be cut: its code spells out 4, and 3") as error:
        cuttable(graph, Channels.of(graph), keep, x, refusal.value)
    assert "\n" not in str(error.value)
