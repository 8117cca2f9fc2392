"""Planted networks are found again, and what cannot be is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphsparse.params import recover


def planted(p: int, d: int, n: int, s: int, seed: int, *, gated: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, gates = (torch.randn(rows, d, generator=g, dtype=torch.float64) for rows in (n, p))
    weights = torch.zeros(p * d, dtype=torch.float64)
    weights[torch.randperm(p * d, generator=g)[:s]] = torch.randn(s, generator=g, dtype=torch.float64)
    weights = weights.view(p, d)
    signs = torch.where(torch.arange(p) % 2 == 0, 1.0, -1.0).double()
    y = torch.where(x @ (gates if gated else weights).T >= 0, x @ weights.T, 0) @ signs
    return x, y, gates, weights, signs


@pytest.mark.parametrize("s", [5, 20])
def test_planted_weights_behind_known_gates_are_recovered(s: int) -> None:
    x, y, gates, weights, signs = planted(30, 20, 1000, s, s, gated=True)
    found = recover(x, y, f"{s}/600", gates=gates, signs=signs)
    assert torch.allclose(found.weights(), weights, atol=1e-7)
    assert torch.allclose(found.predict(x), y, atol=1e-7)
    assert len(found.values) == s
    assert found.losses[-1] < 1e-12 * found.losses[0]


def test_a_small_relu_network_is_recovered_and_is_one_of_torch() -> None:
    x, y, _, _, signs = planted(2, 20, 1000, 6, 0, gated=False)
    found = recover(x, y, "6/40", neurons=2, signs=signs, steps=100)
    assert torch.allclose(found.network()(x).squeeze(1), y, atol=1e-6)
    assert int(found.network()[0].weight.count_nonzero()) == 6


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, gates, _, signs = planted(12, 10, 200, 8, 1, gated=True)
    whole = recover(x, y, "8/120", gates=gates, signs=signs)
    monkeypatch.setattr(sys.modules["graphsparse.params.recovery"], "_BLOCK", 3 * 200)
    parts = recover(x, y, "8/120", gates=gates, signs=signs)
    assert torch.equal(parts.neurons, whole.neurons)
    assert torch.allclose(parts.values, whole.values)


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.size = max([self.size, *(part.numel() for part in pytree.tree_leaves(made) if isinstance(part, Tensor))])
        return made


@pytest.mark.parametrize(("n", "d"), [(8, 150), (150, 8)])
def test_no_tensor_is_larger_than_a_block_or_the_inputs(n: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more inputs than examples, too, where slopes are larger than activations."""
    monkeypatch.setattr(sys.modules["graphsparse.params.recovery"], "_BLOCK", 2000)
    x, y, _, _, signs = planted(64, d, n, 20, 0, gated=False)
    with Largest() as made:
        recover(x, y, f"20/{64 * d}", neurons=64, signs=signs, steps=2)
    assert made.size <= 2000


def test_what_cannot_be_fitted_is_told() -> None:
    x, y = torch.randn(8, 3), torch.randn(8)
    for call, said in (
        (lambda: recover(x, y[:3], 0.5), r"x is \[n, d\] and y \[n\], got \[8, 3\] and \[3\]"),
        (lambda: recover(x, y, 0), r"keep must lie in \(0, 1\]"),
        (lambda: recover(x, y * float("nan"), 0.5), r"y is nan at position \(0,\)"),
        (lambda: recover(x, y, 0.5, gates=torch.ones(2, 4)), r"gates are \[p, 3\], got \[2, 4\]"),
        (lambda: recover(x, y, 0.5, neurons=2, signs=torch.ones(3)), r"signs are \[2\], one a neuron, got \[3\]"),
        (lambda: recover(x, y, 0.5, neurons=0), "neurons must be at least 1"),
        (lambda: recover(x, y, 0.5, gates=torch.ones(2, 3)).network(), "no ReLU network"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="x must be a dense floating-point tensor"):
        recover(x.long(), y, 0.5)
