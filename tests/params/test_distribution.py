"""How many weights each tensor keeps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import DISTRIBUTIONS, Cubic, L0Projection, allot, project_l0_, project_mask

SHAPES = {"conv": (16, 3, 3, 3), "bias": (16,), "fc": (10, 64), "scalar": (), "none": (0, 4)}


def by_break_points(densities: Mapping[str, Fraction], sizes: Mapping[str, int], k: int) -> dict[str, int]:
    """The same counts another way: eps from the sorted 1 / r, at which tensors become dense one by one."""
    names = sorted((name for name in sizes if sizes[name]), key=lambda name: 1 / densities[name])
    for dense in range(len(names) + 1):
        whole, rest = names[:dense], names[dense:]
        if not rest:
            return {name: sizes[name] for name in sizes}
        eps = Fraction(k - sum(sizes[n] for n in whole)) / sum(densities[n] * sizes[n] for n in rest)
        if all(eps * densities[n] < 1 for n in rest):
            break
    quotas = {
        name: min(Fraction(1), eps * densities[name]) * sizes[name] if sizes[name] else Fraction(0) for name in sizes
    }
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    order = list(sizes)
    for name in sorted(sizes, key=lambda n: (-(quotas[n] - counts[n]), order.index(n)))[: k - sum(counts.values())]:
        counts[name] += 1
    return counts


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_counts_are_those_of_the_sorted_break_points(data: st.DataObject) -> None:
    shapes = {
        f"t{i}": tuple(data.draw(st.lists(st.integers(0, 5), max_size=4))) for i in range(data.draw(st.integers(1, 5)))
    }
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    k = data.draw(st.integers(0, sum(sizes.values())))
    given = {name: data.draw(st.fractions(Fraction(1, 50), 50, max_denominator=50)) for name in shapes}
    for distribution in ("uniform", "er", "erk", given):
        densities = DISTRIBUTIONS[distribution](shapes) if isinstance(distribution, str) else distribution
        counts = allot(distribution, shapes, k)
        assert sum(counts.values()) == k
        assert counts == by_break_points(densities, sizes, k)


def test_densities_by_hand() -> None:
    erk, er = DISTRIBUTIONS.find("erk")(SHAPES), DISTRIBUTIONS.find("er")(SHAPES)
    assert erk == {"conv": Fraction(25, 432), "bias": 1, "fc": Fraction(74, 640), "scalar": 1, "none": 4}
    assert er == {"conv": Fraction(19, 48), "bias": 1, "fc": Fraction(74, 640), "scalar": 1, "none": 4}
    assert set(DISTRIBUTIONS.find("uniform")(SHAPES).values()) == {1}
    assert allot("global", SHAPES, 100) is None


def test_tensors_that_saturate_become_dense_and_the_rest_is_solved_again() -> None:
    """Parts 100 : 10 : 1 of 60 in tensors of 20: the first two fill up one after the other."""
    shapes = dict.fromkeys("abc", (20,))
    assert allot({"a": 100, "b": 10, "c": 1}, shapes, 45) == {"a": 20, "b": 20, "c": 5}
    assert allot({"a": 100, "b": 10, "c": 1}, shapes, 60) == dict.fromkeys("abc", 20)
    assert allot({"a": 1, "b": 1, "c": 2}, shapes, 40) == {"a": 10, "b": 10, "c": 20}  # exactly full


def test_the_largest_remainder_gets_the_rest_and_ties_go_to_the_earlier_tensor() -> None:
    assert allot("uniform", {"a": (3,), "b": (3,), "c": (4,)}, 5) == {"a": 2, "b": 1, "c": 2}
    assert allot("uniform", {"a": (2,), "b": (5,)}, 3) == {"a": 1, "b": 2}
    assert allot("uniform", {"a": (5,), "b": (2,)}, 3) == {"a": 2, "b": 1}


def test_limits_are_kept_whole_and_the_count_stays_exact() -> None:
    shapes = {"a": (10,), "b": (10,)}
    assert allot("uniform", shapes, 8, {"a": 1, "b": 9}) == {"a": 1, "b": 7}
    with pytest.raises(ValueError, match="11 weights cannot be kept of 10"):
        allot("uniform", shapes, 11, {"a": 1, "b": 9})
    with pytest.raises(ValueError, match="-1 weights"):
        allot("erk", shapes, -1)


def digits_mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
def test_every_layer_of_a_plain_mlp_keeps_its_share(distribution: str) -> None:
    """What the issue found: the global pool leaves 0.3 and 0.5 % of the second and third layer."""
    net = digits_mlp()
    masks = project_mask(net, 0.1, distribution)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    total = sum(p.numel() for p in net.parameters())
    assert {n: int(m.sum()) for n, m in masks.items()} == allot(distribution, shapes, kept_count(0.1, total))
    layers = {layer: sum(int(m.sum()) for n, m in masks.items() if n[0] == layer) for layer in "024"}
    sizes = {layer: sum(p.numel() for n, p in net.named_parameters() if n[0] == layer) for layer in "024"}
    assert all(layers[layer] > 0.05 * sizes[layer] for layer in "024")
    for name, weight in net.named_parameters():
        kept, dropped = weight[masks[name]].abs(), weight[~masks[name]].abs()
        assert not len(dropped) or not len(kept) or kept.min() >= dropped.max()


@pytest.mark.parametrize(
    "distribution", ["uniform", "erk", {"0.weight": 1, "0.bias": 2, "2.weight": 3, "2.bias": "1/3"}]
)
@pytest.mark.parametrize("revive", [True, False])
def test_a_schedule_gives_exact_counts_with_every_distribution(distribution: object, revive: bool) -> None:
    """Largest remainders are not monotone in the count: what masks have left is a limit, the total stays exact."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    total = sum(p.numel() for p in net.parameters())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    schedule = Cubic(end=15)
    projection = L0Projection(net, 0.8, schedule=schedule, revive=revive, distribution=distribution).attach(optimizer)
    before = projection.masks
    for step in range(1, 18):
        optimizer.zero_grad()
        net(torch.randn(8, 7)).square().sum().backward()
        optimizer.step()
        masks = projection.masks
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(1 - schedule(step, Fraction(4, 5)), total)
        assert all(torch.equal(p != 0, masks[n]) for n, p in net.named_parameters())
        if not revive:
            assert all(bool((before[n] | ~masks[n]).all()) for n in masks)
        before = masks


