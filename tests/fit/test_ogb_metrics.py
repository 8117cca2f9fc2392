"""Figures of links and graphs: OGB's evaluators, an independent computation, and what OGB lets pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from graphsparse.fit import graph_metric, link_metric


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.lists(st.integers(-5, 5), min_size=30), st.lists(st.integers(-5, 5), min_size=1))
def test_hits_counts_positives_above_the_kth_negative(k: int, negative: list[int], positive: list[int]) -> None:
    kth = sorted(negative, reverse=True)[k - 1]
    expected = sum(score > kth for score in positive) / len(positive)
    metric = link_metric(f"hits@{k}")
    assert metric.maximize
    assert metric.score(torch.tensor(positive).float(), torch.tensor(negative).float()) == pytest.approx(expected)


def test_hits_of_different_k_do_not_disturb_each_other() -> None:
    positive, negative = torch.tensor([2.5]), torch.tensor([3.0, 2.0, 1.0])
    first, second = link_metric("hits@1"), link_metric("hits@2")
    assert [m.score(positive, negative) for m in (first, second, first)] == [0.0, 1.0, 0.0]


def test_mrr_by_hand() -> None:
    negative = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert link_metric("mrr").score(torch.tensor([2.0, 2.0]), negative) == pytest.approx((1 + 1 / 3) / 2)


def test_rocauc_of_links_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(40, generator=generator) + 1, torch.randn(30, generator=generator)
    expected = roc_auc_score([1] * 40 + [0] * 30, torch.cat([positive, negative]).numpy())
    assert link_metric("rocauc").score(positive, negative) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["rocauc", "ap"])
def test_classification_ignores_missing_targets_and_tasks_of_one_class(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(60, 3, generator=generator)
    targets = (torch.rand(60, 3, generator=generator) < 0.4).float()
    targets[:20, 0] = float("nan")
    targets[:, 2] = 1.0
    known = ~targets[:, 0].isnan()
    score = {"rocauc": roc_auc_score, "ap": average_precision_score}[name]
    expected = [score(targets[known, 0], outputs[known, 0]), score(targets[:, 1], outputs[:, 1])]
    assert graph_metric(name).score(outputs, targets) == pytest.approx(sum(expected) / 2)
    assert graph_metric(name).maximize


def test_rmse_is_minimised_and_a_mean_over_tasks() -> None:
    metric = graph_metric("rmse")
    targets = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    assert metric.score(torch.tensor([[3.0, 9.0], [4.0, 3.0]]), targets) == pytest.approx((12.5**0.5 + 2) / 2)
    assert not metric.maximize
    assert metric.at_least(0.5, 0.6)


@pytest.mark.parametrize("name", ["hits@0", "hits@", "precision", "hits@20x"])
def test_unknown_metrics_are_named(name: str) -> None:
    with pytest.raises(ValueError, match="there is no metric of links named"):
        link_metric(name)
    with pytest.raises(ValueError, match="'rocauc', 'ap', 'rmse' or 'accuracy'"):
        graph_metric(name)
