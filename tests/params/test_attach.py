"""Projection after every optimizer step."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from graphsparse.keep_rule import kept_count
from graphsparse.params import Cubic, L0Projection, Linear, project_mask

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=1e-3),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=0.05, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.05, fused=True),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05),
}


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 6, generator=generator), torch.randint(0, 3, (32,), generator=generator)


def train_step(model: nn.Module, optimizer: Optimizer) -> float:
    x, y = batch()

    def closure() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss.item()

    if isinstance(optimizer, torch.optim.LBFGS):
        return float(optimizer.step(closure))
    loss = closure()
    optimizer.step()
    return loss


def nonzeros(model: nn.Module) -> int:
    return sum(int(p.count_nonzero()) for p in model.parameters())


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("revive", [True, False])
def test_every_step_of_every_optimizer_leaves_exactly_k_weights(name: str, revive: bool) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    projection = L0Projection(model, sparsity=0.7, revive=revive).attach(optimizer)
    first = train_step(model, optimizer)
    for _ in range(15):
        last = train_step(model, optimizer)
        assert nonzeros(model) == kept_count(0.3, size(model))
        assert all(torch.equal(p != 0, projection.masks[name]) for name, p in model.named_parameters())
    assert projection.step == 16
    if not isinstance(optimizer, torch.optim.LBFGS):  # its memory of curvature knows nothing of the projection
        assert last < first


def test_parameter_groups_share_one_global_count() -> None:
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    L0Projection(model, sparsity=0.5).attach(optimizer)
    train_step(model, optimizer)
    assert nonzeros(model) == kept_count(0.5, size(model))


def test_it_is_the_projection_of_the_plain_step() -> None:
    model, plain = network(), network()
    optimizer, other = (torch.optim.SGD(net.parameters(), lr=0.3) for net in (model, plain))
    L0Projection(model, sparsity=0.8).attach(optimizer)
    train_step(model, optimizer)
    train_step(plain, other)
    masks = project_mask(plain, 0.2)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q * masks[name])


def _one_weight_model() -> tuple[nn.Linear, Optimizer]:
    """Weights 3, 2: with one kept, the second is removed; a gradient then makes it the larger one."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 2.0]]))
    return model, torch.optim.SGD(model.parameters(), lr=1.0)


@pytest.mark.parametrize(("revive", "expected"), [(True, [[0.0, 5.0]]), (False, [[3.0, 0.0]])])
def test_pruned_weights_revive_only_when_they_may(revive: bool, expected: list[list[float]]) -> None:
    model, optimizer = _one_weight_model()
    projection = L0Projection(model, sparsity=0.5, revive=revive).attach(optimizer)
    model.weight.grad = torch.zeros(1, 2)
    optimizer.step()
    assert model.weight.tolist() == [[3.0, 0.0]]
    model.weight.grad = torch.tensor([[0.0, -5.0]])
    optimizer.step()
    assert model.weight.tolist() == expected
    assert projection.masks["weight"].tolist() == [[bool(value) for value in expected[0]]]


def test_without_revival_masks_only_shrink_and_no_removed_weight_wins_a_tie() -> None:
    """All weights are equal or zero: a removed one at an early position may not replace a kept zero."""
    model = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1, 2, 2, 2, 2, 2, 2]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    projection = L0Projection(model, 0.5, schedule=Linear(end=2), revive=False).attach(optimizer)
    model.weight.grad = torch.zeros(1, 8)
    optimizer.step()
    first = projection.masks["weight"]
    assert first.tolist() == [[False, False, True, True, True, True, True, True]]
    model.weight.grad = model.weight.detach().clone()  # every kept weight becomes zero
    model.weight.grad[0, 0] = -7.0
    optimizer.step()
    second = projection.masks["weight"]
    assert second.tolist() == [[False, False, True, True, True, True, False, False]]
    assert not model.weight.any()


@pytest.mark.parametrize("revive", [True, False])
def test_a_schedule_gives_exact_counts_at_every_step(revive: bool) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = Cubic(begin=2, end=9, every=2)
    L0Projection(model, 0.9, schedule=schedule, revive=revive).attach(optimizer)
    seen = [frozenset(range(size(model)))]
    for step in range(1, 12):
        train_step(model, optimizer)
        assert nonzeros(model) == kept_count(1 - schedule(step, Fraction(9, 10)), size(model))
        flat = torch.cat([p.detach().view(-1) for p in model.parameters()])
        seen.append(frozenset(flat.nonzero().view(-1).tolist()))
    assert len(seen[-1]) == kept_count(0.1, size(model))
    if not revive:
        assert all(later <= earlier for earlier, later in pairwise(seen))


