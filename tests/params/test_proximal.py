"""Proximal steps: the maps beside an independent solver, exact counts, and channels that can be taken out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from graphsparse.metanet import NetworkGraph, find_units, shrink
from graphsparse.params import PENALTIES, Blocks, Coupled, Linear, Pool, Proximal, Rows, Sparsifier, stays


def pool(seed: int) -> Pool:
    random = np.random.default_rng(seed)
    groups = int(random.integers(2, 9))
    norms = torch.tensor(random.exponential(1, groups))
    norms[0] *= seed % 4 > 0
    sizes = torch.tensor(random.integers(1, 5, groups)).double()
    rates = torch.tensor(random.choice([0.1, 0.5], groups))
    return Pool(norms, sizes, rates, float(10 ** random.uniform(-2, 2)), int(random.integers(1, groups + 1)))


@pytest.mark.parametrize("seed", range(16))
def test_the_group_envelopes_map_is_the_minimum_that_a_solver_finds(seed: int) -> None:
    """With the best w put in, what is left is convex in u: sum of c / (2 (u + a)) over 0 <= u <= 1, sum u = k."""
    given = pool(seed)
    factors = PENALTIES.find("group-envelope")(given).numpy()
    weight = given.strength * given.sizes / given.sizes.mean()
    a, c = (given.rates * weight).numpy(), (weight * given.norms**2).numpy()
    u = np.where(c > 0, np.minimum(factors * a / np.maximum(1 - factors, 1e-300), 1), 0)
    solved = minimize(
        lambda u: (c / (u + a)).sum() / 2,
        np.full(len(a), given.keep / len(a)),
        jac=lambda u: -c / (u + a) ** 2 / 2,
        bounds=[(0, 1)] * len(a),
        constraints=[{"type": "eq", "fun": lambda u: u.sum() - given.keep}],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert (c / (u + a)).sum() / 2 <= solved.fun * (1 + 1e-9) + 1e-12
    assert u.sum() <= given.keep + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_envelope_shrinks_large_groups_as_it_shrinks_small_ones(seed: int) -> None:
    given = pool(seed)
    large = replace(given, sizes=256 * given.sizes)
    assert torch.allclose(PENALTIES.find("group-envelope")(large), PENALTIES.find("group-envelope")(given))


@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize("method", ["group-lasso", "group-envelope", "gates"])
def test_a_wide_network_learns_under_the_strength_that_a_method_has(method: str, width: int) -> None:
    """By momentum at a rate of 0.1: the first four of eight inputs say the class."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4, bias=False)
    )
    x = torch.randn(400, 8)
    y = x[:, :4].argmax(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    s = Sparsifier(net, method, keep=0.5, steps=120, seed=0).attach(optimizer)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    s.finish()
    assert float((net(x).argmax(1) == y).float().mean()) > 0.6


@pytest.mark.parametrize("seed", range(4))
def test_no_perturbation_lowers_the_group_lasso(seed: int) -> None:
    given = pool(seed)
    w = PENALTIES.find("group-lasso")(given) * given.norms

    def value(w: Tensor) -> Tensor:
        near = ((w - given.norms) ** 2 / given.rates).sum() / 2
        return near + given.strength * (given.sizes.sqrt() * w.abs()).sum()

    for _ in range(100):
        assert value(w) <= value(w + 1e-3 * torch.randn(len(w), dtype=torch.float64)) + 1e-12


def test_l1_is_soft_thresholding_whatever_is_cut_together() -> None:
    layer = nn.Linear(6, 4)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    s = Sparsifier(layer, keep=0.5, pattern=Rows(), steps=10, rule=Proximal("l1", 0.1)).attach(optimizer)
    layer(torch.zeros(1, 6)).sum().backward()  # no gradient of the weight but zero
    optimizer.step()
    assert torch.allclose(layer.weight, nn.functional.softshrink(before, 0.05), atol=1e-7)
    s.finish()


def one_step(rule: Proximal, **options: object) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(40, 50, bias=False)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    s = Sparsifier(layer, keep=0.2, pattern=Rows(), steps=10, rule=rule, **options).attach(optimizer)  # type: ignore[arg-type]
    layer(torch.zeros(1, 40)).sum().backward()
    optimizer.step()
    left = layer.weight.detach().clone()
    assert int(s.finish()["weight"].any(1).sum()) == 10
    assert int((layer.weight != 0).any(1).sum()) == 10
    return before, left


def test_the_envelope_alone_leaves_more_than_it_was_told_and_the_cut_is_exact() -> None:
    left = [int((one_step(Proximal("group-envelope", x))[1] != 0).any(1).sum()) for x in (1e-4, 1e-2, 1e4)]
    assert left[0] == 50
    assert left[0] >= left[1] >= left[2] == 10


def test_the_strength_follows_its_schedule() -> None:
    before, left = one_step(Proximal("group-lasso", 0.02, schedule=Linear(end=4)))
    factor = 1 - 0.02 / 4 * 40**0.5 / before.norm(dim=1, keepdim=True)
    assert torch.allclose(left, before * factor.clamp(min=0), atol=1e-6)


def test_every_parameter_is_shrunk_by_its_own_learning_rate() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    before = [layer.weight.detach().clone() for layer in net]
    optimizer = torch.optim.SGD(
        [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1].parameters(), "lr": torch.tensor(0.3)}], lr=0.1
    )
    rule = Proximal("group-lasso", 0.05)
    s = Sparsifier(net, keep=0.5, pattern=Blocks(2, 2), distribution="global", steps=10, rule=rule).attach(optimizer)
    net(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    for layer, weight, rate in zip(net, before, (0.1, 0.3, 0.0), strict=True):
        tiles = weight.view(2, 2, 2, 2)
        factor = (1 - 0.05 * rate * 2 / tiles.norm(dim=(1, 3), keepdim=True)).clamp(min=0)
        assert torch.allclose(layer.weight, (tiles * factor).view(4, 4), atol=1e-6)
    s.detach()


class Residual(nn.Module):
    """Two convolutions whose channels a sum couples, norms, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.outer = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (x + self.outer(self.inner(x).relu())).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.mark.parametrize("penalty", ["group-lasso", "group-envelope"])
def test_coupled_channels_that_vanish_can_be_taken_out(penalty: str) -> None:
    torch.manual_seed(0)
    net, x = Residual(), torch.randn(16, 2, 6, 6)
    units = find_units(NetworkGraph.from_module(net, x[:2]))
    channels = Coupled(units)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    rule = Proximal(penalty, 0.02)
    s = Sparsifier(net, keep=0.5, pattern=channels, steps=8, rule=rule).attach(optimizer)
    assert "norm.weight" in s.parameters
    assert "head.bias" not in s.parameters
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), torch.arange(16) % 3).backward()
        optimizer.step()
    masks = s.finish()
    kept = channels.bind(net).kept_units(masks)
    assert int(kept.sum()) == 7  # of 6 + 8
    for name, mask in masks.items():
        assert torch.equal(mask, channels.units.masks(kept)[name])
        assert bool((net.get_parameter(name)[~mask] == 0).all())
    net.eval()
    small, _ = shrink(NetworkGraph.from_module(net, x[:2]), stays(units.unit_of, kept), x[:2])
    assert torch.allclose(small(x), net(x), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters()) / 2


def test_what_cannot_be_shrunk_is_told() -> None:
    net = nn.Linear(4, 4)
    for make, said in (
        (lambda: Proximal("group-laso"), "unknown penalty 'group-laso' .did you mean 'group-lasso'"),
        (lambda: Proximal(strength=-1), "from 0 on, got -1"),
        (lambda: Proximal(strength=float("nan")), "from 0 on, got nan"),
        (lambda: Proximal(schedule=3), "schedule is one such as Linear"),  # type: ignore[arg-type]
        (lambda: Proximal(until=0), r"in \(0, 1\], got 0"),
        (lambda: Sparsifier(net, keep="2:4", rule=Proximal(), steps=9), "N:M has none"),
        (lambda: Sparsifier(net, keep=0.5, rule=Proximal()), "needs steps="),
        (lambda: Sparsifier(net, keep=0.5, rule=Proximal(), score="gradient", steps=9), "score without gradients"),
    ):
        with pytest.raises(ValueError, match=said):
            make()
    units = find_units(NetworkGraph.from_module(Residual(), torch.zeros(1, 2, 6, 6))).map
    with pytest.raises(TypeError, match="the units of a network, find_units"):
        Coupled(net)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of this model's parameters"):
        Sparsifier(net, keep=0.5, pattern=Coupled(units))
    with pytest.raises(ValueError, match="leave which= out"):
        Sparsifier(Residual(), keep=0.5, pattern=Coupled(units), which="all")
    with pytest.raises(ValueError, match="has no say in Coupled"):
        Sparsifier(Residual(), keep=0.5, pattern=Coupled(units), distribution="erk")
    with pytest.raises(ValueError, match="coupled channels share weights"):
        Sparsifier(Residual(), "rigl", keep=0.5, pattern=Coupled(units), steps=900)
    with pytest.raises(ValueError, match="every one of 2 layers keeps a unit, and 1 are to be kept"):
        Sparsifier(Residual(), "magnitude", keep=0.01, pattern=Coupled(units))
