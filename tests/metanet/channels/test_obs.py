"""Optimal brain surgeon: the error that is foretold is the one that a refit leaves, found independently."""

import numpy as np
import pytest
import torch
from metanet_networks import conv_bn
from torch import nn

from graphsparse.fit import Task
from graphsparse.metanet import Channels, FineTune, NetworkGraph, prune
from graphsparse.metanet.channels import Evidence, importance, output_errors
from graphsparse.nn import make_cnn

RIDGE = 0.03


def task_of(x):
    y = torch.arange(len(x)) % 2
    return Task((x, y), (x, y), (x, y), batch_size=16)


def sets_of(graph, layer):
    nodes = torch.nonzero(graph.layer == graph.layer_names.index(layer))[:, 0]
    return Channels.of(graph).set_of[nodes]


def refit_error(x, weight, gone, centred=True):
    """The smallest objective once these inputs are gone, by numpy: squared error of all outputs and penalty."""
    x, weight = (np.asarray(part, dtype=np.float64) for part in (x, weight))
    x = x - x.mean(0) if centred else x
    strength = RIDGE * (x**2).sum(0).mean()
    stay = [i for i in range(x.shape[1]) if i not in gone]
    design = np.vstack([x[:, stay], np.sqrt(strength) * np.eye(len(stay))])
    wanted = np.vstack([x[:, gone] @ weight[:, gone].T, np.zeros((len(stay), len(weight)))])
    change, *_ = np.linalg.lstsq(design, wanted, rcond=None)
    return ((design @ change - wanted) ** 2).sum(0)


@pytest.mark.parametrize("rows", [60, 5])  # more rows than inputs, and fewer
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_by_brute_force(rows, bias):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 5, bias=bias)).double()
    x = torch.randn(rows, 4).double()
    graph = NetworkGraph.from_module(net, x[:1])
    found = output_errors(graph, task_of(x), ridge=RIDGE)[sets_of(graph, "0")]
    hidden = net[:2](x).detach()
    for channel in range(7):
        wanted = refit_error(hidden, net[2].weight.detach(), [channel], centred=bias).sum() / rows
        assert float(found[channel]) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def test_convolutions_count_every_tap_and_every_place():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2)).double().eval()
    x = torch.randn(6, 2, 9, 9).double()
    graph = NetworkGraph.from_module(net, x[:1])
    found = output_errors(graph, task_of(x), ridge=RIDGE)[sets_of(graph, "0")]
    patches = nn.functional.unfold(net[:2](x), 3, stride=2).transpose(1, 2).flatten(0, 1).detach()
    weight = net[2].weight.detach().flatten(1)
    for channel in range(4):
        wanted = refit_error(patches, weight, list(range(9 * channel, 9 * channel + 9))).sum() / 6
        assert float(found[channel]) == pytest.approx(wanted, rel=1e-5)


class TwoReaders(nn.Module):
    """A channel that two layers read, one of them through a flattened map: four inputs for each channel."""

    def __init__(self):
        super().__init__()
        self.make, self.one, self.two = nn.Conv1d(1, 3, 1), nn.Conv1d(3, 2, 1), nn.Linear(12, 2)

    def forward(self, x):
        x = self.make(x).relu()
        return self.one(x), self.two(x.flatten(1))


def test_what_all_readers_lose_is_added_up():
    torch.manual_seed(0)
    net, x = TwoReaders().double(), torch.randn(40, 1, 4).double()
    graph = NetworkGraph.from_module(net, x[:1])
    found = output_errors(graph, task_of(x), ridge=RIDGE)[sets_of(graph, "make")]
    hidden = net.make(x).relu().detach()
    for channel in range(3):
        one = refit_error(hidden.transpose(1, 2).flatten(0, 1), net.one.weight.detach()[..., 0], [channel]).sum() / 40
        four = list(range(4 * channel, 4 * channel + 4))
        two = refit_error(hidden.flatten(1), net.two.weight.detach(), four).sum() / 40
        assert float(found[channel]) == pytest.approx(one + two, rel=1e-5)


