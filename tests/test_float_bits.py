"""The one radix selection: the k-th largest float of several pieces, with or without the sign."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.float_bits import kth_largest
from graphsparse.keep_rule import threshold, top_mask
from graphsparse.params import project_l0_

SPECIAL = [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 2.0**-149, -(2.0**-149), 1.0 + 2**-20, -1.0 - 2**-20]
values = st.one_of(st.sampled_from(SPECIAL), st.floats(-4, 4, width=32))


def value_of(key: int, dtype: type) -> float:
    integer = np.int32 if dtype is np.float32 else np.int64
    return float(integer(key if key >= 0 else -key | ~int(np.iinfo(integer).max)).view(dtype)) + 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [False, True])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_it_is_the_kth_of_a_sort_over_all_pieces(dtype, magnitude, data):
    pieces = [np.array(data.draw(st.lists(values, max_size=70)), dtype) for _ in range(data.draw(st.integers(1, 4)))]
    flat = np.concatenate(pieces)
    if not len(flat):
        return
    flat = np.abs(flat) if magnitude else flat
    k, parts = data.draw(st.integers(1, len(flat))), data.draw(st.integers(1, len(pieces)))
    bits = [piece.view(np.int32 if dtype is np.float32 else np.int64) for piece in pieces]
    key, above, equal = kth_largest(bits, k, parts, lambda: None, magnitude=magnitude)
    expected = np.sort(flat)[::-1][k - 1]
    assert value_of(key, dtype) == expected
    assert above == int((flat > expected).sum())
    assert equal == int((flat == expected).sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [False, True])
def test_nans_are_looked_for_where_one_is_possible(dtype, magnitude):
    def asked(*numbers):
        calls = []
        array = np.array([0.5, -3e38, 3e38, *numbers], dtype)
        bits = array.view(np.int32 if dtype is np.float32 else np.int64)
        kth_largest([bits], 1, 1, lambda: calls.append(1), magnitude=magnitude)
        return bool(calls)

    least = np.array([np.inf], dtype).view(np.int32 if dtype is np.float32 else np.int64) + 1
    assert asked(np.nan)
    assert asked(-np.array(np.nan, dtype))
    assert asked(least.view(dtype)[0])  # the NaN whose bits are next to infinity's
    assert asked((-least.view(dtype))[0])
    assert not asked(1.0)
    if not magnitude:
        assert not asked(-np.inf)


@pytest.mark.parametrize("size", [100, 70_000])
def test_infinities_before_a_nan_are_not_taken_for_it(size):
    numbers = torch.linspace(1, 2, size)
    numbers[2], numbers[4] = torch.inf, -torch.inf
    assert threshold(numbers, 1).value == torch.inf
    assert threshold(numbers, size).value == -torch.inf
    assert project_l0_([numbers.clone()], 2 / size)[0].nonzero().view(-1).tolist() == [2, 4]
    numbers[9] = torch.nan
    for call in (lambda: threshold(numbers, 3), lambda: top_mask(numbers, 3)):
        with pytest.raises(ValueError, match="the score at position 9 is NaN"):
            call()
    before = numbers.clone()
    for keep in (0.5, 1.0):
        with pytest.raises(ValueError, match=r"tensor 1 is NaN at position \(9,\)"):
            project_l0_([torch.ones(3), numbers], keep)
    assert torch.equal(numbers.nan_to_num(7), before.nan_to_num(7))


def test_integers_and_halves_are_widened_exactly():
    whole = torch.tensor([2**24, 2**24 + 1, 2**53 - 1, 2**53 - 2])
    assert threshold(whole, 1).value == 2**53 - 1
    assert threshold(whole, 2).value == 2**53 - 2
    assert threshold(whole, 3).value == 2**24 + 1
    assert top_mask(whole, 3).tolist() == [False, True, True, True]
    assert top_mask(whole.to(torch.int32)[:2], 1).tolist() == [False, True]
    assert threshold(torch.tensor([0.1], dtype=torch.bfloat16), 1).value == float(torch.tensor(0.1).bfloat16())
