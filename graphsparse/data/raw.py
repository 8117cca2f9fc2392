"""What every reader gives back, and the checks that every reader makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.errors import DataError


@dataclass(frozen=True)
class RawGraph:
    """A graph as its files give it.

    Attributes:
        x: float32 ``[N, F]``.
        edge_index: int64 ``[2, E]``; both arcs of an undirected graph.
        y: int64 ``[N]``; float32 ``[N, C]`` where a node has several labels, NaN where one is not known.
        public: bool ``[3, S, N]``, the S published splits as train, validation and test masks; None without any.
        edge_level: further tensors with one row per arc.
        metric: what the graph is judged by, if its files say so.
    """

    x: torch.Tensor
    edge_index: torch.Tensor
    y: torch.Tensor
    public: torch.Tensor | None = None
    edge_level: dict[str, torch.Tensor] = field(default_factory=dict)
    metric: str | None = None


def of_data(data: Any, name: str) -> RawGraph:
    """A graph of nodes that a function of the user's gave, looked over as any file is.

    Raises:
        TypeError: it is no ``Data``.
        DataError: it has no features, edges or labels, or they do not fit together.
    """
    from torch_geometric.data import Data

    if not isinstance(data, Data):
        raise TypeError(f"the data set {name!r} is a {type(data).__name__}; it must be a torch_geometric.data.Data")
    for part in ("x", "edge_index", "y"):
        if not isinstance(data.get(part), torch.Tensor):
            raise DataError(f"the data set {name!r} has no tensor {part}; a task of nodes needs x, edge_index and y.")
    x, y, count, what = data.x, data.y, len(data.x), Path(f"the data set {name!r}")
    edge_index = check_edges(data.edge_index.t().numpy(), count, what)
    x = check_features(x.numpy(), what)
    y = y.view(-1) if y.dim() == 2 and y.shape[1] == 1 else y
    y = check_labels(y.numpy(), count, what) if y.dim() == 1 else _check_many_labels(y, count, what)
    edge_level = {
        key: data[key]
        for key in ("edge_weight", "edge_attr", "edge_type")
        if isinstance(data.get(key), torch.Tensor) and data[key].shape[0] == edge_index.shape[1]
    }
    return RawGraph(x, edge_index, y, _public_of(data, count, what), edge_level, data.get("metric"))


def _check_many_labels(y: torch.Tensor, num_nodes: int, path: Path) -> torch.Tensor:
    y = y.float()
    if y.dim() != 2 or len(y) != num_nodes or not bool(((y == 0) | (y == 1) | y.isnan()).all()):
        raise DataError(f"{path}: y must hold 0, 1 or NaN for each of {num_nodes:,} nodes and each label.")
    return y


def _public_of(data: Any, num_nodes: int, path: Path) -> torch.Tensor | None:
    """Its masks as bool ``[3, S, N]``; None if it has none."""
    masks = [data.get(f"{part}_mask") for part in ("train", "val", "test")]
    if all(mask is None for mask in masks):
        return None
    for mask in masks:
        fits = isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.dim() in (1, 2)
        if not fits or mask.shape != masks[0].shape or len(mask) != num_nodes:
            raise DataError(f"{path}: its three masks must be bool [{num_nodes}], or [{num_nodes}, S] for S splits.")
    stacked = torch.stack([mask.view(num_nodes, -1).t() for mask in masks])
    if bool((stacked.sum(0) > 1).any()):
        raise DataError(f"{path}: a node is in two of training, validation and test.")
    return stacked


def tensor_of(array: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of its own memory with the dtype that models expect."""
    return torch.tensor(array, dtype=dtype)


def check_edges(edges: np.ndarray[Any, Any], num_nodes: int, path: Path) -> torch.Tensor:
    """Return ``edges`` ``[E, 2]`` as an int64 edge_index ``[2, E]``.

    Raises:
        DataError: they are no pairs of integers, or name a node outside ``0 ... num_nodes - 1``.
    """
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise DataError(f"{path}: edges must be integers of shape [E, 2], not {edges.dtype} {list(edges.shape)}.")
    outside = np.flatnonzero((edges < 0).any(axis=1) | (edges >= num_nodes).any(axis=1))
    if outside.size:
        row = int(outside[0])
        raise DataError(f"{path}: edge {row} is {edges[row].tolist()}, but node ids end at {num_nodes - 1}.")
    return tensor_of(edges.T, torch.int64)


def check_labels(labels: np.ndarray[Any, Any], num_nodes: int, path: Path) -> torch.Tensor:
    """Return one class per node as int64 ``[N]``.

    Raises:
        DataError: they are no non-negative integers, or not one per node.
    """
    if labels.shape != (num_nodes,) or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise DataError(
            f"{path}: labels must be {num_nodes:,} non-negative integers, not {labels.dtype} {list(labels.shape)}."
        )
    return tensor_of(labels, torch.int64)


def check_features(features: np.ndarray[Any, Any], path: Path) -> torch.Tensor:
    """Return finite features as float32 ``[N, F]``.

    Raises:
        DataError: they are no matrix, or hold NaN or infinite values.
    """
    if features.ndim != 2 or features.dtype.kind not in "iufb":
        raise DataError(f"{path}: features must be a matrix, not {features.dtype} {list(features.shape)}.")
    if not np.isfinite(features).all():
        raise DataError(f"{path}: features hold NaN or infinite values.")
    return tensor_of(features, torch.float32)
