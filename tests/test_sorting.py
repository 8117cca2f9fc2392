"""Radix sorts and hashes in compiled loops: numpy's own order and bits, on one thread and on three."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse import keep_rule, parallel, sorting
from graphsparse.keep_rule import mix64
from graphsparse.sorting import best_first, smallest, sorted_order

WIDTHS = st.sampled_from([1, 7, 33, 62])


@pytest.fixture(params=[1, 3], autouse=True)
def compiled(request, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(parallel, "SERIAL_BELOW", 0)
    monkeypatch.setattr(sorting, "RADIX_FROM", 1)
    monkeypatch.setattr(keep_rule, "RADIX_FROM", 1)
    yield
    torch.set_num_threads(before)


def test_whole_numbers():
    @settings(deadline=None, max_examples=40, database=None)
    @given(st.data(), WIDTHS)
    def check(data, width):
        keys = np.array(data.draw(st.lists(st.integers(0, (1 << width) - 1), max_size=50)), np.int64)
        assert sorted_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()

    check()
    words = np.array([5, (1 << 64) - 1, 1 << 63, 0, 5, 1 << 63], np.uint64)
    assert sorted_order(words).tolist() == [3, 0, 4, 2, 5, 1]


def test_scores_with_tie_keys():
    numbers = st.sampled_from([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, 5e-324, 1e300, -1e300])

    @settings(deadline=None, max_examples=40, database=None)
    @given(st.lists(st.tuples(numbers, st.integers(0, 3)), max_size=40), st.sampled_from([np.float32, np.float64]))
    def check(drawn, dtype):
        with np.errstate(over="ignore"):
            scores = np.array([score for score, _ in drawn]).astype(dtype)
        keys = np.array([key for _, key in drawn], np.uint64)
        assert best_first(scores, keys).tolist() == np.lexsort((keys, -scores)).tolist()

    check()


def test_hashes(monkeypatch):
    generator = np.random.default_rng(0)
    first, one = generator.integers(-5, 1 << 60, 1000), np.full(1, 7)
    second = generator.integers(0, 1 << 63, 1000).astype(np.uint64) * np.uint64(2)
    for parts in ((first, second), (one, first), (first, one, second), (second,)):
        monkeypatch.setattr(keep_rule, "RADIX_FROM", 2)
        compiled = mix64(3, *parts)
        monkeypatch.setattr(keep_rule, "RADIX_FROM", 1 << 60)
        assert np.array_equal(compiled, mix64(3, *parts))


@given(keys=st.lists(st.integers(0, 5), max_size=20), count=st.integers(0, 20))
def test_the_smallest_are_those_of_a_stable_sort(keys, count):
    count = min(count, len(keys))
    expected = np.zeros(len(keys), bool)
    expected[np.argsort(np.array(keys, np.uint64), kind="stable")[:count]] = True
    assert smallest(np.array(keys, np.uint64), count).tolist() == expected.tolist()
