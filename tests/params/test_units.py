"""Units: which weights belong to one, in what order they enter, and how many weights stay, worked by hand."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import Claim, Projection, UnitMap, Units


def claim(axis, units, rests=False):
    units = torch.as_tensor(units)
    axes = axis if isinstance(axis, tuple) else (axis,)
    return Claim(axes, units, torch.full(units.shape, rests))


def mlp_map(widths, rests=True):
    """The units of a perceptron: rows of one layer and columns of the next; the last layer's rows are no units."""
    claims, shapes, group, start = {}, {}, [], 0
    before = torch.full((widths[0],), -1)
    for layer, (a, b) in enumerate(pairwise(widths)):
        last = layer == len(widths) - 2
        units = torch.full((b,), -1) if last else torch.arange(start, start + b)
        own = [] if last else [claim(0, units, rests)]
        claims[f"{layer}.weight"] = (*own, *([claim(1, before)] if layer else []))
        claims[f"{layer}.bias"] = tuple(own)
        shapes |= {f"{layer}.weight": torch.Size([b, a]), f"{layer}.bias": torch.Size([b])}
        if not last:
            group += [layer] * b
            start += b
        before = units
    names = tuple(map(str, range(len(widths) - 2)))
    return UnitMap(claims, shapes, torch.tensor(group), torch.zeros(len(group), dtype=torch.int64), names)


def weights_of(units, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in units.shapes.items()}


def test_the_weights_of_a_unit_by_hand():
    """2 -> 3 -> 2: a unit is a row and a bias of the first layer and a column of the second, 5 weights of 17."""
    units = mlp_map((2, 3, 2))
    assert units.sizes.tolist() == [5, 5, 5]
    masks = units.masks(torch.tensor([True, False, True]))
    assert masks["0.weight"].tolist() == [[True, True], [False, False], [True, True]]
    assert masks["0.bias"].tolist() == [True, False, True]
    assert masks["1.weight"].tolist() == [[True, False, True]] * 2
    assert masks["1.bias"].tolist() == [True, True]
    weights = {
        "0.weight": torch.tensor([[1.0, 0], [3, 0], [0, 2]]),
        "0.bias": torch.tensor([0.0, 0, 4]),
        "1.weight": torch.tensor([[0.0, 0, 0], [5, 1, 0]]),
        "1.bias": torch.tensor([9.0, 9]),
    }
    assert units.sums(weights, squares=True).tolist() == [26, 10, 20]
    for keep, left in (("12/17", [1, 0, 1]), ("11/17", [1, 0, 0]), ("7/17", [1, 0, 0]), (1, [1, 1, 1])):
        assert Units(keep, units).kept_units(weights).int().tolist() == left


def test_never_more_weights_than_asked_and_less_than_a_unit_fewer():
    """2 -> 3 -> 2 has 17 weights: 2 that no unit has, and 5 for each unit."""
    units = mlp_map((2, 3, 2))
    for asked in range(7, 18):
        masks = Units(Fraction(asked, 17), units).mask(weights_of(units))
        assert sum(int(mask.sum()) for mask in masks.values()) == 2 + 5 * ((asked - 2) // 5)


def test_a_keep_that_leaves_less_than_a_unit_is_refused():
    units = mlp_map((2, 3, 2))
    with pytest.raises(ValueError, match=r"one unit of each of 1 layers has 7 of 17 weights.*the 6.*at least 0\.4118"):
        Units("6/17", units).mask(weights_of(units))
    Units("0.4118", units).mask(weights_of(units))


def test_what_does_not_count_is_taken_along():
    units = mlp_map((2, 3, 2))
    pattern = Units("8/12", units, counted=frozenset({"0.weight", "1.weight"}))
    masks = pattern.mask(weights_of(units))
    assert [int(masks[name].sum()) for name in ("0.weight", "1.weight", "0.bias", "1.bias")] == [4, 4, 2, 2]


def test_layers_of_other_scales_starve_to_one_unit_but_not_to_none():
    units = mlp_map((4, 6, 6, 3))
    weights = weights_of(units)
    weights["0.weight"] *= 100
    weights["0.bias"] *= 100
    for shares, left in (("global", [6, 1]), ("uniform", [4, 3])):
        keep = Units("0.55", units, shares).kept_units(weights)
        assert torch.bincount(units.group[keep]).tolist() == left


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=5),
    st.fractions(min_value="1/50", max_value=1, max_denominator=10**6),
    st.sampled_from(["global", "uniform"]),
    st.integers(0, 10**6),
)
def test_counts_hold_for_any_widths(widths, keep, shares, seed):
    units, total = mlp_map(widths), 0
    weights = weights_of(units, seed)
    total = sum(value.numel() for value in weights.values())
    pattern = Units(keep, units, shares)
    floor = torch.zeros(units.count, dtype=torch.bool)
    floor[[int((units.group == group).nonzero()[0]) for group in range(len(widths) - 2)]] = True
    if sum(int(mask.sum()) for mask in units.masks(floor).values()) > kept_count(keep, total):
        with pytest.raises(ValueError, match="keep at least"):
            pattern.kept_units(weights)
        return
    kept = pattern.kept_units(weights)
    masks = units.masks(kept)
    count, allowed = sum(int(mask.sum()) for mask in masks.values()), kept_count(keep, total)
    assert count <= allowed
    assert torch.bincount(units.group[kept], minlength=len(widths) - 2).min() >= 1
    more = []
    for unit in (~kept).nonzero().view(-1).tolist():
        larger = kept.clone()
        larger[unit] = True
        more.append(sum(int(mask.sum()) for mask in units.masks(larger).values()))
    assert not more or max(more) > allowed  # the next in the order did not fit
    again = {name: value.clone() for name, value in weights.items()}
    pattern.project_(again)
    assert torch.equal(pattern.units_in(again), kept)