def test_every_skips_steps_and_apply_projects_now() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    projection = L0Projection(model, 0.5, every=3).attach(optimizer)
    counts = []
    for _ in range(4):
        train_step(model, optimizer)
        counts.append(nonzeros(model))
    full, half = size(model), kept_count(0.5, size(model))
    assert counts == [full, full, half, full]
    projection.apply()
    assert nonzeros(model) == half
    assert projection.step == 4


def test_which_leaves_the_other_parameters_alone() -> None:
    model, plain = network(), network()
    optimizer, other = (torch.optim.SGD(net.parameters(), lr=0.3) for net in (model, plain))
    projection = L0Projection(model, 0.5, which="matrices").attach(optimizer)
    train_step(model, optimizer)
    train_step(plain, other)
    assert list(projection.masks) == ["0.weight", "2.weight"]
    assert torch.equal(model[0].bias, plain[0].bias)
    assert torch.equal(model[2].bias, plain[2].bias)
    matrices = [model[0].weight, model[2].weight]
    assert sum(int(p.count_nonzero()) for p in matrices) == kept_count(0.5, sum(p.numel() for p in matrices))


def test_a_hundred_thousand_weights() -> None:
    """Enough for the compiled kernels."""
    model = nn.Linear(400, 250)
    optimizer = torch.optim.Adam(model.parameters())
    projection = L0Projection(model, 0.9).attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 400)).square().sum().backward()
        optimizer.step()
        assert nonzeros(model) == kept_count(0.1, size(model))
    assert sum(int(mask.sum()) for mask in projection.masks.values()) == kept_count(0.1, size(model))


def _run(model: nn.Module, optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        train_step(model, optimizer)


@pytest.mark.parametrize("revive", [True, False])
@pytest.mark.parametrize("load_first", [True, False])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, revive: bool, load_first: bool) -> None:
    def start() -> tuple[nn.Sequential, Optimizer, L0Projection]:
        model = network()
        projection = L0Projection(model, 0.8, schedule=Cubic(end=8), revive=revive)
        return model, torch.optim.Adam(model.parameters(), lr=0.05), projection

    model, optimizer, projection = start()
    projection.attach(optimizer)
    _run(model, optimizer, 12)

    half, half_optimizer, half_projection = start()
    half_projection.attach(half_optimizer)
    _run(half, half_optimizer, 5)
    state = half_projection.state_dict()
    save_file(state.pop("masks"), tmp_path / "masks.safetensors")
    (tmp_path / "plain.json").write_text(json.dumps(state))
    weights, adam = copy.deepcopy(half.state_dict()), copy.deepcopy(half_optimizer.state_dict())

    again, again_optimizer, again_projection = start()
    saved = {**json.loads((tmp_path / "plain.json").read_text()), "masks": load_file(tmp_path / "masks.safetensors")}
    if load_first:
        again_projection.load_state_dict(saved)
    again_projection.attach(again_optimizer)
    again.load_state_dict(weights)
    again_optimizer.load_state_dict(adam)
    if not load_first:
        again_projection.load_state_dict(saved)
    assert again_projection.attached
    _run(again, again_optimizer, 7)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert again_projection.step == projection.step == 12
    assert all(torch.equal(projection.masks[name], mask) for name, mask in again_projection.masks.items())


def test_a_state_of_something_else_is_refused_and_nothing_is_loaded() -> None:
    projection = L0Projection(network(), 0.5)
    state = projection.state_dict()
    bad: list[tuple[dict[str, Any], str]] = [
        ({**state, "sparsity": "9/10"}, "sparsity = '9/10', this projection '1/2'"),
        ({**state, "schedule": "Cubic()"}, "schedule"),
        ({**state, "revive": False}, "revive"),
        ({**state, "every": 2}, "every"),
        ({**state, "step": -1}, "'step'"),
        ({**state, "step": 5, "masks": {}}, "other parameters"),
        ({**state, "step": 5, "masks": {**state["masks"], "0.weight": torch.ones(2, dtype=torch.bool)}}, "0.weight"),
        ({**state, "step": 5, "masks": {**state["masks"], "0.bias": torch.ones(16)}}, "0.bias"),
        ({}, "sparsity"),
    ]
    for wrong, message in bad:
        with pytest.raises(ValueError, match=message):
            projection.load_state_dict(wrong)
    assert projection.step == 0


