"""Compiled loops beside torch's own operations: the same bits, whatever the weights are."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from graphsparse.params import NofM, Shrink, Sparsifier, StraightThrough
from graphsparse.params.largest import Guess, mark_largest
from graphsparse.params.tensors import keep_only_

SHAPE = (256, 512)


def weights(seed: int = 0) -> Tensor:
    found = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return (found * 8).round() / 8 if seed % 2 else found  # many ties


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 1000, 131071])
def test_a_guess_changes_nothing(seed: int, k: int) -> None:
    guess, masks = Guess(), [torch.empty(SHAPE, dtype=torch.bool) for _ in range(2)]
    w = weights(seed)
    for factor in (1.0, 1.001, 0.999, 4.0, 0.0, 1.0):  # near, far, and all alike
        mark_largest({"w": w * factor}, masks[:1], k, zero=False)
        mark_largest({"w": w * factor}, masks[1:], k, zero=False, guess=guess)
        assert torch.equal(*masks)
        assert int(masks[1].sum()) == k
    w[3, 5] = float("nan")
    with pytest.raises(ValueError, match=r"w is NaN at position \(3, 5\)"):
        mark_largest({"w": w}, masks[1:], k, zero=False, guess=guess)
    w[3, 5] = float("inf")
    mark_largest({"w": w}, masks[1:], k, zero=False, guess=guess)
    assert bool(masks[1][3, 5])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_runs_of_four_are_those_of_torch(seed: int, n: int) -> None:
    w = weights(seed)
    assert torch.equal(NofM(n, 4).mask({"w": w})["w"], NofM(n, 4, 0).mask({"w": w.T})["w"].T)
    w[200, 9] = float("nan")
    with pytest.raises(ValueError, match=r"NaN at position \(200, 9\)"):
        NofM(n, 4).mask({"w": w})


def test_what_is_not_kept_is_zero_whatever_it_was() -> None:
    w, mask = weights(), torch.rand(SHAPE) < 0.5
    w[0, 0], w[0, 1], mask[0, :2] = float("nan"), -1.0, False
    expected = w.masked_fill(~mask, 0)
    version = w._version
    keep_only_(w, mask)
    assert torch.equal(w, expected)
    assert not bool(torch.signbit(w[0, 1]))
    assert w._version > version


def steps(rule: object, keep: str, *, slow: bool) -> dict[str, Tensor]:
    """The same training of one large layer, in float32 with or without compiled loops."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(512, 256), nn.Tanh(), nn.Linear(256, 4))
    if slow:  # a column more is a step between rows: no loop takes it
        wide = torch.zeros(256, 513)
        wide[:, :512] = net[0].weight.detach()
        net[0].weight = nn.Parameter(wide[:, :512])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    s = Sparsifier(net, keep=keep, rule=rule, steps=8).attach(optimizer)  # type: ignore[arg-type]
    for step in range(5):
        optimizer.zero_grad()
        x = torch.randn(8, 512, generator=torch.Generator().manual_seed(step))
        net(x).square().sum().backward()
        optimizer.step()
    assert s.churn > 0
    state = s.state_dict()
    s.finish()
    return {**{f"mask {n}": m for n, m in state["masks"].items()}, **dict(net.named_parameters())}


@pytest.mark.parametrize(("rule", "keep"), [(StraightThrough(), "2:4"), (Shrink(0.9), "0.1")])
def test_training_has_the_same_bits_without_them(rule: object, keep: str) -> None:
    fast, slow = steps(rule, keep, slow=False), steps(rule, keep, slow=True)
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        assert torch.equal(value, slow[name]), name
    assert Fraction(int(fast["mask 0.weight"].sum()), 256 * 512) <= Fraction(1, 2)
