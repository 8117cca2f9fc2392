"""What advice is asked for: one graph as an edge list, the labels to train on where it has them, and a sample of it."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.data import DATASETS, GraphSet, load
from graphsparse.data.splits import Stratified
from graphsparse.edges.files import mirror_hint
from graphsparse.edges.node_labels import UNKNOWN, node_classes
from graphsparse.fit import NodeTask
from graphsparse.graphs.formats import open_file
from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.graphs.interop import open_graph
from graphsparse.plain_npz import read_npz

Array = npt.NDArray[Any]

PARTS = ("train", "val")
RANDOM_FEATURES = 64  # of nodes without any, where labels are given


@dataclass(frozen=True)
class Subject:
    """The graph that is measured.

    Attributes:
        name: of the file or data set, or ``"graph"``.
        edges: its edges.
        y: labels of the nodes that may be read, ``[N]`` or ``[N, C]``; None without labels.
        readable: bool ``[N]``: nodes whose labels may be read, which those of the test part may not.
        masks: bool ``[N]`` of the training and validation nodes; None without them.
        metric: what the nodes are judged by; None: what fits the labels.
        notes: what a reader should know, a sentence each.
    """

    name: str
    edges: EdgeList
    y: Tensor | None = None
    readable: Tensor | None = None
    masks: dict[str, Tensor] | None = None
    metric: Any = None
    notes: tuple[str, ...] = ()

    def why_not(self) -> str:
        """What is missing for training a network on its nodes; empty where nothing is."""
        x, count = self.edges.x, self.edges.num_nodes
        if self.y is None:
            return "the graph has no labels"
        if x is None or x.dim() != 2 or len(x) != count:
            return "the graph has no features x [N, F]"
        if self.masks is None:
            return "the graph has no train_mask and val_mask (torch_geometric.transforms.RandomNodeSplit draws them)"
        empty = [part for part, mask in self.masks.items() if not bool(mask.any())]
        if empty:
            return f"no node is in {' and '.join(f'{part}_mask' for part in empty)}"
        if bool((self.masks["train"] | self.masks["val"]).all()):
            return "all nodes are training or validation nodes, and none is left to be tested later"
        try:
            self.node_task()
        except (ValueError, TypeError) as error:
            return str(error)
        return ""

    def node_task(self) -> NodeTask:
        """The task on the whole graph; the labels of its test nodes are others' labels, so that none can be read."""
        assert self.y is not None
        assert self.masks is not None
        x, weight, train = self.edges.x, self.edges.weight, self.masks["train"]
        assert x is not None
        rest = ~(train | self.masks["val"])
        y = self.y.detach().clone()
        borrowed = y[train]
        y[rest] = borrowed[torch.arange(int(rest.sum())) % len(borrowed)]
        dense = x if x.layout == torch.strided else x.to_dense()
        floats = dense if dense.is_floating_point() else dense.float()
        data = Data(x=floats, edge_index=self.edges.edge_index.long(), y=y)
        data.train_mask, data.val_mask, data.test_mask = train, self.masks["val"], rest
        if weight is not None:
            data.edge_weight = weight
        return NodeTask(data, metric=self.metric)

    def cut(self, most_edges: int, seed: int) -> Subject:
        """The graph itself, or the one that some of its nodes induce, where it has more than so many edges.

        The nodes are those that are reached first from random ones, breadth first: so neighbourhoods stay whole.
        """
        edges = self.edges
        if edges.num_countable <= most_edges:
            return self
        nodes = _reached_first(edges, most_edges, seed)
        place = torch.full((edges.num_nodes,), -1)
        place[nodes] = torch.arange(len(nodes))
        ends = place[edges.edge_index.long()]
        inside = (ends >= 0).all(0)
        small = edge_list(
            ends[:, inside],
            len(nodes),
            edges.undirected,
            weight=None if edges.weight is None else edges.weight[inside],
            x=None if edges.x is None else _rows(edges.x, nodes),
            names=None if edges.names is None else edges.names[nodes.numpy()],
            pairs_once=edges.undirected and not edges.mirrored,
        )
        note = (
            f"the graph has {edges.num_countable:,} edges: what is measured is a sample, the {small.num_countable:,} "
            f"edges among {len(nodes):,} of its {edges.num_nodes:,} nodes, those reached first from random ones"
        )
        return replace(
            self,
            edges=small,
            y=None if self.y is None else self.y[nodes],
            readable=None if self.readable is None else self.readable[nodes],
            masks=None if self.masks is None else {part: mask[nodes] for part, mask in self.masks.items()},
            notes=(*self.notes, note),
        )


