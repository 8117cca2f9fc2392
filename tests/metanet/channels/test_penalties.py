"""Penalties on groups: by hand, and against gradients in closed form."""

import pytest
import torch
from metanet_networks import graph_of
from torch import nn

from graphsparse.fit import Task, fit
from graphsparse.metanet import Channels, NetworkGraph
from graphsparse.metanet.channels.criteria import square_sums
from graphsparse.metanet.channels.penalties import GroupSparsity, group_lasso, group_norm


def two_channels(a, b):
    """One hidden layer of two channels whose squared norms are a and b."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[a**0.5], [b**0.5]]))
        net[1].weight.zero_()
    return net, NetworkGraph.from_module(net, torch.zeros(1, 1))


def test_group_norm_by_hand():
    _, graph = two_channels(9.0, 1.0)
    assert group_norm(graph).item() == pytest.approx(0.5 * (9 + 16 * 1))
    assert group_norm(graph, alpha=0.0).item() == pytest.approx(0.5 * (9 + 1))


def test_the_gradient_of_group_norm_is_gamma_times_the_weight():
    _, _, graph = graph_of("vgg19")
    edges = {k: e.values.clone().requires_grad_() for k, e in graph.edges.items()}
    group_norm(graph.with_values(edges)).backward()
    channels = Channels.of(graph)
    norm = square_sums(graph).sqrt()
    gamma = torch.zeros_like(norm)
    for group in torch.unique(channels.group_of[channels.prunable]).tolist():
        mine = channels.group_of == group
        spread = norm[mine].max() - norm[mine].min()
        gamma[mine] = 2 ** (4 * (norm[mine].max() - norm[mine]) / spread)
    for kernel, edge in graph.edges.items():
        factor = gamma[channels.set_of[edge.src]] + gamma[channels.set_of[edge.dst]]
        expected = factor.unsqueeze(1) * edge.values
        torch.testing.assert_close(edges[kernel].grad, expected, rtol=1e-4, atol=1e-5)


def test_group_lasso_by_hand_and_free_of_scale():
    _, graph = two_channels(9.0, 1.0)
    assert group_lasso(graph).item() == pytest.approx(4 / (2 * 10) ** 0.5, abs=1e-5)
    _, even = two_channels(4.0, 4.0)
    assert group_lasso(even).item() == pytest.approx(1.0, abs=1e-5)
    _, _, vgg = graph_of("vgg19")
    scaled = vgg.with_values(
        {k: 7 * e.values for k, e in vgg.edges.items()},
        {n: 7 * b.values for n, b in vgg.banks.items() if n.startswith("gamma")},
    )
    assert group_lasso(scaled).item() == pytest.approx(group_lasso(vgg).item(), rel=1e-5)


class WithUnused(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head, self.unused = nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())


def test_sparse_learning_adds_the_gradient_before_the_step_and_leaves_no_hook():
    torch.manual_seed(0)
    net, x = WithUnused(), torch.randn(5, 2)
    plain, other = net.body.weight.detach().clone(), net.unused.weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    penalty = GroupSparsity(net, x, strength=0.5)
    penalty.attach(optimizer)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    graph = NetworkGraph.from_module(net, x)
    values = graph.edges[()].values.requires_grad_()
    group_norm(graph).backward()
    slope = graph.with_values({(): values.grad}).to_state_dict()["body.weight"]
    optimizer.step()
    torch.testing.assert_close(net.body.weight.detach(), plain - 0.5 * slope)
    assert torch.equal(net.unused.weight, other)  # what the network does not use is no part of it
    penalty.detach()
    penalty.detach()
    after = net.body.weight.detach().clone()
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(net.body.weight, after)


def test_sparse_learning_makes_channels_differ():
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.arange(64) % 2
    task = Task((x, y), (x, y), (x, y), batch_size=32)
    found = []
    for strength in (0.0, 0.05):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        callback = GroupSparsity(net, x[:1], strength=strength)
        result = fit(net, task, epochs=15, lr=0.1, weight_decay=0.0, callbacks=[callback], optimizer=_sgd)
        net.load_state_dict(result.state)
        found.append(group_lasso(NetworkGraph.from_module(net, x[:1])).item())
    assert found[1] < found[0] - 0.02


def _sgd(parameters, lr, weight_decay):
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay)


def test_settings_are_state():
    net = WithUnused()
    first, second = GroupSparsity(net, torch.zeros(1, 2), 0.1, 2.0), GroupSparsity(net, torch.zeros(1, 2))
    second.load_state_dict(first.state_dict())
    assert (second.strength, second.alpha) == (0.1, 2.0)
