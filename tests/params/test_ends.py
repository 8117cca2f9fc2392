"""Activations at the two ends of weights: correlations beside numpy's, ensembles, and what hears nothing."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import DropGrow, Ensembles, Evidence, Hold, Modules, Sparsifier


def chosen(layer: nn.Module, x: Tensor, keep: float = 0.4) -> Tensor:
    """The mask that correlation alone chooses in one step."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    options = {"score": "hebbian", "rule": Hold(), "distribution": "uniform"}
    s = Sparsifier(layer, keep=keep, **options).attach(optimizer)  # type: ignore[arg-type]
    layer(x).sum().backward()
    layer.eval()
    layer(torch.zeros_like(x))  # a validation in between is no batch of training
    optimizer.step()
    return s.finish()["weight"]


def best(correlation: np.ndarray, shape: torch.Size, keep: float = 0.4) -> Tensor:
    scores = np.broadcast_to(np.abs(correlation).reshape(*shape[:2], *[1] * (len(shape) - 2)), shape)
    kept = np.zeros(scores.size, dtype=bool)
    kept[np.argsort(-scores.reshape(-1), kind="stable")[: kept_count(keep, scores.size)]] = True
    return torch.from_numpy(kept.reshape(shape))


def correlated(rows: Tensor, columns: Tensor) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        both = np.corrcoef(rows.detach().double().T.numpy(), columns.detach().double().T.numpy())
    return np.nan_to_num(both[: rows.shape[1], rows.shape[1] :])


def test_the_score_is_the_correlation_of_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 5), torch.randn(3, 4, 7)
    x[..., 2] = 1.0  # an end that does not vary
    expected = correlated(layer(x).reshape(12, 5), x.reshape(12, 7))
    assert torch.equal(chosen(layer, x), best(expected, layer.weight.shape))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_kernels_have_the_score_of_their_channels(kind: type[nn.Module], groups: int) -> None:
    torch.manual_seed(0)
    layer, x = kind(4, 6, 3, groups=groups), torch.randn(9, 4, 5, 5)  # type: ignore[call-arg]
    first, second = layer(x).mean((2, 3)), x.mean((2, 3))
    if kind is nn.ConvTranspose2d:
        first, second = second, first
    whole = correlated(first, second)
    rows, columns = whole.shape[0] // groups, whole.shape[1] // groups
    own = [whole[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] for i in range(groups)]
    weight = layer.weight
    assert isinstance(weight, Tensor)
    assert torch.equal(chosen(layer, x), best(np.concatenate(own), weight.shape))


def test_ensembles_are_dense_inside_and_connected_at_random() -> None:
    score = Ensembles()
    mask = torch.ones(32, 24, dtype=torch.bool)
    found = score(Evidence("w", torch.zeros(32, 24), mask, 0, 0, Fraction(1, 4)))
    inside = torch.arange(32)[:, None] * 8 // 32 == torch.arange(24) * 8 // 24
    assert bool((found[inside] >= 2).all())
    assert bool((found[~inside] < 1).all())
    net = nn.Sequential(nn.Linear(24, 32, bias=False), nn.ReLU(), nn.Linear(32, 3, bias=False))
    s = Sparsifier(net, "g2g", keep=0.25, steps=40)
    s.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    first, last = s.masks.values()
    assert bool(first[inside].all())
    density = (0.25 - 1 / 8) / (1 - 1 / 8)
    assert float(first[~inside].float().mean()) == pytest.approx(density)
    assert int(last.sum()) == 24  # too few units for ensembles: at random
    assert s.rule.first == Ensembles("random")  # type: ignore[attr-defined]