def open_subject(graph: Any, undirected: bool | None, *, labels: Any = None, seed: int = 0, **options: Any) -> Subject:
    """Read a graph of any kind, a file of any kind, or a data set by its name, and labels that stand beside it.

    Raises:
        ValueError: it has no edges, is many graphs, or is neither a file nor a data set.
        TypeError, DataError: as `open_graph`, `open_file`, `node_classes` and `graphsparse.data.load`.
    """
    found = _opened(graph, undirected, **options)
    return found if labels is None else _labelled(found, labels, seed)


def _labelled(subject: Subject, labels: Any, seed: int) -> Subject:
    """The subject with these labels, and with masks and features where it has none."""
    edges, notes = subject.edges, list(subject.notes)
    y, left_out = node_classes(labels, edges)
    notes += [left_out] if left_out else []
    known = (y != UNKNOWN).nonzero().view(-1)
    masks = subject.masks
    if masks is None:
        split = Stratified()
        drawn = torch.zeros(3, len(y), dtype=torch.bool)
        drawn[:, known] = split.draw(y[known], seed)
        masks = {"train": drawn[0], "val": drawn[1]}
        notes.append(f"the {len(known):,} labelled nodes are split at random: {split}, seed {seed}")
    else:
        masks = {part: mask & (y != UNKNOWN) for part, mask in masks.items()}
    if edges.x is None:
        generator = torch.Generator().manual_seed(seed)
        edges = replace(edges, x=torch.randn(edges.num_nodes, RANDOM_FEATURES, generator=generator))
        notes.append(
            f"the nodes have no features: each has {RANDOM_FEATURES} random numbers of its own, so that the classes "
            "can be told by the edges alone"
        )
    readable = masks["train"] | masks["val"]
    return replace(subject, edges=edges, y=y, readable=readable, masks=masks, metric=None, notes=tuple(notes))


def _opened(graph: Any, undirected: bool | None, **options: Any) -> Subject:
    name, held, notes = "graph", graph, []
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(graph, (str, os.PathLike)):
        name = os.fspath(graph)
        if _is_file(name):
            path = Path(name)
            file = open_file(path, undirected, **given)
            held, edges = _arrays(path), file.edges
            if undirected is None and not edges.undirected and not file.says_direction:
                notes = [hint] if (hint := mirror_hint(edges)) else []
            return _subject(name, edges, held, notes)
        if ":" not in name and DATASETS.spelled(name) is None:
            raise ValueError(f"there is no such file or data set: {_unknown(name)}")
        held = load(name)
        if isinstance(held, GraphSet):
            raise ValueError(f"{name} holds {held.num_graphs:,} graphs: advise looks at one graph")
    if isinstance(held, Data) and held.is_cuda:
        held = copy.copy(held).cpu()
    parts = list(open_graph(held, undirected, **given).parts.values())
    if len(parts) != 1:
        raise ValueError(f"advise looks at one graph, and this holds {len(parts)}: give one of its graphs or relations")
    return _subject(name, parts[0], held.to_dict() if isinstance(held, Data) else {}, notes)


