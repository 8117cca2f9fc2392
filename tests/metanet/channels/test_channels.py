"""Units of pruning: sets, groups, what stays, the order of removal, and masks."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metanet_networks import CUT_WHOLE, SHALLOW, ResNet, graph_of, images, randomised
from torch import nn

from graphsparse.metanet import Channels, NetworkGraph, masked
from graphsparse.metanet.channels.sets import check_mask, keep_after, removal_order


def layer_nodes(graph, name):
    return torch.nonzero(graph.layer == graph.layer_names.index(name))[:, 0]


def widths(channels, kept):
    """Kept sets of each prunable group."""
    left = torch.bincount(channels.group_of[kept & channels.prunable], minlength=len(channels.layers))
    return left[torch.unique(channels.group_of[channels.prunable])].tolist()


def sets_kept(channels, steps):
    kept = torch.ones(len(channels.group_of), dtype=torch.bool)
    kept[torch.cat([*steps, torch.zeros(0, dtype=torch.int64)])] = False
    return kept


def two_hidden(a=4, b=5):
    net = nn.Sequential(nn.Linear(2, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 3))
    return net, NetworkGraph.from_module(net, torch.zeros(1, 2))


def test_sets_and_groups_of_a_perceptron_by_hand():
    _, graph = two_hidden()
    channels = Channels.of(graph)
    assert channels.group_of.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]
    assert channels.prunable.tolist() == [False] * 2 + [True] * 9 + [False] * 3
    assert channels.width.tolist() == [2, 4, 5, 3]
    assert [[graph.layer_names[i] for i in group] for group in channels.layers] == [["input 0"], ["0"], ["2"], ["4"]]


def test_a_residual_stage_is_one_group():
    graph = NetworkGraph.from_module(randomised(ResNet(8, (4, 8, 12), option="B")), images(8))
    channels = Channels.of(graph)
    groups = {tuple(graph.layer_names[i] for i in group) for group in channels.layers}
    assert ("stem.0", "stages.0.second.0") in groups
    assert ("stages.1.second.0", "stages.1.shortcut.0") in groups
    assert ("stages.1.first.0",) in groups
    stem, last = layer_nodes(graph, "stem.0"), layer_nodes(graph, "stages.0.second.0")
    assert torch.equal(channels.set_of[stem], channels.set_of[last])


@pytest.mark.parametrize("name", SHALLOW)
def test_inputs_and_outputs_are_never_prunable(name):
    _, _, graph = graph_of(name)
    channels = Channels.of(graph)
    for nodes in (*graph.inputs, *graph.outputs):
        assert not bool(channels.of_nodes(channels.prunable)[nodes].any())


@pytest.mark.parametrize("classes", [6, 10])
def test_a_hidden_layer_as_wide_as_the_classes_is_pruned_and_the_classifier_is_not(classes):
    """Another implementation took every layer of that width for the classifier."""
    net = randomised(ResNet(8, (classes, classes, classes), classes=classes))
    graph = NetworkGraph.from_module(net, images(8))
    channels = Channels.of(graph)
    free = channels.of_nodes(channels.prunable)
    assert bool(free[layer_nodes(graph, "stem.0")].all())
    assert bool(free[layer_nodes(graph, "stages.2.first.0")].all())
    assert not bool(free[layer_nodes(graph, "head")].any())


def test_heads_lose_the_same_places():
    """Queries, keys and values of all heads at one place are one set; so are those channels that tell their width."""
    _, _, graph = graph_of("vit")
    channels = Channels.of(graph)
    qkv = layer_nodes(graph, "layers.0.attention.qkv")
    assert bool(channels.of_nodes(channels.prunable)[qkv].all())
    places = channels.set_of[qkv].view(3, 2, 4)  # query, key and value; heads; width
    assert torch.equal(places, places[:1, :1].expand_as(places))
    assert torch.equal(channels.set_of[layer_nodes(graph, "patch")].view(2, 4), places[0])  # d // heads


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.sampled_from([0.1, 0.2, 0.3, 0.7, "0.29", Fraction(1, 3), 1.0]),
    st.integers(1, 8),
    st.sampled_from(["uniform", "global", "raw"]),
    st.integers(0, 99),
)
def test_what_an_order_of_removal_promises(a, b, min_keep, round_to, distribution, seed):
    _, graph = two_hidden(a, b)
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of), generator=torch.Generator().manual_seed(seed))
    options = {"distribution": distribution, "min_keep": min_keep, "round_to": round_to}
    steps = removal_order(channels, importance, **options)
    gone = torch.cat([*steps, torch.zeros(0, dtype=torch.int64)])
    assert len(set(gone.tolist())) == len(gone)
    assert bool(channels.prunable[gone].all())
    assert [s.tolist() for s in steps] == [s.tolist() for s in removal_order(channels, importance, **options)]
    for width, left in zip((a, b), widths(channels, sets_kept(channels, steps)), strict=True):
        least = math.ceil(Fraction(str(min_keep)) * width)
        assert left == min(width, math.ceil(least / round_to) * round_to)
    left_before = {}
    for step in steps:
        (group,) = set(channels.group_of[step].tolist())
        left = left_before.get(group, int(channels.width[group])) - len(step)
        assert left % round_to == 0
        left_before[group] = left
    for group in left_before:  # inside a group, the less important first
        order = torch.cat([s for s in steps if int(channels.group_of[s[0]]) == group])
        assert torch.equal(order, order[torch.argsort(importance[order], stable=True)])


def test_min_keep_is_read_as_the_decimal_that_was_written():
    _, graph = two_hidden(10, 100)  # 0.07 * 100 is 7.000000000000001 in binary floats
    channels = Channels.of(graph)
    steps = removal_order(channels, torch.rand(len(channels.group_of)), min_keep=0.07)
    assert widths(channels, sets_kept(channels, steps)) == [1, 7]


def test_uniform_removes_the_same_fraction_everywhere_whatever_the_scale():
    _, graph = two_hidden(10, 20)
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of)) * torch.where(channels.group_of == 1, 1000.0, 1.0)
    steps = removal_order(channels, importance, min_keep=0.1)
    for count in range(len(steps) + 1):
        first, second = widths(channels, sets_kept(channels, steps[:count]))
        assert abs(first / 10 - second / 20) <= 0.1 + 1e-9


def test_global_compares_over_the_mean_and_raw_as_it_is():
    _, graph = two_hidden(2, 2)
    channels = Channels.of(graph)
    importance = torch.tensor([9.0, 9.0, 10.0, 30.0, 2.0, 2.2, 9.0, 9.0, 9.0])
    first = {d: removal_order(channels, importance, distribution=d)[0].tolist() for d in ("global", "raw")}
    assert first == {"global": [2], "raw": [4]}  # 10 / 20 < 2 / 2.1, and 2 < 10


def test_infinite_importance_stays_longest_and_equal_ones_go_by_number():
    _, graph = two_hidden(3, 3)
    channels = Channels.of(graph)
    importance = torch.ones(len(channels.group_of))
    importance[2] = math.inf
    for distribution in ("uniform", "global", "raw"):
        steps = removal_order(channels, importance, distribution=distribution)
        order = torch.cat(steps).tolist()
        assert 2 not in order
        assert [s for s in order if s < 5] == [3, 4]
        assert [s for s in order if s >= 5] == [5, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "layerwise"}, "distribution is one of uniform, global, raw"),
        ({"min_keep": 0}, "min_keep must lie in"),
        ({"min_keep": 1.1}, "min_keep must lie in"),
        ({"round_to": 0}, "round_to must be"),
        ({"round_to": 2.5}, "round_to must be"),
    ],
)
def test_options_out_of_range(options, message):
    _, graph = two_hidden()
    channels = Channels.of(graph)
    with pytest.raises(ValueError, match=message):
        removal_order(channels, torch.ones(len(channels.group_of)), **options)


def test_importance_must_be_numbers_one_a_set():
    _, graph = two_hidden()
    channels = Channels.of(graph)
    importance = torch.ones(len(channels.group_of))
    with pytest.raises(ValueError, match="one value for each of 14 sets"):
        removal_order(channels, importance[1:])
    importance[3] = math.nan
    with pytest.raises(ValueError, match="channel set 3 is NaN"):
        removal_order(channels, importance)


def test_masks_that_are_no_masks():
    graph = NetworkGraph.from_module(randomised(ResNet(8, (4, 4, 4))), images(8))
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    check_mask(graph, keep)
    for wrong in (keep[1:], keep.float(), keep.unsqueeze(0)):
        with pytest.raises(ValueError, match="keep must be bool"):
            check_mask(graph, wrong)
    torn = keep.clone()
    torn[layer_nodes(graph, "stem.0")[1]] = False
    with pytest.raises(ValueError, match="tears channels apart"):
        check_mask(graph, torn)
    for name in ("head", "input 0"):
        lost = keep.clone()
        lost[layer_nodes(graph, name)[0]] = False
        with pytest.raises(ValueError, match=f"drops channels of '{name}', which must stay"):
            check_mask(graph, lost)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted({*CUT_WHOLE} - {"gin"})), st.integers(0, 10**6), st.floats(0, 1))
def test_masked_is_zero_where_channels_went_and_the_same_elsewhere(name, seed, share):  # GIN shares eps
    _, _, graph = graph_of(name)
    channels = Channels.of(graph)
    importance = torch.rand(len(channels.group_of), generator=torch.Generator().manual_seed(seed))
    steps = removal_order(channels, importance)
    keep = keep_after(channels, steps[: round(share * len(steps))])
    check_mask(graph, keep)
    small = masked(graph, keep)
    for kernel, edges in graph.edges.items():
        kept = (keep[edges.src] & keep[edges.dst]).unsqueeze(1)
        assert torch.equal(small.edges[kernel].values, torch.where(kept, edges.values, 0.0))
    for key, bank in graph.banks.items():
        kept = keep[bank.nodes].unsqueeze(1)
        expected = bank.values if bank.input_only else torch.where(kept, bank.values, 0.0)
        assert torch.equal(small.banks[key].values, expected)


def test_gradients_flow_through_masked():
    _, graph = two_hidden()
    values = graph.edges[()].values.clone().requires_grad_()
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    keep[3] = False
    masked(graph.with_values({(): values}), keep).edges[()].values.sum().backward()
    expected = (graph.edges[()].src != 3) & (graph.edges[()].dst != 3)
    assert torch.equal(values.grad[:, 0], expected.float())


class JoinedAndAdded(nn.Module):
    """Two layers side by side, added to a third: one group, though the two share no channel."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.both = nn.Linear(4, 3), nn.Linear(4, 9), nn.Linear(4, 12)
        self.last = nn.Linear(12, 2)

    def forward(self, x):
        return self.last(torch.cat([self.left(x), self.right(x)], 1) + self.both(x))


def test_every_weight_keeps_an_end():
    """The least important channels are all those of one layer."""
    net = JoinedAndAdded()
    graph = NetworkGraph.from_module(net, torch.zeros(1, 4))
    channels = Channels.of(graph)
    importance = torch.ones(len(channels.group_of))
    left = channels.set_of[layer_nodes(graph, "left")]
    importance[left] = 0.1
    keep = keep_after(channels, removal_order(channels, importance, min_keep=0.1))
    assert int(keep[layer_nodes(graph, "left")].sum()) == 1
    assert int(keep[layer_nodes(graph, "both")].sum()) == 2  # ceil(0.1 * 12)
