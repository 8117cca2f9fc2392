"""Least squares after pruning: exact where channels are redundant, optimal elsewhere, and nothing else is touched."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from graphsparse.data import load_images
from graphsparse.fit import Task
from graphsparse.metanet import FineTune, MetaNetwork, NetworkGraph, masked, prune, reconstruct
from graphsparse.metanet.channels import batch_statistics
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
    "2d circular": (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"), (2, 8, 8)),
    "1d transposed": (nn.Conv1d(2, 4, 3), nn.ConvTranspose1d(4, 3, 3), (2, 9)),
    "2d transposed": (
        nn.Conv2d(2, 4, 3),
        nn.ConvTranspose2d(4, 3, (3, 2), stride=2, padding=(1, 0), output_padding=1, dilation=(2, 1)),
        (2, 7, 7),
    ),
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
    """A layer that is called twice: its weights are fitted to both calls."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.c(self.b(self.b(self.a(x).relu()).relu()).relu())


def test_a_layer_that_is_called_twice_is_fitted_to_both_calls():
    """With a twin channel there are weights that give both calls exactly."""
    torch.manual_seed(0)
    net = Twice().eval()
    with torch.no_grad():  # channel 1 is channel 0, wherever it is made
        for layer in (net.a, net.b):
            layer.weight[1], layer.bias[1] = layer.weight[0], layer.bias[0]
    x = torch.randn(128, 4)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "a", 1)
    keep[torch.isin(graph.coupled(), graph.coupled()[~keep])] = False
    plain, new = (masked(g, keep).to_module() for g in (graph, reconstruct(graph, keep, task_of(x), ridge=TINY)))
    assert (plain(x) - net(x)).abs().max() > 1e-2
    torch.testing.assert_close(new(x), net(x), atol=1e-3, rtol=1e-3)