def test_heads_keep_equal_widths_and_go_whole_below_one_each():
    """Two heads of three channels, 6 rows of 2 weights: rows 0-2 are the first head's."""
    rows, lane = torch.arange(6), torch.tensor([0, 0, 0, 1, 1, 1])
    units = UnitMap({"w": (claim(0, rows),)}, {"w": torch.Size([6, 2])}, rows * 0, lane, ("heads",))
    weights = {"w": torch.tensor([5.0, 1, 4, 3, 9, 2])[:, None].expand(6, 2).clone()}
    kept = {asked: Units(Fraction(asked, 12), units).kept_units(weights).int().tolist() for asked in (2, 4, 8, 11, 12)}
    assert kept[2] == [0, 0, 0, 0, 1, 0]  # one head is left, that of the larger sum
    assert kept[4] == [1, 0, 0, 0, 1, 0]
    assert kept[8] == kept[11] == [1, 0, 1, 1, 1, 0]  # the best two of each
    assert kept[12] == [1] * 6


def test_elements_along_two_axes():
    """Attention vectors [1, heads, channels] and the rows of a layer are one unit each."""
    places = torch.arange(4)
    claims = {"att": (claim((1, 2), places.view(2, 2)),), "w": (claim(0, places),)}
    shapes = {"att": torch.Size([1, 2, 2]), "w": torch.Size([4, 3])}
    units = UnitMap(claims, shapes, places * 0, torch.tensor([0, 0, 1, 1]), ("a",))
    assert units.sizes.tolist() == [4] * 4
    masks = units.masks(torch.tensor([True, False, False, True]))
    assert masks["att"].tolist() == [[[True, False], [False, True]]]
    assert masks["w"].any(1).tolist() == [True, False, False, True]


class MLP(nn.Module):
    def __init__(self, widths):
        super().__init__()
        for layer, (a, b) in enumerate(pairwise(widths)):
            self.add_module(str(layer), nn.Linear(a, b))

    def forward(self, x):
        layers = list(self.children())
        for layer in layers[:-1]:
            x = torch.tanh(layer(x))
        return layers[-1](x)


def test_units_return_in_training_because_their_makers_rest():
    """1 -> 2 -> 1: the first unit is saturated and of no use; the second is out, keeps its row, and is called back."""
    start = {"0.weight": [[1.0], [0.9]], "0.bias": [5.0, 0.0], "1.weight": [[0.1, 0.1]], "1.bias": [0.0]}
    x = torch.linspace(-1, 1, 21)[:, None]
    for rests, left in ((True, [False, True]), (False, [True, False])):
        net = MLP((1, 2, 1))
        net.load_state_dict({name: torch.tensor(value) for name, value in start.items()})
        projection = Projection(net, Units("4/7", mlp_map((1, 2, 1), rests=rests)))
        projection.apply()
        assert projection.masks["0.bias"].tolist() == [True, False]
        assert net.get_submodule("1").weight[0, 1] == 0
        assert net.get_submodule("0").weight[1, 0] == (start["0.weight"][1][0] if rests else 0)
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        projection.attach(optimizer)
        nn.functional.mse_loss(net(x), 30 * torch.tanh(x)).backward()
        optimizer.step()
        assert projection.masks["0.bias"].tolist() == left


def test_a_projection_resumes_and_refuses_the_state_of_other_units():
    net = MLP((3, 4, 1))
    first = Projection(net, Units("0.6", mlp_map((3, 4, 1))))
    first.apply()
    state = first.state_dict()
    Projection(net, Units("0.6", mlp_map((3, 4, 1)))).load_state_dict(state)
    for other in (Units("0.6", mlp_map((3, 4, 1)), "uniform"), Units("0.6", mlp_map((3, 4, 1), rests=False))):
        with pytest.raises(ValueError, match="the state has"):
            Projection(net, other).load_state_dict(state)


def test_bad_input():
    units = mlp_map((2, 3, 2))
    weights = weights_of(units)
    with pytest.raises(ValueError, match=r"shared out 'global' or 'uniform', not 'erk'"):
        Units(0.5, units, "erk")
    with pytest.raises(ValueError, match=r"'0\.weight' of shape \[3, 2\], which has shape \[2, 2\]"):
        Units(0.9, units).mask(weights | {"0.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"'1\.bias' of shape \[2\], which is not there"):
        Units(0.9, units).mask({name: value for name, value in weights.items() if name != "1.bias"})
    weights["1.weight"][1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"1\.weight is NaN at position \(1, 2\)"):
        Units(0.9, units).mask(weights)


def test_half_precision_and_infinite_weights_are_ranked_exactly():
    units = mlp_map((2, 3, 2))
    weights = weights_of(units)
    half = {name: value.half() for name, value in weights.items()}
    assert torch.equal(Units(0.7, units).kept_units(half), Units(0.7, units).kept_units(weights))
    weights["0.bias"][2] = torch.inf
    assert Units("7/17", units).kept_units(weights).tolist() == [False, False, True]
