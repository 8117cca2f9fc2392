"""The keep rule, the exact threshold and the threads beneath both."""

import time
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse import keep_rule
from graphsparse.keep_rule import check_seed, exact_fraction, keep_fraction, kept_count, mix64, threshold, top_mask
from graphsparse.parallel import over_slices, slices

floats = st.floats(allow_nan=False, width=32)


@pytest.mark.parametrize(
    ("keep", "total", "count"),
    [(0.7, 10, 7), (0.1, 7, 1), (1e-9, 5, 1), (0.5, 0, 0), (1.0, 3, 3), ("1/3", 9, 3), (Decimal("0.6"), 5, 3)],
)
def test_kept_count_by_hand(keep, total, count):
    assert kept_count(keep, total) == count


def test_keep_is_the_decimal_that_was_written():
    assert kept_count(0.1, 30) == 3  # 0.1 as a binary float is larger than 1/10, and its product would round up to 4
    assert kept_count(0.7, 10**17) == 7 * 10**16
    assert exact_fraction(np.float32(0.5)) == Fraction(1, 2)


@given(st.integers(1, 10**6), st.integers(1, 10**12))
def test_kept_count_is_the_exact_ceiling(parts, total):
    keep = Fraction(parts, 10**6)
    count = kept_count(keep, total)
    assert count >= keep * total > count - 1


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.0001, 2])
def test_keep_outside_its_range(keep):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        keep_fraction(keep)


@pytest.mark.parametrize("keep", [float("nan"), float("inf"), "a lot"])
def test_keep_that_is_not_finite(keep):
    with pytest.raises(ValueError, match="finite number"):
        keep_fraction(keep)


@pytest.mark.parametrize("keep", [None, True, [0.5], 1j])
def test_keep_that_is_no_number(keep):
    with pytest.raises(TypeError, match="keep must be a number"):
        keep_fraction(keep)


@pytest.mark.parametrize("engine", ["partition", "radix", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(deadline=None, max_examples=40)
@given(values=st.lists(floats, min_size=1, max_size=60), data=st.data())
def test_threshold_is_the_kth_of_a_sort(engine, dtype, values, data):
    scores = torch.tensor(values, dtype=dtype)
    k = data.draw(st.integers(1, len(values)))
    if engine == "partition":
        found = threshold(scores, k)
    else:
        array = scores.numpy()
        found = keep_rule._threshold_radix(array, k) if engine == "radix" else keep_rule._threshold_torch(scores, k)
    expected = sorted(scores.tolist(), reverse=True)[k - 1]
    assert found.value == expected
    assert found.above == int((scores > expected).sum())
    assert found.equal == int((scores == expected).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32, torch.int64])
@pytest.mark.parametrize("threads", [1, 2])
def test_threshold_of_many(dtype, threads):
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(300_000, generator=generator) * 1000).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for k in (1, 2, 150_000, 299_999, 300_000):
            found = threshold(scores, k)
            expected = scores.to(torch.float64).sort(descending=True).values[k - 1]
            assert found.value == expected
            assert found.above < k <= found.above + found.equal
    finally:
        torch.set_num_threads(before)


def test_threshold_of_equal_scores_and_zeros():
    assert threshold(torch.zeros(70_000), 3) == keep_rule.Threshold(0.0, 0, 70_000)
    zeros = torch.tensor([0.0, -0.0]).repeat(40_000)
    assert threshold(zeros, 3) == keep_rule.Threshold(0.0, 0, 80_000)
    extremes = torch.tensor([torch.inf, -torch.inf, 1.0, 5e-324], dtype=torch.float64).repeat(20_000)
    assert threshold(extremes, 40_001) == keep_rule.Threshold(5e-324, 40_000, 20_000)
    assert threshold(extremes, 80_000) == keep_rule.Threshold(-torch.inf, 60_000, 20_000)


@pytest.mark.parametrize("size", [100, 400_000])
def test_nan_is_named_by_its_first_position(size):
    scores = torch.rand(size)
    scores[[7, 60, size - 1]] = torch.nan
    scores[60] = -torch.tensor(torch.nan)
    for call in (lambda: threshold(scores, 3), lambda: top_mask(scores, size), lambda: top_mask(scores, 4)):
        with pytest.raises(ValueError, match="position 7 is NaN"):
            call()


@pytest.mark.parametrize("k", [0, 4, -1])
def test_rank_out_of_range(k):
    with pytest.raises(ValueError, match=r"1\.\.3"):
        threshold(torch.rand(3), k)


