"""Pruning single weights: exact counts, patterns held in training, and the order of the passes."""

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metanet_networks import UNet, conv_bn, same_bits
from torch import nn

from graphsparse.fit import Task
from graphsparse.metanet import FineTune, MetaNetwork, NetworkGraph, prune_weights
from graphsparse.params import METHODS, Blocks, methods, prunable

QUICK = FineTune(epochs=1)


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        conv_bn(2, 8), nn.ReLU(), conv_bn(8, 8, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


def small_task(seed=0, shift=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(96, 2, 6, 6, generator=generator), torch.arange(96) % 3
    x[:, 0] += y.view(-1, 1, 1) - 1.0
    return Task((x[:64], y[:64]), (x[64:80], y[64:80]), (x[80:], (y[80:] + shift) % 3), batch_size=32)


def metanet_for(net, change=0.3, mode="change"):
    torch.manual_seed(3)
    metanet = MetaNetwork.for_graph(
        NetworkGraph.from_module(net, torch.zeros(1, 2, 6, 6)), mode=mode, hidden=8, layers=1
    )
    with torch.no_grad():
        for decoder in metanet.edge_decoders.values():
            decoder.weight.normal_(0, change)
    return metanet


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([0, 0.29, 0.5, "0.8", 0.9]), st.sampled_from(["matrices", "all"]))
def test_the_count_is_exact_and_held_through_training(sparsity, which):
    net = small_net()
    result = prune_weights(net, None, small_task(), sparsity=sparsity, fine_tune=QUICK, which=which)
    weights = prunable(result.module, which)
    total = sum(p.numel() for p in weights.values())
    kept = math.ceil((1 - float(sparsity)) * total - 1e-9)
    assert sum(int(mask.sum()) for mask in result.masks.values()) == kept
    assert set(result.masks) == set(weights)
    for name, weight in weights.items():
        assert not bool(weight[~result.masks[name]].any())
    share = result.weights_kept_matrices if which == "matrices" else result.weights_kept
    assert share == pytest.approx(kept / total)


def test_the_largest_magnitudes_over_all_layers_stay():
    net = small_net()
    result = prune_weights(net, None, small_task(), sparsity=0.8, fine_tune=QUICK)
    before = prunable(net, "matrices")
    flat = torch.cat([p.detach().abs().flatten() for p in before.values()])
    mask = torch.cat([result.masks[name].flatten() for name in before])
    assert flat[mask].min() >= flat[~mask].max()
    assert mask.sum() == math.ceil(0.2 * len(mask))


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:4", 4, 4)])
def test_every_run_of_inputs_keeps_n_of_m(pattern, n, m):
    net = small_net()
    result = prune_weights(net, None, small_task(), pattern=pattern, fine_tune=QUICK)
    assert set(result.masks) == {"0.0.weight", "2.0.weight", "6.weight"}
    for name, mask in result.masks.items():
        weight = dict(result.module.named_parameters())[name]
        assert not bool(weight[~mask].any())
        runs = mask.movedim(1, -1).flatten(0, -2)
        for part in runs.split(m, dim=1):
            assert torch.equal(part.sum(1), torch.full((len(part),), min(n, part.shape[1])))
    assert result.module.training is False


def test_runs_of_a_transposed_convolution_lie_along_its_inputs():
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 2
    task = Task((x, y), (x, y), (x, y), forward=lambda model, x: model(x).mean((2, 3)))
    result = prune_weights(UNet(), None, task, pattern="2:4", fine_tune=FineTune(epochs=0))
    mask = result.masks["up.weight"]  # [8 inputs, 4 outputs, 2, 2]
    assert torch.equal(mask.view(2, 4, 4, 2, 2).sum(1), torch.full((2, 4, 2, 2), 2))


@pytest.mark.parametrize("how", [{"sparsity": 0.8}, {"pattern": "2:4"}])
def test_an_untrained_metanetwork_is_the_baseline_after_the_same_training(how):
    net, task = small_net(), small_task()
    metanet = metanet_for(net, change=0.0)
    none = FineTune(epochs=0)
    with_it = prune_weights(net, metanet, task, **how, fine_tune=QUICK, prepare=none)
    without = prune_weights(net, None, task, **how, fine_tune=QUICK)
    assert same_bits(with_it.module.state_dict(), without.module.state_dict())
    assert with_it.figures() == without.figures()


def test_a_metanetwork_that_changes_weights_changes_the_mask_and_prepare_is_used():
    net, task = small_net(), small_task()
    metanet = metanet_for(net, change=3.0)
    masks = [
        prune_weights(net, given, task, sparsity=0.8, fine_tune=FineTune(epochs=0), prepare=prepare).masks
        for given, prepare in ((None, None), (metanet, FineTune(epochs=0)), (metanet, FineTune(epochs=2, lr=0.5)))
    ]
    assert not all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert not all(torch.equal(masks[1][name], masks[2][name]) for name in masks[0])


def test_the_network_is_unchanged_and_equal_calls_give_equal_bits():
    net, task = small_net().train(), small_task()
    metanet = metanet_for(net)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    first = prune_weights(net, metanet, task, sparsity=0.5, fine_tune=QUICK, prepare=QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = prune_weights(net, metanet, task, sparsity=0.5, fine_tune=QUICK, prepare=QUICK)
    assert same_bits(first.module.state_dict(), again.module.state_dict())
    assert first.figures() == again.figures()
    assert same_bits(before, net.state_dict())
    assert net.training
    other = prune_weights(net, None, task, sparsity=0.5, fine_tune=QUICK, seed=1)
    base = prune_weights(net, None, task, sparsity=0.5, fine_tune=QUICK)
    assert not same_bits(other.module.state_dict(), base.module.state_dict())


def test_test_labels_choose_nothing():
    net = small_net()
    found = [
        prune_weights(net, metanet_for(net), small_task(shift=shift), pattern="2:4", fine_tune=QUICK, prepare=QUICK)
        for shift in (0, 1)
    ]
    assert same_bits(found[0].module.state_dict(), found[1].module.state_dict())
    assert found[0].val == found[1].val
    assert found[0].figures() != found[1].figures()


def test_figures_are_those_of_the_module():
    net, task = small_net(), small_task()
    result = prune_weights(net, None, task, sparsity=0.5, fine_tune=FineTune(epochs=3))
    assert result.accuracy == task.score(result.module, "test")
    assert result.val == task.score(result.module, "val")
    assert result.accuracy_before == task.score(net, "test")
    untuned = prune_weights(net, None, task, sparsity=0.5, fine_tune=FineTune(epochs=0))
    assert untuned.accuracy == untuned.accuracy_untuned == result.accuracy_untuned


def test_bad_arguments():
    net, task = small_net(), small_task()
    for wrong in ({}, {"sparsity": 0.5, "pattern": "2:4"}):
        with pytest.raises(ValueError, match="exactly one of sparsity and pattern"):
            prune_weights(net, None, task, **wrong)
    for pattern in ("5:4", "0:4", "2-4", "2:4:8", ""):
        with pytest.raises(ValueError, match="a pattern is 'N:M'"):
            prune_weights(net, None, task, pattern=pattern)
    with pytest.raises(ValueError, match="sparsity"):
        prune_weights(net, None, task, sparsity=1.0)
    with pytest.raises(ValueError, match="mode 'change', not 'repair'"):
        prune_weights(net, metanet_for(net, mode="repair"), task, sparsity=0.5)
    with pytest.raises(ValueError, match=r"has shape .* and no dimension 1"):
        prune_weights(net, None, task, pattern="2:4", which="all")
    with torch.no_grad():
        net[6].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        prune_weights(net, None, task, sparsity=0.5)


# any method of sparse training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in methods() if not METHODS[name].modules])
def test_any_method_prunes_while_the_network_is_tuned(method):
    keep = {"pattern": "2:4"} if METHODS[method].n_of_m else {"sparsity": 0.75}
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two inputs are a run shorter than 4
        result = prune_weights(net, None, small_task(), method=method, fine_tune=FineTune(epochs=4), **keep)
    assert same_bits(before, net.state_dict())
    assert result.module.state_dict().keys() == before.keys()
    for name, weight in prunable(result.module, "matrices").items():
        assert not bool(weight[~result.masks[name]].any())
    total = sum(mask.numel() for mask in result.masks.values())
    if "sparsity" in keep and "pattern" not in METHODS[method].choose(100, None):
        assert sum(int(mask.sum()) for mask in result.masks.values()) == math.ceil(total / 4)
    task = small_task()
    assert (result.accuracy, result.val) == (task.score(result.module, "test"), task.score(result.module, "val"))


def test_exchanges_begin_with_the_largest_weights():
    net, task = small_net(), small_task()
    large = prune_weights(net, None, task, sparsity=0.5, method="magnitude", fine_tune=FineTune(epochs=0))
    assert large.accuracy_untuned == large.accuracy
    drawn = prune_weights(net, None, task, sparsity=0.5, method="random-erk", fine_tune=FineTune(epochs=0))
    once = prune_weights(net, None, task, sparsity=0.5, method="set", fine_tune=FineTune(epochs=4))
    sizes = {name: value.abs() for name, value in prunable(net, "matrices").items()}

    def mass(masks):
        return sum(float(sizes[name][mask].sum()) for name, mask in masks.items())

    assert mass(once.masks) > mass(drawn.masks)


def test_whole_rows_and_blocks():
    rows = prune_weights(small_net(), None, small_task(), sparsity=0.5, pattern="rows", fine_tune=QUICK)
    for mask in rows.masks.values():
        assert bool((mask.flatten(1).all(1) == mask.flatten(1).any(1)).all())
    units = sum(len(mask) for mask in rows.masks.values())
    assert sum(int(mask.flatten(1).any(1).sum()) for mask in rows.masks.values()) == math.ceil(units / 2)
    gmp = prune_weights(
        small_net(), None, small_task(), sparsity=0.5, pattern=Blocks(2, 1), method="gmp", fine_tune=FineTune(epochs=4)
    )
    assert all(bool((mask[0::2] == mask[1::2]).all()) for mask in gmp.masks.values() if len(mask) % 2 == 0)


def test_a_metanetwork_and_then_a_method():
    net = small_net()
    result = prune_weights(
        net, metanet_for(net), small_task(), sparsity=0.5, method="iss", fine_tune=FineTune(epochs=4), prepare=QUICK
    )
    assert result.weights_kept_matrices == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.5, "method": "nm-ste"}, "give pattern='2:4'"),
        ({"pattern": "2:4", "method": "rigl"}, "has no say in N:M"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "exactly one of sparsity and pattern"),
        ({"pattern": "rows"}, "exactly one of sparsity and pattern"),
        ({"sparsity": 0.5, "method": "gmp", "reconstruct": True}, "one cut by magnitude"),
        ({"sparsity": 0.5, "method": "blocks"}, "takes whole blocks out"),
        ({"sparsity": 0.5, "method": "gpm"}, "did you mean 'gmp'"),
        ({"sparsity": 0.5, "method": "rigl", "fine_tune": FineTune(epochs=0)}, "fine_tune needs epochs"),
        ({"sparsity": 0.5, "method": "rigl", "fine_tune": QUICK}, "shorter than one update"),
        ({"sparsity": 1.0, "method": "iht"}, "sparsity"),
    ],
)
def test_what_a_method_refuses_is_told_first(options, message, monkeypatch):
    monkeypatch.setattr(FineTune, "run", None)
    with pytest.raises(ValueError, match=message):
        prune_weights(small_net(), None, small_task(), **options)


def test_n_of_m_along_a_transposed_layer_goes_without_a_method():
    net = nn.Sequential(nn.ConvTranspose2d(4, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = torch.zeros(4, 4, 2, 2)
    task = Task((x, torch.arange(4) % 2), (x, torch.arange(4) % 2), (x, torch.arange(4) % 2))
    with pytest.raises(ValueError, match=r"'0\.weight' is a transposed convolution"):
        prune_weights(net, None, task, pattern="2:4", method="nm")
