"""Channels that are tied because they use the same elements of one parameter: shared layers, tied weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from graphsparse.metanet.graph.record import EdgeBlock, Record, SlotEvent


def relate_shared(record: Record, events: Iterable[SlotEvent], shapes: Mapping[int, torch.Size]) -> None:
    """Write a ``shared`` relation between the nodes that own the same place of a parameter in its several uses.

    A weight that is used transposed (a tied decoder) ties the inputs of one use to the outputs of the other.
    """
    firsts = torch.tensor(sorted(shapes))
    uses: dict[int, list[EdgeBlock]] = {}
    for blocks in record.kernels.values():
        for block in blocks:
            number = block.weight.start if block.weight.index is None else int(block.weight.index.reshape(-1)[0])
            start = int(firsts[torch.searchsorted(firsts, number, right=True) - 1])
            uses.setdefault(start, []).append(block)
    for start, blocks in uses.items():
        if len(blocks) > 1:
            _relate_all(record, [_along_axes(record, block, start, shapes[start]) for block in blocks])
    laid: dict[int, list[dict[int, Tensor]]] = {}
    for event in events:
        for _, index, owners in event.parts:
            if len(index) and len(torch.unique(index)) == len(index):  # one element on many nodes ties none of them
                first = int(index.min())
                start = int(firsts[torch.searchsorted(firsts, first, right=True) - 1])
                nodes = torch.full((shapes[start].numel(),), -1)
                inside = index - start < len(nodes)
                nodes[index[inside] - start] = owners[inside]
                laid.setdefault(start, []).append({0: nodes})
    for users in laid.values():
        _relate_all(record, users)


def _relate_all(record: Record, uses: list[dict[int, Tensor]]) -> None:
    first = uses[0]
    for other in uses[1:]:
        for axis in first.keys() & other.keys():
            record.relate("shared", first[axis], other[axis])


def _along_axes(record: Record, block: EdgeBlock, start: int, shape: torch.Size) -> dict[int, Tensor]:
    """For each of the weight's two axes of channels: the node of each place, where the use has exactly one."""
    index = block.weight.indices().reshape(len(block.src), -1)[:, 0] - start
    inside = (index >= 0) & (index < shape.numel())
    places = torch.unravel_index(index[inside], shape)
    ends = {"dst": record.root(block.dst)[inside], "src": record.root(block.src)[inside]}
    found: dict[int, Tensor] = {}
    for axis, end in ((0, "dst"), (1, "src"), (0, "src"), (1, "dst")):
        if axis in found or end not in ends or axis >= len(shape):
            continue
        nodes = torch.full((shape[axis],), -1)
        nodes[places[axis]] = ends[end]
        if torch.equal(nodes[places[axis]], ends[end]):
            found[axis] = nodes
            del ends[end]
    return found
