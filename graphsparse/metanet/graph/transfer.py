"""Parameter values -> values of a graph's edges and nodes, and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphsparse.metanet.graph.structure import Kernel, Piece, Structure

Values = dict[Kernel | str, Tensor]
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Return:
    """The way of one parameter back out of the graph.

    Without ``source`` it is the slice of one group from ``start``. Otherwise ``source`` are positions in the joined
    values of ``groups``, sorted by element; entries of one element follow each other and ``segment`` counts them.
    """

    groups: tuple[Kernel | str, ...]
    start: int
    source: Tensor | None = None
    segment: Tensor | None = None
    elements: Tensor | None = None  # which elements; None: all of them


def sizes(structure: Structure) -> dict[Kernel | str, tuple[int, int]]:
    """Rows and columns of every group of values."""
    out: dict[Kernel | str, tuple[int, int]] = {
        kernel: (len(edge.src), int(torch.Size(kernel).numel())) for kernel, edge in structure.edges.items()
    }
    out.update({name: (len(bank.nodes), bank.width) for name, bank in structure.banks.items()})
    return out


def gather(structure: Structure, state: Mapping[str, Tensor]) -> Values:
    """The values of all groups, [rows, columns] each, copied from the parameters."""
    device = next((state[name].device for name in structure.pieces), torch.device("cpu"))
    dtypes: dict[Kernel | str, torch.dtype] = {}
    for name, pieces in structure.pieces.items():
        for piece in pieces:
            known = dtypes.setdefault(piece.group, state[name].dtype)
            dtypes[piece.group] = torch.promote_types(known, state[name].dtype)
    out = {group: torch.zeros(shape, dtype=dtypes[group], device=device) for group, shape in sizes(structure).items()}
    for name, pieces in structure.pieces.items():
        flat = state[name].detach().reshape(-1)
        for piece in pieces:
            into = out[piece.group].view(-1)
            if piece.position is None:
                into[piece.start : piece.start + len(flat)] = flat
            else:
                into[piece.position.to(device)] = flat[piece.element.to(device)].to(into.dtype)  # type: ignore[union-attr]
    return out


def ways_back(structure: Structure, numel: Mapping[str, int]) -> dict[str, Return]:
    """How each parameter is put together again."""
    size = {group: rows * columns for group, (rows, columns) in sizes(structure).items()}
    return {name: _way_back(pieces, numel[name], size) for name, pieces in structure.pieces.items()}


def _way_back(pieces: tuple[Piece, ...], numel: int, size: Mapping[Kernel | str, int]) -> Return:
    if len(pieces) == 1 and _contiguous(pieces[0], numel):
        piece = pieces[0]
        start = piece.start if piece.position is None else int(piece.position[0])
        return Return((piece.group,), start)
    groups = tuple(dict.fromkeys(piece.group for piece in pieces))
    first = dict(zip(groups, torch.tensor([0, *(size[group] for group in groups)]).cumsum(0).tolist(), strict=False))
    whole = torch.arange(numel)
    element = torch.cat([whole if piece.element is None else piece.element for piece in pieces])
    source = torch.cat([first[p.group] + (p.start + whole if p.position is None else p.position) for p in pieces])
    element, order = torch.sort(element, stable=True)
    distinct, segment = torch.unique_consecutive(element, return_inverse=True)
    return Return(groups, -1, source[order], segment, None if len(distinct) == numel else distinct)


def _contiguous(piece: Piece, numel: int) -> bool:
    if piece.position is None or piece.element is None:
        return True
    position, whole = piece.position, torch.arange(numel)
    return len(position) == numel and torch.equal(piece.element, whole) and torch.equal(position, position[0] + whole)


def scatter(way: Return, values: Mapping[Kernel | str, Tensor], like: Tensor) -> Tensor:
    """One parameter out of the graph; ``like`` has its shape and type, and the elements that lie nowhere in it."""
    if way.source is None:
        flat = values[way.groups[0]].reshape(-1)[way.start : way.start + like.numel()]
        return flat.reshape(like.shape).to(like.dtype)
    joined = torch.cat([values[group].reshape(-1) for group in way.groups])
    found = joined[way.source.to(joined.device)].to(like.dtype)
    assert way.segment is not None
    merged: Tensor = _Agree.apply(found, way.segment.to(joined.device))  # type: ignore[no-untyped-call]
    if way.elements is not None:
        merged = like.reshape(-1).index_put((way.elements.to(joined.device),), merged)
    return merged.reshape(like.shape)


class _Agree(torch.autograd.Function):
    """The mean of the entries of each segment in float64; where all are the same bits, exactly those bits."""

    @staticmethod
    def forward(ctx: Any, entries: Tensor, segment: Tensor) -> Tensor:
        counts = torch.bincount(segment)
        ctx.save_for_backward(segment, counts)
        first = entries[counts.cumsum(0) - counts]
        if len(counts) == len(entries):
            return first.clone()
        bits = _BITS[entries.element_size()]
        differs = entries.view(bits) != first.view(bits)[segment]
        total = torch.zeros(len(counts), dtype=torch.float64, device=entries.device)
        mean = total.index_add(0, segment, entries.double()) / counts
        unequal = torch.zeros_like(counts, dtype=torch.bool)
        unequal[segment[differs]] = True
        return torch.where(unequal, mean.to(entries.dtype), first)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        segment, counts = ctx.saved_tensors
        return (grad / counts)[segment], None