def test_a_weight_with_another_part_stays_as_it_is():
    """An encoder that is also the decoder, transposed: a refit of one would spoil the other."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.code, self.head = nn.Linear(4, 6), nn.Linear(6, 5, bias=False), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(nn.functional.linear(self.code(self.first(x).relu()).relu(), self.code.weight.t()))

    torch.manual_seed(0)
    x = torch.randn(64, 4)
    graph = NetworkGraph.from_module(Tied(), x[:1])
    keep = without(graph, "first", 1)
    keep[torch.isin(graph.coupled(), graph.coupled()[~keep])] = False
    new, old = reconstruct(graph, keep, task_of(x)).to_module(), graph.to_module()
    assert torch.equal(new.code.weight, old.code.weight)
    assert not torch.equal(new.head.weight, old.head.weight)


class Matrix(nn.Module):
    """A weight that no layer of torch holds: a bare matrix."""

    def __init__(self, rows, columns):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns))

    def forward(self, x):
        return x @ self.weight


class Functional(Matrix):
    """A functional call, and a bias that is added by itself."""

    def __init__(self, rows, columns):
        super().__init__(rows, columns)
        self.bias = nn.Parameter(torch.randn(rows))

    def forward(self, x):
        return nn.functional.linear(x, self.weight) + self.bias


@pytest.mark.parametrize("second", [Matrix(4, 3), Functional(3, 4)], ids=["matrix", "functional"])
def test_weights_of_ones_own_are_refitted(second):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), second)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
    x = torch.randn(64, 5)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 1)
    plain, new = (masked(g, keep).to_module() for g in (graph, reconstruct(graph, keep, task_of(x), ridge=TINY)))
    assert (plain(x) - net(x)).abs().max() > 1e-2
    torch.testing.assert_close(new(x), net(x), atol=1e-3, rtol=1e-3)


class Attends(nn.Module):
    """Attention of torch between two linear layers."""

    def __init__(self):
        super().__init__()
        self.first, self.mix, self.head = (
            nn.Linear(5, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.first(x).relu()
        return self.head(self.mix(x, x, x, need_weights=False)[0])


def test_attention_of_torch_is_refitted_from_within():
    """Its projections are called by no layer; queries, keys and values make up for twins that went."""
    torch.manual_seed(0)
    net = Attends().eval()
    with torch.no_grad():
        net.first.weight[[1, 5]], net.first.bias[[1, 5]] = net.first.weight[[0, 4]], net.first.bias[[0, 4]]
        net.mix.in_proj_weight.view(3, 8, 8)[:, [1, 5]] = 0.0  # channels of the heads that go along: nothing is lost
    x = torch.randn(32, 6, 5)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "first", 1) & without(graph, "first", 5)
    keep[torch.isin(graph.coupled(), graph.coupled()[~keep])] = False
    plain, new = (masked(g, keep).to_module() for g in (graph, reconstruct(graph, keep, task_of(x), ridge=TINY)))
    assert (plain(x) - net(x)).abs().max() > 1e-2
    torch.testing.assert_close(new(x), net(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("conv", [GCNConv, SAGEConv, GATConv], ids=["gcn", "sage", "gat"])
def test_graph_convolutions_are_refitted(conv):
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv = nn.Linear(4, 6), conv(6, 3)

        def forward(self, x, edge_index):
            return self.conv(self.first(x).relu(), edge_index)

    net = Net().eval()
    with torch.no_grad():
        net.first.weight[1], net.first.bias[1] = net.first.weight[0], net.first.bias[0]
    inputs = torch.randn(40, 4), torch.randint(40, (2, 160))
    graph = NetworkGraph.from_module(net, inputs)
    keep, task = without(graph, "first", 1), task_of(torch.randn(8, 4))
    plain, new = (
        masked(g, keep).to_module() for g in (graph, reconstruct(graph, keep, task, inputs=inputs, ridge=TINY))
    )
    assert (plain(*inputs) - net(*inputs)).abs().max() > 1e-2
    torch.testing.assert_close(new(*inputs), net(*inputs), atol=1e-3, rtol=1e-3)


class Block(nn.Module):
    """A shortcut with a convolution of its own, and one without, with or without batch norms."""

    def __init__(self, norm, late):
        super().__init__()
        self.norm, self.late = norm, late
        self.inner, self.outer = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1, bias=not norm)
        self.narrow, self.side = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4) if norm else nn.Identity()

    def forward(self, x):
        if self.late:
            y = self.bn(self.outer(self.inner(x).relu()))
            return self.side(self.narrow(x).relu()) + y
        s = self.side(self.narrow(x).relu())
        y = self.bn(self.outer(self.inner(x).relu()))
        return y + s


@pytest.mark.parametrize("norm", [False, True])
def test_a_later_layer_makes_up_for_what_the_shortcut_lost(norm):
    """The error of the sum falls."""
    torch.manual_seed(0)
    net = Block(norm, late=False).eval()
    x = torch.randn(64, 2, 6, 6)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "narrow", 1)
    wanted, errors = _with_batch_statistics(net)(x).detach(), {}
    for residual in (False, True):
        new = reconstruct(graph, keep, task_of(x), residual=residual, rescale=residual, ridge=1e-4)
        small = _with_batch_statistics(masked(new, keep).to_module())
        errors[residual] = float((small(x).detach() - wanted).square().mean())
    assert errors[True] < 0.95 * errors[False]


def test_only_what_is_known_before_a_layer_can_be_made_up_for():
    torch.manual_seed(0)
    net = Block(norm=False, late=True).eval()
    x = torch.randn(64, 2, 6, 6)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "narrow", 1)
    plain, residual = (reconstruct(graph, keep, task_of(x), residual=r).to_module() for r in (False, True))
    assert torch.equal(plain.outer.weight, residual.outer.weight)
    torch.testing.assert_close(plain.side.weight, residual.side.weight)  # the other branch lost nothing


def test_by_hand_the_residual_target_is_the_shortcuts_error():
    torch.manual_seed(0)

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 5), nn.Linear(5, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.b(self.a(x).relu()) + self.c(x)

    net, x = Sum().eval(), torch.randn(200, 3)
    graph = NetworkGraph.from_module(net, x[:1])
    new = reconstruct(graph, without(graph, "a", 1), task_of(x), residual=True, ridge=TINY)
    small = masked(new, without(graph, "a", 1)).to_module()
    lost = (net.b(net.a(x).relu()) - small.b(small.a(x).relu())).detach().numpy()
    design = np.c_[x.numpy(), np.ones(200)]
    found, *_ = np.linalg.lstsq(design, net.c(x).detach().numpy() + lost, rcond=None)
    np.testing.assert_allclose(small.c.weight.detach().numpy(), found[:-1].T, atol=1e-3)
    np.testing.assert_allclose(small.c.bias.detach().numpy(), found[-1], atol=1e-3)


def _with_batch_statistics(net):
    return batch_statistics(copy.deepcopy(net).eval())


def test_a_batch_norm_keeps_the_size_that_least_squares_left():
    """gamma falls by the ratio of standard deviations; without the option, and for what is dropped, it stays."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)
    ).eval()
    with torch.no_grad():
        net[3].weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    x = torch.randn(256, 4)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 2) & without(graph, "0", 5) & without(graph, "2", 2)
    plain, scaled = (reconstruct(graph, keep, task_of(x), rescale=flag).to_module() for flag in (False, True))
    assert torch.equal(plain[3].weight, net[3].weight)
    small = masked(reconstruct(graph, keep, task_of(x)), keep).to_module()
    ratio = small[:3](x).std(0, correction=0) / net[:3](x).std(0, correction=0)
    torch.testing.assert_close(scaled[3].weight[:2], (net[3].weight * ratio)[:2], atol=1e-4, rtol=1e-3)
    assert scaled[3].weight[2] == net[3].weight[2]
    assert torch.equal(scaled[3].bias, net[3].bias)


