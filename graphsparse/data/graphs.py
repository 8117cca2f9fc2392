"""One door to every graph: a name goes in, one ``Data`` comes out that a task of nodes, links or graphs is made of."""

from __future__ import annotations

import os
from typing import Any

from torch_geometric.data import Data

from graphsparse.data.catalogue import DATASETS, DataSet
from graphsparse.data.ogb import why_not
from graphsparse.data.raw import RawGraph, of_data
from graphsparse.data.splits import choose
from graphsparse.registry import spelling


def names() -> list[str]:
    """Return the names that :func:`load` knows.

    Example:
        >>> "cora" in names()
        True
    """
    return DATASETS.names()


def load(
    name: str,
    split: int | str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    normalize_features: bool = False,
) -> Data:
    """Load a graph, or a set of graphs, by its name.

    Args:
        name: one of :func:`names`, where case does not matter and ``_`` is ``-``; or ``"module:function"``, a data set
            of one's own as :func:`graphsparse.data.register` takes it.
        split: None for the usual one: the published split, the first of ten, or a random one where none is published.
            Else the number of one of ten, ``"public"``, or ``"random"``.
        root: the data folder; by default the one that ``GRAPHSPARSE_DATA`` names. It is only read. What is not
            there is looked for in, and downloaded into, the cache (``GRAPHSPARSE_CACHE``).
        seed: of a random split, at least 0.
        normalize_features: let each row of ``x`` sum to one, as TEDDY and UGS do with bags of words.

    Returns:
        ``Data`` with ``x`` float32 ``[N, F]``, ``edge_index`` int64 ``[2, E]`` (both arcs of an undirected edge),
        ``y`` int64 ``[N]`` (float32 ``[N, C]`` where a node has several labels, NaN where one is not known), bool
        ``[N]`` ``train_mask``, ``val_mask``, ``test_mask``, what its edges carry (``edge_weight``, ``edge_attr``,
        ``edge_type``), and ``name``, ``split`` (in words), ``metric`` (such as ``"accuracy"``), ``num_classes``.

    Raises:
        TypeError: the name is no text.
        ValueError: the name or the split does not exist; the sentence says which do.
        DataError: a file is missing (and cannot be downloaded), damaged, or not what it should be.

    Example:
        >>> data = load("digits-knn")
        >>> data.num_nodes, data.num_features, data.num_classes, data.split
        (1797, 64, 10, 'random 5 per class/500/rest, seed 0')
    """
    if isinstance(name, str) and (why := why_not(name)):
        raise ValueError(why)
    key = DATASETS.key(name)
    entry = DATASETS.find(key)
    found = entry.read(root)
    told = found.to_dict().get("task") if isinstance(found, Data) else None
    if (entry.task or told or "node") != "node":
        return _as_it_is(key, found, split, normalize_features)
    raw = found if isinstance(found, RawGraph) else of_data(found, key)
    masks, described = choose(key, split, public=raw.public, random=entry.random, y=raw.y, seed=seed)
    data = Data(x=raw.x, edge_index=raw.edge_index, y=raw.y, **raw.edge_level)
    data.train_mask, data.val_mask, data.test_mask = (mask.clone() for mask in masks)
    if normalize_features:
        from torch_geometric.transforms import NormalizeFeatures

        data = NormalizeFeatures()(data)
    data.name, data.split, data.metric, data.task = key, described, _metric(entry, raw), "node"
    data.num_classes = int(raw.y.shape[1]) if raw.y.dim() == 2 else int(raw.y.max()) + 1
    return data


def _metric(entry: DataSet, raw: RawGraph) -> str:
    return entry.metric or raw.metric or ("rocauc" if raw.y.dim() == 2 else "accuracy")


def _as_it_is(name: str, data: Any, split: int | str | None, normalize_features: bool) -> Data:
    """Links and graphs have one split, and features of their own kind."""
    if split is not None and not (isinstance(split, str) and spelling(split, ["public"])):
        raise ValueError(f"{name} has no split {split!r}; possible: 'public', or None for the default.")
    if normalize_features:
        raise ValueError(f"normalize_features is for bags of words; {name} has none.")
    data.name, data.split = name, data.to_dict().get("split", "public")
    return data