def test_what_grows_between_ensembles_is_what_is_active_together() -> None:
    torch.manual_seed(0)
    net = nn.Linear(16, 16, bias=False)
    rule = DropGrow("hebbian", every=1, until=1.0, fraction=0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    s = Sparsifier(net, keep=0.1, rule=rule, steps=4, distribution="uniform").attach(optimizer)
    x = torch.randn(20, 16)
    expected = np.abs(correlated(net(x), x))
    before = s.masks["weight"]
    net(x).sum().backward()
    optimizer.step()
    after = s.masks["weight"]
    came, never = (after & ~before).numpy(), (~after & ~before).numpy()
    assert came.any()
    assert expected[came].min() >= expected[never].max()


def test_a_copy_in_the_middle_hears_nothing_and_can_be_pickled() -> None:
    net = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    s = Sparsifier(net, "g2g", keep=0.3, steps=20).attach(torch.optim.SGD(net.parameters(), lr=0.1))
    net(torch.ones(2, 12))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(torch.ones(1, 12)), net(torch.ones(1, 12)))
    s.detach()
    assert not net[0]._forward_hooks


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x)[0]
        return out


def test_weights_without_two_ends_stay_dense_and_a_warning_names_them() -> None:
    """Joint projections of attention, tables of embeddings and gates: nobody calls a layer of theirs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(12, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    with pytest.warns(UserWarning, match=r"3 weights stay dense.*'0.weight', '1.self_attn.in_proj_weight', '1.self_a"):
        s = Sparsifier(net, "g2g", keep=0.5, steps=20)
    assert list(s.parameters) == ["1.linear1.weight", "1.linear2.weight"]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    s.attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        net(torch.randint(12, (4, 5))).square().sum().backward()
        optimizer.step()
    assert sum(int(mask.sum()) for mask in s.finish().values()) == 128
    dense = dict(net.named_parameters())["1.self_attn.in_proj_weight"]
    assert bool((dense != 0).all())
    assert not torch.equal(dense, before["1.self_attn.in_proj_weight"])


@pytest.mark.parametrize("method", ["g2g", "blocks"])
def test_a_model_that_was_compiled_before_is_heard(method: str) -> None:
    """torch takes code that it has compiled for a new hook, too, and the hook is not called."""
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        run = torch.compile(net, backend="eager") if compiled else net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        cut = {"pattern": Modules(["0", "2"])} if method == "blocks" else {}
        s = None
        for step in range(26):
            if step == 2:  # after some dense steps
                s = Sparsifier(net, method, keep=0.5, steps=24, **cut).attach(optimizer)
            optimizer.zero_grad()
            (run(torch.sin(torch.arange(24.0) * (step + 1)).view(4, 6)) - 1).square().sum().backward()
            optimizer.step()
        assert s is not None
        s.finish()
        weights.append([p.detach().clone() for p in net.parameters()])
    assert len(weights[0]) == len(weights[1])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)


class Odd(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :1]


def test_what_cannot_be_heard_is_told() -> None:
    with pytest.raises(ValueError, match=r"'attention.in_proj_weight' is a parameter of MultiheadAttention; leave it"):
        Sparsifier(Attention(), "g2g", keep=0.5, steps=20, which=["*in_proj_weight"])
    for rows in (Attention(), nn.Embedding(9, 9)):
        with pytest.raises(ValueError, match="no weight has two ends to be heard"):
            Sparsifier(rows, "g2g", keep=0.5, steps=20)
    for layer, x, said in (
        (nn.Linear(4, 4), None, "'weight' has heard no batch at step 1"),
        (Odd(4, 4), torch.ones(2, 4), r"outputs \[2, 1\] of the layer of 'weight' are not the ends"),
        (nn.Linear(4, 4), torch.full((2, 4), math.nan), r"score of 'weight' is nan at position \(0, 0\)"),
    ):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        before = layer.weight.detach().clone()
        Sparsifier(layer, keep=0.5, score="hebbian", rule=Hold()).attach(optimizer)
        if x is not None:
            layer(x).sum().backward()
        with pytest.raises(ValueError, match=said):
            optimizer.step()
        assert torch.equal(layer.weight, before)
    with pytest.raises(ValueError, match="by a score without gradients"):
        Sparsifier(nn.Linear(4, 4), "iss", keep=0.5, steps=20, score="hebbian")
    with pytest.raises(ValueError, match=r"in \(0, 1\]; got 0"):
        Ensembles(share=0)
    with pytest.raises(ValueError, match="did you mean 'random'"):
        Ensembles("randm")
