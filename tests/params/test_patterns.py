"""Grouped and N:M sparsity."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import project_groups_, project_nm_

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
