"""One shot with denoising: what is exchanged, that counts never change, and that an interrupted run goes on."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from graphsparse.fit import NodeTask
from graphsparse.keep_rule import kept_count
from graphsparse.tickets import Denoise, Problem, Training, level_keeps, train_dense
from graphsparse.tickets.finders.denoise import Exchange, Pool


def problem_of(data, model, epochs=20, protocol="transductive", **options):
    return Problem(model, data, NodeTask(data, protocol=protocol), Training(epochs=epochs), **options)


def test_places_go_from_the_smallest_to_the_largest_gradient_over_all_tensors():
    first, second = nn.Parameter(torch.tensor([0.5, -2.0, 0.0])), nn.Parameter(torch.tensor([[0.1, 0.0, 0.0]]))
    alive = [torch.tensor([True, True, False]), torch.tensor([[True, False, False]])]
    pool = Pool([first, second], alive, revived=1.0)
    first.grad, second.grad = torch.tensor([9.0, 9.0, 0.2]), torch.tensor([[9.0, -0.7, 0.1]])
    pool.exchange(0.67)  # two of three
    assert [mask.tolist() for mask in pool.alive] == [[False, True, True], [[False, True, False]]]
    assert (first.tolist(), second.tolist()) == ([0.0, -2.0, 1.0], [[0.0, 1.0, 0.0]])


def test_what_has_no_place_stays_zero_and_nothing_is_remembered_of_it():
    weight = nn.Parameter(torch.tensor([3.0, 1.0, 0.0, 0.0]))
    pool = Pool([weight], [torch.tensor([True, True, False, False])], revived=0.0)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    exchange = Exchange([pool], interval=2, share=0.6, steps=1000)
    exchange.attach(optimizer)
    for alive in ([True, True, False, False], [True, False, False, True], [True, False, False, True]):
        weight.grad = torch.tensor([1.0, 1.0, 4.0, -5.0])
        optimizer.step()
        assert pool.alive[0].tolist() == alive
        for values in (weight, *(optimizer.state[weight][name] for name in ("exp_avg", "exp_avg_sq"))):
            assert (values != 0).tolist() == alive
    exchange.detach()
    weight.grad = torch.tensor([1.0, 1.0, 4.0, -5.0])
    optimizer.step()
    assert bool((weight != 0).all()), "no hook is left behind"


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_masks_are_exact_and_not_those_of_the_one_shot(blocks, make_plain, protocol):
    problem = problem_of(blocks, make_plain(blocks), protocol=protocol)
    dense, keep = train_dense(problem), level_keeps(15)
    found = Denoise(interval=2, share=0.5)(problem, dense, *keep)
    still = Denoise(interval=1000)(problem, dense, *keep)
    tails, heads = blocks.edge_index
    pairs = tails < heads
    for each in (found, still):
        assert int(each.edge_mask[pairs].sum()) == math.ceil(keep[0] * int(pairs.sum()))
        total = sum(mask.numel() for mask in each.weight_masks.values())
        assert sum(int(mask.sum()) for mask in each.weight_masks.values()) == kept_count(keep[1], total)
    changed = (found.edge_mask != still.edge_mask)[pairs]
    assert bool(changed.any())
    unseen = (blocks.test_mask[tails] | blocks.test_mask[heads])[pairs]
    if protocol == "inductive":
        assert not bool(changed[unseen].any()), "nothing is learned of edges that training does not see"
    assert any(not torch.equal(found.weight_masks[name], still.weight_masks[name]) for name in found.weight_masks)


def test_an_interrupted_search_goes_on_to_the_same_masks(blocks, make_plain, tmp_path, monkeypatch):
    plain = problem_of(blocks, make_plain(blocks), epochs=80)
    dense, finder, keep = train_dense(plain), Denoise(interval=5, share=0.3), level_keeps(10)
    whole = finder(plain, dense, *keep)
    exchange = Pool.exchange
    calls = {"count": 0}

    def failing(self, share):
        calls["count"] += 1
        if calls["count"] > 20:  # two pools, so at step 55: five steps after a checkpoint
            raise KeyboardInterrupt
        exchange(self, share)

    saved = dataclasses.replace(plain, folder=tmp_path)
    monkeypatch.setattr(Pool, "exchange", failing)
    with pytest.raises(KeyboardInterrupt):
        finder(saved, dense, *keep)
    monkeypatch.setattr(Pool, "exchange", exchange)
    again = finder(saved, dense, *keep)
    assert torch.equal(whole.edge_mask, again.edge_mask)
    assert all(torch.equal(whole.weight_masks[name], again.weight_masks[name]) for name in whole.weight_masks)
    assert torch.equal(whole.result.logits, again.result.logits)


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0},
        {"interval": 2.5},
        {"share": 0.0},
        {"share": 1.5},
        {"share": float("nan")},
        {"until": 0.0},
        {"edge_penalty": -1.0},
        {"weight_penalty": float("inf")},
    ],
)
def test_bad_options_get_one_sentence(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Denoise(**options)
