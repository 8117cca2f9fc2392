"""Coupled sets: what Torch-Pruning cuts together, and what sharing and joining tie."""

import functools

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from metanet_networks import graph_of
from torch import nn

from graphsparse.metanet import NetworkGraph

GROUPED = [
    "resnet20-downsampled",
    "resnet20-equal",
    "bottleneck",
    "vgg19",
    "densenet",
    "inception",
    "mobilenet",
    "unet",
    "mlp",
    "resnext",
]


@functools.cache
def dependencies(name):
    module, inputs, graph = graph_of(name)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    dependency = tp.DependencyGraph().build_dependency(module, example_inputs=inputs)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    return graph, dependency, {layer: path for path, layer in module.named_modules()}, layers[:-1]


def nodes_of(graph, layer, path, out, places):
    """The nodes of input or output channels of a layer, from its slots."""
    if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
        return {
            int(node)
            for slot in graph.slots(f"{path}.weight")
            for node in slot.nodes[torch.isin(slot.element, torch.tensor(places))]
        }
    (slot,) = graph.slots(f"{path}.weight")
    edges, shape = graph.edges[slot.group], layer.weight.shape
    index = torch.unravel_index(slot.element, shape)
    transposed, groups = isinstance(layer, nn.ConvTranspose2d), getattr(layer, "groups", 1)
    axis = int(out == transposed)
    if not out and groups > 1:  # the second axis counts inputs inside a group
        return {int(n) for place in places for n in _grouped_input(edges, slot, index, shape, groups, place)}
    return set((edges.dst if out else edges.src)[slot.row[torch.isin(index[axis], torch.tensor(places))]].tolist())


def _grouped_input(edges, slot, index, shape, groups, place):
    group, inner = divmod(place, shape[1])
    mine = (index[0] // (shape[0] // groups) == group) & (index[1] == inner)
    return edges.src[slot.row[mine]]


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(GROUPED), st.integers(0, 10**6), st.integers(0, 10**6))
def test_channels_of_a_torch_pruning_group_are_one_coupled_set(name, which, channel):
    graph, dependency, paths, layers = dependencies(name)
    layer = layers[which % len(layers)]
    depthwise = getattr(layer, "groups", 1) == getattr(layer, "out_channels", 0) > 1
    linear = isinstance(layer, nn.Linear)
    prune = (
        tp.prune_linear_out_channels
        if linear
        else tp.prune_depthwise_conv_out_channels
        if depthwise
        else tp.prune_conv_out_channels
    )
    width = layer.out_features if linear else layer.out_channels
    groups = getattr(layer, "groups", 1) if not depthwise else 1
    if name == "resnext" and paths[layer].startswith("body.0"):
        groups = 2  # its channels go into the groups of the next layer
    per = width // groups  # Torch-Pruning's pruners cut the same places of every group
    group = dependency.get_pruning_group(layer, prune, idxs=[channel % per + g * per for g in range(groups)])
    found = set()
    for dep, places in group:
        target = dep.target.module
        if target in paths and hasattr(target, "weight"):
            out = dep.handler in (dependency.get_pruner_of_module(target).prune_out_channels,)
            found |= nodes_of(graph, target, paths[target], out, places)
    sets = graph.coupled()
    assert found
    numbers = {int(sets[node]) for node in found}
    assert len(numbers) == 1
    assert found == set(torch.nonzero(sets == numbers.pop()).view(-1).tolist())


def test_grouped_convolution_couples_the_same_places_of_its_groups():
    layer = nn.Conv2d(4, 6, 1, groups=2)
    graph = NetworkGraph.from_module(layer, torch.zeros(1, 4, 2, 2))
    sets = graph.coupled()
    inputs, outputs = graph.inputs[0], graph.outputs[0]
    assert sets[inputs[0]] == sets[inputs[2]] != sets[inputs[1]] == sets[inputs[3]]
    assert sets[outputs[0]] == sets[outputs[3]] != sets[outputs[1]]
    assert sets[inputs[0]] != sets[outputs[0]]


def test_uses_of_one_weight_tie_their_channels():
    _, _, graph = graph_of("autoencoder")
    layer = {name: torch.nonzero(graph.layer == i).view(-1) for i, name in enumerate(graph.layer_names)}
    first, second = layer["middle"].view(2, 4)
    sets = graph.coupled()
    assert torch.equal(sets[layer["encoder"]], sets[first])
    assert torch.equal(sets[first], sets[second])  # the decoder reads it through the encoder's weight, too
    assert torch.equal(sets[graph.inputs[0]], sets[graph.outputs[0]])
    assert len(set(sets.tolist())) == 10


class Joined(nn.Module):
    """Two sources joined into one sequence, read by one layer."""

    def __init__(self, raw):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.raw = raw

    def forward(self, x):
        left = x if self.raw else self.left(x)
        return self.head(torch.cat([left, self.right(x)], dim=1))


@pytest.mark.parametrize("raw", [True, False])
def test_sources_joined_into_a_sequence_are_aligned(raw):
    """A layer that reads two sources place by place couples their channels; an input stays an input."""
    module = Joined(raw)
    graph = NetworkGraph.from_module(module, torch.zeros(2, 3, 4))
    layers = {name: torch.nonzero(graph.layer == i).view(-1) for i, name in enumerate(graph.layer_names)}
    left = graph.inputs[0] if raw else layers["left"]
    sets = graph.coupled()
    assert torch.equal(sets[left], sets[layers["right"]])
    assert graph.relations["align"].shape[1] == 8
    assert set(graph.inputs[0].tolist()) == set(layers["input 0"].tolist())
    assert torch.equal(graph.to_state_dict()["head.weight"], module.head.weight)


def test_a_single_input_channel_is_not_depthwise():
    """A grey image feeds every channel of the first convolution and is tied to none."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    graph = NetworkGraph.from_module(net, torch.zeros(1, 1, 8, 8))
    assert "depthwise" not in graph.relations
    assert len(torch.unique(graph.coupled())) == 7
