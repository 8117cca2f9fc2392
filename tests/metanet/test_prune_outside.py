"""Networks as others write them: what runs in training only, several inputs, lazy and frozen layers, foreign masks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune as torch_prune

import graphsparse as gs
from graphsparse.metanet import FineTune, prune, restore, save_pruned

X, Y = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4
ONE = FineTune(epochs=1)


def loss(outputs, targets):
    """Of all heads together, however they come."""
    parts = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, tuple) else [outputs]
    return sum(functional.cross_entropy(part, targets) for part in parts if part is not None)


IMAGES = gs.Task((X, Y), (X, Y), (X, Y), loss=loss, batch_size=32)


def conv(i, o, k=3, **more):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **more), nn.BatchNorm2d(o), nn.ReLU())


class AuxiliaryHead(nn.Module):
    """As GoogLeNet: a second classifier behind the first stage, in training mode only."""

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.head = conv(3, 16), conv(16, 24), nn.Linear(24, 4)
        self.side = conv(16, 12, 1)
        self.norm = nn.BatchNorm1d(12) if batch_norm else nn.Identity()  # does not train on one example
        self.side_head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.first(x)
        side = self.side_head(self.norm(self.side(x).mean((2, 3)))) if self.training else None
        out = self.head(self.second(x).mean((2, 3)))
        return (out, side) if self.training else out


class DeepSupervision(nn.Module):
    """Named outputs of every stage in training; one block is skipped there, so neither mode calls all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.blocks = nn.ModuleList(conv(16, 16) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(16, 4) for _ in range(2))
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        x, outputs = self.stem(x), {}
        for number, block in enumerate(self.blocks):
            if self.training and number == 1:
                continue
            x = x + block(x)
            if self.training and number < 2:
                outputs[f"side{number}"] = self.heads[number](x.mean((2, 3)))
        out = self.last(x.mean((2, 3)))
        return {"out": out, **outputs} if self.training else out


