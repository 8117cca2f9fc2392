"""Many small graphs in one ``Data``: the form in which they are loaded, sparsified and hashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

_OF_GRAPHS = ("y", "train_mask", "val_mask", "test_mask")


class GraphSet(Data):  # type: ignore[misc]
    """A disjoint union of graphs that remembers which node belongs to which.

    Attributes:
        x: node features [N, ...] of all graphs, one after the other.
        edge_index: arcs int64 [2, E] between nodes of the union.
        edge_attr: arc features [E, ...], or None.
        batch: the graph of each node, int64 [N], ascending.
        y: targets [G] or [G, T], NaN where not known.
        train_mask, val_mask, test_mask: bool [G].

    Example:
        >>> pair = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([1.0]))
        >>> both = join_graphs([pair, pair], {"train": [0], "val": [1], "test": []})
        >>> both.edge_index.tolist(), both.batch.tolist(), both.num_graphs
        ([[0, 1, 2, 3], [1, 0, 3, 2]], [0, 0, 1, 1], 2)
    """

    @property
    def num_graphs(self) -> int:
        """Number of graphs G."""
        return int(self.batch[-1]) + 1 if len(self.batch) else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Targets and masks belong to graphs: never to edges, even where there are as many."""
        return None if key in _OF_GRAPHS else super().__cat_dim__(key, value, *args, **kwargs)


def join_graphs(graphs: Sequence[Data], split: Mapping[str, Sequence[int] | Tensor]) -> GraphSet:
    """Join graphs into one `GraphSet`.

    Args:
        graphs: ``Data`` with x, edge_index, y and perhaps edge_attr; each has at least one node.
        split: numbers of the graphs that are ``"train"``, ``"val"`` and ``"test"``.

    Raises:
        ValueError: there is no graph, one has no node, only some have edge_attr, or a number is out of range.
    """
    if not len(graphs):
        raise ValueError("there is no graph to join.")
    sizes = torch.tensor([int(graph.num_nodes or 0) for graph in graphs])
    if not bool(sizes.all()):
        raise ValueError(f"graph {int((sizes == 0).nonzero()[0])} has no node; every graph needs one.")
    arcs = torch.tensor([graph.num_edges for graph in graphs])
    shift = (sizes.cumsum(0) - sizes).repeat_interleave(arcs)
    joined = GraphSet(
        x=torch.cat([graph.x for graph in graphs]),
        edge_index=torch.cat([graph.edge_index for graph in graphs], dim=1) + shift,
        y=torch.cat([graph.y for graph in graphs]),
        batch=torch.arange(len(graphs)).repeat_interleave(sizes),
    )
    features = [graph.edge_attr for graph in graphs if isinstance(graph.edge_attr, Tensor)]
    if features and len(features) < len(graphs):
        raise ValueError(f"{len(features)} of {len(graphs)} graphs have edge_attr; all or none must.")
    if features:
        joined.edge_attr = torch.cat(features)
    return add_masks(joined, len(graphs), split)


def add_masks(joined: GraphSet, count: int, split: Mapping[str, Sequence[int] | Tensor]) -> GraphSet:
    """Set the masks of `count` graphs from the numbers of a split."""
    for part in ("train", "val", "test"):
        numbers = torch.as_tensor(split[part], dtype=torch.int64)
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
            raise ValueError(f"the {part} split names graph {int(numbers.max())}, but there are {count}.")
        mask = torch.zeros(count, dtype=torch.bool)
        mask[numbers] = True
        joined[f"{part}_mask"] = mask
    return joined
