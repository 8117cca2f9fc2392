"""Least squares after pruning: exact where channels are redundant, optimal elsewhere, and nothing else is touched."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from graphsparse.data import load_images
from graphsparse.fit import Task
from graphsparse.metanet import FineTune, MetaNetwork, NetworkGraph, masked, prune, reconstruct
from graphsparse.nn import make_cnn

TINY = 1e-7


def task_of(x, y=None):
    y = torch.arange(len(x)) % 2 if y is None else y
    return Task((x, y), (x, y), (x, y), batch_size=16)


def without(graph, layer, channel):
    """Keep all but one channel of a layer."""
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    nodes = torch.nonzero(graph.layer == graph.layer_names.index(layer))[:, 0]
    keep[nodes[channel]] = False
    return keep


def twins(first, second, *rest):
    """A network whose first layer has two equal channels, 0 and 1, so that one can take over the other's part."""
    torch.manual_seed(0)
    with torch.no_grad():
        first.weight[1] = first.weight[0]
        if first.bias is not None:
            first.bias[1] = first.bias[0]
    return nn.Sequential(first, nn.ReLU(), second, *rest).eval()


CONVS = {
    "1d": (nn.Conv1d(2, 4, 3), nn.Conv1d(4, 3, 3, stride=2, padding=1), (2, 12)),
    "2d": (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3), (2, 8, 9)),
    "2d strided": (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, (3, 2), stride=(2, 1), padding=(0, 2)), (2, 8, 9)),
    "2d dilated": (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3, dilation=(2, 1), bias=False), (2, 9, 8)),
    "2d same": (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, (4, 3), padding="same"), (2, 7, 7)),
    "3d": (nn.Conv3d(1, 4, 3), nn.Conv3d(4, 3, 2, stride=2), (1, 7, 6, 7)),
    "linear": (nn.Linear(5, 4), nn.Linear(4, 3), (5,)),
    "linear on tokens": (nn.Linear(5, 4), nn.Linear(4, 3, bias=False), (6, 5)),
}


@pytest.mark.parametrize("kind", CONVS)
def test_a_twin_takes_over_what_the_other_did(kind):
    first, second, shape = CONVS[kind]
    net = twins(first, second)
    x = torch.randn(64, *shape)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 1)
    wanted = net(x)
    plain = masked(graph, keep).to_module()(x)
    refitted = masked(reconstruct(graph, keep, task_of(x), ridge=TINY), keep).to_module()(x)
    assert (plain - wanted).abs().max() > 1e-2
    torch.testing.assert_close(refitted, wanted, atol=1e-3, rtol=1e-3)


def test_it_is_the_least_squares_solution():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(200, 3)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 2)
    fitted = reconstruct(graph, keep, task_of(x), ridge=TINY).to_module()[2]
    stay = [0, 1, 3, 4, 5]
    hidden = net[1](net[0](x)).detach().numpy()[:, stay]
    found, *_ = np.linalg.lstsq(np.c_[hidden, np.ones(200)], net(x).detach().numpy(), rcond=None)
    np.testing.assert_allclose(fitted.weight.detach().numpy()[:, stay], found[:-1].T, atol=1e-3)
    np.testing.assert_allclose(fitted.bias.detach().numpy(), found[-1], atol=1e-3)


def test_later_layers_see_what_earlier_ones_became():
    """A second layer that is fitted to the outputs of the whole network, not to those of the old pruned one."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(300, 4)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 3) & without(graph, "2", 1)
    module = masked(reconstruct(graph, keep, task_of(x), ridge=TINY), keep).to_module()
    hidden = module[:4](x).detach().numpy()
    best, *_ = np.linalg.lstsq(np.c_[hidden, np.ones(300)], net(x).detach().numpy(), rcond=None)
    residual = np.abs(np.c_[hidden, np.ones(300)] @ best - module(x).detach().numpy()).max()
    assert residual < 1e-3


def test_a_constant_channel_goes_into_the_bias():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0.0, 2.0
        net[2].weight[0, 0] = 5.0
    x = torch.randn(64, 2)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 0)
    fitted = reconstruct(graph, keep, task_of(x)).to_module()[2]
    torch.testing.assert_close(fitted.bias, net[2].bias + 10.0)
    torch.testing.assert_close(fitted.weight[:, 1:], net[2].weight[:, 1:])


def test_a_batch_norm_takes_up_the_constant():
    """Without a bias of its own, a layer before a batch norm is compared up to a constant."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)).eval()
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0.0, 2.0
        net[2].weight[:, 0] = 5.0
    x = torch.randn(64, 2)
    graph = NetworkGraph.from_module(net, x[:1])
    fitted = reconstruct(graph, without(graph, "0", 0), task_of(x)).to_module()[2]
    torch.testing.assert_close(fitted.weight[:, 1:], net[2].weight[:, 1:])


