"""Graphs that come as one ``.npz`` file: the heterophilous ones, Facebook pages, WordNet, Debian's dependencies."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.data.catalogue import DATASETS, DataSet
from graphsparse.data.folders import locate
from graphsparse.data.raw import RawGraph, check_edges, check_features, check_labels
from graphsparse.errors import DataError
from graphsparse.plain_npz import read_npz

DEBIAN_FEATURES = 512


def read_heterophilous(name: str, root: str | os.PathLike[str] | None) -> RawGraph:
    """Read a graph of Platonov et al., "A critical look at the evaluation of GNNs under heterophily" (ICLR 2023).

    ``actor``, ``squirrel-filtered`` and ``chameleon-filtered`` lie in the same place in the same layout. Edges are
    undirected and named once; ten splits are published.

    Args:
        name: such as ``"tolokers"``.
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.
    """
    from torch_geometric.datasets import HeterophilousGraphDataset
    from torch_geometric.utils import to_undirected

    file = f"{name.replace('-', '_')}.npz"
    url = f"{HeterophilousGraphDataset.url}/{file}"
    (path,) = locate([f"heterophilous/{file}"], root=root, urls=[url], hint=name)
    masks = ("train_masks", "val_masks", "test_masks")
    held = read_npz(path, ("node_features", "node_labels", "edges", *masks))
    x = check_features(held["node_features"], path)
    public = _check_masks([held[mask] for mask in masks], len(x), path)
    edge_index = to_undirected(check_edges(held["edges"], len(x), path), num_nodes=len(x))
    return RawGraph(x, edge_index, check_labels(held["node_labels"], len(x), path), public)


def _check_masks(masks: list[np.ndarray[Any, Any]], num_nodes: int, path: Path) -> torch.Tensor:
    """Return the masks as bool ``[3, S, N]``; no node may be in two parts of one split."""
    for mask in masks:
        if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape != masks[0].shape or mask.shape[1] != num_nodes:
            raise DataError(f"{path}: masks must be bool [splits, {num_nodes}], not {mask.dtype} {list(mask.shape)}.")
    stacked = np.stack(masks)
    if (stacked.sum(axis=0) > 1).any():
        raise DataError(f"{path}: a node is in two of training, validation and test.")
    return torch.from_numpy(stacked)


def read_facebook(root: str | os.PathLike[str] | None) -> RawGraph:
    """Read the Facebook page-page graph (Rozemberczki, Allen, Sarkar, 2019) with its 4,714 binary features.

    Args:
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.
    """
    from torch_geometric.utils import to_undirected

    # PyG's copy has 128 embedded features instead; to load it under this name would mix up two data sets.
    hint = "facebook (PyG's copy with 128 embedded features is another data set: 'facebook-128')"
    (path,) = locate(["musae_facebook/musae_facebook.npz"], root=root, urls=[], hint=hint)
    held = read_npz(path, ("edges", "feat_row", "feat_col", "num_features", "labels"))
    num_nodes, shape = len(held["labels"]), held["num_features"].shape
    if shape != () or held["num_features"].dtype.kind not in "iu":
        raise DataError(f"{path}: num_features must be one whole number, not an array of shape {list(shape)}.")
    x = _one_hot(held["feat_row"], held["feat_col"], (num_nodes, int(held["num_features"])), path)
    edge_index = to_undirected(check_edges(held["edges"], num_nodes, path), num_nodes=num_nodes)
    return RawGraph(x, edge_index, check_labels(held["labels"], num_nodes, path))


def read_facebook_128(root: str | os.PathLike[str] | None) -> RawGraph:
    """Read ``torch_geometric.datasets.FacebookPagePage``: the same pages with 128 embedded features.

    Args:
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: the file is missing and cannot be downloaded, is damaged, or its arrays do not fit together.
    """
    from torch_geometric.datasets import FacebookPagePage

    urls = [FacebookPagePage.url]
    (path,) = locate(["FacebookPagePage/raw/facebook.npz"], root=root, urls=urls, hint="facebook-128")
    held = read_npz(path, ("edges", "features", "target"))
    x = check_features(held["features"], path)
    return RawGraph(x, check_edges(held["edges"], len(x), path), check_labels(held["target"], len(x), path))


def read_wordnet(root: str | os.PathLike[str] | None) -> RawGraph:
    """Read WordNet 3.0: synsets, their typed pointers (directed, some parallel), words of their glosses.

    The kind of each pointer comes along as ``edge_type`` ``[E]``; the classes are the 45 lexicographer files.

    Args:
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.
    """
    (path,) = locate(["wordnet/wordnet_synsets.npz"], root=root, urls=[], hint="wordnet")
    held = read_npz(path, ("edges", "edge_type", "labels", "feat_indices", "feat_indptr", "vocab"))
    num_nodes, starts = len(held["labels"]), held["feat_indptr"].astype(np.int64)
    counts = np.diff(starts)
    fits = starts.shape == (num_nodes + 1,) and starts[0] == 0 and starts[-1] == len(held["feat_indices"])
    if not fits or (counts < 0).any():
        raise DataError(f"{path}: feat_indptr does not cut feat_indices into {num_nodes:,} rows.")
    rows = np.repeat(np.arange(num_nodes), counts)
    x = _one_hot(rows, held["feat_indices"], (num_nodes, len(held["vocab"])), path)
    edge_index = check_edges(held["edges"], num_nodes, path)
    kinds = check_labels(held["edge_type"], edge_index.shape[1], path)
    return RawGraph(x, edge_index, check_labels(held["labels"], num_nodes, path), edge_level={"edge_type": kinds})


def read_debian(root: str | os.PathLike[str] | None) -> RawGraph:
    """Read the package dependencies of Debian 12 (directed); a package's class is its section.

    Features are the words of the one-line description, hashed into 512 counts and scaled to length one.

    Args:
        root: as in :func:`graphsparse.data.load`.

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.
    """
    (path,) = locate(["debian/debian_bookworm_deps.npz"], root=root, urls=[], hint="debian")
    held = read_npz(path, ("edges", "labels", "desc"))
    num_nodes = len(held["labels"])
    if held["desc"].shape != (num_nodes,) or held["desc"].dtype.kind != "U":
        raise DataError(f"{path}: desc must be {num_nodes:,} texts, not {held['desc'].dtype}.")
    edge_index = check_edges(held["edges"], num_nodes, path)
    return RawGraph(_hashed_words(held["desc"]), edge_index, check_labels(held["labels"], num_nodes, path))


def _hashed_words(texts: np.ndarray[Any, Any]) -> torch.Tensor:
    """Hash the words of each text into float32 ``[N, 512]``; the hash has no seed, so it is the same everywhere."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hasher = HashingVectorizer(n_features=DEBIAN_FEATURES, alternate_sign=False, dtype=np.float32)
    return torch.from_numpy(hasher.transform(texts.tolist()).toarray())


