"""What the edges of a graph carry besides their ends: weights, features and types, cut along with them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.fit.checks import check_finite
from graphsparse.hashing import tensor_hash

NAMES = ("edge_weight", "edge_attr", "edge_type")  # as PyG's layers call them


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeData:
    """One row for each arc, in the order of the arcs; what the data does not have is None.

    Attributes:
        edge_weight: one number an arc [E].
        edge_attr: features [E, ...].
        edge_type: the number of the relation that an arc belongs to [E], int64.
        others: names of what else is there of numbers with a row for each arc, which no model gets.

    Example:
        >>> held = EdgeData(edge_type=torch.tensor([0, 2, 1]))
        >>> held.take(torch.tensor([2, 0])).edge_type.tolist(), list(held.held())
        ([1, 0], ['edge_type'])
    """

    edge_weight: Tensor | None = None
    edge_attr: Tensor | None = None
    edge_type: Tensor | None = None
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Any, edge_index: Tensor) -> EdgeData:
        """What PyG ``Data`` holds under these names as tensors, looked over.

        A column [E, 1] of weights or types is taken as [E], whole numbers as weights are taken as floats.

        Raises:
            ValueError: if there is not one row for each arc, a value is not finite, or a type is negative.
            TypeError: if weights are no real numbers, or types no integers.
        """
        stored = {name: getattr(data, name, None) for name in NAMES}
        found = {name: value for name, value in stored.items() if isinstance(value, Tensor)}
        checks = {"edge_weight": _weights, "edge_attr": _features, "edge_type": _types}
        num_edges = edge_index.size(1)
        read = {name: checks[name](_dense(value), num_edges) for name, value in found.items()}
        return cls(**{name: value.to(edge_index.device) for name, value in read.items()}, others=_others(data))

    def __bool__(self) -> bool:
        return bool(self.held())

    def __len__(self) -> int:
        return max(map(len, self.held().values()), default=0)

    def held(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    def take(self, positions: Tensor) -> EdgeData:
        """The rows at some positions [M], in their order."""
        return self._with({n: value.index_select(0, positions.to(value.device)) for n, value in self.held().items()})

    def to(self, device: torch.device | str) -> EdgeData:
        """The same on `device`."""
        return self._with({name: value.to(device) for name, value in self.held().items()})

    def _with(self, values: dict[str, Tensor]) -> EdgeData:
        return EdgeData(values.get("edge_weight"), values.get("edge_attr"), values.get("edge_type"), self.others)

    def fingerprint(self) -> dict[str, str]:
        """A hash of each part that there is."""
        return {name: tensor_hash(value) for name, value in self.held().items()}


def _others(data: Any) -> tuple[str, ...]:
    """Attributes of floats that belong to the edges by PyG's rule, such as the ``weight`` of its `from_networkx`."""
    if not isinstance(data, Data):
        return ()
    floats = [name for name, value in data if isinstance(value, Tensor) and value.is_floating_point()]
    own = (*NAMES, "x", "y")
    return tuple(n for n in floats if n not in own and not n.startswith("edge_label") and data.is_edge_attr(n))


def _dense(value: Tensor) -> Tensor:
    value = value.detach()
    return value if value.layout == torch.strided else value.to_dense()


def _weights(values: Tensor, num_edges: int) -> Tensor:
    values = _a_number_each(values, "edge_weight", num_edges)
    if values.is_complex():
        raise TypeError(f"data.edge_weight must hold real numbers, got {values.dtype}")
    values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    check_finite(values, "data.edge_weight", "edge")
    return values


def _features(values: Tensor, num_edges: int) -> Tensor:
    if values.dim() < 1 or values.size(0) != num_edges:
        found = f"got {values.size(0)}" if values.dim() else "got a single number"
        raise ValueError(f"data.edge_attr must have one row for each of {num_edges} edges, {found}")
    check_finite(values, "data.edge_attr", "edge")
    return values


def _types(values: Tensor, num_edges: int) -> Tensor:
    values = _a_number_each(values, "edge_type", num_edges)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"data.edge_type must hold the numbers of relations (int64), got {values.dtype}")
    if values.numel() and int(values.min()) < 0:
        edge = int((values < 0).nonzero()[0])
        raise ValueError(f"data.edge_type holds {int(values[edge])} at edge {edge}; relations are numbered from 0")
    return values.long()


def _a_number_each(values: Tensor, name: str, num_edges: int) -> Tensor:
    if values.shape not in ((num_edges,), (num_edges, 1)):
        raise ValueError(
            f"data.{name} must have shape [{num_edges}], one number for each edge, got {list(values.shape)}"
        )
    return values.view(-1) if values.dim() == 1 else values[:, 0]
