"""Kinds of layers beyond the usual: converted bit for bit, and cut so that they compute what the masked ones do."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from metanet_networks import same_bits
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from graphsparse.errors import TraceError
from graphsparse.metanet import Channels, NetworkGraph, masked, shrink
from graphsparse.metanet.channels import count_flops, flop_cost
from graphsparse.metanet.channels.sets import keep_after, removal_order


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.cell = kind(8, 6, batch_first=True, **options)
        self.last = nn.Linear((options.get("proj_size") or 6) * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x):
        return self.last(self.cell(self.first(x))[0])


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.second, self.last = nn.LSTMCell(5, 8), nn.GRUCell(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        h, c, g = (x.new_zeros(len(x), cell.hidden_size) for cell in (self.read, self.read, self.second))
        for step in x.unbind(1):
            h, c = self.read(step, (h, c))
            g = self.second(h, g)
        return self.last(g)


class Standardised(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1, as in BiT."""

    def __init__(self, a, b):
        super().__init__(a, b, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(b, 1, 1, 1) + 0.5)

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        std = self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, self.gain * (self.weight - mean) / (std + 1e-5), self.bias, padding=1)


class ByBatchNorm(nn.Conv2d):
    """The same through a batch norm of the weight, as timm writes it."""

    def __init__(self, a, b):
        super().__init__(a, b, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(b, 1, 1, 1) + 0.5)

    def forward(self, x):
        flat = self.weight.reshape(1, len(self.weight), -1)
        weight = F.batch_norm(flat, None, None, self.gain.view(-1), training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=1)


class Blur(nn.Module):
    """A fixed filter and a frozen norm in buffers, behind a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.register_buffer("kernel", torch.rand(3, 3).expand(8, 1, 3, 3).clone())
        for name in ("scale", "shift", "mean", "variance"):
            self.register_buffer(name, torch.rand(8) + 0.5)

    def forward(self, x):
        x = F.conv2d(self.first(x), self.kernel, groups=self.kernel.shape[0])
        scale = self.scale * (self.variance + 1e-5).rsqrt()
        x = x * scale.view(1, -1, 1, 1) + (self.shift - self.mean * scale).reshape(1, -1, 1, 1)
        return self.last(x.relu())


class C2f(nn.Module):
    """YOLO's block: halves of one convolution, and a chain of bottlenecks on the second."""

    def __init__(self, split):
        super().__init__()
        self.c, self.split = 4, split
        self.stem, self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 1), nn.Conv2d(16, 6, 1)
        self.chain = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.first(self.stem(x))
        y = list(x.split((self.c, self.c), 1)) if self.split else list(x.chunk(2, 1))
        for layer in self.chain:
            y.append(y[-1] + layer(y[-1]).relu())
        return self.last(self.second(torch.cat(y, 1)))


class Parts(nn.Module):
    """``torch.split`` by attributes into unequal parts."""

    def __init__(self):
        super().__init__()
        self.sizes = [3, 9]
        self.first, self.left, self.right = nn.Linear(4, 12), nn.Linear(3, 2), nn.Linear(9, 2)

    def forward(self, x):
        left, right = torch.split(self.first(x), self.sizes, -1)
        return self.left(left.relu()) + self.right(right.tanh())


class Stacked(nn.Module):
    """Feature maps that are stacked and summed, as a decoder of an FPN does; a gate of one channel beside them."""

    def __init__(self):
        super().__init__()
        self.width = 6
        self.left, self.right, self.last = nn.Conv2d(3, 7, 3), nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        gate, left = self.left(x).split([1, self.width], 1)
        return self.last(torch.stack([left, self.right(x)]).sum(0) * gate.sigmoid())


class Shuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.up, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 16, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(F.pixel_shuffle(self.up(self.first(x).relu()), 2))


class SpatialGate(nn.Module):
    """CBAM's: mean and maximum over channels gate all of them."""

    def __init__(self):
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * self.gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid())


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.both, self.last = (
            nn.Linear(4, 6), nn.Linear(4, 5), nn.Bilinear(6, 5, 7), nn.Linear(7, 2)
        )  # fmt: skip

    def forward(self, x):
        return self.last(self.both(self.left(x), self.right(x)))


