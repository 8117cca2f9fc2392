"""What shapes demand: parts that stay equally long, and axes whose lengths a cut changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphsparse.metanet.graph.record import EdgeBlock, Ids, Record, collapse

Components = Callable[[Tensor, int], Tensor]


def tie_parts(record: Record, parts: Any, arguments: Mapping[str, Any]) -> None:
    """Equal parts of an axis (``chunk``, ``split``) lose the same places; unequal ones by one size lose none."""
    found = [part.tensor for part in pytree.tree_leaves(parts) if isinstance(part, Ids)]
    if len(found) < 2:
        return
    axis = int(arguments.get("dim", 0))
    lengths = [part.shape[axis] for part in found]
    sizes = arguments.get("split_size", arguments.get("split_sizes", arguments.get("chunks")))
    small = [collapse(part) for part in found]
    record.parts += [part.reshape(-1) for part in small if part.shape[axis] == 1 or part.numel() > 1]
    if isinstance(sizes, int) and len(set(lengths)) > 1:
        if any(part.shape[axis] > 1 for part in small):
            for part in found:
                record.hold("they are split into parts of a size that their number is no multiple of", part)
        return
    for position, part in enumerate(small):
        first = lengths.index(lengths[position])
        if first < position:
            record.tie(small[first], part)


def tie_layers(record: Record, layers: Any) -> None:
    """What is stacked has one shape, and so loses the same places."""
    found = [collapse(part.tensor) for part in pytree.tree_leaves(layers) if isinstance(part, Ids)]
    for part in found[1:]:
        record.tie(found[0], part)


def tie_sums(record: Record, coupled: Tensor, components: Components) -> None:
    """A sum of channels that go together anyway (feature maps that were stacked) goes with them."""
    pairs = record.root(torch.cat([coupled[:, :0], *record.relations.get("reduce", [])], dim=1))
    pairs = pairs[:, (pairs >= 0).all(0)]
    if pairs.shape[1]:
        whole = components(torch.cat([coupled, *map(record.root, record.ties)], dim=1), record.count)
        sums, which = torch.unique(pairs[1], return_inverse=True)
        terms, none = whole[pairs[0]], torch.zeros(len(sums), dtype=torch.int64)
        low = none.scatter_reduce(0, which, terms, "amin", include_self=False)
        high = none.scatter_reduce(0, which, terms, "amax", include_self=False)
        one = (low == high)[which]
        record.tie(pairs[0][one], pairs[1][one])


def tie_shapes(record: Record, coupled: Tensor, components: Components) -> None:
    """Tie what must go together for every activation to stay a full box.

    Where an axis of channels is viewed as several (heads and their widths, groups and their places), one of these loses
    places and the others stay: the one for which the channels are coupled so anyway, else the longest.
    """
    boxes = {}
    for made in record.made:
        ids = record.root(made.ids)
        if made.reshaped and sum(size > 1 for size in ids.shape) > 1 and not bool((record.soft(ids) | (ids < 0)).all()):
            boxes[tuple(ids.shape), ids.numpy().tobytes()] = ids
    if not boxes:
        return
    for _ in range(3):
        whole = components(torch.cat([coupled, *map(record.root, record.ties)], dim=1), record.count)
        fresh = [pairs for ids in boxes.values() for pairs in _tied(ids, whole)]
        if not fresh:
            return
        for left, right in fresh:
            record.tie(left, right)


def _tied(ids: Tensor, whole: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of ids that one box lacks; none if all varied axes but one have the same sets everywhere."""
    sets = torch.where(ids < 0, -1, whole[ids.clamp(min=0)])
    varied = [axis for axis in range(sets.dim()) if _varies(sets, [axis])]
    if len(varied) < 2:
        return []
    for axis in varied:
        if not _varies(sets, [other for other in varied if other != axis]):
            return []
    free = max(varied, key=lambda axis: (sets.shape[axis], axis))
    rows = ids.movedim(free, 0).flatten(1)  # [places of the free axis, all others]
    return [(rows.amax(1, keepdim=True).expand_as(rows)[rows >= 0], rows[rows >= 0])]


def _varies(sets: Tensor, axes: list[int]) -> bool:
    moved = sets.movedim(axes, list(range(len(axes)))).flatten(0, len(axes) - 1)
    top = moved.amax(0)
    low = torch.where(moved < 0, torch.iinfo(torch.int64).max, moved).amin(0)
    return bool(((low != top) & (top >= 0)).any())


def tie_heads(record: Record) -> None:
    """Tie the width of heads to the width of what attention reads, where its module has no number for the former.

    Such a module computes the one from the other (``C // heads``).
    """
    for part in record.heads:
        heads = record.root(part).flatten()
        if len(torch.unique(heads)) < len(heads):
            continue
        for blocks in record.kernels.values():
            for block in blocks:
                made, read = _ends(record, block)
                mine = torch.isin(made, heads)
                if int(mine.sum()) == len(heads) == len(read):
                    record.tie(read, made[mine])


def _ends(record: Record, block: EdgeBlock) -> tuple[Tensor, Tensor]:
    """The ids that a weight makes and those that it reads, each once, in the weight's own order."""
    return tuple(_once(record.root(end)) for end in (block.dst, block.src))  # type: ignore[return-value]


def _once(ids: Tensor) -> Tensor:
    distinct, inverse = torch.unique(ids, return_inverse=True)
    first = torch.full((len(distinct),), len(ids)).scatter_reduce(0, inverse, torch.arange(len(ids)), "amin")
    return ids[first.sort().values]


def sizes_after(ids: Tensor, shape: torch.Size, keep: Tensor) -> list[tuple[int, int]]:
    """For each axis of an activation its length and what a mask of nodes leaves of it."""
    found = []
    for axis, size in enumerate(shape):
        if ids.shape[axis] < size or size == 1:
            found.append((size, size))
            continue
        rows = ids.movedim(axis, 0).reshape(size, -1)
        stays = ((rows >= 0) & keep[rows.clamp(min=0)]).any(1) | (rows < 0).all(1)
        found.append((size, int(stays.sum())))
    return found
