"""Networks in the styles of public code: cut to a budget, they run, train and export; what holds them is said."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

import graphsparse as gs
from graphsparse.metanet import FineTune, NetworkGraph, find_units, prune

X, Y = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
WORDS = torch.randint(20, (16, 12), generator=torch.Generator().manual_seed(0))


def first(net, x):
    """All outputs in training, the first one to be judged."""
    found = net(x)
    return found if net.training else pytree.tree_leaves(found)[0].flatten(1)


def loss(outputs, targets):
    return sum(leaf.square().mean() for leaf in pytree.tree_leaves(outputs))


def task_of(x):
    return gs.Task((x, Y), (x, Y), (x, Y), loss=loss, forward=first, batch_size=8)


class Conv(nn.Module):
    def __init__(self, i, o, k=1, s=1):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o), nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class C2f(nn.Module):
    """A list that grows by what is computed from its last entry."""

    def __init__(self, i, o, n):
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = Conv(i, 2 * self.c), Conv((2 + n) * self.c, o)
        self.m = nn.ModuleList(nn.Sequential(Conv(self.c, self.c, 3), Conv(self.c, self.c, 3)) for _ in range(n))

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(y[-1] + m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Detector(nn.Module):
    """Heads at two levels with a scale each, integrals over bins; other outputs in training."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.down, self.deep = (
            Conv(3, 16, 3, 2),
            C2f(16, 32, 2),
            Conv(32, 48, 3, 2),
            C2f(48, 48, 1),
        )
        self.fuse = C2f(80, 32, 1)
        self.box = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), nn.Conv2d(16, 16, 1)) for c in (32, 48))
        self.kind = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), nn.Conv2d(16, 4, 1)) for c in (32, 48))
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in range(2)])
        self.bins = nn.Conv2d(4, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x):
        a = self.body(self.stem(x))
        b = self.deep(self.down(a))
        levels = [self.fuse(torch.cat((functional.interpolate(b, scale_factor=2.0), a), 1)), b]
        out = [torch.cat((self.box[i](f) * self.scales[i], self.kind[i](f)), 1) for i, f in enumerate(levels)]
        if self.training:
            return out
        y = torch.cat([o.view(o.shape[0], 20, -1) for o in out], 2)
        box, kind = y.split((16, 4), 1)
        size, _, places = box.shape
        found = self.bins(box.view(size, 4, 4, places).transpose(2, 1).softmax(1)).view(size, 4, places)
        return torch.cat((found, kind.sigmoid()), 1), out


class RepBlock(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.three, self.one = (
            nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o)) for k in (3, 1)
        )
        self.same = nn.BatchNorm2d(o) if i == o else None

    def forward(self, x):
        if hasattr(self, "whole"):
            return self.whole(x).relu()
        return (self.three(x) + self.one(x) + (0 if self.same is None else self.same(x))).relu()

    def deploy(self):
        """All branches in one convolution, as its own sizes say."""
        i, o = self.three[0].in_channels, self.three[0].out_channels
        parts = [(self.three[0].weight, self.three[1]), (functional.pad(self.one[0].weight, [1] * 4), self.one[1])]
        if self.same is not None:
            parts.append((functional.pad(torch.eye(i)[:, :, None, None], [1] * 4), self.same))
        whole = nn.Conv2d(i, o, 3, padding=1)
        factors = [norm.weight / (norm.running_var + norm.eps).sqrt() for _, norm in parts]
        whole.weight.data = sum(w * f.view(-1, 1, 1, 1) for (w, _), f in zip(parts, factors, strict=True)).detach()
        shifts = [norm.bias - norm.running_mean * f for (_, norm), f in zip(parts, factors, strict=True)]
        whole.bias.data = sum(shifts).detach()
        self.whole = whole
        del self.three, self.one, self.same


class RepNet(nn.Sequential):
    def __init__(self):
        super().__init__(RepBlock(3, 16), RepBlock(16, 16), RepBlock(16, 24), RepBlock(24, 24))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))


class TiedLanguage(nn.Module):
    """The embedding is the classifier, too; queries, keys and values are split by a number of the module."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.n_head, self.n_embd = heads, width
        self.words, self.places = nn.Embedding(20, width), nn.Embedding(12, width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.head = nn.Linear(width, 20, bias=False)
        self.words.weight = self.head.weight

    def forward(self, x):
        b, t = x.shape
        h = self.words(x) + self.places(torch.arange(t))
        parts = self.attend(self.norms[0](h)).split(self.n_embd, dim=2)
        q, k, v = (part.view(b, t, self.n_head, self.n_embd // self.n_head).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        h = h + self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, self.n_embd))
        h = h + self.down(functional.gelu(self.up(self.norms[1](h))))
        return self.head(self.norms[2](h))[:, -1]


class TiedAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(768, 32), nn.Linear(32, 16)
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(32)), nn.Parameter(torch.zeros(768))])

    def forward(self, x):
        code = self.second(self.first(x.flatten(1)).relu()).relu()
        middle = functional.linear(code, self.second.weight.t(), self.shifts[0]).relu()
        return functional.linear(middle, self.first.weight.t(), self.shifts[1])


class OwnParameters(nn.Module):
    """Functions on parameters of the network's own; statistics are frozen ones."""

    def __init__(self):
        super().__init__()
        self.vars, self.stats = nn.ParameterList(), nn.ParameterList()
        for i, o in ((3, 16), (16, 24)):
            own = [torch.randn(o, i, 3, 3) / 5, torch.zeros(o), torch.ones(o), torch.zeros(o)]
            self.vars.extend(map(nn.Parameter, own))
            self.stats.extend(nn.Parameter(v, requires_grad=False) for v in (torch.zeros(o), torch.ones(o)))
        self.vars.append(nn.Parameter(torch.randn(4, 24)))

    def forward(self, x):
        for i in range(2):
            w, b, scale, shift = self.vars[4 * i : 4 * i + 4]
            x = functional.conv2d(x, w, b, padding=1)
            x = functional.batch_norm(x, *self.stats[2 * i : 2 * i + 2], scale, shift, training=self.training)
            x = functional.max_pool2d(x.relu(), 2)
        return functional.linear(x.mean((2, 3)), self.vars[8])