def _one_hot(
    rows: np.ndarray[Any, Any], columns: np.ndarray[Any, Any], shape: tuple[int, int], path: Path
) -> torch.Tensor:
    """Return float32 of ``shape`` with ones at (rows, columns)."""
    if rows.shape != columns.shape or rows.ndim != 1 or rows.dtype.kind not in "iu" or columns.dtype.kind not in "iu":
        raise DataError(f"{path}: the features' rows and columns must be two equally long lists of integers.")
    for ids, limit, what in ((rows, shape[0], "row"), (columns, shape[1], "column")):
        outside = ids[(ids < 0) | (ids >= limit)]
        if outside.size:
            raise DataError(f"{path}: a feature's {what} is {outside[0]}, outside 0 ... {limit - 1}.")
    x = torch.zeros(shape, dtype=torch.float32)
    x[torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(columns.astype(np.int64))] = 1.0
    return x


_HETEROPHILOUS = {
    "tolokers": ("crowd workers, 11,758 nodes, two classes; linked by common tasks", "rocauc"),
    "minesweeper": ("a grid of 10,000 cells, two classes; synthetic", "rocauc"),
    "questions": ("users of a question-answering site, 48,921 nodes, two classes", "rocauc"),
    "roman-empire": ("words of an article, 22,662 nodes, 18 classes", None),
    "amazon-ratings": ("products bought together, 24,492 nodes, 5 classes", None),
    "actor": ("actors who share pages, 7,600 nodes, 5 classes", None),
    "squirrel-filtered": ("Wikipedia pages without duplicates, 2,223 nodes, 5 classes", None),
    "chameleon-filtered": ("Wikipedia pages without duplicates, 890 nodes, 5 classes", None),
}
for _name, (_about, _metric) in _HETEROPHILOUS.items():
    DATASETS.register(_name, DataSet(partial(read_heterophilous, _name), metric=_metric, about=_about))
DATASETS.register("facebook", DataSet(read_facebook, about="Facebook pages, 22,470 nodes, 4,714 features, 4 classes"))
DATASETS.register("facebook-128", DataSet(read_facebook_128, about="the same pages with 128 embedded features"))
DATASETS.register("wordnet", DataSet(read_wordnet, about="WordNet's synsets, 117,659 nodes, directed, 45 classes"))
DATASETS.register("debian", DataSet(read_debian, about="Debian's packages, 63,436 nodes, directed, 58 classes"))