class HiddenHead(AuxiliaryHead):
    """An auxiliary head whose weight is used outside of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(16, 4) / 4)

    def forward(self, x):
        x = self.first(x)
        out = self.head(self.second(x).mean((2, 3)))
        return (out, x.mean((2, 3)) @ self.matrix) if self.training else out


class StochasticDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.last = conv(3, 16), nn.ModuleList(conv(16, 16) for _ in range(3)), nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            if not (self.training and torch.rand(()) < 0.5):
                x = x + block(x)
        return self.last(x.mean((2, 3)))


class NeverCalled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.spare, self.last = conv(3, 16), nn.Linear(16, 7), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(self.stem(x).mean((2, 3)))


class Dense(nn.Module):
    """As DenseNet: every layer sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layers = conv(3, 8), nn.ModuleList([conv(8, 8), conv(16, 8)])
        self.last = nn.Linear(24, 4)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.last(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = conv(3, 12), conv(12, 24), nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.out, self.last = conv(24, 12), nn.Linear(12, 4)

    def forward(self, x):
        left = self.down(x)
        right = self.up(self.deep(functional.max_pool2d(left, 2)))
        return self.last(self.out(torch.cat([left, right], 1)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite, self.last = (
            conv(3, 16),
            nn.Linear(16, 4),
            nn.Linear(4, 16),
            nn.Linear(16, 4),
        )

    def forward(self, x):
        x = self.stem(x)
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.last((x * gate[:, :, None, None]).mean((2, 3)))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.branches = nn.ModuleList([conv(16, 8, 1), nn.Sequential(conv(16, 8, 1), conv(8, 12)), conv(16, 8, 5)])
        self.last = nn.Linear(28, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.last(torch.cat([branch(x) for branch in self.branches], 1).mean((2, 3)))


def separable():
    return nn.Sequential(
        conv(3, 16), conv(16, 16, groups=16), conv(16, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    )


def plain():
    return nn.Sequential(conv(3, 16), conv(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


OUTSIDE = [
    AuxiliaryHead, lambda: AuxiliaryHead(batch_norm=True), DeepSupervision, HiddenHead, StochasticDepth, NeverCalled,
    Dense, UNet, SqueezeExcite, Inception, separable, plain,
]  # fmt: skip


@pytest.mark.parametrize("make", OUTSIDE)
def test_a_pruned_network_of_others_trains(make):
    torch.manual_seed(0)
    net = make()
    before = copy.deepcopy(net.state_dict())
    result = prune(net, None, IMAGES, speedup=1.5, fine_tune=ONE)
    assert 1.5 <= result.speedup < 4
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    result.module.train()
    loss(result.module(X[:8]), Y[:8]).backward()  # every head still runs
    used = [p.grad is not None for name, p in result.module.named_parameters() if "spare" not in name]
    assert sum(used) > len(used) // 2


def test_an_auxiliary_head_is_cut_along():
    """Its first layer took 16 channels of what is now narrower: it gave '6x12 and 16x4 cannot be multiplied'."""
    torch.manual_seed(0)
    result = prune(AuxiliaryHead(), None, IMAGES, speedup=2, fine_tune=ONE)
    width = result.module.first[0].out_channels
    assert width < 16
    assert result.module.side[0].in_channels == width
    assert result.module.side[0].out_channels == 12  # made for training alone: no channel of it costs FLOPs


def test_a_matrix_that_training_alone_reads_is_cut_along():
    torch.manual_seed(0)
    result = prune(HiddenHead(), None, IMAGES, speedup=1.5, fine_tune=ONE)
    width = result.module.first[0].out_channels
    assert width < 16
    assert result.module.matrix.shape == (width, 4)


def test_looking_at_training_mode_leaves_no_trace():
    """Batch norms, random numbers and modes are as before: the same network as without an auxiliary head."""
    torch.manual_seed(0)
    net = plain()
    state = torch.get_rng_state()
    result = prune(net, None, IMAGES, speedup=2, fine_tune=FineTune(epochs=0))
    assert torch.equal(state, torch.get_rng_state())
    kept = result.kept["0.0"]
    assert torch.equal(result.module[0][0].weight, net[0][0].weight[kept])


def test_a_network_with_an_auxiliary_head_is_restored(tmp_path):
    torch.manual_seed(0)
    result = prune(AuxiliaryHead(), None, IMAGES, speedup=2, fine_tune=ONE)
    save_pruned(tmp_path, result)
    again = restore(tmp_path, AuxiliaryHead())
    assert torch.equal(again.eval()(X), result.module(X))
    assert again.side[0].in_channels == result.module.side[0].in_channels


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.LazyConv2d(16, 3, padding=1), nn.LazyBatchNorm2d()
        self.hidden, self.last = nn.LazyLinear(24), nn.Linear(24, 4)

    def forward(self, x):
        return self.last(self.hidden(self.norm(self.conv(x)).relu().flatten(1)).relu())


def test_lazy_layers_are_pruned_and_restored(tmp_path):
    torch.manual_seed(0)
    result = prune(Lazy(), None, IMAGES, speedup=2, fine_tune=ONE)
    save_pruned(tmp_path, result)
    again = restore(tmp_path, Lazy())  # a template that has not been called yet
    assert torch.equal(again.eval()(X), result.module(X))


def test_a_frozen_network_is_told_before_anything_is_cut_and_pruned_without_epochs(monkeypatch):
    net = plain().requires_grad_(False)
    with monkeypatch.context() as patch:
        patch.setattr("graphsparse.metanet.pruning.carve", lambda *_, **__: pytest.fail("it was cut first"))
        with pytest.raises(ValueError, match=r"every parameter of the network is frozen.*FineTune\(epochs=0\)"):
            prune(net, None, IMAGES, speedup=2, fine_tune=ONE)
    result = prune(net, None, IMAGES, speedup=2, fine_tune=FineTune(epochs=0))
    assert result.speedup >= 2
    assert not any(parameter.requires_grad for parameter in result.module.parameters())


def test_a_frozen_layer_stays_frozen():
    torch.manual_seed(0)
    net = plain()
    net[0].requires_grad_(False)
    result = prune(net, None, IMAGES, speedup=2, fine_tune=ONE)
    assert not result.module[0][0].weight.requires_grad
    assert torch.equal(result.module[0][0].weight, net[0][0].weight[result.kept["0.0"]])


def test_masks_of_torch_prune_are_told():
    net = plain()
    torch_prune.l1_unstructured(net[1][0], "weight", 0.5)
    with pytest.raises(ValueError, match=r"masks of torch\.nn\.utils\.prune, the first on 'weight' of '1\.0'.*remove"):
        prune(net, None, IMAGES, speedup=2, fine_tune=ONE)
    torch_prune.remove(net[1][0], "weight")
    assert prune(net, None, IMAGES, speedup=2, fine_tune=ONE).speedup >= 2


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(6, 32), nn.Linear(5, 32), nn.Linear(64, 4)

    def forward(self, left, right):
        return self.last(torch.cat([self.left(left).relu(), self.right(right).relu()], 1))


LEFT, RIGHT = torch.randn(64, 6), torch.randn(64, 5)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, item):
        return (LEFT[item], RIGHT[item]), Y[item]


def _parts(kind):
    if kind == "tensors":
        return ((LEFT, RIGHT), Y)
    return Pairs() if kind == "data set" else torch.utils.data.DataLoader(Pairs(), batch_size=16)


@pytest.mark.parametrize("kind", ["tensors", "data set", "loader"])
@pytest.mark.parametrize(
    "options", [{}, {"criterion": "taylor"}, {"reconstruct": True}, {"criterion": "sparse-learning"}]
)
def test_a_network_of_several_inputs(kind, options):
    torch.manual_seed(0)
    task = gs.Task(*[_parts(kind)] * 3, batch_size=16)
    result = prune(TwoInputs(), None, task, speedup=2, fine_tune=ONE, prepare=ONE, **options)
    assert result.speedup >= 2
    assert result.module(LEFT, RIGHT).shape == (64, 4)
    assert [tuple(part.shape) for part in result.example_inputs] == [(1, 6), (1, 5)]


def test_several_inputs_are_repaired_by_a_metanetwork():
    torch.manual_seed(0)
    net, task = TwoInputs(), gs.Task(*[_parts("tensors")] * 3, batch_size=16)
    metanet = gs.metanet.MetaNetwork.for_graph(
        gs.metanet.NetworkGraph.from_module(net, (LEFT[:1], RIGHT[:1])), mode="repair", hidden=8, layers=1
    )
    easy, judged = gs.metanet.Repair(speedups=(1.2, 2.0)), gs.metanet.Validation((1.5, 2.0))
    options = {"objective": easy, "validation": judged, "val_networks": [net], "epochs": 1, "steps": 2}
    gs.metanet.meta_train(metanet, [TwoInputs(), TwoInputs()], task, **options)
    assert prune(net, metanet, task, speedup=2, fine_tune=ONE).speedup >= 2


def test_named_inputs_and_mismatched_parts():
    class Named(TwoInputs):
        def forward(self, *, left, right):
            return super().forward(left, right)

    x = {"left": LEFT, "right": RIGHT}
    task = gs.Task((x, Y), (x, Y), (x, Y), batch_size=16)
    FineTune(epochs=1).run(Named(), task)
    with pytest.raises(ValueError, match="64 inputs but 60 targets"):
        gs.Task((x, Y[:60]), (x, Y), (x, Y))
    with pytest.raises(ValueError, match="give example_inputs"):
        prune(Named(), None, task, speedup=2)
    with pytest.raises(ValueError, match="NaN"):
        gs.Task(((LEFT, RIGHT / 0 * 0), Y), (x, Y), (x, Y))
