"""Any network becomes a graph and comes back bit for bit, before and after structural pruning."""

import copy
import random

import numpy as np
import pytest
import torch
import torch_pruning as tp
from metanet_networks import NETWORKS, SHALLOW, make, randomised, same_bits, some_inputs
from torch import nn
from torch.utils import _pytree as pytree

import graphsparse as gs
from graphsparse.metanet import NetworkGraph


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_comes_back_bit_for_bit(name):
    module, inputs = make(name)
    before = copy.deepcopy(module.state_dict())
    graph = NetworkGraph.from_module(module, inputs)
    assert same_bits(graph.to_state_dict(), before)
    again = graph.to_module()
    assert type(again) is type(module)
    assert same_bits(again.state_dict(), before)
    given = some_inputs(inputs)
    for left, right in zip(pytree.tree_leaves(module(*given)), pytree.tree_leaves(again(*given)), strict=True):
        assert torch.equal(left, right)
    assert same_bits(module.state_dict(), before)


@pytest.mark.parametrize("name", SHALLOW)
def test_every_value_comes_from_the_graph(name):
    """New values everywhere: what goes in comes out of the next conversion, and no parameter is left behind."""
    module, inputs = make(name)
    graph = NetworkGraph.from_module(module, inputs)
    other = randomised(copy.deepcopy(module), seed=1)
    theirs = NetworkGraph.from_module(other, inputs)
    moved = graph.with_values(
        {kernel: edges.values for kernel, edges in theirs.edges.items()},
        {bank: nodes.values for bank, nodes in theirs.banks.items()},
    )
    left, right = moved.to_state_dict(), other.state_dict()
    skipped = [key for key in left if key.endswith("num_batches_tracked") or key.startswith("unused")]
    assert same_bits(
        {k: v for k, v in left.items() if k not in skipped}, {k: v for k, v in right.items() if k not in skipped}
    )


PRUNED = [
    "mlp", "resnet20", "resnet20-equal", "resnet20-downsampled", "resnet56", "bottleneck", "vgg19",
    "vgg19-equal", "densenet", "inception", "mobilenet", "mobilenet-equal", "resnext", "unet", "vit-torch",
]  # fmt: skip


@pytest.mark.parametrize("name", PRUNED)
def test_round_trip_after_structural_pruning(name):
    module, inputs = make(name)
    heads = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    heads = heads or [list(module.modules())[-1]]
    if name == "resnet20":  # Torch-Pruning cuts padded shortcuts wrongly: only channels inside blocks
        heads += [module.stem[0], *(block.second[0] for block in module.stages)]
    pruner = tp.pruner.BasePruner(
        module, inputs, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=0.4, ignored_layers=heads
    )
    count = sum(p.numel() for p in module.parameters())
    pruner.step()
    assert sum(p.numel() for p in module.parameters()) < count
    graph = NetworkGraph.from_module(module, inputs)
    assert same_bits(graph.to_state_dict(), module.state_dict())
    given = some_inputs(inputs)
    assert torch.equal(graph.to_module()(*given), module(*given))


def test_nothing_global_changes():
    module, inputs = make("vit-torch")
    module.train()
    for parameter in list(module.parameters())[:3]:
        parameter.requires_grad_(False)
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    modes = [part.training for part in module.modules()]
    NetworkGraph.from_module(module, inputs)
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    assert drawn == (random.random(), np.random.rand(), torch.rand(()).item())
    assert [part.training for part in module.modules()] == modes
    assert torch.is_grad_enabled()


def test_mode_and_flags_come_back():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    module[0].weight.requires_grad_(False)
    again = NetworkGraph.from_module(module, torch.zeros(2, 3)).to_module()
    assert again.training
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in module.parameters()]
    assert again[1].num_batches_tracked.dtype == torch.int64


def test_graph_keeps_the_values_of_its_day():
    module = nn.Linear(3, 2)
    graph = NetworkGraph.from_module(module, torch.zeros(1, 3))
    weight = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.zero_()
    assert torch.equal(graph.to_module().weight, weight)
    with torch.no_grad():
        graph.to_module().weight.zero_()
    assert torch.equal(graph.to_module().weight, weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(dtype):
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)
    graph = NetworkGraph.from_module(module, torch.zeros(1, 3, dtype=dtype))
    assert same_bits(graph.to_state_dict(), module.state_dict())


def test_mixed_types_and_odd_bits():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).double())
    module[0].register_forward_hook(lambda _, __, out: out.double())
    with torch.no_grad():
        module[0].weight[0] = torch.tensor([float("nan"), -0.0, float("inf")])
        module[1].weight[0, 0] = 1 / 3
    graph = NetworkGraph.from_module(module, torch.zeros(1, 3))
    assert same_bits(graph.to_state_dict(), module.state_dict())


def test_ties_come_back():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.out.weight = self.table.weight

        def forward(self, tokens):
            return self.out(self.table(tokens))

    module = Tied()
    with torch.no_grad():
        module.table.weight[0, 0] = -0.0
    graph = NetworkGraph.from_module(module, torch.zeros(2, 4, dtype=torch.int64))
    again = graph.to_module()
    assert again.out.weight is again.table.weight
    assert same_bits(again.state_dict(), module.state_dict())
    assert len(graph.slots("table.weight")) == len(graph.slots("out.weight")) == 2


def test_shared_parameter_is_averaged_only_where_it_differs():
    module, inputs = make("autoencoder")
    graph = NetworkGraph.from_module(module, inputs)
    first, second = graph.slots("middle.weight")
    values = graph.edges[()].values.clone()
    values[first.row[0], 0] = 1.0
    values[second.row[0], 0] = 2.0
    changed = graph.with_values({(): values}).to_state_dict()
    weight = module.state_dict()["middle.weight"]
    assert changed["middle.weight"].view(-1)[0] == 1.5
    assert torch.equal(changed["middle.weight"].view(-1)[1:], weight.view(-1)[1:])


def test_gradients_flow_from_the_state_dict_to_the_values():
    module, inputs = make("autoencoder")
    graph = NetworkGraph.from_module(module, inputs)
    values = graph.edges[()].values.clone().requires_grad_()
    state = graph.with_values({(): values}).to_state_dict()
    torch.func.functional_call(module, state, (torch.ones(2, 6),)).sum().backward()
    module(torch.ones(2, 6)).sum().backward()
    for name in ("middle.weight", "encoder.weight"):
        total = torch.zeros(module.get_parameter(name).numel())
        for slot in graph.slots(name):
            total.index_add_(0, slot.element, values.grad[slot.row, slot.column])
        assert torch.allclose(total, module.get_parameter(name).grad.view(-1), rtol=1e-5)


def test_reachable_as_a_room():
    assert gs.metanet.NetworkGraph is NetworkGraph
