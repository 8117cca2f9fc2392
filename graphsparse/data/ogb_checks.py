"""Does what OGB made of the files agree with the files? Its readers cut short lists without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.data.ogb_classes import Meta
from graphsparse.errors import DataError


def check_processed(dataset: Any, source: Path, kind: str, meta: Meta) -> None:
    """Compare the numbers of graphs, nodes and edges with the lists in ``source``, and edges with node ids.

    Args:
        dataset: OGB's data set.
        source: the folder with ``raw/num-node-list.csv.gz`` and ``raw/num-edge-list.csv.gz``.
        kind: ``"node"``, ``"link"`` or ``"graph"``.
        meta: the task's row of OGB's table.

    Raises:
        DataError: they differ, or an edge names a node that its graph does not have.
    """
    stored = dataset._data
    if dataset.slices is None:
        num_nodes, num_edges = torch.tensor([stored.num_nodes]), torch.tensor([stored.num_edges])
    else:
        num_nodes, num_edges = torch.tensor(stored._num_nodes), dataset.slices["edge_index"].diff()
    if meta.get("binary") != "True":
        copies = 2 if meta["add_inverse_edge"] == "True" else 1
        _compare(num_nodes, _counts(source / "raw/num-node-list.csv.gz"), "nodes")
        _compare(num_edges, copies * _counts(source / "raw/num-edge-list.csv.gz"), "edges")
    rows = {"x": int(num_nodes.sum()), "edge_attr": int(num_edges.sum())}
    rows["y"] = int(num_nodes.sum()) if kind == "node" else len(num_nodes)
    for key, expected in rows.items():
        value = stored.get(key)
        if isinstance(value, torch.Tensor) and value.shape[0] != expected:
            raise DataError(f"{key} has {value.shape[0]:,} rows where {expected:,} belong.")
    limits = num_nodes.repeat_interleave(num_edges)
    if bool(((stored.edge_index < 0) | (stored.edge_index >= limits)).any()):
        raise DataError("raw/edge.csv.gz names a node that its graph does not have.")


def _counts(path: Path) -> torch.Tensor:
    """Read one count per graph."""
    return torch.from_numpy(np.loadtxt(path, dtype=np.int64, ndmin=1))


def _compare(found: torch.Tensor, listed: torch.Tensor, what: str) -> None:
    if not torch.equal(found, listed):
        raise DataError(
            f"the lists name {len(listed):,} graphs with {int(listed.sum()):,} {what}, the files hold "
            f"{len(found):,} with {int(found.sum()):,}."
        )


def check_splits(dataset: Any, splits: dict[str, Any], kind: str) -> None:
    """Check that the ids of a split exist and, for nodes and graphs, that no id is in two parts.

    Args:
        dataset: OGB's data set.
        splits: train, valid and test: ids ``[n]``, or for links dicts with pairs ``[n, 2]``.
        kind: ``"node"``, ``"link"`` or ``"graph"``.

    Raises:
        DataError: an id is out of range, or in two parts.
    """
    limit = len(dataset) if kind == "graph" else dataset[0].num_nodes
    for part, content in splits.items():
        ids = content.get("edge") if isinstance(content, dict) else content
        if isinstance(ids, torch.Tensor) and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < limit:
            raise DataError(f"the {part} split names {int(ids.max())}, but ids end at {limit - 1}.")
    if kind != "link":
        every = torch.cat([torch.as_tensor(ids) for ids in splits.values()])
        if len(np.unique(every.numpy())) != len(every):
            raise DataError("an id is in two of training, validation and test.")
