"""Operations between layers: the network comes back bit for bit, and a cut one computes what the masked one does."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from graphsparse.metanet import Channels, NetworkGraph, masked, shrink
from graphsparse.metanet.channels.sets import keep_after, removal_order


class Written(nn.Module):
    """A network written as a function of itself and its input; tensors become parameters, those of ``held`` buffers."""

    def __init__(self, function, held=None, **parts):
        super().__init__()
        self.function = function
        for name, tensor in (held or {}).items():
            self.register_buffer(name, tensor)
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, x):
        return self.function(self, x)


def rows(function, out=8, **parts):
    """Linear, the function, linear: on a batch of two sequences of five."""
    whole = Written(
        lambda net, x: net.out(function(net, net.first(x))), first=nn.Linear(6, 8), out=nn.Linear(out, 3), **parts
    )
    return whole, torch.randn(2, 5, 6)


def maps(function, kind=2, out=8, **parts):
    """Convolution, the function, convolution: on images (or sequences, or volumes)."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[kind]
    whole = Written(
        lambda net, x: net.out(function(net, net.first(x))),
        first=conv(3, 8, 3, padding=1),
        out=conv(out, 3, 1),
        **parts,
    )
    return whole, torch.randn(2, 3, *[4] * kind)


def unpooled(kind):
    pool, back = (
        {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d},
        {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d},
    )

    def decode(net, x):
        small, places = pool[kind](x, 2, return_indices=True)
        return back[kind](net.middle(small), places, 2)

    return decode


def first_row_set(net, x):
    x = x.clone()
    x[:, 0] = net.p
    return x


def attended(net, x, **options):
    q, k, v = net.q(x), net.k(x), net.v(x)
    return F.scaled_dot_product_attention(q, k, v, **options)


def three():
    return {name: nn.Linear(8, 8) for name in "qkv"}