def _subject(name: str, edges: EdgeList, held: dict[str, Any], notes: list[str]) -> Subject:
    count = edges.num_nodes
    if not edges.num_countable:
        raise ValueError(f"{name}: there are no edges to choose from (self-loops always stay)")
    x, y = held.get("x"), held.get("y")
    if edges.x is None and isinstance(x, Tensor) and x.dim() == 2 and len(x) == count:
        edges = replace(edges, x=x)
    if not isinstance(y, Tensor) or y.dim() not in (1, 2) or len(y) != count:
        return Subject(name, edges, notes=tuple(notes))
    masks = {part: _first_split(held.get(f"{part}_mask"), count) for part in (*PARTS, "test")}
    here = {part: masks[part] for part in PARTS if masks[part] is not None}
    test = masks["test"]
    return Subject(
        name,
        edges,
        y=y,
        readable=torch.ones(count, dtype=torch.bool) if test is None else ~test,
        masks=here if len(here) == len(PARTS) else None,  # type: ignore[arg-type]
        metric=held.get("metric"),
        notes=tuple(notes),
    )


def _is_file(name: str) -> bool:
    """Whether a text is a path: a colon marks a data set of one's own, and a name without a suffix is one of ours."""
    path = Path(name)
    looks_so = ":" not in name and (bool(path.suffix) or len(path.parts) > 1)
    return path.is_file() or (looks_so and DATASETS.spelled(name) is None)


def _unknown(name: str) -> str:
    """What the table of data sets says of a name that it does not have."""
    try:
        return DATASETS.key(name)
    except ValueError as error:
        return str(error)


def _arrays(path: Path) -> dict[str, Any]:
    """What an npz file holds of nodes; other kinds of file hold edges alone."""
    if path.suffix.lower() != ".npz":
        return {}
    wanted = ("x", "y", *(f"{part}_mask" for part in (*PARTS, "test")))
    arrays = {key: array for key, array in read_npz(path).items() if key in wanted and array.dtype.kind in "iufb"}
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def _first_split(mask: Any, count: int) -> Tensor | None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() not in (1, 2) or len(mask) != count:
        return None
    return mask if mask.dim() == 1 else mask[:, 0]


def _rows(x: Tensor, nodes: Tensor) -> Tensor:
    return (x if x.layout == torch.strided else x.to_dense())[nodes]


def _reached_first(edges: EdgeList, most_edges: int, seed: int) -> Tensor:
    """Nodes in ascending order: the longest start of a breadth-first order that induces at most so many edges."""
    count = edges.num_nodes
    tails, heads = edges.edge_index.cpu().numpy().astype(np.int64)
    apart = tails != heads
    tails, heads = tails[apart], heads[apart]
    matrix = coo_array((np.ones(2 * len(tails), np.int8), (np.r_[tails, heads], np.r_[heads, tails])), (count, count))
    rows = matrix.tocsr()
    degree = np.diff(rows.indptr)
    chance = np.random.default_rng(abs(seed)).permutation(count)
    starts = iter(np.argsort(chance).tolist())
    position = np.full(count, count)  # in the order, once it is known
    most = most_edges * (2 if edges.mirrored else 1)
    seen = finished = 0
    layer: Array = np.zeros(0, np.int64)
    while finished < 2 * most:  # the edges of all earlier layers have both their ends
        while not len(layer):
            start = next(starts)  # there is one, for there are more edges than are wanted
            if position[start] == count and degree[start]:
                layer = np.array([start])
        layer = layer[np.argsort(chance[layer])]
        position[layer] = np.arange(seen, seen + len(layer))
        seen += len(layer)
        finished += int(degree[layer].sum())
        around = np.unique(np.concatenate([rows.indices[rows.indptr[v] : rows.indptr[v + 1]] for v in layer.tolist()]))
        layer = around[position[around] == count]
        if not len(layer) and seen == int((degree > 0).sum()):
            break
    position[layer] = np.arange(seen, seen + len(layer))
    later = np.sort(np.maximum(position[tails], position[heads]))  # when an edge has both its ends
    limit = int(later[most])
    return torch.from_numpy(np.flatnonzero(position < max(limit, 1)))
