"""One door to every graph: a name goes in, one ``Data`` comes out that a task of nodes, links or graphs is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch_geometric.data import Data

from graphsparse.data.archives import (
    read_debian,
    read_facebook,
    read_facebook_128,
    read_heterophilous,
    read_wordnet,
)
from graphsparse.data.digits import read_digits
from graphsparse.data.naming import known_key
from graphsparse.data.ogb import read_ogb_node
from graphsparse.data.ogb_graphs import GRAPHS, LINKS, read_ogb_graphs, read_ogb_links
from graphsparse.data.planetoid import read_planetoid
from graphsparse.data.raw import RawGraph
from graphsparse.data.splits import PerClass, Stratified, choose

_SIXTY_TWENTY_TWENTY = Stratified(0.6, 0.2)


@dataclass(frozen=True)
class _Entry:
    """How one data set is read, judged and split when no published split is wanted."""

    read: Callable[[str | os.PathLike[str] | None], RawGraph]
    metric: str = "accuracy"
    random: PerClass | Stratified = _SIXTY_TWENTY_TWENTY


_DIGITS_SPLIT = PerClass(5, 500, None)  # few labels, so that the edges are worth something
_PLANETOID_SPLIT = PerClass(20, 500, 1000)

_CATALOGUE: dict[str, _Entry] = {
    "digits-knn": _Entry(lambda root: read_digits(), random=_DIGITS_SPLIT),
    "cora": _Entry(partial(read_planetoid, "cora"), random=_PLANETOID_SPLIT),
    "citeseer": _Entry(partial(read_planetoid, "citeseer"), random=_PLANETOID_SPLIT),
    "pubmed": _Entry(partial(read_planetoid, "pubmed"), random=_PLANETOID_SPLIT),
    "tolokers": _Entry(partial(read_heterophilous, "tolokers"), metric="rocauc"),
    "minesweeper": _Entry(partial(read_heterophilous, "minesweeper"), metric="rocauc"),
    "questions": _Entry(partial(read_heterophilous, "questions"), metric="rocauc"),
    "roman-empire": _Entry(partial(read_heterophilous, "roman-empire")),
    "amazon-ratings": _Entry(partial(read_heterophilous, "amazon-ratings")),
    "actor": _Entry(partial(read_heterophilous, "actor")),
    "squirrel-filtered": _Entry(partial(read_heterophilous, "squirrel-filtered")),
    "chameleon-filtered": _Entry(partial(read_heterophilous, "chameleon-filtered")),
    "facebook": _Entry(read_facebook),
    "facebook-128": _Entry(read_facebook_128),
    "wordnet": _Entry(read_wordnet),
    "debian": _Entry(read_debian),
    "ogbn-arxiv": _Entry(partial(read_ogb_node, "ogbn-arxiv")),
    "ogbn-products": _Entry(partial(read_ogb_node, "ogbn-products")),
}


def names() -> list[str]:
    """Return the names that :func:`load` knows.

    Example:
        >>> "cora" in names()
        True
    """
    return [*_CATALOGUE, *LINKS, *GRAPHS]


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
        name: one of :func:`names`; case does not matter, ``_`` is ``-``.
        split: None for the usual one: the published split, the first of ten, or a random one where none is published.
            Else the number of one of ten, ``"public"``, or ``"random"``.
        root: the data folder; by default the one that ``GRAPHSPARSE_DATA`` names. It is only read. What is not
            there is looked for in, and downloaded into, the cache (``GRAPHSPARSE_CACHE``).
        seed: of a random split, at least 0.
        normalize_features: let each row of ``x`` sum to one, as TEDDY and UGS do with bags of words.

    Returns:
        ``Data`` with ``x`` float32 ``[N, F]``, ``edge_index`` int64 ``[2, E]`` (both arcs of an undirected edge),
        ``y`` int64 ``[N]``, bool ``[N]`` ``train_mask``, ``val_mask``, ``test_mask``, and ``name``, ``split`` (in
        words), ``metric`` (``"accuracy"`` or ``"rocauc"``), ``num_classes``.

    Raises:
        TypeError: the name is no text.
        ValueError: the name or the split does not exist; the sentence says which do.
        DataError: a file is missing (and cannot be downloaded), damaged, or not what it should be.

    Example:
        >>> data = load("digits-knn")
        >>> data.num_nodes, data.num_features, data.num_classes, data.split
        (1797, 64, 10, 'random 5 per class/500/rest, seed 0')
    """
    key = known_key(name, names(), what="data set", example="cora")
    if key not in _CATALOGUE:
        return _load_public(key, split, root, normalize_features)
    entry = _CATALOGUE[key]
    raw = entry.read(root)
    masks, described = choose(key, split, public=raw.public, random=entry.random, y=raw.y, seed=seed)
    data = Data(x=raw.x, edge_index=raw.edge_index, y=raw.y, **raw.edge_level)
    data.train_mask, data.val_mask, data.test_mask = (mask.clone() for mask in masks)
    if normalize_features:
        from torch_geometric.transforms import NormalizeFeatures

        data = NormalizeFeatures()(data)
    data.name, data.split, data.metric, data.task = key, described, entry.metric, "node"
    data.num_classes = int(raw.y.max()) + 1
    return data


def _load_public(
    key: str, split: int | str | None, root: str | os.PathLike[str] | None, normalize_features: bool
) -> Data:
    """Links and graphs of OGB, which have one split and features of their own kind."""
    if split not in (None, "public"):
        raise ValueError(f"{key} has no split {split!r}; possible: 'public', or None for the default.")
    if normalize_features:
        raise ValueError(f"normalize_features is for bags of words; {key} has none.")
    return read_ogb_links(key, root) if key in LINKS else read_ogb_graphs(key, root)
