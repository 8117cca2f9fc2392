"""Attention maps of chosen modules: where a network looks, and how far a student looks elsewhere than its teacher."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def check_modules(model: nn.Module, names: Iterable[str], who: str) -> None:
    """Raise a ValueError for a name that is no module of a network; the closest is named."""
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not name:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"the {who} has no module {name!r}{hint}")


@contextmanager
def outputs_of(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What some modules give while the network runs inside the context, by name; the last output of each."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def attention_map(features: Tensor) -> Tensor:
    r"""The map of each example, one row of length 1 each: :math:`\mathrm{mean}_c F_c^2` over the channels, normalised.

    Args:
        features: ``[N, C, ...]``, with at least one dimension of places after the channels.

    Raises:
        ValueError: for features without places.

    Source: Zagoruyko & Komodakis, "Paying more attention to attention", ICLR 2017.

    Example:
        >>> attention_map(torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])).mul(97**0.5).round().tolist()
        [[9.0, 4.0]]
    """
    if not isinstance(features, Tensor) or features.dim() < 3:
        got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"an attention map needs channels and places, [N, C, ...], got {got}")
    rows = features.square().mean(dim=1).flatten(1)
    unit: Tensor = torch.nn.functional.normalize(rows, dim=1)
    return unit


def attention_loss(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    r""":math:`\sum_l \beta_l \frac{1}{N} \sum_n \|a^{student}_{ln} - a^{teacher}_{ln}\|^2` over modules l, examples n.

    Raises:
        ValueError: for a module that did not run, or whose maps differ in size.
    """
    terms = []
    for name, weight in weights.items():
        for who, seen in (("student", student), ("teacher", teacher)):
            if name not in seen:
                raise ValueError(f"the {who}'s module {name!r} does not run in the forward pass")
        own, other = attention_map(student[name]), attention_map(teacher[name])
        if own.shape != other.shape:
            raise ValueError(
                f"teacher and student differ in the places of {name!r}: {list(teacher[name].shape)}, "
                f"{list(student[name].shape)}"
            )
        terms.append(weight * (own - other).square().sum(dim=1).mean())
    return torch.stack(terms).sum()