def test_depthwise_layers_go_along_and_their_reader_counts():
    """What is read through a depthwise layer is lost at the layer behind it, and nowhere twice."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    x = torch.randn(12, 1, 6, 6).double()
    graph = NetworkGraph.from_module(net, x[:1])
    found = output_errors(graph, task_of(x), ridge=RIDGE)[sets_of(graph, "0")]
    rows = net[:3](x).movedim(1, -1).flatten(0, 2).detach()
    for channel in range(4):
        wanted = refit_error(rows, net[3].weight.detach()[..., 0, 0], [channel]).sum() / 12
        assert float(found[channel]) == pytest.approx(wanted, rel=1e-5)


def test_fisher_weights_outputs_by_their_squared_gradients():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.randn(48, 4).double()
    task, graph = task_of(x), NetworkGraph.from_module(net, x[:1])
    found = output_errors(graph, task, ridge=RIDGE, fisher=True)[sets_of(graph, "0")]
    y = net[:3](x).detach().requires_grad_()
    loss = nn.functional.cross_entropy(net[3:](y), task.parts["train"][1], reduction="sum")  # each example by itself
    (gradient,) = torch.autograd.grad(loss, y)
    fisher = gradient.square().mean(0).numpy()
    for channel in range(6):
        errors = refit_error(net[:2](x).detach(), net[2].weight.detach(), [channel]) / 48
        assert float(found[channel]) == pytest.approx((fisher * errors).sum() / 2, rel=1e-5)


def test_a_square_layer_is_not_taken_for_its_own_gradient():
    """As many inputs as outputs: what goes forward has the shape of what comes back."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5, bias=False), nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.randn(32, 4).double()
    task, graph = task_of(x), NetworkGraph.from_module(net, x[:1])
    found = output_errors(graph, task, ridge=RIDGE, fisher=True)[sets_of(graph, "0")]
    y = net[:3](x).detach().requires_grad_()
    loss = nn.functional.cross_entropy(net[3:](y), task.parts["train"][1], reduction="sum")
    fisher = torch.autograd.grad(loss, y)[0].square().mean(0).numpy()
    errors = refit_error(net[:2](x).detach(), net[2].weight.detach(), [1], centred=False) / 32
    assert float(found[1]) == pytest.approx((fisher * errors).sum() / 2, rel=1e-5)


def test_a_copy_costs_nothing_and_goes_first():
    torch.manual_seed(0)
    net = nn.Sequential(conv_bn(1, 6), nn.ReLU(), conv_bn(6, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(4, 2)).eval()
    with torch.no_grad():
        for tensor in net[0].state_dict().values():
            if tensor.dim():
                tensor[3] = tensor[0]
        net[0][0].weight.mul_(3.0)  # a large channel, that group-l2 would keep
    x = torch.randn(64, 1, 6, 6)
    graph = NetworkGraph.from_module(net, x[:1])
    sets = sets_of(graph, "0.0")
    for name in ("obs", "obs-fisher"):
        found = importance(Evidence(graph, task=task_of(x)), name)[sets]
        assert {0, 3} == set(torch.argsort(found)[:2].tolist()), name


def test_it_ranks_for_prune_and_needs_a_task():
    net = make_cnn("resnet8", in_channels=1, num_classes=2, width=4, seed=0)
    x = torch.randn(32, 1, 8, 8)
    kept = prune(net, None, task_of(x), speedup=2, criterion="obs-fisher", fine_tune=FineTune(epochs=0)).kept
    assert kept
    graph = NetworkGraph.from_module(net, x[:1])
    with pytest.raises(ValueError, match="obs needs a task, whose training examples show the inputs"):
        importance(Evidence(graph), "obs")


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("criterion", ["obs", "obs-fisher"])
def test_channels_that_nothing_is_seen_to_read_are_ranked_by_group_l2(norm, criterion):
    """A weight that is computed is none of those that are seen; its group is ranked otherwise, the others by obs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), norm(nn.Linear(8, 2)))
    x = torch.randn(64, 3)
    graph = NetworkGraph.from_module(net, x[:1])
    with pytest.warns(UserWarning, match="no layer is seen to read the channels of '2', so group-l2 ranks them"):
        found = importance(evidence := Evidence(graph, task=task_of(x)), criterion)
    assert evidence.instead == {"2": "by group-l2: no layer is seen to read its channels"}
    channels = Channels.of(graph)
    own = channels.group_of == channels.group_of[channels.set_of[graph.layer == graph.layer_names.index("2")][0]]
    other = channels.group_of == channels.group_of[channels.set_of[graph.layer == graph.layer_names.index("0")][0]]
    norms = importance(Evidence(graph), "group-l2")
    assert torch.equal(found[own].argsort(), norms[own].argsort())
    torch.testing.assert_close(found[own].mean(), found[other].mean())
    plain = nn.Sequential(*net[:4], nn.Linear(8, 2))  # what reads the first group is the same
    plain[4].weight.data.copy_(net[4].weight.detach())
    seen = importance(Evidence(NetworkGraph.from_module(plain, x[:1]), task=task_of(x)), criterion)
    if criterion == "obs":
        torch.testing.assert_close(found[other], seen[other])
    with pytest.warns(UserWarning, match="group-l2 ranks them"):
        result = prune(net, None, task_of(x), speedup=2, criterion=criterion, fine_tune=FineTune(epochs=0))
    assert list(result.instead) == ["2"]
    assert "Ranked otherwise" in result._repr_html_()
