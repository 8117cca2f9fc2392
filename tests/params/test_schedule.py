"""Sparsity over steps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsparse.params import Constant, Cubic, Linear

F = Fraction


def test_constant_by_hand() -> None:
    assert [Constant()(step, F(9, 10)) for step in (0, 1, 100)] == [F(9, 10)] * 3
    assert [Constant(begin=3)(step, F(1, 2)) for step in (2, 3)] == [0, F(1, 2)]


def test_linear_by_hand() -> None:
    schedule = Linear(begin=10, end=14, initial=0.1)
    assert [schedule(step, F(9, 10)) for step in (0, 9, 10, 11, 13, 14, 99)] == [
        0, 0, F(1, 10), F(3, 10), F(7, 10), F(9, 10), F(9, 10),
    ]  # fmt: skip


def test_cubic_by_hand() -> None:
    """Zhu & Gupta, equation 1: s = 0.8 - 0.8 (1 - t/4)^3."""
    schedule = Cubic(end=4)
    left = [F(1), F(27, 64), F(8, 64), F(1, 64), F(0)]
    assert [schedule(step, F(4, 5)) for step in range(5)] == [F(4, 5) * (1 - part) for part in left]


def test_every_holds_the_sparsity_between_changes_and_the_end_is_exact() -> None:
    schedule = Linear(end=10, every=4)
    assert [schedule(step, F(1, 2)) for step in (0, 3, 4, 7, 8, 9, 10)] == [
        0, 0, F(1, 5), F(1, 5), F(2, 5), F(2, 5), F(1, 2),
    ]  # fmt: skip


@given(
    st.sampled_from([Linear, Cubic]),
    st.integers(0, 20),
    st.integers(1, 30),
    st.integers(1, 7),
    st.integers(0, 50).map(lambda n: F(n, 100)),
    st.integers(50, 99).map(lambda n: F(n, 100)),
)
def test_ramps_never_fall_and_end_exactly(
    kind: type[Linear] | type[Cubic], begin: int, length: int, every: int, initial: Fraction, final: Fraction
) -> None:
    schedule = kind(end=begin + length, begin=begin, every=every, initial=initial)
    values = [schedule(step, final) for step in range(begin + length + 3)]
    assert values == sorted(values)
    assert set(values[:begin]) <= {F(0)}
    assert values[begin] == initial
    assert values[begin + length] == values[-1] == final


@pytest.mark.parametrize("kind", [Linear, Cubic])
def test_ramps_that_make_no_sense(kind: type[Linear] | type[Cubic]) -> None:
    with pytest.raises(ValueError, match="begin < end"):
        kind(end=5, begin=5)
    with pytest.raises(ValueError, match="begin < end"):
        kind(end=5, begin=-1)
    with pytest.raises(ValueError, match="every"):
        kind(end=5, every=0)
    with pytest.raises(ValueError, match=r"initial must lie in \[0, 1\)"):
        kind(end=5, initial=1)
    with pytest.raises(ValueError, match="may not fall"):
        kind(end=5, initial=0.8)(0, F(1, 2))
    with pytest.raises(ValueError, match="begin is a step"):
        Constant(begin=-1)


@pytest.mark.parametrize("wrong", [4.5, 4.0, True, "4", None])
def test_steps_are_whole_numbers(wrong: object) -> None:
    for make, name in (
        (lambda: Constant(begin=wrong), "begin"),
        (lambda: Linear(end=wrong), "end"),
        (lambda: Cubic(end=9, begin=wrong), "begin"),
        (lambda: Linear(end=9, every=wrong), "every"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, got"):
            make()