def test_masks_and_state_are_copies() -> None:
    projection = L0Projection(network(), 0.5)
    projection.masks["0.weight"].zero_()
    projection.state_dict()["masks"]["0.weight"].zero_()
    assert projection.masks["0.weight"].all()


def test_detach_leaves_nothing_behind() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    projection = L0Projection(model, 0.5).attach(optimizer)
    projection.detach()
    projection.detach()
    assert not projection.attached
    train_step(model, optimizer)
    assert nonzeros(model) == size(model)
    reference = weakref.ref(projection)
    del projection
    gc.collect()
    assert reference() is None


def test_a_detached_projection_does_not_hold_the_optimizer() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projection = L0Projection(model, 0.5).attach(optimizer)
    projection.detach()
    reference = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert reference() is None
    projection.attach(torch.optim.SGD(model.parameters(), lr=0.1))


def test_the_context_manager_detaches_also_after_an_error() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    projection = L0Projection(model, 0.5).attach(optimizer)

    def fails() -> None:
        with projection:
            train_step(model, optimizer)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fails()
    assert not projection.attached
    assert nonzeros(model) == kept_count(0.5, size(model))


def test_the_hook_lives_without_a_reference_and_survives_loading_the_optimizer() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    L0Projection(model, 0.5).attach(optimizer)
    gc.collect()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train_step(model, optimizer)
    assert nonzeros(model) == kept_count(0.5, size(model))


def test_copies_of_model_optimizer_and_projection_are_free_of_the_original() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    projection = L0Projection(model, 0.5).attach(optimizer)
    twin, twin_optimizer, twin_projection = copy.deepcopy((model, optimizer, projection))
    assert projection.attached
    assert not twin_projection.attached
    train_step(twin, twin_optimizer)
    assert nonzeros(twin) == size(twin)
    assert projection.step == 0
    twin_projection.attach(twin_optimizer)
    train_step(twin, twin_optimizer)
    assert nonzeros(twin) == kept_count(0.5, size(twin))
    assert nonzeros(model) == size(model)


def test_a_schedule_may_be_any_function() -> None:
    def staircase(step: int, final: Fraction) -> float:
        return 0.25 if step < 2 else float(final)

    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    projection = L0Projection(model, 0.5, schedule=staircase).attach(optimizer)
    assert "staircase" in projection.state_dict()["schedule"]
    for keep in (0.75, 0.5):
        train_step(model, optimizer)
        assert nonzeros(model) == kept_count(keep, size(model))


def test_misuse_is_answered_clearly() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    projection = L0Projection(model, 0.5).attach(optimizer)
    with pytest.raises(ValueError, match="attached already"):
        projection.attach(optimizer)
    with pytest.raises(ValueError, match="none of the selected parameters"):
        L0Projection(network(), 0.5).attach(optimizer)
    with pytest.raises(TypeError, match="must be a torch"):
        L0Projection(model, 0.5).attach(model)
    for sparsity in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="sparsity must"):
            L0Projection(model, sparsity)
    with pytest.raises(ValueError, match="every"):
        L0Projection(model, 0.5, every=0)
    with pytest.raises(ValueError, match="Cubic"):
        L0Projection(model, 0.5, schedule="cubic")
    with pytest.raises(ValueError, match="may not fall"):
        L0Projection(model, 0.5, schedule=Cubic(end=9, initial=0.6))
    with pytest.raises(ValueError, match="no trainable weight"):
        L0Projection(nn.ReLU(), 0.5)
    with pytest.raises(TypeError, match="complex64"):
        L0Projection(nn.Linear(2, 2, dtype=torch.complex64), 0.5)


def test_a_weight_that_becomes_nan_stops_the_step_by_name() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    L0Projection(model, 0.5).attach(optimizer)
    model[2].bias.grad = torch.tensor([0.0, float("nan"), 0.0])
    with pytest.raises(ValueError, match=r"2\.bias is NaN at position \(1,\)"):
        optimizer.step()
