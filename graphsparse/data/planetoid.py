"""Cora, CiteSeer and PubMed from their ``ind.*`` files (Yang, Cohen, Salakhutdinov, ICML 2016)."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.data.catalogue import DATASETS, DataSet
from graphsparse.data.folders import locate
from graphsparse.data.raw import RawGraph, check_edges, tensor_of
from graphsparse.data.splits import PerClass
from graphsparse.data.unpickle import load_pickle, to_csr
from graphsparse.errors import DataError

_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
_FOLDERS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
_NUM_VAL = 500


def read_planetoid(name: str, root: str | os.PathLike[str] | None) -> RawGraph:
    """Read one Planetoid graph exactly as ``torch_geometric.datasets.Planetoid`` gives it, without its pickles.

    Args:
        name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: a file is missing or damaged, or the files do not fit together.
    """
    from torch_geometric.datasets import Planetoid

    files = [f"Planetoid/{_FOLDERS[name]}/raw/ind.{name}.{part}" for part in _PARTS]
    urls = [f"{Planetoid.url}/ind.{name}.{part}" for part in _PARTS]
    paths = dict(zip(_PARTS, locate(files, root=root, urls=urls, hint=name), strict=True))
    test_index = _read_index(paths["test.index"])
    graph = load_pickle(paths["graph"])
    if not isinstance(graph, dict) or test_index.max() >= len(graph):
        raise DataError(f"{paths['graph']} holds no adjacency lists for node {test_index.max()}, a test node.")
    x = _stack(paths, "allx", "tx", test_index)
    y = _stack(paths, "ally", "ty", test_index).argmax(axis=1)
    if len(x) != len(y):
        raise DataError(f"{paths['allx'].parent}: {len(x):,} rows of features but {len(y):,} labels.")
    num_train = len(_read_rows(paths["y"]))
    public = np.zeros((3, 1, len(y)), dtype=bool)
    public[0, 0, :num_train] = public[1, 0, num_train : num_train + _NUM_VAL] = public[2, 0, test_index] = True
    edge_index = _edges_of(graph, len(y), paths["graph"])
    return RawGraph(tensor_of(x, torch.float32), edge_index, tensor_of(y, torch.int64), torch.from_numpy(public))


def _read_index(path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Read the ids of the test nodes, one a line, in the order in which ``tx`` and ``ty`` list them."""
    try:
        index = np.array(path.read_text().split(), dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no list of node ids ({error}).") from error
    if index.size == 0 or index.min() < 0 or np.unique(index).size != index.size:
        raise DataError(f"{path} is no list of distinct node ids.")
    return index


def _read_rows(path: Path) -> np.ndarray[Any, Any]:
    """Read a two-dimensional array, dense or CSR, as a dense one."""
    content = load_pickle(path)
    rows = content if isinstance(content, np.ndarray) else to_csr(content, path).toarray()
    if rows.ndim != 2 or rows.dtype.kind not in "iufb" or not np.isfinite(rows).all():
        raise DataError(f"{path} holds no finite matrix (dtype {rows.dtype}, shape {rows.shape}).")
    return rows


def _stack(
    paths: dict[str, Path], known: str, test: str, test_index: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, Any]:
    """Put the rows of the test nodes behind the others, each at its own id.

    CiteSeer's test ids have gaps (15 isolated nodes that no file lists): those rows are zero.
    """
    above, below = _read_rows(paths[known]), _read_rows(paths[test])
    first = len(above)
    if below.shape != (len(test_index), above.shape[1]) or test_index.min() != first:
        raise DataError(
            f"{paths[test]} has shape {below.shape}, but {paths['test.index'].name} and {paths[known].name} call for "
            f"{(len(test_index), above.shape[1])} starting at node {test_index.min()} of {first}."
        )
    stacked = np.zeros((int(test_index.max()) + 1, above.shape[1]), dtype=above.dtype)
    stacked[:first] = above
    stacked[test_index] = below
    return stacked


def _edges_of(graph: dict[Any, Any], num_nodes: int, path: Path) -> torch.Tensor:
    """Turn the adjacency lists into an edge_index without self-loops and duplicates, sorted by (target, source)."""
    from torch_geometric.utils import coalesce, remove_self_loops

    try:
        sources = np.repeat(np.fromiter(graph, dtype=np.int64), [len(ends) for ends in graph.values()])
        targets = np.array([end for ends in graph.values() for end in ends], dtype=np.int64)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} holds no adjacency lists of node ids ({error}).") from error
    edge_index = check_edges(np.stack([sources, targets], axis=1), num_nodes, path)
    # The files list some edges twice and some self-loops; the published counts are those without.
    edge_index, _ = remove_self_loops(edge_index)
    merged: torch.Tensor = coalesce(edge_index, num_nodes=num_nodes, sort_by_row=False)
    return merged


_ABOUT = {
    "cora": "papers on machine learning that cite each other, 2,708 nodes, 7 classes",
    "citeseer": "papers on computer science that cite each other, 3,327 nodes, 6 classes",
    "pubmed": "papers on diabetes that cite each other, 19,717 nodes, 3 classes",
}
for _name, _about in _ABOUT.items():
    DATASETS.register(_name, DataSet(partial(read_planetoid, _name), random=PerClass(20, 500, 1000), about=_about))
