"""More of what people write: each network comes back bit for bit, with the relations that its operations make."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from metanet_networks import randomised, same_bits
from torch import nn
from torch_geometric.nn import EdgeConv, GATv2Conv, PNAConv, TransformerConv

from graphsparse.metanet import NetworkGraph


class Written(nn.Module):
    """A network written as a function of itself and its inputs; tensors become parameters."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, *inputs):
        return self.function(self, *inputs)


def squeeze_excite(net, x):
    x = net.conv(x)
    gate = torch.sigmoid(net.up(F.relu(net.down(x.mean((2, 3), keepdim=True)))))
    return net.head((x * gate).mean((2, 3)))


def spatial_gate(net, x):
    x = net.conv(x)
    gate = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return net.head((x * torch.sigmoid(net.gate(gate))).mean((2, 3)))


def convnext(net, x):
    x = net.conv(x)
    y = net.norm(net.deep(x).permute(0, 2, 3, 1))
    return x + (net.scale * net.down(F.gelu(net.up(y)))).permute(0, 3, 1, 2)


def window_attention(net, x):
    """Shifted windows with a table of relative positions."""
    b, h, w, c = x.shape
    x = torch.roll(x, (-1, -1), (1, 2)).view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    q, k, v = net.qkv(x).reshape(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
    places = (torch.arange(4)[:, None] - torch.arange(4)[None, :] + 3).view(-1)
    bias = net.table[places].view(4, 4, 2).permute(2, 0, 1)
    return net.out(((q @ k.transpose(-2, -1) + bias).softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))


def written_in_place(net, x):
    x = net.first(x)
    x[:, :2] = net.second(x)[:, 2:]
    return x


def unrolled(net, x):
    state = torch.zeros(len(x), 4)
    for step in range(x.shape[1]):
        state = torch.tanh(net.into(x[:, step]) + net.back(state))
    return net.out(state)


def talking_heads(net, x):
    q = net.q(x).view(2, 5, 2, 4).transpose(1, 2)
    scores = torch.einsum("bhij,hg->bgij", q @ q.transpose(2, 3), net.mix).softmax(-1)
    return net.out((scores @ q).transpose(1, 2).reshape(2, 5, 8))


def deformed(net, x):
    features = net.conv(x)
    grid = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), features.shape, align_corners=False)
    moved = F.grid_sample(features, grid + net.offset(features).permute(0, 2, 3, 1), align_corners=False)
    return net.head(F.interpolate(moved, (3, 3), mode="bilinear", antialias=True))


def folded(net, x):
    patches = net.conv(F.unfold(x, 3, padding=1).unflatten(-1, x.shape[-2:])).flatten(2)
    return net.head(F.fold(patches, x.shape[-2:], 3, padding=1))


def images():
    return (torch.zeros(2, 3, 8, 8),)


def sequences():
    return (torch.zeros(2, 5, 8),)


def data():
    return torch.zeros(9, 5), torch.randint(0, 9, (2, 20), generator=torch.Generator().manual_seed(0))


ATTENTION = {"q-k", "k-v", "score", "broadcast", "grouped"}
CASES = {  # name -> (network, inputs, types of relations)
    "squeeze and excite": (
        lambda: Written(
            squeeze_excite, conv=nn.Conv2d(3, 6, 3), down=nn.Conv2d(6, 2, 1), up=nn.Conv2d(2, 6, 1),
            head=nn.Linear(6, 2),
        ),
        images, {"multiply"},
    ),
    "deformed": (
        lambda: Written(deformed, conv=nn.Conv2d(3, 6, 3), offset=nn.Conv2d(6, 2, 1), head=nn.Conv2d(6, 2, 1)),
        images, set(),
    ),
    "folded patches": (
        lambda: Written(folded, conv=nn.Conv2d(27, 36, 1), head=nn.Conv2d(4, 2, 1)), images, {"reduce"},
    ),
    "spatial gate": (
        lambda: Written(spatial_gate, conv=nn.Conv2d(3, 6, 3), gate=nn.Conv2d(2, 1, 1), head=nn.Linear(6, 2)),
        images, {"reduce", "broadcast"},
    ),
    "convnext": (
        lambda: Written(
            convnext, conv=nn.Conv2d(3, 6, 1), deep=nn.Conv2d(6, 6, 3, padding=1, groups=6), norm=nn.LayerNorm(6),
            up=nn.Linear(6, 12), down=nn.Linear(12, 6), scale=torch.ones(6),
        ),
        images, {"add", "depthwise"},
    ),
    "windows": (
        lambda: Written(window_attention, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8), table=torch.rand(7, 2)),
        lambda: (torch.zeros(2, 4, 4, 8),), ATTENTION,
    ),
    "talking heads": (
        lambda: Written(talking_heads, q=nn.Linear(8, 8), out=nn.Linear(8, 8), mix=torch.rand(2, 2)),
        sequences, {"score", "broadcast"},
    ),
    "in place": (lambda: Written(written_in_place, first=nn.Conv2d(3, 4, 1), second=nn.Conv2d(4, 4, 1)), images, set()),
    "unrolled": (
        lambda: Written(unrolled, into=nn.Linear(3, 4), back=nn.Linear(4, 4), out=nn.Linear(4, 2)),
        lambda: (torch.zeros(2, 4, 3),), {"add", "shared"},
    ),
    "encoder and decoder": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        lambda: (torch.zeros(2, 5, 8), torch.zeros(2, 4, 8)), {"add", "shared", *ATTENTION},
    ),
    "attention with weights": (
        lambda: Written(
            lambda net, x, y: net.part(x, y, y), part=nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
        ),
        lambda: (torch.zeros(2, 5, 8), torch.zeros(2, 3, 6)), {"reduce", *ATTENTION},
    ),
    "layers that only move or norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1, groups=2), nn.PixelShuffle(2),
            nn.Conv2d(2, 3, 1), nn.InstanceNorm2d(3, affine=True), nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ReflectionPad2d(1),
            nn.GroupNorm(3, 3), nn.MaxPool2d(2), nn.LeakyReLU(),
        ),
        images, {"grouped", "align"},
    ),
    "norm of whole maps": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm([4, 8, 8])), images, set()),
    "gated linear unit": (lambda: nn.Sequential(nn.Linear(8, 8), nn.GLU(), nn.Linear(4, 2)), sequences, {"multiply"}),
    "dense adjacency": (
        lambda: Written(
            lambda net, x, a: a @ net.second(F.relu(a @ net.first(x))), first=nn.Linear(5, 4), second=nn.Linear(4, 2)
        ),
        lambda: (torch.zeros(9, 5), torch.zeros(9, 9)), {"broadcast"},
    ),
    "gatv2": (lambda: GATv2Conv(5, 4, heads=2), data, {"add", "broadcast", "reduce"}),
    "graph transformer": (lambda: TransformerConv(5, 4, heads=2), data, {"add", "broadcast", "multiply", "reduce"}),
    "edge convolution": (lambda: EdgeConv(nn.Linear(10, 4)), data, {"broadcast"}),
    "pna": (lambda: PNAConv(5, 4, ["mean", "max", "std"], ["identity"], deg=torch.tensor([1, 2, 3])), data, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_round_trip_and_relations(name):
    make, inputs, relations = CASES[name]
    module = randomised(make())
    graph = NetworkGraph.from_module(module, inputs())
    assert same_bits(graph.to_state_dict(), module.state_dict())
    assert all(graph.slots(key) for key, _ in module.named_parameters())
    assert set(graph.relations) == relations