def test_grouped_convolutions_are_fitted_by_group():
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 4, 3, groups=2)
    with torch.no_grad():
        first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
        first.weight[5], first.bias[5] = first.weight[4], first.bias[4]
    net = nn.Sequential(first, nn.ReLU(), second).eval()
    x = torch.randn(64, 1, 8, 8)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 1) & without(graph, "0", 5)
    refitted = masked(reconstruct(graph, keep, task_of(x), ridge=TINY), keep).to_module()
    torch.testing.assert_close(refitted(x), net(x), atol=1e-3, rtol=1e-3)


def test_all_kept_changes_nothing():
    net = make_cnn("resnet8", in_channels=1, num_classes=3, width=4, seed=0)
    x = torch.randn(64, 1, 8, 8)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    for name, value in reconstruct(graph, keep, task_of(x)).to_state_dict().items():
        torch.testing.assert_close(value, graph.to_state_dict()[name], atol=1e-5, rtol=1e-4)


def test_only_weights_between_kept_channels_change_and_labels_play_no_part():
    net = make_cnn("resnet8", in_channels=1, num_classes=3, width=4, seed=0)
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(64, 1, 8, 8)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "blocks.0.conv1", 0) & without(graph, "blocks.1.conv1", 2)
    old = graph.to_state_dict()
    new = reconstruct(graph, keep, task_of(x))
    for kernel, edges in graph.edges.items():
        gone = ~(keep[edges.src] & keep[edges.dst])
        assert torch.equal(new.edges[kernel].values[gone], edges.values[gone])
    for name, value in new.to_state_dict().items():
        if "running" in name or "norm" in name or "bn" in name:
            assert torch.equal(value, old[name])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    again = reconstruct(graph, keep, task_of(x, torch.zeros(64, dtype=torch.int64))).to_state_dict()
    assert all(torch.equal(value, again[name]) for name, value in new.to_state_dict().items())