def test_complex_scores():
    with pytest.raises(TypeError, match="real"):
        threshold(torch.ones(3, dtype=torch.complex64), 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.data())
def test_top_mask_is_exact_and_takes_ties_by_key(values, data):
    scores = torch.tensor(values, dtype=torch.float32)
    k = data.draw(st.integers(0, len(values)))
    keys = data.draw(st.permutations(range(len(values))))
    mask = top_mask(scores, k, lambda tied: np.array(keys, np.uint64)[tied.numpy()])
    best = sorted(range(len(values)), key=lambda i: (-values[i], keys[i]))[:k]
    assert mask.nonzero().view(-1).tolist() == sorted(best)


def test_top_mask_takes_the_earliest_without_keys():
    assert top_mask(torch.tensor([1, 2, 1, 1]), 3).tolist() == [True, True, True, False]


def test_keys_are_the_same_everywhere_and_differ():
    keys = mix64(7, np.arange(1000), np.arange(1000)[::-1])
    assert keys.dtype == np.uint64
    assert len(set(keys.tolist())) == 1000
    assert mix64(0, np.array([1]))[0] == 0x910A2DEC89025CC1  # SplitMix64's second state
    assert (mix64(7, np.arange(5)) != mix64(8, np.arange(5))).all()
    assert mix64(-1, np.array([-1])) == mix64(2**64 - 1, np.array([2**64 - 1], np.uint64))


@given(st.integers(0, 10**7), st.integers(1, 9))
def test_slices_cover_the_range_once(n, parts):
    cuts = slices(n, parts)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == n
    assert all(a[1] == b[0] for a, b in pairwise(cuts))
    assert max(b - a for a, b in cuts) - min(b - a for a, b in cuts) <= 1


def test_over_slices_keeps_order_and_passes_errors_on():
    assert over_slices(lambda a, b: (a, b), 9, parts=3) == [(0, 3), (3, 6), (6, 9)]
    with pytest.raises(ZeroDivisionError):
        over_slices(lambda a, b: 1 // a, 9, parts=3)


@pytest.mark.parametrize(
    "value",
    [
        "1e-99999999", "1E99999999", "1e1_000_0", "0." + "3" * 10**6, "1/" + "7" * 5000, "1e" + "9" * 5000,
        Decimal("1e-99999999"), Decimal("1E+5000"), Fraction(1, 10**5000), 10**5000,
    ],
    ids=range(10),
)  # fmt: skip
def test_a_number_that_would_take_the_memory_is_one_sentence_at_once(value):
    started = time.process_time()
    for call in (keep_fraction, lambda given: exact_fraction(given, "keep"), lambda given: kept_count(given, 10)):
        with pytest.raises(ValueError, match="keep must be a number of ordinary length") as caught:
            call(value)
        assert len(str(caught.value)) < 200
    assert time.process_time() - started < 1


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("-Infinity"), Decimal("sNaN"), np.float32("nan"), "1/0", ""])
def test_numbers_of_every_kind_that_are_not_finite(value):
    with pytest.raises(ValueError, match="keep must be a finite number"):
        keep_fraction(value)


@pytest.mark.parametrize("value", [np.complex64(1), np.bool_(True), torch.tensor(0.5), b"0.5"])
def test_scalars_that_are_no_real_numbers(value):
    with pytest.raises(TypeError, match="keep must be a number"):
        keep_fraction(value)


def test_ordinary_numbers_of_every_kind():
    assert kept_count("1e-999", 7) == kept_count(Fraction(1, 10**999), 7) == 1
    assert exact_fraction("1e1000") == 10**1000
    assert exact_fraction("0." + "3" * 998) < Fraction(1, 3)
    assert [exact_fraction(v) for v in (np.float16(0.1), np.int8(1), 5e-324, Decimal("0.10"), "1/3", 1)] == [
        Fraction(1, 10), 1, Fraction(5, 10**324), Fraction(1, 10), Fraction(1, 3), 1,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [1.5, 1.0, True, np.bool_(False), np.float64(1), "1", None, torch.tensor(1.0)])
def test_a_seed_is_a_whole_number(seed):
    for call in (check_seed, lambda given: mix64(given, np.arange(3))):
        with pytest.raises(ValueError, match="seed must be a whole number, got"):
            call(seed)


def test_seeds_of_every_kind_are_one():
    assert {check_seed(seed) for seed in (3, np.int64(3), np.uint8(3), torch.tensor(3))} == {3}
    assert (mix64(np.int64(3), np.arange(5)) == mix64(3, np.arange(5))).all()
