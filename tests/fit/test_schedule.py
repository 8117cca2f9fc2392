"""Learning rates over steps and clipped gradients, alone and in runs that are interrupted."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler

from graphsparse.errors import DataError
from graphsparse.fit import Callback, ClipNorm, FitResult, Schedule, Task, cosine, fit, milestones

STEPS = 3 * 9  # of a run below: 40 examples in batches of 16, 9 epochs
SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True)

SCHEDULES = {
    "cosine": lambda: cosine(STEPS),
    "warm": lambda: cosine(STEPS, warmup=5),
    "milestones": lambda: milestones([4, 13, 20], gamma=0.3),
    "step": lambda: Schedule(partial(lr_scheduler.StepLR, step_size=4, gamma=0.7)),
    "exponential": lambda: Schedule(partial(lr_scheduler.ExponentialLR, gamma=0.9)),
    "chained cosine": lambda: Schedule(partial(lr_scheduler.CosineAnnealingLR, T_max=STEPS)),
    "one cycle": lambda: Schedule(partial(lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=STEPS + 1)),
    "restarts": lambda: Schedule(partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=5, T_mult=2)),
    "sequence": lambda: Schedule(in_sequence),
}


def in_sequence(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    parts = [
        lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=6),
        lr_scheduler.MultiStepLR(optimizer, [5, 11]),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[6])


def new_optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=lr)


def rates(schedule: Schedule, steps: int, lr: float = 1.0) -> list[float]:
    optimizer = new_optimizer(lr)
    schedule.attach(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    schedule.detach()
    return found


@settings(deadline=None, max_examples=50)
@given(steps=st.integers(1, 60), share=st.floats(0, 0.99), lr=st.floats(1e-4, 10))
def test_cosine_is_its_formula(steps: int, share: float, lr: float) -> None:
    warmup = int(share * steps)
    found = rates(cosine(steps, warmup=warmup), steps + 3, lr)
    for step, rate in enumerate(found):
        if step < warmup:
            expected = lr * (step + 1) / warmup
        else:
            expected = lr / 2 * (1 + math.cos(math.pi * min(1, (step - warmup) / (steps - warmup))))
        assert rate == pytest.approx(expected, abs=1e-12 * lr)
    assert max(found) == found[warmup] == lr
    assert min(found[:steps]) > 0 == found[steps]


@settings(deadline=None, max_examples=50)
@given(at=st.sets(st.integers(1, 30)), gamma=st.floats(0.1, 2))
def test_milestones_are_their_formula(at: set[int], gamma: float) -> None:
    for step, rate in enumerate(rates(milestones(sorted(at), gamma), 32)):
        assert rate == pytest.approx(gamma ** sum(stone <= step for stone in at))


def test_the_factor_of_milestones_is_a_tenth() -> None:
    assert rates(milestones([2]), 4) == [1.0, 1.0, 0.1, 0.1]


def test_every_group_keeps_its_own_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (1.0, 10.0)]
    optimizer = torch.optim.Adam(groups)
    schedule = milestones([1])
    schedule.attach(optimizer)
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]


def test_a_schedule_begins_anew_with_every_run() -> None:
    schedule = cosine(5)
    assert rates(schedule, 5) == rates(schedule, 5)


def test_nothing_happens_after_detach() -> None:
    optimizer = new_optimizer()
    schedule, clip = milestones([1, 2]), ClipNorm(1e-3)
    for callback in (schedule, clip):
        callback.attach(optimizer)
        callback.detach()
        callback.detach()
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad = torch.ones(2)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert weight.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("callback", [cosine(3), ClipNorm(1.0)], ids=["schedule", "clip"])
def test_attaching_twice_is_an_error(callback: Callback) -> None:
    callback.attach(new_optimizer())
    with pytest.raises(ValueError, match="attached already"):
        callback.attach(new_optimizer())
    callback.detach()
    callback.attach(new_optimizer())
    callback.detach()


@pytest.mark.parametrize("make", [lr_scheduler.ReduceLROnPlateau, lambda optimizer: 0.1], ids=["plateau", "number"])
def test_only_schedulers_that_count_steps(make: Any) -> None:
    schedule = Schedule(make)
    with pytest.raises(TypeError, match="only counts steps"):
        schedule.attach(new_optimizer())
    schedule.detach()


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=6), bound=st.floats(1e-3, 1e3))
def test_the_joint_norm_is_bounded(values: list[float], bound: float) -> None:
    halves = [torch.tensor(values[:1]), torch.tensor(values[1:])]
    weights = [nn.Parameter(torch.zeros(len(half))) for half in halves]
    optimizer = torch.optim.SGD(weights, lr=1.0)
    clip = ClipNorm(bound)
    clip.attach(optimizer)
    for weight, half in zip(weights, halves, strict=True):
        weight.grad = half.clone()
    optimizer.step()
    moved, gradient = -torch.cat([w.detach() for w in weights]), torch.cat(halves)
    norm = float(gradient.norm())
    torch.testing.assert_close(moved, gradient * min(1.0, bound / max(norm, 1e-12)), rtol=1e-3, atol=1e-5)


def test_weights_without_a_gradient_are_fine() -> None:
    optimizer = new_optimizer()
    ClipNorm(1.0).attach(optimizer)
    optimizer.step()


# ----- in runs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.dropout(self.norm(self.first(x)).relu(), 0.3, self.training))


class StopError(Exception):
    """What interrupts the runs below."""


def train(*callbacks: Callback, stop: int | None = None, **options: Any) -> FitResult:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator)
    y = (x[:, 0] + x[:, 1] ** 2).clamp(0, 2.9).long()
    parts = [(x[rows], y[rows]) for rows in (slice(0, 40), slice(40, 60), slice(60, 80))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Net()

    def report(done: int, total: int, figures: Any) -> None:
        if done == stop:
            raise StopError

    settings = {"epochs": 9, "lr": 0.05, "optimizer": SGD, "checkpoint_every": 2, "progress": report, **options}
    return fit(model, Task(*parts, batch_size=16), callbacks=callbacks, **settings)


def assert_same(one: FitResult, two: FitResult) -> None:
    assert (one.best_epoch, one.val, one.test, one.history) == (two.best_epoch, two.val, two.test, two.history)
    for name, value in one.state.items():
        assert torch.equal(value, two.state[name]), name


@pytest.mark.parametrize("stop", [3, 8])
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interrupted_run_ends_as_one_that_was_not(name: str, stop: int, tmp_path: Path) -> None:
    make = SCHEDULES[name]
    with pytest.raises(StopError):
        train(make(), ClipNorm(0.5), stop=stop, checkpoint=tmp_path / "a")
    resumed = train(make(), ClipNorm(0.5), checkpoint=tmp_path / "a")
    whole = train(make(), ClipNorm(0.5))
    assert_same(resumed, whole)


def test_adam_resumes_too(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(cosine(STEPS), stop=5, checkpoint=tmp_path / "a", optimizer=None)
    assert_same(train(cosine(STEPS), checkpoint=tmp_path / "a", optimizer=None), train(cosine(STEPS), optimizer=None))


def test_both_matter() -> None:
    plain = train().history
    assert train(cosine(STEPS)).history != plain
    assert train(ClipNorm(0.1)).history != plain


def test_the_optimizer_is_told_in_time(recwarn: pytest.WarningsRecorder) -> None:
    """torch warns where a scheduler steps before its optimizer."""
    train(cosine(STEPS), milestones([3]))
    assert not [str(warning.message) for warning in recwarn if "lr_scheduler" in str(warning.message)]


@pytest.mark.parametrize(
    "other",
    [
        lambda: [cosine(STEPS + 1), ClipNorm(0.5)],
        lambda: [cosine(STEPS, warmup=1), ClipNorm(0.5)],
        lambda: [milestones([3]), ClipNorm(0.5)],
        lambda: [cosine(STEPS), ClipNorm(0.6)],
        lambda: [cosine(STEPS)],
        lambda: [ClipNorm(0.5), cosine(STEPS)],
    ],
)
def test_other_settings_are_another_run(other: Any, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(cosine(STEPS), ClipNorm(0.5), stop=3, checkpoint=tmp_path / "a")
    with pytest.raises(DataError, match="callbacks"):
        train(*other(), checkpoint=tmp_path / "a")


def test_a_state_of_another_kind_is_refused() -> None:
    schedule, other = cosine(5), milestones([2])
    schedule.attach(new_optimizer())
    other.attach(new_optimizer())
    with pytest.raises(ValueError, match="LambdaLR"):
        other.load_state_dict(schedule.state_dict())
    with pytest.raises(ValueError, match=r"max_norm = 2\.0"):
        ClipNorm(1.0).load_state_dict(ClipNorm(2.0).state_dict())
    other.detach()
    with pytest.raises(ValueError, match="None"):
        other.load_state_dict(schedule.state_dict())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cosine(0), "0 <= warmup < steps"),
        (lambda: cosine(5, warmup=5), "0 <= warmup < steps"),
        (lambda: cosine(5, warmup=-1), "0 <= warmup < steps"),
        (lambda: milestones([0, 3]), "from 1 on"),
        (lambda: milestones([5, 3]), "later than the one before"),
        (lambda: milestones([3, 3]), "later than the one before"),
        (lambda: milestones([3], gamma=0.0), "gamma must be a positive number"),
        (lambda: milestones([3], gamma=math.nan), "gamma must be a positive number"),
        (lambda: ClipNorm(0.0), "max_norm must be a positive number"),
        (lambda: ClipNorm(math.inf), "max_norm must be a positive number"),
    ],
)
def test_bad_input_is_named(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
