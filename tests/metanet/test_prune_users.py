"""Networks as users bring them: with nothing cut they compute the same bits, and channels that are dead go for free."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from graphsparse.metanet import Channels, NetworkGraph, shrink
from graphsparse.metanet.channels import (
    Budget,
    Evidence,
    count_flops,
    flop_cost,
    importance,
    least_pruned,
    masked,
    removal_order,
)


def conv(before, after, size=3, **options):
    layer = nn.Conv2d(before, after, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


class Deformable(nn.Module):
    """Features are looked up where a convolution says."""

    def __init__(self):
        super().__init__()
        self.stem, self.offset, self.deep = conv(3, 24), nn.Conv2d(24, 2, 3, padding=1), conv(24, 48)
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        x = self.stem(x)
        grid = functional.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), x.shape, align_corners=False)
        grid = grid + 0.1 * self.offset(x).permute(0, 2, 3, 1).tanh()
        return self.head(self.deep(functional.grid_sample(x, grid, align_corners=False)).mean((2, 3)))


class Pyramid(nn.Module):
    """Top-down sums of three scales, and one head for all of them in a dict."""

    def __init__(self):
        super().__init__()
        widths = (16, 32, 64)
        self.stages = nn.ModuleList([conv(a, b, stride=2) for a, b in zip((3, *widths), widths, strict=False)])
        self.sides = nn.ModuleList([nn.Conv2d(width, 24, 1) for width in widths])
        self.head = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 6, 1))

    def forward(self, x):
        found = []
        for stage, side in zip(self.stages, self.sides, strict=True):
            x = stage(x)
            found.append(side(x))
        for place in (1, 0):
            size = found[place].shape[-2:]
            found[place] = found[place] + functional.interpolate(found[place + 1], size=size)
        return {f"scale {place}": self.head(part) for place, part in enumerate(found)}


class DualPath(nn.Module):
    """A residual and a growing part of one stream, told apart by a number that the module holds."""

    def __init__(self):
        super().__init__()
        self.residual, grown = 24, 8
        self.stem = conv(3, self.residual + grown)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(24 + grown * count, 32, 1), conv(32, 32, groups=4), nn.Conv2d(32, 24 + grown, 1))
            for count in (1, 2)
        )
        self.head = nn.Linear(24 + 3 * grown, 4)

    def forward(self, x):
        x = self.stem(x)
        kept, grown = x[:, : self.residual], x[:, self.residual :]
        for block in self.blocks:
            y = block(torch.cat((kept, grown), 1))
            kept, grown = kept + y[:, : self.residual], torch.cat((grown, y[:, self.residual :]), 1)
        return self.head(torch.cat((kept, grown), 1).mean((2, 3)))


class Modulated(nn.Module):
    """An image, numbers that scale and shift its channels, and an index of an embedding."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = conv(3, 64), conv(64, 64)
        self.numbers, self.table, self.head = nn.Linear(5, 128), nn.Embedding(6, 64), nn.Linear(64, 3)

    def forward(self, x, numbers, index):
        scale, shift = self.numbers(numbers).chunk(2, 1)
        x = self.deep(self.stem(x) * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
        return self.head(x.mean((2, 3)) + self.table(index))


class WaveNet(nn.Module):
    """Gates of halves, residuals and skips that are shorter by each layer."""

    def __init__(self):
        super().__init__()
        self.into = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=1 << layer) for layer in range(3))
        self.mixes = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(3))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(24, 24, 1), nn.ReLU(), nn.Conv1d(24, 8, 1))

    def forward(self, x):
        x, total = self.into(x), 0
        for gate, mix, skip in zip(self.gates, self.mixes, self.skips, strict=True):
            left, right = gate(x).chunk(2, 1)
            y = left.tanh() * right.sigmoid()
            found = skip(y)
            total = found if isinstance(total, int) else total[..., -found.size(-1) :] + found
            x = mix(y) + x[..., -y.size(-1) :]
        return self.out(total)


class Siamese(nn.Module):
    """The same weights for two inputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv(3, 16), conv(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.code, self.head = nn.Linear(32, 24), nn.Linear(48, 2)

    def forward(self, left, right):
        left, right = (self.code(self.body(part)) for part in (left, right))
        return self.head(torch.cat(((left - right).abs(), left * right), -1))


class Involution(nn.Module):
    """Kernels that are made of the features, for patches of them."""

    def __init__(self):
        super().__init__()
        self.body, self.groups = nn.Sequential(conv(3, 16), conv(16, 24), conv(24, 16)), 4
        self.reduce, self.span, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 36, 1), nn.Linear(16, 4)

    def forward(self, x):
        x = self.body(x)
        count, width, high, wide = x.shape
        kernels = self.span(self.reduce(x).relu()).view(count, self.groups, 1, 9, high, wide)
        patches = functional.unfold(x, 3, padding=1).view(count, self.groups, width // self.groups, 9, high, wide)
        return self.head((kernels * patches).sum(3).view(count, width, high, wide).mean((2, 3)))


def image():
    return (torch.randn(1, 3, 16, 16),)


USERS = {
    "deformable": (Deformable, image),
    "pyramid": (Pyramid, image),
    "dual path": (DualPath, image),
    "modulated": (Modulated, lambda: (torch.randn(2, 3, 16, 16), torch.randn(2, 5), torch.tensor([1, 3]))),
    "wavenet": (WaveNet, lambda: (torch.randn(1, 1, 64),)),
    "siamese": (Siamese, lambda: (*image(), *image())),
    "involution": (Involution, image),
}


def outputs(module, inputs):
    with torch.no_grad():
        found = module.eval()(*inputs)
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", USERS)
def test_nothing_cut_is_the_same_and_dead_channels_go_for_free(name):
    torch.manual_seed(0)
    make, draw = USERS[name]
    net, inputs = make().eval(), draw()
    graph = NetworkGraph.from_module(net, inputs)
    whole, _ = shrink(graph, torch.ones(graph.num_nodes, dtype=torch.bool), inputs)
    assert all(map(torch.equal, outputs(whole, inputs), outputs(net, inputs)))
    score, cost, channels = importance(Evidence(graph), "group-l2"), flop_cost(graph, net, inputs), Channels.of(graph)
    for speedup in (2, 4):
        keep, (small, _), channels = least_pruned(
            graph,
            lambda units: removal_order(units, score, min_keep=0.1),
            cost,
            lambda module: count_flops(module, inputs),
            Budget(speedup=speedup).limit(net, inputs),
            inputs,
            channels,
        )
        over = {2: 1.03, 4: 1.04}[speedup]  # a channel of a narrow network is a coarse step
        assert speedup <= count_flops(net, inputs) / count_flops(small, inputs) <= over * speedup
        dead = masked(graph, keep)
        free, _ = shrink(dead, keep, inputs)
        for left, right in zip(outputs(dead.to_module(), inputs), outputs(free, inputs), strict=True):
            torch.testing.assert_close(left, right)