STYLES = {
    "detector": (Detector, X), "rep": (RepNet, X), "tied language": (TiedLanguage, WORDS),
    "tied autoencoder": (TiedAutoencoder, X), "own parameters": (OwnParameters, X),
}  # fmt: skip


def made(kind):
    torch.manual_seed(0)
    net = kind()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("speedup", "over"), [(2, 1.1), (3.5, 1.12)])
def test_they_reach_a_budget_train_and_export(style, speedup, over):
    kind, x = STYLES[style]
    net = made(kind)
    before = copy.deepcopy(net.state_dict())
    result = prune(net, None, task_of(x), speedup=speedup, min_keep=0.05, fine_tune=FineTune(epochs=1, distill=0.0))
    assert speedup <= result.speedup <= speedup * over
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    small = result.module.train()
    loss(small(x), Y).backward()
    small.eval()
    exported = torch.export.export(small, (x,), strict=False).module()
    for one, other in zip(pytree.tree_leaves(small(x)), pytree.tree_leaves(exported(x)), strict=True):
        torch.testing.assert_close(one, other)


def test_branches_that_are_merged_later_are_of_one_width():
    small = prune(made(RepNet), None, task_of(X), speedup=2, fine_tune=FineTune(epochs=0)).module
    expected = small(X)
    for number in range(4):
        small[number].deploy()
    torch.testing.assert_close(small(X), expected, atol=1e-4, rtol=1e-4)


def test_a_tied_embedding_holds_its_words_alone():
    result = prune(made(TiedLanguage), None, task_of(WORDS), speedup=2, fine_tune=FineTune(epochs=0))
    small = result.module
    assert small.words.weight is small.head.weight
    assert small.head.out_features == small.words.num_embeddings == 20
    assert small.head.in_features == small.words.embedding_dim == small.n_embd < 32
    assert result.held["head"] == "they are the network's output"
    assert "attend" not in result.held


class Spelled(nn.Module):
    """Sizes as numbers in the code."""

    def __init__(self, how):
        super().__init__()
        self.how, self.first, self.second = how, Conv(3, 16, 3, 4), Conv(16, 32, 3, 2)
        self.head = nn.Sequential(nn.Linear(128, 48), nn.ReLU(), nn.Linear(48, 4))

    def forward(self, x):
        x = self.second(self.first(x))
        if self.how == "view":
            x = x.view(-1, 128)
        elif self.how == "reshape":
            x = x.reshape(x.size(0), 32, 4).flatten(1)
        else:
            x = torch.cat(torch.split(x, [12, 20], dim=1), 1).flatten(1)
        return self.head(x)


@pytest.mark.parametrize(("how", "size", "code"), [
    ("view", 128, r"x = x\.view\(-1, 128\)"),
    ("reshape", 32, r"x\.size\(0\), 32, 4\)"),
    ("split", r"(12|20)", r"\[12, 20\]"),
])  # fmt: skip
def test_a_size_that_the_code_spells_out_is_named_with_its_line(how, size, code):
    said = rf"its code spells out {size}, and \d+ would be left, in test_prune_styles\.py:\d+ `.*{code}"
    with pytest.warns(UserWarning, match=said):
        result = prune(made(lambda: Spelled(how)), None, task_of(X), speedup=1.5, fine_tune=FineTune(epochs=0))
    assert "take the size from x.shape" in result.held["second.conv"]
    assert result.module.second.conv.out_channels == 32
    assert result.module.first.conv.out_channels < 16


def test_where_a_cut_network_stops_its_line_is_named():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.first = Conv(3, 16, 3), nn.Conv2d(16, 16, 4, 4)
            self.mix, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            x = self.first(self.before(x)).flatten(2)
            x = x + self.mix(x)  # over places, of which no layer makes more or fewer
            return self.head(x.mean(2))

    with pytest.warns(UserWarning, match=r"does not run: .*test_prune_styles\.py:\d+ `x = x \+ self\.mix\(x\)"):
        prune(made(Positions), None, task_of(X), speedup=1.1, fine_tune=FineTune(epochs=0))


def test_an_example_that_does_not_reach_a_layer_is_told():
    """Sums by degree, each with a layer of its own: no node of the example may have some degree."""
    from torch_geometric.nn import MFConv

    net = MFConv(4, 6, max_degree=3)
    x, arcs = torch.randn(4, 4), torch.tensor([[0, 1, 2, 3, 0, 1], [1, 2, 3, 1, 2, 3]])
    with pytest.raises(gs.TraceError, match=r"'lins_l\.\d'.*gives it no rows.*nodes of every degree"):
        NetworkGraph.from_module(net, (x, arcs))
    whole = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 2, 2, 3, 3, 3]])  # degrees 0, 1, 2, 3
    two = nn.ModuleList([MFConv(4, 6, max_degree=3), nn.Linear(6, 2)])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = two

        def forward(self, x, arcs):
            return self.layers[1](self.layers[0](x, arcs).relu())

    assert find_units(NetworkGraph.from_module(Net(), (x, whole))).map.count == 6
