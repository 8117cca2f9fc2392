"""The exact global projection onto the l0 ball."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import project_l0_, project_mask

LARGE = (1 << 16) + 1001  # enough weights for the compiled kernels

values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, float("inf"), float("-inf"), 2.0**-149]),
    st.floats(-4, 4, width=16),
)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
keeps = st.integers(1, 40).map(lambda numerator: Fraction(numerator, 40))


def by_sorting(tensors: list[Tensor], keep: Fraction | float) -> list[list[bool]]:
    """Masks by sorting all (magnitude, position) pairs in Python."""
    flat = [abs(x) for tensor in tensors for x in tensor.double().reshape(-1).tolist()]
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    kept = set(order[: kept_count(keep, len(flat))])
    masks, start = [], 0
    for tensor in tensors:
        masks.append([i in kept for i in range(start, start + tensor.numel())])
        start += tensor.numel()
    return masks


def flat_lists(masks: list[Tensor]) -> list[list[bool]]:
    return [mask.reshape(-1).tolist() for mask in masks]


@st.composite
def small_models(draw: st.DrawFn) -> list[Tensor]:
    tensors = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = int(np.prod(shape))
        numbers = draw(st.lists(values, min_size=size, max_size=size))
        tensor = torch.tensor(numbers, dtype=torch.float64).to(draw(dtypes)).reshape(shape)
        tensors.append(tensor.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else tensor)
    return tensors


@given(small_models(), keeps)
@settings(deadline=None, max_examples=300)
def test_it_agrees_with_a_sort(tensors: list[Tensor], keep: Fraction) -> None:
    before = [tensor.clone() for tensor in tensors]
    expected = by_sorting(tensors, keep)
    assert flat_lists(project_mask(tensors, keep)) == expected
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    masks = project_l0_(tensors, keep)
    assert flat_lists(masks) == expected
    for tensor, old, mask in zip(tensors, before, masks, strict=True):
        assert mask.shape == tensor.shape
        assert torch.equal(tensor, torch.where(mask, old, torch.zeros_like(old)))


@given(small_models(), keeps)
@settings(deadline=None, max_examples=100)
def test_projecting_twice_changes_nothing(tensors: list[Tensor], keep: Fraction) -> None:
    """P(P(x)) = P(x), and the masks are the same too: kept zeros stay the same zeros."""
    first = project_l0_(tensors, keep)
    once = [tensor.clone() for tensor in tensors]
    second = project_l0_(tensors, keep)
    assert flat_lists(first) == flat_lists(second)
    assert all(torch.equal(a, b) for a, b in zip(tensors, once, strict=True))


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8), keeps)
@settings(deadline=None, max_examples=100)
def test_no_point_of_the_ball_is_nearer(numbers: list[float], keep: Fraction) -> None:
    """Among the points with the k allowed places, the best for any choice of places keeps the weights there."""
    weights = np.array(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64)
    project_l0_([tensor], keep)
    distance = float(((tensor.numpy() - weights) ** 2).sum())
    places = np.array([[bool(code >> i & 1) for i in range(len(weights))] for code in range(1 << len(weights))])
    allowed = places[places.sum(1) == kept_count(keep, len(weights))]
    assert distance <= ((weights**2 * ~allowed).sum(1)).min() + 1e-12


def large_model(seed: int, kind: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(LARGE, generator=generator) * 0.03
    if kind == "ties":
        flat = flat.mul(64).round() / 64
    elif kind == "zeros":
        flat = flat * (torch.rand(LARGE, generator=generator) < 0.1)
    elif kind == "extremes":
        flat[::7], flat[::11], flat[::13], flat[::17] = float("inf"), -float("inf"), 2.0**-149, -0.0
    elif kind == "one value":
        flat = flat.sign()
    elif kind == "one bin":
        flat = 1 + flat.abs() / 1024
    cut = int(torch.randint(1, LARGE - 6, (1,), generator=generator))
    return [flat[:cut].clone(), torch.empty(0, 3), flat[cut:-6].clone().view(-1, 1), flat[-6:].clone().view(2, 3).t()]


@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "extremes", "one value", "one bin"])
@pytest.mark.parametrize("keep", [1e-9, 0.0937, 0.5, 0.999, 1.0])
def test_the_compiled_kernels_agree_with_a_stable_sort(kind: str, keep: float) -> None:
    tensors = large_model(3, kind)
    before = [tensor.clone() for tensor in tensors]
    flat = np.concatenate([np.abs(tensor.reshape(-1).numpy()) for tensor in tensors])
    expected = np.zeros(LARGE, bool)
    expected[np.argsort(-flat, kind="stable")[: kept_count(keep, LARGE)]] = True
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    marked = project_mask(tensors, keep)
    masks = project_l0_(tensors, keep)
    assert (np.concatenate([mask.reshape(-1).numpy() for mask in masks]) == expected).all()
    for tensor, old, mask, same in zip(tensors, before, masks, marked, strict=True):
        assert torch.equal(mask, same)
        assert torch.equal(tensor, torch.where(mask, old, torch.zeros_like(old)))


@given(st.integers(0, 10**6), st.sampled_from(["normal", "ties", "zeros"]), keeps)
@settings(deadline=None, max_examples=30)
def test_both_engines_give_the_same_masks(seed: int, kind: str, keep: Fraction) -> None:
    """float64 weights go through torch, float32 ones of the same values through the compiled kernels."""
    tensors = large_model(seed, kind)
    wide = project_mask([tensor.double() for tensor in tensors], keep)
    assert all(torch.equal(a, b) for a, b in zip(project_mask(tensors, keep), wide, strict=True))


@pytest.mark.parametrize("tied", [False, True])
def test_several_threads_give_the_masks_of_one(tied: bool) -> None:
    """Enough weights for threads to be started; they share tensors in pieces."""
    weights = torch.randn((1 << 25) + 5, generator=torch.Generator().manual_seed(0))
    if tied:
        weights = weights.mul_(8).round_()
    model = [weights[:20_000_000], weights[20_000_000:]]
    before, masks = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            masks.append(torch.cat(project_mask(model, 0.1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*masks)
    assert int(masks[0].sum()) == kept_count(0.1, len(weights))
    kept, dropped = weights[masks[0]].abs(), weights[~masks[0]].abs()
    assert kept.min() >= dropped.max()
    assert (kept.min() == dropped.max()) == tied


@pytest.mark.parametrize("size", [100, LARGE])
def test_the_order_of_tensors_matters_to_ties_only(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(size, generator=generator) for _ in range(4)]
    forward = project_mask(tensors, 0.3)
    backward = project_mask(tensors[::-1], 0.3)[::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    tied = project_mask([torch.ones(size), torch.ones(size)], 0.5)
    assert tied[0].all()
    assert not tied[1].any()


@pytest.mark.parametrize("size", [10, LARGE])
def test_more_zeros_than_pruned_weights_still_give_an_exact_count(size: int) -> None:
    weights = torch.zeros(size)
    weights[3] = 1.0
    masks = project_l0_([weights], 0.5)
    assert int(masks[0].sum()) == kept_count(0.5, size)
    assert masks[0][: size // 2].all()
    assert weights.count_nonzero() == 1


@pytest.mark.parametrize("size", [10, LARGE])
def test_keep_one_is_the_identity(size: int) -> None:
    weights = torch.full((size,), -0.0)
    weights[0] = 5.0
    bits = weights.view(torch.int32).clone()
    assert project_l0_([weights], 1.0)[0].all()
    assert torch.equal(weights.view(torch.int32), bits)


def test_keep_is_read_as_the_decimal_that_was_written() -> None:
    """0.7 as a binary float lies below 7/10, 0.1 above 1/10: neither may cost or add a weight."""
    for keep, size, kept in [(0.1, 10, 1), (0.7, 10, 7), (0.29, 100, 29), (0.57, 100, 57)]:
        assert int(project_mask([torch.arange(float(size))], keep)[0].sum()) == kept


def test_mixed_types_compare_by_exact_value() -> None:
    """float32(0.1) lies above 0.1 and float16(0.1) below it; rounding all to one type would tie them."""
    tensors = {
        "half": torch.tensor([0.1], dtype=torch.float16),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "single": torch.tensor([0.1], dtype=torch.float32),
    }
    assert [name for name, mask in project_mask(tensors, Fraction(1, 3)).items() if mask] == ["single"]
    assert [name for name, mask in project_mask(tensors, Fraction(2, 3)).items() if mask] == ["double", "single"]


@pytest.mark.parametrize("size", [4, 300])
def test_strides_of_every_kind(size: int) -> None:
    """Views of one memory that do not overlap, transposed, strided, channels last."""
    generator = torch.Generator().manual_seed(2)
    memory = torch.randn(size, 2 * size, generator=generator)
    before = memory.clone()
    views = [memory[:, 1::2].t(), memory[:, ::2]]
    masks = project_l0_(views, 0.25)
    expected = by_sorting([before[:, 1::2].t(), before[:, ::2]], 0.25)
    assert flat_lists(masks) == expected
    assert torch.equal(views[0], before[:, 1::2].t() * masks[0])
    assert torch.equal(views[1], before[:, ::2] * masks[1])
    images = torch.randn(size, 3, 10, 10, generator=generator).contiguous(memory_format=torch.channels_last)
    plain = images.contiguous()
    assert torch.equal(project_l0_([images], 0.1)[0], project_l0_([plain], 0.1)[0])
    assert torch.equal(images, plain)


@pytest.mark.parametrize("size", [6, LARGE])
def test_a_tensor_given_twice_counts_once(size: int) -> None:
    weights = torch.arange(1.0, size + 1)
    masks = project_l0_({"encoder": weights, "decoder": weights, "view": weights.view(-1)}, 0.5)
    assert masks["encoder"] is masks["decoder"] is masks["view"]
    assert int(masks["encoder"].sum()) == kept_count(0.5, size)


def test_a_module_gives_its_trainable_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).requires_grad_(False))
    frozen = {name: p.clone() for name, p in model[2].named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    masks = project_l0_(model, 0.25)
    assert list(masks) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert sum(int(mask.sum()) for mask in masks.values()) == 7
    assert all(torch.equal(frozen[name], p) for name, p in model[2].named_parameters())
    assert all(torch.equal(buffers[name], b) for name, b in model.named_buffers())
    assert model[0].weight.requires_grad
    assert model[0].weight.grad_fn is None


@pytest.mark.parametrize("empty", [[], [torch.empty(0)], {"a": torch.empty(0, 3), "b": torch.empty(2, 0)}])
def test_nothing_to_project(empty: list[Tensor] | dict[str, Tensor]) -> None:
    masks = project_l0_(empty, 0.5)
    assert len(masks) == len(empty)
    assert type(masks) is type(empty)


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("keep", [0.1, 1.0])
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, -1])
def test_nan_names_its_place_and_changes_nothing(size: int, keep: float, bits: int) -> None:
    first, second = torch.arange(float(size)), torch.ones(size, 2)
    second[7, 1] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    copies = first.clone(), second.clone()
    for project in (project_l0_, project_mask):
        with pytest.raises(ValueError, match=r"conv\.weight is NaN at position \(7, 1\)"):
            project({"a": first, "conv.weight": second}, keep)
    assert torch.equal(first, copies[0])
    assert torch.equal(second.view(torch.int32), copies[1].view(torch.int32))
    with pytest.raises(ValueError, match="tensor 1 is NaN"):
        project_l0_([first, second], keep)


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (torch.ones(3, dtype=torch.int64), TypeError, "dense floating-point tensor, got torch.int64"),
        (torch.ones(3, dtype=torch.complex64), TypeError, "got torch.complex64"),
        (torch.ones(3, dtype=torch.bool), TypeError, "got torch.bool"),
        (torch.eye(3).to_sparse(), TypeError, "got torch.float32, torch.sparse_coo"),
        (torch.ones(3, device="meta"), TypeError, "got a meta tensor"),
        (torch.ones(3, 1).expand(3, 2), ValueError, "is expanded"),
        ([1.0, 2.0], TypeError, "must be a tensor, got list"),
    ],
)
def test_what_cannot_be_projected_is_refused_before_anything_changes(
    tensor: Tensor, error: type[Exception], message: str
) -> None:
    good = torch.arange(3.0)
    with pytest.raises(error, match=rf"^tensor 1 .*{message}"):
        project_l0_([good, tensor], 0.1)
    assert torch.equal(good, torch.arange(3.0))


def test_a_bare_tensor_is_refused_rather_than_cut_row_by_row() -> None:
    with pytest.raises(TypeError, match="put a single tensor into a list"):
        project_l0_(torch.ones(3, 3), 0.5)


@pytest.mark.parametrize("keep", [0, -0.5, 1.5, float("nan"), "much"])
def test_keep_outside_its_range(keep: float) -> None:
    with pytest.raises(ValueError, match="keep must"):
        project_l0_([torch.ones(3)], keep)


@pytest.mark.parametrize("size", [10, LARGE])
def test_autograd_notices_that_the_weights_changed(size: int) -> None:
    """Backward through weights that were projected in between must fail rather than give a wrong gradient."""
    weight = nn.Parameter(torch.linspace(1, 2, size))
    loss = (weight * weight).sum()
    project_l0_([weight], 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "extremes"])
def test_the_gpu_gives_the_same_masks(kind: str) -> None:
    tensors = large_model(5, kind)
    remote = [tensor.cuda() for tensor in tensors]
    masks = project_l0_(remote, 0.1)
    assert all(mask.is_cuda for mask in masks)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(masks, project_l0_(tensors, 0.1), strict=True))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(remote, tensors, strict=True))
