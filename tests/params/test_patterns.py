"""Grouped and N:M sparsity."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import (
    L0,
    Constant,
    Fixed,
    Groups,
    Linear,
    NofM,
    Pattern,
    Projection,
    project_groups_,
    project_nm_,
)

numbers = st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, float("inf")])


def drawn(data: st.DataObject, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape).numel()
    return torch.tensor(data.draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)


@given(st.data(), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None, max_examples=100)
def test_nm_keeps_the_n_largest_of_every_run(data: st.DataObject, width: int, n: int, m: int) -> None:
    n, m = min(n, m), max(n, m)
    weights = drawn(data, (3, width))
    before = weights.clone()
    (mask,) = project_nm_([weights], n, m)
    for row, kept in zip(before.tolist(), mask.tolist(), strict=True):
        for start in range(0, width, m):
            run = row[start : start + m]
            order = sorted(range(len(run)), key=lambda i, run=run: (-abs(run[i]), i))
            assert [i for i, flag in enumerate(kept[start : start + m]) if flag] == sorted(order[:n])
    assert torch.equal(weights, torch.where(mask, before, 0.0))
    assert torch.equal(project_nm_([weights], n, m)[0], mask)


def test_nm_along_the_input_channels_of_a_convolution() -> None:
    weights = torch.randn(5, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    (mask,) = project_nm_([weights], 2, 4, dim=1)
    assert (mask.view(5, 2, 4, 3, 3).sum(2) == 2).all()
    assert torch.equal(weights != 0, mask)


@given(st.data(), st.integers(1, 4), st.integers(1, 20))
@settings(deadline=None, max_examples=100)
def test_groups_with_the_largest_norms_stay(data: st.DataObject, rows: int, twentieths: int) -> None:
    tensors = [drawn(data, (rows, 2)), drawn(data, (2, 1, 3))]
    before = [tensor.clone() for tensor in tensors]
    keep = f"{twentieths / 20:.2f}"
    masks = project_groups_(tensors, keep)
    norms = [float(group.double().norm()) for tensor in before for group in tensor]
    order = sorted(range(len(norms)), key=lambda i: (-norms[i], i))
    kept = set(order[: kept_count(keep, len(norms))])
    found = [bool(group.all()) for mask in masks for group in mask]
    assert found == [i in kept for i in range(len(norms))]
    assert [bool(group.any()) for mask in masks for group in mask] == found
    assert all(torch.equal(t, torch.where(m, old, 0.0)) for t, m, old in zip(tensors, masks, before, strict=True))


def test_no_choice_of_groups_is_nearer() -> None:
    before = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    after = before.clone()
    project_groups_([after], 0.5)
    others = [before.clone().index_fill_(0, torch.tensor(gone), 0.0) for gone in itertools.combinations(range(6), 3)]
    assert torch.dist(before, after) == min(torch.dist(before, other) for other in others)


def test_columns_are_groups_along_dimension_one() -> None:
    weights = torch.tensor([[1.0, 0, 5], [1, 1, 0]])
    assert project_groups_({"w": weights}, 0.3, dim=1)["w"].tolist() == [[False, False, True]] * 2
    assert weights.tolist() == [[0, 0, 5], [0, 0, 0]]


def test_a_module_and_tied_tensors() -> None:
    model = nn.Linear(4, 4, bias=False)
    assert list(project_groups_(model, 0.5)) == ["weight"]
    assert int(model.weight.any(1).sum()) == 2
    masks = project_nm_({"a": model.weight, "b": model.weight}, 1, 4)
    assert masks["a"] is masks["b"]
    assert project_groups_([], 0.5) == project_nm_([], 1, 2) == []


def test_vectors_and_empty_tensors() -> None:
    tensors = [torch.tensor([1.0, -3.0, 2.0]), torch.empty(0, 4), torch.empty(4, 0)]
    masks = project_groups_(tensors, 0.25)  # 3 elements and 4 groups without any
    assert masks[0].tolist() == [False, True, True]
    assert [mask.shape for mask in masks] == [tensor.shape for tensor in tensors]
    assert [mask.shape for mask in project_nm_(tensors, 1, 2)] == [tensor.shape for tensor in tensors]


def test_bad_input_changes_nothing() -> None:
    good = torch.arange(4.0).view(2, 2)
    for wrong, message in [
        (torch.tensor([1.0, float("nan")]), r"tensor 1 is NaN at position \(1,\)"),
        (torch.tensor(1.0), "tensor 1 has shape .* no dimension"),
    ]:
        with pytest.raises(ValueError, match=message):
            project_nm_([good, wrong], 1, 2)
        with pytest.raises(ValueError, match=message):
            project_groups_([good, wrong], 0.5)
    for n, m in [(0, 4), (5, 4), (-1, -1)]:
        with pytest.raises(ValueError, match="1 <= n <= m"):
            project_nm_([good], n, m)
    with pytest.raises(TypeError, match="int64"):
        project_nm_([good.long()], 1, 2)
    assert torch.equal(good, torch.arange(4.0).view(2, 2))


# patterns as values, by themselves and in training

AXIS: dict[str, Pattern] = {
    "l0": L0(0.3),
    "l0 erk": L0("0.3", "erk"),
    "groups": Groups(0.4),
    "columns": Groups(0.5, dim=1),
    "2:4": NofM(2, 4),
    "fixed": Fixed({"0.weight": torch.eye(6, 8).bool(), "2.weight": torch.ones(3, 6).triu().bool()}),
}


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        optimizer.zero_grad()
        net(torch.randn(16, 8, generator=generator)).square().sum().backward()
        optimizer.step()
        yield


@pytest.mark.parametrize("name", AXIS)
def test_a_pattern_is_held_after_every_step(name: str) -> None:
    net, pattern = small_net(), AXIS[name]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    projection = Projection(net, pattern, which="matrices").attach(optimizer)
    for _ in steps(net, optimizer, 5):
        own = pattern.mask({n: p.detach() for n, p in projection.parameters.items()})
        assert all(
            torch.equal(own[n], mask) for n, mask in projection.masks.items()
        )  # projecting twice changes nothing
        assert all(not bool(p[~projection.masks[n]].any()) for n, p in projection.parameters.items())
    units = sum(mask.numel() for mask in projection.masks.values())
    if name.startswith("l0"):
        assert sum(int(mask.sum()) for mask in projection.masks.values()) == kept_count(0.3, units)


@pytest.mark.parametrize("name", AXIS)
def test_without_revival_masks_only_shrink_to_the_pattern(name: str) -> None:
    net, pattern = small_net(), AXIS[name]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.2)
    schedule = Constant(begin=3) if name == "fixed" else Linear(end=6)
    projection = Projection(net, pattern, schedule, which="matrices", revive=False).attach(optimizer)
    before = projection.masks
    for step, _ in enumerate(steps(net, optimizer, 8), start=1):
        now = projection.masks
        assert all(bool((before[n] | ~now[n]).all()) for n in now)
        if name == "2:4":
            level = {1: 4, 2: 4, 3: 3, 4: 3, 5: 3}.get(step, 2)  # sparsity step / 12, of every 4 rounded up
            assert all(int(mask[:, :4].sum(1).max()) == level for mask in now.values())
        before = now
    first = before["0.weight"]
    if name == "fixed":
        assert torch.equal(first, torch.eye(6, 8).bool())
    elif name in ("groups", "columns"):
        dim = 0 if name == "groups" else 1
        units = sum(p.size(dim) for p in projection.parameters.values())
        kept = sum(int(mask.movedim(dim, 0).flatten(1).any(1).sum()) for mask in before.values())
        assert kept == kept_count(pattern.kept, units)
    elif name == "2:4":
        assert first.view(6, 2, 4).sum(2).tolist() == [[2, 2]] * 6


@pytest.mark.parametrize("name", AXIS)
def test_a_projection_resumes_with_its_pattern_and_with_no_other(name: str) -> None:
    net = small_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    projection = Projection(net, AXIS[name], which="matrices", revive=False).attach(optimizer)
    list(steps(net, optimizer, 3))
    saved, masks = projection.state_dict(), projection.masks
    again = Projection(net, AXIS[name], which="matrices", revive=False)
    again.load_state_dict(saved)
    assert again.step == 3
    assert all(torch.equal(masks[n], mask) for n, mask in again.masks.items())
    for other, pattern in AXIS.items():
        if other != name:
            with pytest.raises(ValueError, match="the state has"):
                Projection(net, pattern, which="matrices", revive=False).load_state_dict(saved)
    different = Fixed({**AXIS["fixed"].masks, "2.weight": torch.ones(3, 6).tril().bool()})
    with pytest.raises(ValueError, match="the state has"):
        Projection(net, different, which="matrices", revive=False).load_state_dict(saved)


def test_fixed_masks_cover_what_they_name() -> None:
    net = small_net()
    with torch.no_grad():
        before = {name: p.clone() for name, p in net.named_parameters()}
    mask = torch.zeros(6, 8).bool()
    found = Fixed({"0.weight": mask}).project_(net)
    assert not net[0].weight.any()
    assert torch.equal(net[2].weight, before["2.weight"])
    assert found["0.bias"].all()
    assert Fixed({"0.weight": mask}).kept == 0
    assert Fixed({}).kept == 1
    with pytest.raises(ValueError, match=r"a mask for '0\.wieght', which is none of the tensors: \['0\.weight'"):
        Projection(net, Fixed({"0.wieght": mask}))
    with pytest.raises(ValueError, match=r"mask of '0\.weight' has shape \[6, 7\], its tensor \[6, 8\]"):
        Projection(net, Fixed({"0.weight": mask[:, :7]}))
    with pytest.raises(TypeError, match=r"mask of '0\.weight' must be a bool tensor, got torch\.float32"):
        Fixed({"0.weight": mask.float()})
    with pytest.raises(ValueError, match="fixed masks come all at once"):
        AXIS["fixed"].at(Fraction(9, 10))


def test_patterns_are_values_and_say_what_they_need() -> None:
    assert NofM.read("2:4") == NofM(2, 4)
    assert NofM.read("1:4", dim=1).kept == Fraction(1, 4)
    assert L0(0.1) == L0("0.1")
    assert Groups(0.5).at(Fraction(3, 4)) == Groups(0.75)
    for text in ("4:2", "0:4", "2-4", "2:4:8", "1" * 5000 + ":4"):
        with pytest.raises(ValueError, match="a pattern is 'N:M'"):
            NofM.read(text)
    for wrong in (2.0, True, "2"):
        with pytest.raises(ValueError, match="n must be a whole number"):
            NofM(wrong, 4)
        with pytest.raises(ValueError, match="dim must be a whole number"):
            Groups(0.5, wrong)
        with pytest.raises(ValueError, match="every must be a whole number"):
            Projection(small_net(), L0(0.5), every=wrong)
    for keep in (0, 1.5):
        for kind in (L0, Groups):
            with pytest.raises(ValueError, match="keep must lie in"):
                kind(keep)
    with pytest.raises(TypeError, match=r"pattern must be one such as L0\(keep=0\.1\), got float"):
        Projection(small_net(), 0.5)
    with pytest.raises(ValueError, match=r"0\.bias has shape \[6\] and no dimension 1"):
        Projection(small_net(), Groups(0.5, dim=1))
