"""What a reader sees of a sparsification: figures and degrees before and after, and neighbourhoods to look into."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.graphs.anatomy import anatomy
from graphsparse.graphs.inner_form import EdgeList

Array = npt.NDArray[Any]

MOST_EDGES = 16_000  # so many are shown whole: about 170 kB of JSON; of a larger graph neighbourhoods are drawn
MOST_CENTRES = 40  # of a larger graph
BALL = 60  # nodes of one neighbourhood of a larger graph
MOST_PRODUCTS = 200_000_000  # of the exact clustering: a few seconds; beyond, it is the mean over a sample
SAMPLE = 2_000
FINEST = 150  # different degrees that are listed one by one
LONGEST_LABEL = 60


def picture(
    edges: EdgeList, keep: Tensor, *, y: Tensor | None = None, labels: Sequence[Any] | Array | None = None
) -> dict[str, Any]:
    """Describe what a mask of edges did to a graph, in plain values of bounded size that JSON can hold.

    Args:
        edges: the graph before.
        keep: bool ``[E]``.
        y: classes ``[N]``, or None.
        labels: what the nodes are called, or None: by their numbers.

    Returns:
        ``nodes``, ``undirected``, ``before`` and ``after`` (figures of `anatomy`, ``edges``, ``largest_degree`` and
        ``degrees``: pairs of a degree and how many nodes have it), ``clustering_sample`` (over how many nodes the
        clustering is a mean, None: all), and ``drawing``, see `drawing`.

    Example:
        >>> from graphsparse.graphs.interop import edge_list
        >>> square = edge_list(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), undirected=True)
        >>> found = picture(square, torch.tensor([True, True, True, False]))
        >>> found["after"]["edges"], found["before"]["degrees"], found["after"]["degrees"]
        (3, [[2, 4]], [[1, 2], [2, 2]])
    """
    edge_index, keep, num_nodes = edges.edge_index.cpu(), keep.cpu(), edges.num_nodes
    tails, heads = edge_index
    once = (tails < heads if edges.mirrored else tails != heads).numpy()  # each edge once, no loops
    ends, kept = edge_index.numpy()[:, once].astype(np.int64), keep.numpy()[once]
    degree = np.bincount(ends.ravel(), minlength=num_nodes)
    heavy = float((degree.astype(np.float64) ** 2).sum()) > MOST_PRODUCTS
    sample = SAMPLE if heavy and num_nodes > SAMPLE else None
    sides = {}
    for name, mask, counted in (("before", torch.ones_like(keep), ends), ("after", keep, ends[:, kept])):
        degrees = np.bincount(counted.ravel(), minlength=num_nodes)
        sides[name] = {
            **anatomy(edge_index[:, mask], num_nodes, y, sample=sample),
            "edges": int(counted.shape[1]),
            "largest_degree": int(degrees.max()) if num_nodes else 0,
            "degrees": degree_counts(degrees),
        }
    return {
        "nodes": num_nodes,
        "undirected": edges.undirected,
        **sides,
        "clustering_sample": sample,
        "drawing": drawing(ends, kept, num_nodes, y=y, labels=labels),
    }


def degree_counts(degrees: Array) -> list[list[float]]:
    """Pairs of a degree and how many nodes have it; many different degrees share bins that widen by a quarter.

    A bin is told by its mean degree, and by the mean number of nodes at each degree in it.

    Args:
        degrees: of each node ``[N]``.

    Example:
        >>> degree_counts(np.array([1, 3, 1]))
        [[1, 2], [3, 1]]
    """
    found, count = np.unique(degrees, return_counts=True)
    if len(found) <= FINEST:
        return [[int(a), int(b)] for a, b in zip(found, count, strict=True)]
    edges = [0, 1]
    while edges[-1] <= found[-1]:
        edges.append(max(edges[-1] + 1, int(edges[-1] * 1.25)))
    edges[-1] = int(found[-1]) + 1  # the last bin ends where the degrees do
    pairs: list[list[float]] = []
    for low, high in pairwise(edges):
        inside = (found >= low) & (found < high)
        if inside.any():
            total = int(count[inside].sum())
            middle = float((found[inside] * count[inside]).sum() / total)
            pairs.append([round(middle, 3), round(total / (high - low), 5)])
    return pairs


def drawing(
    ends: Array, kept: Array, num_nodes: int, *, y: Tensor | None = None, labels: Sequence[Any] | Array | None = None
) -> dict[str, Any]:
    """Edges to draw neighbourhoods from: all of a small graph, and those around chosen centres of a large one.

    Args:
        ends: ``[2, m]``, each edge once.
        kept: bool ``[m]``.
        num_nodes: N.
        y: classes ``[N]``, or None.
        labels: what the nodes are called, or None.

    Returns:
        ``whole`` (whether every node may be a centre), ``nodes`` (numbers of those that are there, None: all),
        ``tails`` and ``heads`` (positions among the nodes), ``kept`` (a string of 0 and 1), ``centres`` (pairs of a
        position and why it is worth a look), ``classes`` and ``labels`` of the nodes or None, and their ``degrees``
        before and after, in the whole graph.
    """
    before, after = (np.bincount(part.ravel(), minlength=num_nodes) for part in (ends, ends[:, kept]))
    whole = ends.shape[1] <= MOST_EDGES and num_nodes <= 2 * MOST_EDGES
    centres = _centres(before, after, 6 if whole else MOST_CENTRES)
    nodes: Array | None = None
    if not whole:
        nodes, inside = _around([node for node, _ in centres], ends, num_nodes)
        ends, kept = np.searchsorted(nodes, ends[:, inside]), kept[inside]
    shown = np.arange(num_nodes) if nodes is None else nodes
    place = {int(node): at for at, node in enumerate(shown)}
    classes = None if y is None or y.dim() != 1 or y.is_floating_point() or len(y) != num_nodes else y.cpu().numpy()
    return {
        "whole": whole,
        "nodes": None if nodes is None else nodes.tolist(),
        "tails": ends[0].tolist(),
        "heads": ends[1].tolist(),
        "kept": "".join("1" if stays else "0" for stays in kept.tolist()),
        "centres": [[place[node], why] for node, why in centres],
        "classes": None if classes is None else classes[shown].tolist(),
        "labels": None if labels is None else [str(labels[node])[:LONGEST_LABEL] for node in shown.tolist()],
        "degrees": [before[shown].tolist(), after[shown].tolist()],
    }


def _centres(before: Array, after: Array, most: int) -> list[tuple[int, str]]:
    """Nodes worth a look, by what happened to them, then some of all degrees; lowest numbers among equals."""
    found: dict[int, list[str]] = {}

    def add(node: int, why: str) -> None:
        if before[node] and (len(found) < most or node in found):
            found.setdefault(int(node), []).append(why)

    if not before.any():
        return []
    lost = before - after
    add(int(np.argmax(before)), "the largest degree")
    add(int(np.argmax(lost)), "lost the most edges")
    alone = np.flatnonzero((before > 0) & (after == 0))
    if len(alone):
        add(int(alone[np.argmax(before[alone])]), "lost all of its edges")
    untouched = np.flatnonzero((before > 0) & (lost == 0))
    if len(untouched):
        add(int(untouched[np.argmax(before[untouched])]), "kept all of its edges")
    linked = np.flatnonzero(before > 0)
    order = linked[np.argsort(before[linked], kind="stable")]
    add(int(order[len(order) // 2]), "the median degree")
    add(int(order[-1 - len(order) // 10]), "a degree of the highest tenth")
    for node in order[np.linspace(0, len(order) - 1, most).astype(int)].tolist():
        if node not in found:
            add(node, "one of a spread over the degrees")
    return [(node, ", ".join(reasons)) for node, reasons in found.items()]


def _around(centres: Sequence[int], ends: Array, num_nodes: int) -> tuple[Array, Array]:
    """The nodes within two steps of the centres, bounded for each, and the edges among the nodes of each centre."""
    rows, columns = np.concatenate([ends[0], ends[1]]), np.concatenate([ends[1], ends[0]])
    columns = columns[np.argsort(rows, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_nodes))])
    picked, seen = np.zeros(ends.shape[1], bool), np.zeros(num_nodes, bool)
    for centre in centres:
        ball = _ball(centre, starts, columns)
        seen[ball] = True
        member = np.zeros(num_nodes, bool)
        member[ball] = True
        picked |= member[ends[0]] & member[ends[1]]
    return np.flatnonzero(seen), np.flatnonzero(picked)


def _ball(centre: int, starts: Array, columns: Array) -> list[int]:
    """Up to `BALL` nodes within two steps: at most half of them neighbours, evenly taken where there are more."""
    found = {centre: None}
    first = _spread(np.unique(columns[starts[centre] : starts[centre + 1]]), BALL // 2)
    found.update(dict.fromkeys(first))
    share = max(1, (BALL - len(found)) // max(len(first), 1))
    for node in first:
        near = [other for other in np.unique(columns[starts[node] : starts[node + 1]]).tolist() if other not in found]
        found.update(dict.fromkeys(_spread(np.array(near, np.int64), min(share, BALL - len(found)))))
    return list(found)


def _spread(values: Array, most: int) -> list[int]:
    """At most so many of the values, evenly spaced."""
    if len(values) <= most:
        return [int(value) for value in values]
    return [int(values[at]) for at in np.linspace(0, len(values) - 1, most).astype(int)] if most else []
