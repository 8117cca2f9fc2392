"""Criteria: by hand, and against Torch-Pruning and autograd."""

import importlib
import math

import pytest
import torch
import torch_pruning as tp
from metanet_networks import graph_of, make, some_inputs
from torch import nn
from torch.func import functional_call

from graphsparse.fit import Task
from graphsparse.metanet import CRITERIA, Channels, FineTune, NetworkGraph, prune
from graphsparse.metanet.channels.criteria import Evidence, importance, square_sums


def roots(graph, module, inputs):
    """Each group of Torch-Pruning that makes channels, with its layer's sets."""
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    dependency = tp.DependencyGraph().build_dependency(module, example_inputs=inputs)
    names = {layer: name for name, layer in module.named_modules()}
    sets = Channels.of(graph).set_of
    for group in dependency.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        name = names[group[0].dep.target.module]
        nodes = torch.nonzero(graph.layer == graph.layer_names.index(name))[:, 0]
        yield group, sets[nodes]


@pytest.mark.parametrize("name", ["resnet20-downsampled", "bottleneck", "vgg19", "densenet", "inception", "mlp"])
def test_group_l2_is_that_of_torch_pruning(name):
    module, inputs, graph = graph_of(name)
    score = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    ours, compared = importance(Evidence(graph), "group-l2"), 0
    for group, sets in roots(graph, module, inputs):
        torch.testing.assert_close(ours[sets].square(), score(group), rtol=1e-4, atol=1e-5)
        compared += len(sets)
    assert compared >= int(Channels.of(graph).prunable.sum())


def test_every_criterion_gives_a_finite_number_for_each_set():
    module, inputs, graph = graph_of("mobilenet")
    images = some_inputs(inputs)[0]

    def loss(state):
        return functional_call(module, state, (images,)).square().mean()

    labels = torch.arange(len(images)) % 2
    task = Task(*[(images, labels)] * 3)
    for name in CRITERIA:
        found = importance(Evidence(graph, 0, loss, task), name)
        assert found.shape == Channels.of(graph).group_of.shape
        assert bool(torch.isfinite(found).all()), name


def test_square_sums_are_differentiable_and_count_inner_edges_once():
    """A layer between coupled channels (an edge inside one set) has its square counted once."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.head = (nn.Linear(a, b, bias=False) for a, b in ((1, 1), (1, 1), (1, 1)))

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.body(x))

    net = Inner()
    with torch.no_grad():
        for weight, value in zip(net.parameters(), (2.0, 3.0, 5.0), strict=True):
            weight.fill_(value)
    graph = NetworkGraph.from_module(net, torch.zeros(1, 1))
    assert square_sums(graph).tolist() == [4.0, 4 + 9 + 25, 25.0]
    values = graph.edges[()].values.clone().requires_grad_()
    square_sums(graph.with_values({(): values}))[1].backward()
    assert values.grad.flatten().tolist() == [4.0, 6.0, 10.0]


def test_bn_scale_by_hand():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([-3.0, 0.5]))
    graph = NetworkGraph.from_module(net, torch.zeros(1, 1, 2, 2))
    assert importance(Evidence(graph), "bn-scale")[1:3].tolist() == [3.0, 0.5]


def test_bn_scale_needs_norms():
    _, _, graph = graph_of("mlp")
    with pytest.raises(ValueError, match=r"bn-scale needs a norm on every prunable channel, and '1' has none"):
        importance(Evidence(graph), "bn-scale")


def test_taylor_is_what_autograd_gives_on_the_module():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2)).eval()
    x, y = torch.randn(6, 2, 4, 4), torch.arange(6) % 2
    graph = NetworkGraph.from_module(net, x)

    def loss(state):
        return nn.functional.cross_entropy(functional_call(net, state, (x,)), y)

    found = importance(Evidence(graph, 0, loss), "taylor")
    loss(dict(net.named_parameters())).backward()
    conv, norm, head = ((layer.weight * layer.weight.grad).abs() for layer in (net[0], net[1], net[4]))
    # an edge of the graph is a kernel; the head's weight of a channel is four edges
    expected = conv.sum((1, 2, 3)) + norm + head.view(2, 3, 4).sum((0, 2))
    torch.testing.assert_close(found[2:5], expected.detach())


def test_taylor_needs_a_loss_and_leaves_no_gradient():
    module, inputs = make("resnet20-equal")
    graph = NetworkGraph.from_module(module, inputs)
    with pytest.raises(ValueError, match="taylor needs the loss of a task"):
        importance(Evidence(graph), "taylor")
    images = some_inputs(inputs)[0]
    with torch.no_grad():
        importance(Evidence(graph, 0, lambda state: functional_call(module, state, (images,)).sum()), "taylor")
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(edges.values.requires_grad for edges in graph.edges.values())


def test_random_is_seeded_and_leaves_the_global_generator():
    _, _, graph = graph_of("mlp")
    before = torch.get_rng_state()
    one, same, other = (importance(Evidence(graph, seed), "random") for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_criteria_are_named():
    _, _, graph = graph_of("mlp")
    with pytest.raises(ValueError, match=r"unknown criterion 'l1'.*known are bn-scale, group-l2, obs, obs-fisher"):
        importance(Evidence(graph), "l1")


def test_nan_weights_make_nan_importance():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight[1, 0] = math.nan
    found = importance(Evidence(NetworkGraph.from_module(net, torch.zeros(1, 2))), "group-l2")
    assert torch.isnan(found[2:5]).tolist() == [False, True, False]


def test_a_criterion_of_ones_own_is_registered_or_imported(tmp_path, monkeypatch):
    """By name after `register`, by module:function without; what it gives is looked at."""
    (tmp_path / "my_criteria.py").write_text(
        "import torch\n"
        "from graphsparse.metanet import Channels\n"
        "def last(evidence):\n"
        "    return torch.arange(len(Channels.of(evidence.graph).group_of)).float()\n"
        "def short(evidence):\n"
        "    return torch.ones(1)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    x, y = torch.randn(16, 2), torch.arange(16) % 2
    task, options = Task((x, y), (x, y), (x, y)), {"speedup": 2, "fine_tune": FineTune(epochs=0)}
    assert prune(net, None, task, criterion="my_criteria:last", **options).kept == {"0": [4, 5, 6, 7]}
    CRITERIA.register("last", importlib.import_module("my_criteria").last)
    try:
        assert prune(net, None, task, criterion="last", **options).kept == {"0": [4, 5, 6, 7]}
    finally:
        del CRITERIA["last"]
    with pytest.raises(ValueError, match=r"'my_criteria:short' must give a tensor \[12\].*got \[1\]"):
        prune(net, None, task, criterion="my_criteria:short", **options)
    with pytest.raises(TypeError, match="'my_criteria:number' is a function of an Evidence, not a int"):
        prune(net, None, task, criterion="my_criteria:number", **options)
    with pytest.raises(ValueError, match="has no 'first'"):
        prune(net, None, task, criterion="my_criteria:first", **options)
