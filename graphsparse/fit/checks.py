"""What tasks check of the data that they are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tensor_of(data: Any, name: str, lacking: str) -> Tensor:
    """An attribute of the data that must be a tensor.

    Raises:
        ValueError: the data does not have it; `lacking` says so.
        TypeError: it is something else, such as a numpy array or a list.
    """
    value = getattr(data, name, None)
    if value is None:
        raise ValueError(lacking)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"data.{name} must be a tensor, got {type(value).__name__}: data.{name} = torch.as_tensor(data.{name})"
        )
    return value.detach()


def mask_of(data: Any, part: str, size: int, row: str) -> Tensor:
    """The boolean mask of ``"train"``, ``"val"`` or ``"test"``, over `size` nodes or graphs (`row`), of any shape.

    Raises:
        ValueError: the data has none.
        TypeError: it is none; the sentence says what makes one of it.
    """
    name = f"{part}_mask"
    mask = tensor_of(data, name, f"the data has no {name}: a {row} task needs train_mask, val_mask and test_mask")
    if mask.dtype == torch.bool:
        return mask
    bits = mask.size(0) == size and not bool(((mask != 0) & (mask != 1)).any()) if mask.dim() else False
    other = f"data.{name}.bool()" if bits else f"torch_geometric.utils.index_to_mask(data.{name}, {size})"
    of = "" if bits else f" of the numbers of {row}s"
    raise TypeError(f"{name} must be boolean, got {mask.dtype}: {other} makes one{of}")


def check_rows(outputs: Any, number: int, what: str = "one row of outputs") -> Tensor:
    """What a model returned, which must be a row for each of so many nodes [N, D].

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.size(0) != number:
        got = list(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ValueError(f"the model must return {what} for each of the {number} nodes, got {got}")
    return outputs


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