PLACES = torch.tensor([2, 1])
CASES = {
    "larger than a parameter": lambda: rows(lambda net, x: torch.max(x, net.p), p=torch.randn(8)),
    "a parameter or what is smaller": lambda: rows(lambda net, x: torch.min(net.p, x), p=torch.randn(8)),
    "larger than a buffer": lambda: rows(lambda net, x: torch.max(net.b, x), held={"b": torch.randn(8)}),
    "the larger of two layers": lambda: rows(lambda net, x: torch.max(x, net.second(x)), second=nn.Linear(8, 8)),
    "pooled with places": lambda: maps(lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0]),
    "pooled to a size with places": lambda: maps(lambda net, x: F.adaptive_max_pool2d(x, 2, return_indices=True)[0]),
    "unpooled sequences": lambda: maps(unpooled(1), 1, middle=nn.Conv1d(8, 8, 1)),
    "unpooled images": lambda: maps(unpooled(2), 2, middle=nn.Conv2d(8, 8, 1)),
    "unpooled volumes": lambda: maps(unpooled(3), 3, middle=nn.Conv3d(8, 8, 1)),
    "pooled by a norm": lambda: maps(lambda net, x: F.lp_pool2d(F.relu(x) + 0.1, 2, 2)),
    "slopes": lambda: maps(lambda net, x: net.act(x), act=nn.PReLU(8)),
    "one slope": lambda: maps(lambda net, x: net.act(x), act=nn.PReLU()),
    "computed slopes": lambda: maps(lambda net, x: F.prelu(x, net.p.abs()), p=torch.rand(8)),
    "instance norm": lambda: maps(
        lambda net, x: net.norm(x), norm=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    ),
    "statistics alone": lambda: maps(lambda net, x: net.norm(x), norm=nn.BatchNorm2d(8, affine=False)),
    "more channels by padding": lambda: maps(lambda net, x: F.pad(x, (0, 0, 0, 0, 0, 4)), out=12),
    "padded in a circle": lambda: maps(lambda net, x: F.pad(x, (1, 1, 1, 1), mode="circular")),
    "spectral norm": lambda: maps(
        lambda net, x: net.conv(x), conv=nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))
    ),
    "halves side by side": lambda: rows(lambda net, x: sum(torch.tensor_split(x, 2, -1)), out=4),
    "gated by the other half": lambda: rows(lambda net, x: F.glu(x), out=4),
    "written in the place of rows": lambda: rows(
        lambda net, x: x.index_put((torch.tensor([0]),), net.second(x)[1:]), second=nn.Linear(8, 8)
    ),
    "a row set": lambda: rows(first_row_set, p=torch.randn(8)),
    "einsum whose dots are of one": lambda: rows(
        lambda net, x: torch.einsum("...ij,...jk->...ik", (x[:1] @ x[:1].mT).tanh(), x)
    ),
    "einsum with what is fixed": lambda: rows(
        lambda net, x: torch.einsum("st,btc->bsc", net.b, x), held={"b": torch.randn(5, 5)}
    ),
    "einsum without an arrow": lambda: rows(lambda net, x: torch.einsum("bsc,zc", x, net.w), w=torch.randn(8, 8)),
    "einsum of low rank": lambda: rows(
        lambda net, x: torch.einsum("bsc,cr,ro->bso", x, net.u, net.v), u=torch.randn(8, 4), v=torch.randn(4, 8)
    ),
    "bilinear": lambda: rows(
        lambda net, x: net.two(x, net.second(x)), second=nn.Linear(8, 4), two=nn.Bilinear(8, 4, 8)
    ),
    "transformed over places": lambda: rows(lambda net, x: torch.fft.rfft(x, dim=1).abs()),
    "filtered over places": lambda: rows(
        lambda net, x: torch.fft.irfft(torch.fft.rfft(x, dim=1) * torch.view_as_complex(net.w), n=5, dim=1),
        w=torch.randn(3, 8, 2),
    ),
    "less its mean over places": lambda: rows(lambda net, x: x - torch.std_mean(x, 1, keepdim=True)[1]),
    "the largest places": lambda: rows(lambda net, x: x.mT.topk(2).values.mT),
    "sorted places": lambda: rows(lambda net, x: x.sort(1).values),
    "less its median": lambda: rows(lambda net, x: x - x.median(1, keepdim=True).values),
    "the second largest place": lambda: rows(lambda net, x: x.kthvalue(2, 1, keepdim=True).values + x),
    "the largest so far": lambda: rows(lambda net, x: x.cummax(1).values),
    "where the largest is late": lambda: rows(lambda net, x: x * (x.argmax(1, keepdim=True) > 2)),
    "where any is large": lambda: rows(lambda net, x: x * (x > 1).any(1, keepdim=True)),
    "over the largest of all": lambda: rows(lambda net, x: x / x.abs().max()),
    "large or small": lambda: rows(lambda net, x: x * ((x > 0.5) | (x < -1))),
    "large but not too large": lambda: rows(lambda net, x: x * ((x > 0.1) & (x < 1))),
    "normalised": lambda: rows(lambda net, x: F.normalize(x, dim=-1)),
    "times their cosine": lambda: rows(
        lambda net, x: x * F.cosine_similarity(x, net.second(x), dim=-1)[..., None], second=nn.Linear(8, 8)
    ),
    "times their distance": lambda: rows(
        lambda net, x: x * F.pairwise_distance(x, net.second(x), eps=0, keepdim=True), second=nn.Linear(8, 8)
    ),
    "a mask that is learned": lambda: rows(
        lambda net, x: attended(net, x, attn_mask=net.m), m=torch.randn(5, 5), **three()
    ),
    "a mask that is computed": lambda: rows(
        lambda net, x: attended(net, x, attn_mask=net.m(x).expand(2, 5, 5)), m=nn.Linear(8, 1), **three()
    ),
    "attention to the past by zeros": lambda: rows(
        lambda net, x: torch.tril(net.q(x) @ net.k(x).mT) @ net.v(x), **three()
    ),
    "a cell": lambda: rows(lambda net, x: net.cell(x.flatten(0, 1)), cell=nn.RNNCell(8, 8)),
    "one row": lambda: (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(6)),
    "a vector in the end": lambda: (
        Written(
            lambda net, x: torch.addmv(net.b, net.w, net.first(x)),
            first=nn.Linear(6, 8),
            w=torch.randn(3, 8),
            b=torch.randn(3),
        ),
        torch.randn(6),
    ),
}


def half_of(graph):
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of), generator=torch.Generator().manual_seed(0))
    steps = removal_order(channels, importance)
    assert steps
    return keep_after(channels, steps[: len(steps) // 2 + 1])


@pytest.mark.parametrize("name", CASES)
def test_what_is_cut_computes_what_the_masked_one_does(name):
    torch.manual_seed(0)
    net, x = CASES[name]()
    net.eval()
    graph = NetworkGraph.from_module(net, x)
    again = graph.to_state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in net.state_dict().items())
    keep = half_of(graph)
    small, _ = shrink(graph, keep, (x,))
    wide, other = masked(graph, keep).to_module(), torch.randn_like(x)
    with torch.no_grad():
        torch.testing.assert_close(small(other), wide(other), rtol=1e-4, atol=1e-5)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (small, net)]
    assert sizes[0] < sizes[1]


def test_channels_that_are_sorted_stay():
    """Which of them comes where depends on the data."""
    torch.manual_seed(0)
    net, x = rows(lambda net, x: x.sort().values)
    assert not removal_order(Channels.of(NetworkGraph.from_module(net, x)), torch.rand(10))