def test_parts_are_options_of_prune():
    x = torch.randn(64, 1, 8, 8)
    net = make_cnn("resnet8", in_channels=1, num_classes=2, width=4, seed=0)
    options = {"speedup": 2, "fine_tune": FineTune(epochs=0)}
    plain, scaled = (
        prune(net, None, task_of(x), reconstruct=how, **options).module for how in (True, {"rescale": True})
    )
    assert not torch.equal(plain.norm.weight, scaled.norm.weight) or not torch.equal(
        plain.blocks[0].norm2.weight, scaled.blocks[0].norm2.weight
    )
    with pytest.raises(ValueError, match="least squares have no option 'scale'; they have examples, rescale, residual"):
        prune(net, None, task_of(x), reconstruct={"scale": True}, **options)


def test_fewer_rows_than_inputs_are_told_and_the_penalty_decides():
    """The dual system gives the solution of the primal one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 2)).eval()
    x = torch.randn(9, 3)
    graph = NetworkGraph.from_module(net, x[:1])
    keep = without(graph, "0", 4)
    with pytest.warns(UserWarning, match=r"least squares have 9 rows for the 20 inputs of '2.weight'"):
        fitted = reconstruct(graph, keep, task_of(x), ridge=0.1).to_module()[2]
    hidden = net[:2](x).detach().double()
    hidden[:, 4] = 0.0
    X, Y = hidden - hidden.mean(0), (net(x) - net(x).mean(0)).detach().double()
    strength = 0.1 * X.square().sum(0).mean()
    W = net[2].weight.detach().double()
    change = torch.linalg.solve(X.T @ X + strength * torch.eye(20), X.T @ (Y - X @ W.T)).T
    stay = [i for i in range(20) if i != 4]
    torch.testing.assert_close(fitted.weight[:, stay], (W + change).float()[:, stay], atol=1e-5, rtol=1e-4)


def test_values_that_are_not_finite_stop_it_and_are_located():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(16, 3)
    graph = NetworkGraph.from_module(net, x[:1])
    bad = x.clone()
    bad[3, 1] = float("inf")
    with pytest.raises(
        FloatingPointError, match=r"stop at '0.weight', product 1 of the forward pass: its outputs hold"
    ):
        reconstruct(graph, without(graph, "0", 0), task_of(bad))


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
