"""Dropout: its rate, its scale, its gradient and its seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.nn.dropout import dropout


@settings(deadline=None, max_examples=30)
@given(p=st.floats(0.01, 0.99), seed=st.integers(0, 2**31), size=st.integers(20_000, 20_007))
def test_rate_and_mean(p: float, seed: int, size: int) -> None:
    torch.manual_seed(seed)
    out = dropout(torch.ones(size), p, training=True)
    deviation = (p * (1 - p) / size) ** 0.5
    assert abs(float((out == 0).float().mean()) - p) < 6 * deviation
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - round(p * 65536) / 65536)))


def test_neighbouring_draws_are_independent() -> None:
    """Four elements share one 64-bit draw; none of the four may follow another."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5, training=True) != 0).double().reshape(-1, 4)
    correlation = torch.corrcoef(kept.t()) - torch.eye(4, dtype=torch.float64)
    assert float(correlation.abs().max()) < 0.02


def test_gradient_is_that_of_the_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    out = dropout(x, 0.3, training=True)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, out.detach() / x.detach())


def test_seeded() -> None:
    x = torch.ones(1001)
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(dropout(x, 0.5, training=True))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize(("p", "training", "expected"), [(0.5, False, 1.0), (0.0, True, 1.0), (1.0, True, 0.0)])
def test_edges_of_the_range(p: float, training: bool, expected: float) -> None:
    assert dropout(torch.ones(9), p, training).tolist() == [expected] * 9


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_keeps_type_and_shape(dtype: torch.dtype) -> None:
    out = dropout(torch.ones(3, 5, dtype=dtype), 0.5, training=True)
    assert out.dtype == dtype
    assert out.shape == (3, 5)
