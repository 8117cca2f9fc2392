"""What tasks check of the data that they are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_features(x: Tensor) -> Tensor:
    """Node features as a dense, finite float tensor [N, F].

    Raises:
        ValueError: for another shape, or a value that is not finite; the sentence says where.
        TypeError: if they are no floats.
    """
    x = x.detach()
    if x.layout != torch.strided:
        x = x.to_dense()
    if x.dim() != 2:
        raise ValueError(f"data.x must have shape [N, F], got {list(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"data.x must hold floats, got {x.dtype}: use data.x.float()")
    check_finite(x, "data.x", "node")
    return x


def check_finite(values: Tensor, name: str, row: str) -> None:
    """Refuse NaN and infinities in a matrix, and say in which `row` and feature the first one is.

    Raises:
        ValueError: if there is one.
    """
    if not values.is_floating_point() or not values.numel():
        return
    wrong = (~torch.isfinite(values)).nonzero()
    if len(wrong):
        at, *column = wrong[0].tolist()
        where = f", feature {column[0]}" if column else ""
        raise ValueError(f"{name} holds {float(values[tuple(wrong[0])])} at {row} {at}{where}")


def check_arcs(edge_index: Any, num_nodes: int, name: str = "edge_index") -> Tensor:
    """Pairs of nodes [2, E] that all exist.

    Raises:
        ValueError: for another shape, or an id out of range.
        TypeError: if the ids are no integers.
    """
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"{name} must be a tensor of shape [2, E]")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must hold integers (int64), got {edge_index.dtype}")
    if edge_index.numel():
        low, high = (int(bound) for bound in edge_index.aminmax())
        if low < 0 or high >= num_nodes:
            wrong = low if low < 0 else high
            raise ValueError(f"{name} names node {wrong}, but there are {num_nodes} nodes")
    return edge_index.detach()
