"""Open Graph Benchmark: its own data set classes and evaluators, made to work offline and with today's torch.

Source: Hu et al., "Open Graph Benchmark: datasets for machine learning on graphs", NeurIPS 2020.
"""

from __future__ import annotations

import difflib
import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch_geometric.data import Data

from graphsparse.data.catalogue import DATASETS, DataSet
from graphsparse.data.folders import data_root
from graphsparse.data.ogb_cache import REBUILT, open_dataset
from graphsparse.data.ogb_classes import classes_of
from graphsparse.data.raw import RawGraph
from graphsparse.errors import DataError

Kind = Literal["node", "link", "graph"]
_KINDS: dict[str, Kind] = {"ogbn": "node", "ogbl": "link", "ogbg": "graph"}
_LOCK = threading.RLock()


@dataclass(frozen=True)
class OgbTask:
    """One task of the Open Graph Benchmark, ready to train on and to judge.

    Attributes:
        name: as asked for; it ends in ``-rebuilt`` where the files are not the official ones.
        kind: ``"node"``, ``"link"`` or ``"graph"``.
        dataset: OGB's own PyG data set.
        splits: ``"train"``, ``"valid"``, ``"test"``: int64 ids of nodes or graphs ``[n]``, or for links a dict with
            ``edge`` ``[n, 2]`` (and ``edge_neg``).
        evaluator: OGB's own; ``evaluator.eval({...})``.
        metric: its figure, such as ``"acc"``, ``"rocauc"``, ``"rmse"``, ``"hits@20"``.
    """

    name: str
    kind: Kind
    dataset: Any
    splits: dict[str, Any]
    evaluator: Any
    metric: str

    @property
    def data(self) -> Data:
        """The graph of a node or link task.

        Raises:
            ValueError: the task is about many graphs; those are in ``dataset``.
        """
        if self.kind == "graph":
            raise ValueError(f"{self.name} holds {len(self.dataset):,} graphs; take them from .dataset.")
        return self.dataset[0]

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger figure is a better one (all but the error ``rmse``)."""
        return self.metric != "rmse"


def load_ogb(name: str, *, root: str | os.PathLike[str] | None = None) -> OgbTask:
    """Load a task of the Open Graph Benchmark with its split and its evaluator.

    The first call processes the files with OGB's own classes and keeps the result in the cache
    (``GRAPHSPARSE_CACHE``); the data folder is only read. It never asks anything on the terminal.

    Args:
        name: such as ``"ogbn-arxiv"``, ``"ogbl-ddi"``, ``"ogbg-molbace"``; ``"ogbg-molhiv-rebuilt"`` reads a folder
            of that name and says in ``task.name`` that it is not the official one.
        root: the data folder, by default the one that ``GRAPHSPARSE_DATA`` names; tasks lie in ``ogb/ogbl_ddi`` and so
            on. What is not there is downloaded from OGB's own address.

    Raises:
        ValueError: there is no such task, or its graph has several types of nodes.
        DataError: files are missing (and cannot be downloaded), damaged, or do not fit together.

    Example:
        >>> load_ogb("ogbg-molbase")
        Traceback (most recent call last):
        ...
        ValueError: there is no OGB task 'ogbg-molbase'; did you mean ogbg-molbace or ...?
    """
    key = name.lower().replace("_", "-").replace("papers100m", "papers100M")  # the one name with a capital
    official = key.removesuffix(REBUILT)
    with _LOCK:
        kind = _KINDS.get(key[:4])
        classes = classes_of(kind) if kind else None
        if kind is None or classes is None or official not in classes.master:
            raise ValueError(f"there is no OGB task {name!r}; {_instead(official)}")
        meta = classes.master[official]
        if meta.get("is hetero") == "True":
            hint = f" ({_NOT_AS_DATA[official]})" if official in _NOT_AS_DATA else ""
            raise ValueError(f"{official} has several types of nodes; only graphs with one are supported{hint}.")
        dataset, splits = open_dataset(key, meta, classes, data_root(root))
        evaluator = classes.evaluator(official)
    return OgbTask(key, kind, dataset, splits, evaluator, str(meta["eval metric"]))


_NOT_AS_DATA = {
    "ogbn-mag": "it has four types of nodes and four of edges, a ticket's task has one of nodes; gs.sparsify takes the "
    "HeteroData of torch_geometric.datasets.OGB_MAG",
    "ogbn-papers100m": "its 111 million nodes have 53 GB of features; gs.data.papers100m_structure() reads its edges, "
    "and gs.sparsify_files sparsifies edges that do not fit in memory",
    "ogbl-wikikg2": "it completes a knowledge graph: a prediction names the type of a link, which a link task does not",
    "ogbl-biokg": "it completes a knowledge graph: a prediction names the type of a link, which a link task does not",
    "ogbg-code2": "it predicts sequences of words, a graph task predicts labels, classes or numbers; "
    "gs.data.load_ogb('ogbg-code2') gives OGB's own objects",
}


def why_not(name: str) -> str | None:
    """Why a task of OGB is no data set that tickets are found on, and what there is instead; None for any other name.

    Example:
        >>> why_not("ogbg-code2").split(":")[0], why_not("cora")
        ('ogbg-code2 is no data set for tickets', None)
    """
    key = name.lower().replace("_", "-")
    return f"{key} is no data set for tickets: {_NOT_AS_DATA[key]}." if key in _NOT_AS_DATA else None


def _instead(name: str) -> str:
    """Name the tasks that the caller may have meant."""
    known = [task for kind in _KINDS.values() for task in classes_of(kind).master]
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."


def read_ogb_node(name: str, root: str | os.PathLike[str] | None) -> RawGraph:
    """Read a single-label node task as one graph with masks; citation graphs are made undirected, as is customary.

    Args:
        name: ``"ogbn-arxiv"`` or ``"ogbn-products"``.
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: as :func:`load_ogb`, or nodes without features or with several labels.
    """
    from torch_geometric.utils import coalesce, to_undirected

    task = load_ogb(name, root=root)
    data = task.data
    if data.x is None or data.y.shape != (data.num_nodes, 1):
        raise DataError(f"{name} has no features, or not one label per node; take it from load_ogb.")
    mirrored = (
        classes_of("node").master[name]["add_inverse_edge"] == "True"
    )  # to mirror it once more doubles the memory
    edge_index = (coalesce if mirrored else to_undirected)(data.edge_index, num_nodes=data.num_nodes)
    return RawGraph(data.x.float(), edge_index, data.y.view(-1).long(), _masks(task))


def read_ogb_proteins(root: str | os.PathLike[str] | None) -> RawGraph:
    """Read ogbn-proteins: 112 labels a node, 8 features an edge, which come along as ``edge_attr`` ``[E, 8]``.

    Nodes have no features of their own; as in OGB's examples each gets the mean of its edges'.

    Args:
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: as :func:`load_ogb`.
    """
    from torch_geometric.utils import scatter

    task = load_ogb("ogbn-proteins", root=root)
    data = task.data
    features = data.edge_attr.float()
    x = scatter(features, data.edge_index[0], dim=0, dim_size=data.num_nodes, reduce="mean")
    return RawGraph(x, data.edge_index, data.y.float(), _masks(task), {"edge_attr": features})


def _masks(task: OgbTask) -> torch.Tensor:
    """The official split of nodes as bool ``[3, 1, N]``."""
    public = torch.zeros(3, 1, task.data.num_nodes, dtype=torch.bool)
    for part, ids in enumerate(task.splits[part] for part in ("train", "valid", "test")):
        public[part, 0, ids] = True
    return public


for _name, _about in {
    "ogbn-arxiv": "papers on computer science that cite each other, 169,343 nodes, 40 classes",
    "ogbn-products": "products bought together, 2,449,029 nodes, 47 classes",
}.items():
    DATASETS.register(_name, DataSet(partial(read_ogb_node, _name), about=_about))
_about = "proteins and their associations, 132,534 nodes, 112 labels a node"
DATASETS.register("ogbn-proteins", DataSet(read_ogb_proteins, metric="rocauc", about=_about))
