"""What stands behind a value of a traced network: node ids, parameter elements, or constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


class UncoveredError(Exception):
    """A rule met something that it does not cover; the interpreter adds the operation and the module to its words."""


@dataclass(frozen=True)
class Ids:
    """An activation: an int64 tensor of its shape that names the node behind each element, -1 where there is none.

    Axes along which an id repeats are usually expanded (stride 0), so that an activation of a convolution costs as
    much memory as its channels.
    """

    tensor: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape


@dataclass(frozen=True)
class Elements:
    """A parameter, or a part of one: which element of which parameter stands behind each element.

    ``index`` counts through all parameters in one numbering; without it, the value is one whole parameter in its own
    order, whose first element has the number ``start``.
    """

    start: int
    shape: torch.Size
    index: Tensor | None = None

    def indices(self) -> Tensor:
        """The numbers of all elements, in this value's shape."""
        if self.index is not None:
            return self.index
        return torch.arange(self.start, self.start + math.prod(self.shape)).view(self.shape)


@dataclass(frozen=True)
class Const:
    """A tensor whose value is known: an integer input, a buffer, or what was computed from them alone.

    ``stored`` are the elements of the buffer that it is (norms keep theirs as node features) and ``buffer`` its name,
    ``origin`` is the position of the input that it is.
    """

    tensor: Tensor
    stored: Elements | None = None
    buffer: str | None = None
    origin: int | None = None

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape


Value: TypeAlias = Ids | Elements | Const


def collapse(tensor: Tensor) -> Tensor:
    """The tensor with every expanded axis cut to length 1: the same ids, each written once."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def along(vector: Tensor, axis: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """A vector laid along one axis of a shape and expanded over the others."""
    view = [1] * len(shape)
    view[axis] = -1
    return vector.view(view).expand(shape)


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """The shape to which all broadcast."""
    return torch.Size(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def nothing(shape: torch.Size | tuple[int, ...]) -> Ids:
    """An activation that belongs to no node."""
    return Ids(torch.full((), -1).expand(shape))