class Twice(nn.Module):
    """A layer that is called twice has no one thing to give again."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.c(self.b(self.b(self.a(x).relu()).relu()).relu())


def test_what_is_not_covered_stays_as_it_is():
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    graph = NetworkGraph.from_module(Twice(), x[:1])
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    keep[torch.nonzero(graph.layer == graph.layer_names.index("a"))[1:3, 0]] = False
    keep[torch.isin(graph.coupled(), graph.coupled()[~keep])] = False
    new = reconstruct(graph, keep, task_of(x)).to_module()
    assert torch.equal(new.b.weight, graph.to_module().b.weight)
    assert not torch.equal(new.c.weight, graph.to_module().c.weight)


def test_transposed_and_circular_convolutions_stay():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 1, 3),
    )
    x = torch.randn(32, 1, 8, 8)
    graph = NetworkGraph.from_module(net, x[:1])
    new = reconstruct(graph, without(graph, "0", 0), task_of(x)).to_module()
    assert torch.equal(new[2].weight, net[2].weight)
    assert torch.equal(new[3].weight, net[3].weight)


@pytest.mark.parametrize("option", [{"ridge": 0.0}, {"ridge": float("nan")}, {"examples": 0}, {"samples": 0}])
def test_options_out_of_range(option):
    graph = NetworkGraph.from_module(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="above 0"):
        reconstruct(graph, torch.ones(4, dtype=torch.bool), task_of(torch.randn(8, 2)), **option)


def test_a_mask_that_tears_channels_apart_is_refused():
    graph = NetworkGraph.from_module(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="must stay"):
        reconstruct(graph, torch.tensor([True, True, True, False]), task_of(torch.randn(8, 2)))


def test_a_dead_layer_gives_no_nan():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(-1.0)
    x = torch.randn(32, 2)
    graph = NetworkGraph.from_module(net, x[:1])
    state = reconstruct(graph, without(graph, "0", 1), task_of(x)).to_state_dict()
    assert all(bool(value.isfinite().all()) for value in state.values())


def test_real_images_lose_less():
    """Digits, pruned to a quarter: before any fine-tuning, least squares keeps far more."""
    images = load_images("digits")
    task = Task(images.train, images.val, images.test, batch_size=64)
    net = make_cnn("resnet8", in_channels=1, num_classes=10, width=6, seed=0)
    FineTune(epochs=6, lr=0.1).run(net, task)
    plain, refitted = (
        prune(net, None, task, speedup=4, reconstruct=flag, fine_tune=FineTune(epochs=0)) for flag in (False, True)
    )
    assert plain.flops == refitted.flops
    assert plain.kept == refitted.kept
    assert refitted.accuracy > plain.accuracy + 0.1


def test_the_metanetwork_that_comes_along_repairs_networks_of_other_images():
    images = load_images("digits")
    task = Task(images.train, images.val, images.test, batch_size=64)
    net = make_cnn("resnet8", in_channels=1, num_classes=10, width=8, seed=1)
    FineTune(epochs=6, lr=0.1).run(net, task)
    metanet = MetaNetwork.from_pretrained("resnet-tiny")
    repaired, plain = (prune(net, m, task, speedup=3, fine_tune=FineTune(epochs=0)) for m in (metanet, None))
    assert repaired.accuracy > plain.accuracy + 0.1
    assert repaired.accuracy > repaired.accuracy_before - 0.2


def _redundant():
    """Two layers with a twin channel, its graph, the mask without the twin, and inputs."""
    net = twins(nn.Linear(5, 4), nn.Linear(4, 3))
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    graph = NetworkGraph.from_module(net, x[:1])
    return net, graph, without(graph, "0", 1), x


def test_a_strong_penalty_leaves_the_weights_as_they_were():
    """The ridge pulls towards the old weights, and in proportion to the inputs' scale."""
    net, graph, keep, x = _redundant()
    strong = reconstruct(graph, keep, task_of(x), ridge=1e9).to_module()[2].weight
    assert torch.allclose(strong[:, [0, 2, 3]], net[2].weight[:, [0, 2, 3]], atol=1e-5)
    for scale in (1e-2, 1e2):
        scaled = copy.deepcopy(net)
        with torch.no_grad():
            scaled[0].weight.mul_(scale), scaled[0].bias.mul_(scale), scaled[2].weight.div_(scale)
        other = NetworkGraph.from_module(scaled, x[:1])
        fitted = reconstruct(other, keep, task_of(x), ridge=0.3).to_module()[2].weight * scale
        plain = reconstruct(graph, keep, task_of(x), ridge=0.3).to_module()[2].weight
        assert torch.allclose(fitted, plain, atol=1e-3)


def test_the_penalty_that_is_taken_by_itself_is_a_hundredth():
    _, graph, keep, x = _redundant()
    named = reconstruct(graph, keep, task_of(x), ridge=0.01).to_state_dict()
    assert all(
        torch.equal(value, named[key]) for key, value in reconstruct(graph, keep, task_of(x)).to_state_dict().items()
    )


def test_one_example_is_enough_and_examples_are_the_first_ones():
    _, graph, keep, x = _redundant()
    reconstruct(graph, keep, task_of(x), examples=1)
    first = reconstruct(graph, keep, task_of(x[:20]), examples=20).to_state_dict()  # two batches of 16, cut to 20
    again = reconstruct(graph, keep, task_of(x), examples=20).to_state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_a_mask_of_another_length_is_refused():
    _, graph, keep, x = _redundant()
    with pytest.raises(ValueError):  # noqa: PT011
        reconstruct(graph, keep[:-1], task_of(x))
    with pytest.raises(ValueError):  # noqa: PT011
        reconstruct(graph, keep.long(), task_of(x))


def test_no_hook_stays_on_the_network():
    net, graph, keep, x = _redundant()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    refitted = reconstruct(graph, keep, task_of(x)).to_module()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in refitted.modules())