def test_a_distribution_belongs_to_the_state() -> None:
    net = digits_mlp()
    plain, erk = L0Projection(net, 0.5), L0Projection(net, 0.5, distribution="erk")
    assert "distribution" not in plain.state_dict()  # as before there were any: older checkpoints load
    assert erk.state_dict()["distribution"] == "erk"
    given = L0Projection(net, 0.5, distribution=dict.fromkeys(plain.parameters, 0.1))
    assert set(given.state_dict()["distribution"].values()) == {"1/10"}
    for one, other in ((plain, erk), (erk, plain), (given, erk)):
        with pytest.raises(ValueError, match="the state has distribution"):
            one.load_state_dict(other.state_dict())
    erk.load_state_dict(L0Projection(net, 0.5, distribution="ERK").state_dict())


def test_what_is_no_distribution() -> None:
    net, weights = nn.Linear(3, 2), {"a": torch.ones(4)}
    with pytest.raises(ValueError, match=r"unknown weight distribution 'unifrom' \(did you mean 'uniform'\?\)"):
        L0Projection(net, 0.5, distribution="unifrom")
    with pytest.raises(TypeError, match="a distribution is one of 'er', 'erk', 'global', 'uniform' or a density"):
        project_l0_(weights, 0.5, 3)
    for wrong, error, message in [
        ({"a": 0}, ValueError, "the density of 'a' must be positive, got 0"),
        ({"a": -1.0}, ValueError, "must be positive"),
        ({"a": "nan"}, ValueError, "the density of 'a' must be a finite number"),
        ({"a": None}, TypeError, "the density of 'a' must be a number"),
        ({}, ValueError, "has no density for 'a'"),
        ({"a": 1, "b": 1}, ValueError, "unknown tensor, 'b'"),
    ]:
        with pytest.raises(error, match=message):
            project_l0_(weights, 0.5, wrong)
    with pytest.raises(ValueError, match=r"has no density for 'weight'"):
        L0Projection(net, 0.5, distribution={"bias": 1})
    assert weights["a"].tolist() == [1] * 4


