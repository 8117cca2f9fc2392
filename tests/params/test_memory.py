"""Tensors that share memory: tied ones count once, overlapping ones are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphsparse.params import L0, L0Projection, project_groups_, project_l0_, project_mask, project_nm_
from graphsparse.params.memory import check_apart

OVERLAPPING: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "a tail": lambda w: [w, w[1:]],
    "a tail first": lambda w: [w[5:], w[:6]],
    "a row of it": lambda w: [w.view(4, 3), w.view(4, 3)[2]],
    "its transpose": lambda w: [w.view(4, 3), w.view(4, 3).t()],
    "another shape": lambda w: [w, w.view(3, 4)],
    "another stride": lambda w: [w[::2], w[::3]],
    "halves of its bytes": lambda w: [w, w.view(torch.bfloat16)[3:5]],
    "over a third one": lambda w: [w[0:1], w[11:], w[1:11], w[4:5]],
    "through numpy": lambda w: [torch.from_numpy(w.numpy()[:8]), torch.from_numpy(w.numpy()[7:])],
}


@pytest.mark.parametrize("kind", OVERLAPPING)
def test_overlapping_tensors_are_refused_and_nothing_is_changed(kind: str) -> None:
    weights = torch.arange(12.0)
    for call in (
        lambda t: project_l0_(t, 0.5),
        lambda t: project_mask(dict(zip("abcd", t, strict=False)), 0.5),
        lambda t: project_groups_(t, 0.5),
        lambda t: project_nm_(t, 1, 2),
        lambda t: L0(0.5).mask(t),
    ):
        with pytest.raises(ValueError, match=r"overlap in memory, so a weight of both would count twice"):
            call(OVERLAPPING[kind](weights))
    assert weights.tolist() == list(range(12))


@pytest.mark.parametrize(
    "folded",
    [
        torch.arange(6.0).unfold(0, 3, 1),
        torch.ones(1).expand(5),
        torch.ones(3, 1).expand(3, 2),
        torch.arange(9.0).as_strided((3, 3), (2, 2)),
        torch.arange(9.0).as_strided((2, 3, 2), (3, 1, 2)),
    ],
)
def test_a_tensor_that_reads_a_place_twice_is_refused(folded: Tensor) -> None:
    with pytest.raises(ValueError, match=r"tensor 1 is expanded: several of its elements share one place"):
        project_l0_([torch.ones(2), folded], 0.5)


def test_views_that_do_not_meet_are_fine() -> None:
    w = torch.arange(24.0)
    for views in (
        [w[:5], w[5:]],
        [w[1::2], w[::2]],
        [w.view(4, 6)[:, :2], w.view(4, 6)[:, 2:].t()],
        [w.view(torch.float16)[::2], w.view(torch.float16)[1::2]],
        [w[:3], torch.empty(0), w[3:3], w[20:], w[4:19].view(3, 5).t()],
        [w.as_strided((3, 2), (2, 1)), w[6:].as_strided((3, 2), (1, 9))],
    ):
        check_apart({str(i): view for i, view in enumerate(views)})
    masks = project_l0_([w[1::2], w[::2]], 0.25)
    assert w.nonzero().view(-1).tolist() == [18, 19, 20, 21, 22, 23]
    assert [int(mask.sum()) for mask in masks] == [3, 3]


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_it_agrees_with_sets_of_addresses(data: st.DataObject) -> None:
    memory = torch.zeros(40)
    views, places = {}, []
    for i in range(data.draw(st.integers(1, 3))):
        shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
        strides = [data.draw(st.integers(1, 6)) for _ in shape]
        offset = data.draw(st.integers(0, 8))
        views[f"t{i}"] = memory.as_strided(shape, strides, offset)
        index = np.indices(shape).reshape(len(shape), -1)
        places.append([offset + int(np.dot(column, strides)) for column in index.T])
    together = [place for own in places for place in own]
    try:
        check_apart(views)
        apart = True
    except ValueError:
        apart = False
    assert apart == (len(together) == len(set(together)))


def test_parameters_of_a_model() -> None:
    """The same tensor under two names counts once; a transpose of it is another tensor of the same memory."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data.t())
    for call in (lambda: L0Projection(model, 0.5), lambda: project_l0_(model, 0.5)):
        with pytest.raises(ValueError, match=r"'0\.weight' and '1\.weight' overlap in memory"):
            call()
    square = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    square[1].weight = square[0].weight
    assert L0Projection(square, 0.5).total == 16
    assert int(project_mask([square[0].weight, square[1].weight], 0.5)[1].sum()) == 8
    L0Projection(nn.LSTM(3, 4), 0.5).apply()  # its weights are slices of one memory on some devices
