"""What every reader gives back, and the checks that every reader makes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
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
        y: int64 ``[N]``.
        public: bool ``[3, S, N]``, the S published splits as train, validation and test masks; None without any.
        edge_level: further tensors with one row per arc.
    """

    x: torch.Tensor
    edge_index: torch.Tensor
    y: torch.Tensor
    public: torch.Tensor | None = None
    edge_level: dict[str, torch.Tensor] = field(default_factory=dict)


def read_npz(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Read named arrays of an ``.npz`` file, never its pickles.

    Raises:
        DataError: the file is no ``.npz``, is damaged, lacks a key, or hides a pickled object.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = sorted(set(keys) - set(archive.files))
            if missing:
                raise DataError(f"{path} lacks the arrays {', '.join(missing)}; it has {', '.join(archive.files)}.")
            return {key: archive[key] for key in keys}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged or no .npz file of plain arrays ({error}).") from error


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
