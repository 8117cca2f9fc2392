"""Whole blocks and gates: what they compute, what is found, what is left."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from graphsparse.params import (
    Blocks,
    Bypass,
    Bypassed,
    Gates,
    Modules,
    Rows,
    Sparsifier,
    bypass_,
    find_blocks,
    masks_of,
)


class Block(nn.Module):
    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, stride, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.skip = nn.Conv2d(width, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (out + self.skip(x)).relu()


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.stages = nn.ModuleList([nn.Sequential(Block(4), Block(4)), nn.Sequential(Block(4, 2), Block(4), Block(4))])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class GNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(5, 8)
        self.inner = nn.ModuleList(GCNConv(8, 8) for _ in range(3))
        self.last = GCNConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        for layer in self.inner:
            x = layer(x, edge_index).relu()
        out: Tensor = self.last(x, edge_index)
        return out


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.embed = nn.Linear(3, 8)
        self.encoder = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(self.embed(x)).mean(1))
        return out


RING = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])
NETWORKS: dict[str, tuple[type[nn.Module], tuple[Tensor, ...], list[str]]] = {
    "cnn": (ResNet, (torch.ones(4, 1, 8, 8),), ["stages.0.0", "stages.0.1", "stages.1.1", "stages.1.2"]),
    "gnn": (GNN, (torch.ones(4, 5), RING), ["inner.0", "inner.1", "inner.2"]),
    "transformer": (Transformer, (torch.ones(4, 5, 3),), [f"encoder.layers.{i}" for i in range(4)]),
}


def made(kind: str) -> tuple[nn.Module, tuple[Tensor, ...], list[str]]:
    make, inputs, names = NETWORKS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(), inputs, names


@pytest.mark.parametrize("kind", NETWORKS)
def test_blocks_of_one_shape_are_found_by_one_pass_that_changes_nothing(kind: str) -> None:
    net, inputs, names = made(kind)
    state, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert find_blocks(net, *inputs) == names
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert torch.equal(generator, torch.get_rng_state())
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("kind", NETWORKS)
def test_blocks_become_the_identity_and_the_rest_works(kind: str) -> None:
    net, inputs, names = made(kind)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    s = Sparsifier(net, "blocks", keep=0.5, steps=8, pattern=Modules(names)).attach(optimizer)
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(*inputs), torch.arange(4) % 3).backward()
        optimizer.step()
    net.eval()
    before = net(*inputs)
    masks = s.finish()
    assert torch.equal(net(*inputs), before)
    gone = [name for name in names if isinstance(net.get_submodule(name), Bypassed)]
    assert len(gone) == len(names) // 2
    assert all(any(name.startswith(f"{block}.") for block in gone) == (not mask.any()) for name, mask in masks.items())
    twin = made(kind)[0]
    bypass_(twin, gone)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin.eval()(*inputs), before)
    assert torch.equal(pickle.loads(pickle.dumps(net))(*inputs), before)


def three_steps(rule: Bypass, scaler: Any = None, steps: int = 8) -> dict[str, Tensor]:
    net, inputs, names = made("gnn")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Sparsifier(net, "blocks", keep=0.4, steps=steps, pattern=Modules(names), rule=rule).attach(optimizer, scaler)
    for _ in range(3):
        optimizer.zero_grad()
        loss = net(*inputs).square().mean()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def test_the_distance_is_part_of_the_loss_with_a_scaler_too() -> None:
    """Beside a loss that has the distance in it; the gates are decided in the first step."""
    rule = Bypass(gates=0.0, distance=0.7, chosen=0.125)
    found = three_steps(rule)
    scaled = three_steps(rule, torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in scaled.items())
    plain = three_steps(Bypass(gates=0.0, distance=0.0, chosen=0.125))
    net, (x, edges), names = made("gnn")
    assert isinstance(net, GNN)
    moved = {name for name in names if not torch.equal(found[f"{name}.bias"], plain[f"{name}.bias"])}
    assert moved
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    gone = [i for i, name in enumerate(names) if chosen_first(rule)[name]]
    for step in range(3):
        optimizer.zero_grad()
        h, far = net.first(x, edges).relu(), torch.zeros(())
        for i, layer in enumerate(net.inner):
            out = layer(h, edges)
            if step and i in gone:
                far = far + (out - h).norm(dim=1).mean() / math.sqrt(8)
            h = out.relu()
        (net.last(h, edges).square().mean() + 0.7 * far).backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert torch.allclose(parameter, found[name], atol=1e-5)


def chosen_first(rule: Bypass) -> dict[str, bool]:
    net, inputs, names = made("gnn")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, "blocks", keep=0.4, steps=8, pattern=Modules(names), rule=rule).attach(optimizer)
    net(*inputs).square().mean().backward()
    optimizer.step()
    return {name: not bool(s.masks[f"{name}.bias"].any()) for name in names}


def test_a_gate_moves_a_block_towards_its_input() -> None:
    net, _, names = made("cnn")
    s = Sparsifier(net, "blocks", keep=0.5, steps=100, pattern=Modules(names))
    s.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    block = net.get_submodule(names[0]).eval()
    x = torch.rand(2, 4, 8, 8)
    hook = s._joint.hooks[0][0]
    hook.gate = 0.25
    found = block(x)
    twin = copy.deepcopy(block)
    assert torch.equal(twin(x), found)
    twin._forward_hooks.clear()
    assert torch.allclose(found, x + 0.25 * (twin(x) - x))
    s.detach()


def test_gates_of_a_head_are_blocks_of_columns() -> None:
    torch.manual_seed(0)
    net = nn.MultiheadAttention(8, 4, batch_first=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    options = {"pattern": Blocks(8, 2), "which": ["out_proj.weight"], "rule": Gates()}
    s = Sparsifier(net, keep=0.5, steps=12, **options).attach(optimizer)  # type: ignore[arg-type]
    x = torch.randn(3, 5, 8)
    for _ in range(12):
        optimizer.zero_grad()
        (net(x, x, x)[0] - x).square().mean().backward()
        optimizer.step()
    mask = s.finish()["out_proj.weight"]
    assert mask.view(8, 4, 2).all(2).all(0).sum() == 2
    assert bool((net.out_proj.weight[~mask] == 0).all())


def test_gates_learn_which_inputs_carry_signal() -> None:
    """Half of the inputs are noise that the target does not know."""
    torch.manual_seed(0)
    net = nn.Linear(12, 1)
    x = torch.randn(256, 12)
    y = x[:, :6].sum(1, keepdim=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    s = Sparsifier(net, "gates", keep=0.5, steps=150, which=["weight"], rule=Gates(0.01)).attach(optimizer)
    for _ in range(150):
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()
    assert s.finish()["weight"].squeeze().tolist() == [True] * 6 + [False] * 6
    assert bool((net(x) - y).square().mean() < 1)


def test_the_gradient_of_a_gate_is_that_of_autograd() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3), torch.randn(5, 4)
    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    rule = Gates(strength=0.3, lr=0.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    s = Sparsifier(net, keep=0.5, steps=50, pattern=Rows(), rule=rule, distribution="uniform").attach(optimizer)
    joint = s._joint
    mean = joint.extra["weight mean"].clone().requires_grad_()
    spread = joint.extra["weight log variance"].clone().requires_grad_()
    noise = (joint.installed["weight"].values - mean.detach()) / (spread.detach() / 2).exp()  # type: ignore[union-attr, operator]
    net(x).square().sum().backward()
    optimizer.step()
    own = weight.clone().requires_grad_()
    gates = mean + (spread / 2).exp() * noise
    loss = nn.functional.linear(x, gates.float()[:, None] * own, bias).square().sum()
    (loss + 0.3 * (1 + mean.square() / spread.exp()).log().sum() / 2).backward()
    assert torch.allclose(joint.extra["weight mean first"], 0.1 * mean.grad, rtol=1e-4)
    assert torch.allclose(joint.extra["weight log variance first"], 0.1 * spread.grad, rtol=1e-4)
    plain = dict(net.named_parameters())["parametrizations.weight.original"]
    assert torch.allclose(plain, weight - own.grad, atol=1e-5)
    assert masks_of(net)["weight"].all()
    s.finish()


def test_a_gradient_that_is_no_number_is_told_and_nothing_moves() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, "gates", keep=0.5, steps=9).attach(optimizer)
    before = s.state_dict()["extra"]
    net(torch.ones(1, 4)).sum().backward()
    s.parameters["1.weight"].grad[1, 2] = math.nan  # type: ignore[index]
    with pytest.raises(ValueError, match=r"the gradient of '1.weight' is nan at position \(1, 2\)"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in s.state_dict()["extra"].items())
    s.finish()


def test_modules_are_a_pattern_of_every_rule() -> None:
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    with torch.no_grad():
        net[3].weight *= 100
    masks = Sparsifier(net, "magnitude", keep=0.5, pattern=Modules(["[1-4]"])).finish()
    assert list(masks)[:2] == ["1.weight", "1.bias"]
    whole = [bool(masks[f"{i}.weight"].all() and masks[f"{i}.bias"].all()) for i in (1, 2, 3, 4)]
    none = [not (masks[f"{i}.weight"].any() or masks[f"{i}.bias"].any()) for i in (1, 2, 3, 4)]
    assert whole[2]
    assert sum(whole) == sum(none) == 2
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, "set", keep=0.5, steps=20, pattern=Modules(["[1-4]"])).attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        net(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert sum(bool(s.masks[f"{i}.weight"].all()) for i in (1, 2, 3, 4)) == 2


@pytest.mark.parametrize("method", ["blocks", "gates", "magnitude"])
def test_a_share_that_takes_no_block_out_is_told_before_the_training(method: str) -> None:
    net, _, names = made("cnn")
    weights = [p.clone() for p in net.parameters()]
    for keep, chosen, said in (
        (0.5, names[:1], r"keep=0.5 takes nothing out: 'stages.0.0' is the only module, .* bypass_\(model, names\)"),
        (0.8, names, "keep=0.8 takes nothing out: of 4 modules all are kept, rounded up; keep at most '3/4'"),
    ):
        with pytest.raises(ValueError, match=said):
            Sparsifier(net, method, keep=keep, steps=9, pattern=Modules(chosen))
    for keep, left in (("3/4", 3), (1.0, 4)):
        s = Sparsifier(net, method, keep=keep, steps=9, pattern=Modules(names))
        masks = s.finish()
        assert sum(any(masks[n].any() for n in masks if n.startswith(name)) for name in names) == left
        net, _, names = made("cnn")
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_a_share_that_takes_no_unit_out_is_said_once() -> None:
    net = nn.Linear(1, 4, bias=False)
    with pytest.warns(UserWarning, match="takes nothing out: there is one unit, and one always stays"):
        Sparsifier(net, keep=0.5, pattern=Rows(1), which="all")
    with pytest.warns(UserWarning, match=r"of 4 units all are kept, rounded up; keep at most '3/4'"):
        Sparsifier(net, keep=0.9, which="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sparsifier(net, keep=0.75, which="all")
        Sparsifier(net, keep=1.0, which="all")


def test_what_is_no_block_is_told() -> None:
    net, inputs, names = made("cnn")
    weights = [p.clone() for p in net.parameters()]
    for call, said in (
        (lambda: Sparsifier(net, "blocks", keep=0.5, steps=9), r"pattern=Modules\(names\); find_blocks"),
        (lambda: Sparsifier(net, "blocks", keep=0.5, pattern=Modules(names)), "needs steps="),
        (lambda: Sparsifier(net, "blocks", keep=0.5, steps=9, pattern=Modules(["stages.7"])), "names no module"),
        (lambda: Modules(["stages.0", "stages.0.1"]).bind(net), r"'stages.0.1' lies inside 'stages.0'"),
        (lambda: Sparsifier(net, "blocks", keep=0.5, steps=9, pattern=Modules(names), score="random"), "leave score"),
        (lambda: Sparsifier(net, keep=0.5, pattern=Modules(names), distribution="erk"), "has no say in Modules"),
        (lambda: Bypass(chosen=0.9), "chosen=0.9, until=0.75"),
        (lambda: Bypass(distance=-1), "from 0 on, got -1"),
        (lambda: Gates(strength=math.nan), "from 0 on, got nan"),
        (lambda: Sparsifier(net, keep="2:4", rule=Gates(), steps=9), "N:M has none"),
        (lambda: Sparsifier(net, keep=0.5, rule=Gates(), steps=9, score="random"), "leave score= out"),
        (lambda: find_blocks(nn.Linear(3, 4), torch.zeros(1, 3)), "no module has an output of its input's shape"),
        (lambda: bypass_(net, ["stem", "stages.9"]), "'stages.9' is no module"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    for name in (3, []):
        with pytest.raises(TypeError, match="named by strings"):
            Modules(name)  # type: ignore[arg-type]
    s = Sparsifier(net, "blocks", keep=0.5, steps=9, pattern=Modules(["stem", "stages.0.0"]))
    s.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"the block 'stem' makes \[4, 4, 8, 8\] of \[4, 1, 8, 8\]"):
        net(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


class Residual(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.branch = nn.Linear(*weight.shape, bias=False)
        self.branch.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.as_tensor(self.branch(x))


@pytest.mark.parametrize("seed", range(6))
def test_the_block_that_the_loss_does_not_need_goes(seed: int) -> None:
    """Of a fitted network slopes are small, and Adam makes steps of one size of them: the penalty comes before it."""
    draw = torch.Generator().manual_seed(seed)
    needed, idle = torch.randn(3, 3, generator=draw), 1e-4 * torch.randn(3, 3, generator=draw)
    net = nn.Sequential(*map(Residual, [idle, needed, idle.clone()]))
    x = torch.randn(64, 3, generator=draw)
    y = net(x).detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)  # the gates alone learn
    rule = Bypass(distance=0.0, chosen=0.8, until=0.9)
    s = Sparsifier(net, keep="1/3", pattern=Modules(["0", "1", "2"]), rule=rule, steps=200).attach(optimizer)
    for _ in range(200):
        optimizer.zero_grad()
        part = torch.randint(64, (16,), generator=draw)
        (net(x[part]) - y[part]).square().mean().backward()
        optimizer.step()
    masks = s.finish()
    assert [bool(mask.any()) for mask in masks.values()] == [False, True, False]
