"""A group of coupled channels says what goes with what, as Torch-Pruning finds it by another way."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import nn

import graphsparse as gs
from graphsparse.metanet import NetworkGraph, group_of


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.norm1(self.conv1(x)).relu()
        x = x + self.norm2(self.conv2(x))
        return self.head(self.up(x).relu().mean((2, 3)))


X = torch.zeros(1, 3, 8, 8)


def test_what_goes_with_channel_3_of_conv1():
    group = group_of(NetworkGraph.from_module(Residual(), X), "conv1", 3)
    found = {(cut.name, cut.role): (cut.axis, cut.indices) for cut in group}
    assert found[("conv1.weight", "out")] == (0, (3,))
    assert found[("conv2.weight", "out")] == (0, (3,))  # the shortcut ties them
    assert found[("conv2.weight", "in")] == (1, (3,))
    assert found[("up.weight", "in")] == (0, (3,))
    for norm in ("norm1", "norm2"):
        for part in ("weight", "bias", "running_mean", "running_var"):
            assert found[(f"{norm}.{part}", "own")] == (0, (3,))
    assert not any(name.startswith("head") for name, _ in found)
    assert group.prunable
    assert group[0].name == "conv1.weight"


def test_it_prints_like_a_group_of_torch_pruning():
    text = str(group_of(NetworkGraph.from_module(Residual(), X), "conv1", [0, 3]))
    assert "Pruning Group" in text
    assert "[0] conv1.weight, axis 0 (out), idxs (2) =[0, 3], on Conv2d(3, 6" in text
    assert text.count("(Pruning Root)") == 1
    whole = str(
        group_of(NetworkGraph.from_module(nn.Sequential(nn.Linear(2, 30), nn.Linear(30, 1)), X[0, 0, :1, :2]), "0")
    )
    assert "idxs (30) =[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...]" in whole


@pytest.mark.parametrize("layer", ["conv1", "conv2", "up"])
def test_the_same_layers_go_as_torch_pruning_says(layer):
    net = Residual()
    group = group_of(NetworkGraph.from_module(net, X), layer, [1, 2])
    dependency = tp.DependencyGraph().build_dependency(net, X)
    theirs = dependency.get_pruning_group(
        net.get_submodule(layer), dependency.get_pruner_of_module(net.get_submodule(layer)).prune_out_channels, [1, 2]
    )
    named = {module: name for name, module in net.named_modules()}
    expected = set()
    for member, idxs in theirs:
        if member.target.module in named and any(True for _ in member.target.module.parameters()):
            role = "in" if "in_channels" in member.handler.__name__ else "out"
            norm = isinstance(member.target.module, nn.BatchNorm2d)
            expected.add((named[member.target.module], "own" if norm else role, tuple(sorted(idxs))))
    found = {(cut.name.rpartition(".")[0], cut.role, cut.indices) for cut in group if cut.name.endswith("weight")}
    assert found == expected


def test_outputs_are_held_and_unknown_layers_are_told():
    graph = NetworkGraph.from_module(Residual(), X)
    held = group_of(graph, "head")
    assert not held.prunable
    assert "held" in str(held)
    with pytest.raises(ValueError, match="no linear layer or convolution named 'conv9'; it has conv1, conv2, up"):
        group_of(graph, "conv9")
    with pytest.raises(ValueError, match="channels 0 to 5"):
        group_of(graph, "conv1", 6)


def test_flattened_channels_take_a_block_of_inputs():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    group = group_of(NetworkGraph.from_module(net, torch.zeros(1, 1, 2, 2)), "0", 1)
    assert {(cut.name, cut.indices) for cut in group if cut.role == "in"} == {("2.weight", (4, 5, 6, 7))}
    assert gs.metanet.group_of is group_of