def test_a_distribution_of_ones_own() -> None:
    DISTRIBUTIONS.register("first-dense", lambda shapes: {n: 10**6 if i == 0 else 1 for i, n in enumerate(shapes)})
    try:
        masks = project_mask([torch.ones(10), torch.ones(10)], 0.6, "first_dense")
    finally:
        del DISTRIBUTIONS["first-dense"]
    assert [int(mask.sum()) for mask in masks] == [10, 2]
    with pytest.raises(TypeError, match="function from shapes to densities"):
        DISTRIBUTIONS.register("no function", 3)


def test_nothing_is_written_for_a_nan_in_a_later_tensor() -> None:
    weights = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("nan")])]
    with pytest.raises(ValueError, match=r"tensor 1 is NaN at position \(1,\)"):
        project_l0_(weights, 0.5, "uniform")
    assert weights[0].tolist() == [1, 2]


@pytest.mark.parametrize("size", [40, 70_000])
def test_uniform_is_the_projection_of_each_tensor(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, generator=generator) * scale for scale in (1, 0.001)]
    masks = project_mask(tensors, 0.25, "uniform")
    alone = [project_mask([tensor], 0.25)[0] for tensor in tensors]
    assert all(map(torch.equal, masks, alone))
    assert int(project_mask(tensors, 0.25)[1].sum()) < size / 100


# warnings


def train_once(net: nn.Module, projection: L0Projection, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    projection.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.ones(4, 64)).square().sum().backward()
        optimizer.step()


def test_a_starved_layer_is_said_once_by_name() -> None:
    net = digits_mlp()
    with pytest.warns(UserWarning, match=r"hardly anything is left of layer '2' \(\d+ of 65792 weights\)") as caught:
        train_once(net, L0Projection(net, 0.9))
    texts = [str(w.message) for w in caught if "hardly" in str(w.message)]
    assert "distribution='erk' or 'uniform'" in texts[0]
    assert sum("layer '2' (" in text for text in texts) == 1
    with pytest.warns(UserWarning, match="layer '2'"):
        project_mask(digits_mlp(), 0.1)


def test_an_empty_tensor_is_said_and_an_empty_bias_is_not() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[0].weight.fill_(1.0), net[0].bias.fill_(1e-3), net[1].weight.fill_(1e-3), net[1].bias.fill_(1.0)
    with pytest.warns(UserWarning, match=r"left of '1\.weight' \(0 of 16 weights\)\. No signal") as caught:
        project_l0_(net, 0.5)
    assert "0.bias" not in str(caught[0].message)


def test_a_module_that_holds_a_bias_or_a_number_alone_is_not_warned_of() -> None:
    """PyG's layers keep their bias beside the linear map, GIN its eps: without them signals pass."""
    from torch_geometric.nn import GCNConv, GINConv

    net = nn.ModuleList([GCNConv(8, 8), GINConv(nn.Linear(8, 8), train_eps=True)])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(0.0 if "bias" in name or "eps" in name else 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        project_l0_(net, 0.5)


@pytest.mark.parametrize(
    ("keep", "distribution"), [(0.1, "uniform"), (0.1, "erk"), (0.005, "uniform"), (0.6, "global")]
)
def test_layers_that_keep_their_share_are_not_warned_of(keep: float, distribution: str) -> None:
    net = digits_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_once(net, L0Projection(net, str(1 - keep), distribution=distribution), steps=1)


def test_tensors_without_a_module_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks: list[Tensor] = project_l0_([torch.ones(5), torch.full((5,), 0.1)], 0.5)
    assert not masks[1].any()


@pytest.mark.parametrize("size", [10, 70_000])
def test_a_tensor_that_gets_nothing_keeps_not_even_an_infinity(size: int) -> None:
    tensors = [torch.full((size,), torch.inf), torch.arange(float(size))]
    masks = project_l0_(tensors, 0.5, {"tensor 0": 1, "tensor 1": 10**9})
    assert not masks[0].any()
    assert not tensors[0].any()
    assert masks[1].all()