class Fourier(nn.Module):
    """A filter in the frequencies of places, as in GFNet."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.filter = nn.Parameter(torch.rand(8, 6, 4, 2))

    def forward(self, x):
        x = torch.fft.rfft2(self.first(x)) * torch.view_as_complex(self.filter)
        return self.last(torch.fft.irfft2(x, s=(6, 6)))


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(5, 2)
        self.a, self.b = nn.Parameter(torch.rand(6, 5)), nn.Parameter(torch.rand(5))

    def forward(self, x):
        return self.last(torch.einsum("bi,io,o->bo", self.first(x), self.a, self.b))


class Transposed(nn.Module):
    """A U-Net's way up, with an instance norm that keeps statistics."""

    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 2, 2)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(12, 2, 1)
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)

    def forward(self, x):
        skip = self.down(x)
        return self.out(torch.cat([skip, self.up(self.norm(self.deep(skip)).relu())], 1))


def around(layer):
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(8, 2, 1))


X1, X2, X3 = torch.randn(3, 4), torch.randn(2, 3, 8, 8), torch.randn(2, 7, 5)
KINDS = {
    "lstm": (lambda: Recurrent(nn.LSTM), X3),
    "lstm deep": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), X3),
    "lstm projected": (lambda: Recurrent(nn.LSTM, proj_size=4), X3),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2, bias=False), X3),
    "rnn": (lambda: Recurrent(nn.RNN), X3),
    "cells": (Cells, X3),
    "weight norm": (lambda: around(weight_norm(nn.Conv2d(6, 8, 3))), X2),
    "weight norm, parametrised": (lambda: around(parametrizations.weight_norm(nn.Conv2d(6, 8, 3))), X2),
    "spectral norm": (lambda: around(spectral_norm(nn.Conv2d(6, 8, 3))), X2),
    "spectral norm, parametrised": (lambda: around(parametrizations.spectral_norm(nn.Conv2d(6, 8, 3))), X2),
    "standardised": (lambda: around(Standardised(6, 8)), X2),
    "standardised by a norm": (lambda: around(ByBatchNorm(6, 8)), X2),
    "buffers": (Blur, X2),
    "c2f, chunk": (lambda: C2f(False), X2),
    "c2f, split": (lambda: C2f(True), X2),
    "split": (Parts, X1),
    "stack": (Stacked, X2),
    "pixel shuffle": (Shuffled, X2),
    "spatial gate": (SpatialGate, X2),
    "bilinear": (Bilinear, X1),
    "fourier": (Fourier, X2),
    "einsum of three": (Three, X1),
    "transposed": (Transposed, X2),
}
AVERAGES = {"standardised", "standardised by a norm", "spatial gate"}  # over fewer channels, and rightly another value


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_of_every_kind_is_cut(kind):
    torch.manual_seed(0)
    make, x = KINDS[kind]
    net = make().eval()
    graph = NetworkGraph.from_module(net, x)
    assert same_bits(graph.to_state_dict(), net.state_dict())
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of), generator=torch.Generator().manual_seed(1))
    steps = removal_order(channels, importance)
    assert steps
    keep = keep_after(channels, steps[: -(-2 * len(steps) // 3)])
    small, kept = shrink(graph, keep, x)
    assert kept
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    again = NetworkGraph.from_module(small, x)
    assert again.num_nodes == int(keep.sum())
    with torch.no_grad():
        if kind not in AVERAGES:
            torch.testing.assert_close(small(x), masked(graph, keep).to_module()(x), rtol=1e-4, atol=1e-5)
    small.train()(x).sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_operations_of_every_kind_are_counted(kind):
    make, x = KINDS[kind]
    net = make().eval()
    graph = NetworkGraph.from_module(net, x)
    cost = flop_cost(graph, net, x)
    assert cost.left(graph) == pytest.approx(count_flops(net, x))
    assert all(bool(torch.isfinite(each).all()) for each in cost.per_edge.values())


def test_a_transform_over_channels_holds_them():
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 8))
    net.append(type("Mix", (nn.Module,), {"forward": lambda self, x: torch.fft.fft(x).real})())
    net.append(nn.Linear(8, 2))
    channels = Channels.of(NetworkGraph.from_module(net, X1))
    assert "a Fourier transform mixes them" in channels.reasons.values()
    assert bool(channels.prunable.any())


def test_a_kernel_from_activations_is_refused_in_words():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.route, self.experts = nn.Linear(3, 2), nn.Parameter(torch.rand(2, 4 * 3 * 3 * 3))

        def forward(self, x):
            kernel = self.route(x.mean((0, 2, 3))) @ self.experts
            return F.conv2d(x, kernel.view(4, 3, 3, 3))

    with pytest.raises(TraceError, match=r"conv2d.*its weight is computed from activations"):
        NetworkGraph.from_module(Conditional(), X2)
