"""OGB's link and graph tasks as ``Data`` that tickets are found on."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.data.catalogue import DATASETS, DataSet
from graphsparse.data.graph_set import GraphSet, add_masks
from graphsparse.data.ogb import load_ogb
from graphsparse.errors import DataError

LINKS = ("ogbl-ddi", "ogbl-collab", "ogbl-ppa", "ogbl-citation2", "ogbl-vessel")
BOTH_WAYS = "-undirected"  # ends the names of directed graphs whose messages are to go both ways
_MOLECULES = "bace bbbp clintox esol freesolv hiv lipo muv pcba sider tox21 toxcast"
GRAPHS = (*(f"ogbg-mol{name}" for name in _MOLECULES.split()), "ogbg-molhiv-rebuilt", "ogbg-ppa")
_PARTS = {"val": "valid", "test": "test"}


def read_ogb_links(name: str, root: str | os.PathLike[str] | None) -> Data:
    """Read a link task: messages go along training links, judged pairs are the official ones.

    Args:
        name: one of `LINKS`; with ``-undirected`` behind it, messages of a directed graph go both ways, as in OGB's
            examples. What is predicted stays as it is.
        root: as in :func:`graphsparse.data.load`.

    Returns:
        ``Data`` with ``edge_index`` int64 [2, E], ``num_nodes``, ``x`` float32 [N, F], ``edge_weight`` float32 [E] and
        ``edge_attr`` float32 [E, D] where the files have them (of collab the years [E, 1]), and
        ``train_pos_edge_index`` [2, P] and ``{val,test}_{pos,neg}_edge_index`` [2, M] (negatives of citation2:
        [2, M, 1000]); ``name``, ``split``, ``metric``, ``task``.

    Raises:
        DataError: as :func:`load_ogb`.
    """
    task = load_ogb(name.removesuffix(BOTH_WAYS), root=root)
    graph = _both_ways(task.data) if name.endswith(BOTH_WAYS) else task.data
    data = Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes)
    if isinstance(graph.x, Tensor):
        data.x = graph.x.float()
    stored = graph.to_dict()
    if isinstance(stored.get("edge_weight"), Tensor):
        # OGB stores a weight as a column; how often two authors wrote together is one number an arc.
        data.edge_weight = stored["edge_weight"].view(-1).float()
    for features in ("edge_attr", "edge_year"):
        if isinstance(stored.get(features), Tensor):
            data.edge_attr = stored[features].view(len(stored[features]), -1).float()
            break
    data.train_pos_edge_index = _links(task.splits["train"])
    for part, official in _PARTS.items():
        pairs = task.splits[official]
        data[f"{part}_pos_edge_index"], data[f"{part}_neg_edge_index"] = _links(pairs), _no_links(pairs)
    data.name, data.split, data.metric, data.task = name, "public", task.metric, "link"
    return data


def read_ogb_graphs(name: str, root: str | os.PathLike[str] | None) -> GraphSet:
    """Read a task of graphs as one disjoint union; features of molecules stay OGB's category numbers.

    Args:
        name: one of `GRAPHS`.
        root: as in :func:`graphsparse.data.load`.

    Returns:
        `GraphSet` with ``x`` int64 [N, 9], ``edge_attr`` int64 [E, 3], ``y`` float32 [G, T], and ``name``, ``split``,
        ``metric``, ``task``. Of ogbg-ppa ``x`` is zero, int64 [N, 1], since its nodes have no features, ``edge_attr``
        float32 [E, 7], and ``y`` holds a one at each graph's class.

    Raises:
        DataError: as :func:`load_ogb`, or a molecule without an atom.
    """
    task = load_ogb(name, root=root)
    stored, slices = task.dataset._data, task.dataset.slices
    sizes = torch.as_tensor(stored._num_nodes)
    if not bool(sizes.all()):
        raise DataError(f"{name}: graph {int((sizes == 0).nonzero()[0])} has no node.")
    shift = (sizes.cumsum(0) - sizes).repeat_interleave(slices["edge_index"].diff())
    data = GraphSet(
        x=torch.zeros(int(sizes.sum()), 1, dtype=torch.long) if stored.get("x") is None else stored.x,
        edge_index=stored.edge_index + shift,
        edge_attr=stored.edge_attr.float() if task.metric == "acc" else stored.edge_attr,
        y=_one_hot(stored.y) if task.metric == "acc" else stored.y.float(),
        batch=torch.arange(len(sizes)).repeat_interleave(sizes),
    )
    add_masks(data, len(sizes), {"train": task.splits["train"]} | {p: task.splits[o] for p, o in _PARTS.items()})
    metric = "accuracy" if task.metric == "acc" else task.metric
    data.name, data.split, data.metric, data.task = name, "public", metric, "graph"
    return data


def _one_hot(classes: Tensor) -> Tensor:
    """A one at each graph's class [G, C], of class numbers [G, 1]."""
    return torch.nn.functional.one_hot(classes.view(-1).long()).float()


def _both_ways(graph: Data) -> Data:
    """The same graph with every arc and its mirror, once each; both carry what the arc carried."""
    from torch_geometric.utils import to_undirected

    carried = {key: value for key, value in graph.to_dict().items() if graph.is_edge_attr(key) and key != "edge_index"}
    values = [value for value in carried.values() if isinstance(value, Tensor)]
    edge_index, rows = (
        to_undirected(graph.edge_index, values, graph.num_nodes, reduce="max")
        if values
        else (
            to_undirected(graph.edge_index, num_nodes=graph.num_nodes),
            [],
        )
    )
    other = Data(edge_index=edge_index, num_nodes=graph.num_nodes, x=graph.x)
    for key, value in zip(carried, rows, strict=True):
        other[key] = value
    return other


def _links(part: dict[str, Any]) -> Tensor:
    pairs = part["edge"].t() if "edge" in part else torch.stack([part["source_node"], part["target_node"]])
    return torch.as_tensor(pairs).long().contiguous()


def _no_links(part: dict[str, Any]) -> Tensor:
    if "edge_neg" in part:
        return torch.as_tensor(part["edge_neg"]).t().long().contiguous()
    targets = torch.as_tensor(part["target_node_neg"]).long()
    return torch.stack([torch.as_tensor(part["source_node"]).long()[:, None].expand_as(targets), targets])


for _name in (*LINKS, *(f"{name}{BOTH_WAYS}" for name in ("ogbl-citation2", "ogbl-vessel"))):
    _about = "links of a graph to be predicted (Open Graph Benchmark)"
    DATASETS.register(_name, DataSet(partial(read_ogb_links, _name), task="link", about=_about))
for _name in GRAPHS:
    _about = "graphs whose properties are to be predicted (Open Graph Benchmark)"
    DATASETS.register(_name, DataSet(partial(read_ogb_graphs, _name), task="graph", about=_about))
