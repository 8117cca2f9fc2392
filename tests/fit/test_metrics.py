"""Metrics beside scikit-learn, intervals beside scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from graphsparse.fit import (
    METRICS,
    Metric,
    accuracy,
    find_metric,
    finite_or_none,
    mean_ci,
    paired_difference,
    rocauc,
)

figures = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 5))
def test_accuracy_is_scikit_learns(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(30, classes, generator=generator)
    targets = torch.randint(0, classes, (30,), generator=generator)
    assert accuracy(outputs, targets) == pytest.approx(accuracy_score(targets, outputs.argmax(1)))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_rocauc_is_scikit_learns(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(30, 2, generator=generator)
    targets = torch.arange(30) % 2
    expected = roc_auc_score(targets, outputs.softmax(1)[:, 1].double())
    assert rocauc(outputs, targets) == pytest.approx(expected)
    single = outputs[:, 1:] - outputs[:, :1]
    assert rocauc(single, targets) == rocauc(single[:, 0], targets) == pytest.approx(expected)


def test_one_output_column_is_a_sign() -> None:
    assert accuracy(torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)


def test_rocauc_says_when_it_is_undefined() -> None:
    with pytest.raises(ValueError, match="all targets are of one class"):
        rocauc(torch.randn(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="the model has 3 outputs"):
        rocauc(torch.randn(3, 3), torch.tensor([0, 1, 1]))


def test_metrics_by_name() -> None:
    assert find_metric("rocauc") is METRICS["rocauc"]
    own = Metric("error", lambda outputs, targets: 1 - accuracy(outputs, targets), maximize=False)
    assert find_metric(own) is own
    assert (own.direction, METRICS["accuracy"].direction) == ("min", "max")
    assert own.at_least(0.1, 0.2)
    assert own.at_least(0.2, 0.2)
    assert not own.at_least(0.3, 0.2)
    with pytest.raises(ValueError, match="unknown metric 'acc'"):
        find_metric("acc")


@settings(deadline=None)
@given(values=figures, confidence=st.floats(0.5, 0.999))
def test_interval_is_scipys(values: list[float], confidence: float) -> None:
    mean, half = mean_ci(values, confidence)
    assert mean == pytest.approx(np.mean(values))
    spread = stats.sem(values)
    if spread > 1e-9:
        low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=spread)
        assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))


def test_interval_by_hand() -> None:
    """Three values 1, 2, 3: s = 1, t = 4.3027, half-width 4.3027 / sqrt(3)."""
    assert mean_ci([1, 2, 3]) == (2.0, pytest.approx(4.30265 / math.sqrt(3), rel=1e-5))


def test_one_value_has_no_interval() -> None:
    mean, half = mean_ci([0.8])
    assert mean == 0.8
    assert math.isnan(half)
    assert finite_or_none(half) is None


def test_pairs_cancel_what_seeds_share() -> None:
    first, second = [0.70, 0.80, 0.90], [0.69, 0.79, 0.89]
    difference = paired_difference(first, second)
    assert difference.mean == pytest.approx(0.01)
    assert difference.half_width < 1e-9
    assert (difference.wins, difference.pairs) == (3, 3)


def test_bad_figures() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_ci([])
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\), got 95"):
        mean_ci([1, 2], 95)
    with pytest.raises(ValueError, match="equally many runs, got 2 and 1"):
        paired_difference([1, 2], [1])


def test_a_metric_of_ones_own_is_registered():
    METRICS.register("half", Metric("half", lambda outputs, targets: 0.5))
    try:
        assert find_metric("half").score(None, None) == 0.5
    finally:
        del METRICS["half"]
    with pytest.raises(TypeError, match="is no metric"):
        METRICS.register("number", 3)
