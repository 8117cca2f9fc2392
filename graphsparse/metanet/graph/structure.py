"""The part of a network graph that an architecture fixes: who is joined to whom, and where each parameter lies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphsparse.metanet.graph.record import EdgeBlock, Record, SlotEvent
from graphsparse.metanet.graph.trace import Trace
from graphsparse.metanet.graph.widths import tie_heads, tie_shapes, tie_sums

Kernel = tuple[int, ...]


class Piece(NamedTuple):
    """Where some elements of one parameter lie: ``values[group].view(-1)[position] == parameter.view(-1)[element]``.

    A parameter that lies whole and in its own order has only a ``start``.
    """

    group: Kernel | str  # kernel class of edges, or bank of nodes
    start: int
    position: Tensor | None = None
    element: Tensor | None = None


@dataclass(frozen=True)
class EdgeStructure:
    """Edges of one kernel class; edges ``ptr[i] : ptr[i + 1]`` come from parameter ``names[i]``."""

    src: Tensor
    dst: Tensor
    names: tuple[str, ...]
    ptr: tuple[int, ...]


@dataclass(frozen=True)
class BankStructure:
    """Nodes that own one kind of feature, ascending, and how many columns it has."""

    nodes: Tensor
    width: int


@dataclass(frozen=True)
class Structure:
    """Nodes, edges, relations, banks and pieces of one architecture."""

    num_nodes: int
    layer: Tensor
    layer_names: tuple[str, ...]
    edges: dict[Kernel, EdgeStructure]
    relations: dict[str, Tensor]
    banks: dict[str, BankStructure]
    pieces: dict[str, tuple[Piece, ...]]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: frozenset[str]
    ties: Tensor  # pairs of nodes that shapes tie
    held: dict[str, Tensor]  # why nodes cannot be cut -> nodes
    standing: dict[str, tuple[tuple[Tensor, Tensor], ...]]  # name -> (elements, nodes that they go with)
    meets: tuple[tuple[str, Tensor, str, Tensor], ...]  # elements of a tensor that go with those of another
    normed: frozenset[str]  # weights that are divided by their own norm
    queries: tuple[Tensor, ...]  # [heads, width] of each attention
    parts: tuple[Tensor, ...]  # nodes of parts of an axis, of which one each stays
    made: dict[str, tuple[tuple[torch.Size, Tensor], ...]]  # module -> shapes and nodes of what its operations made
    spelled: tuple[tuple[str, frozenset[int], torch.Size, Tensor], ...]  # lines of code, sizes in them, what they make


# Relations whose two ends are pruned together. The others only say who feels whom: a gate its channels (broadcast), a
# sum its terms (reduce), an attention score its queries and keys (score).
COUPLING = frozenset({"add", "align", "depthwise", "grouped", "k-v", "multiply", "q-k", "shared"})


def components(pairs: Tensor, count: int) -> Tensor:
    """Number [count] of the connected component of each of ``count`` things that ``pairs`` [2, n] join."""
    src, dst = pairs.numpy()
    matrix = coo_matrix(([True] * len(src), (src, dst)), shape=(count, count))
    return torch.from_numpy(connected_components(matrix, directed=False)[1].astype("int64"))


def build(found: Trace) -> Structure:
    """Number the nodes that are used, in the order of the trace, and lay every parameter element on its place."""
    record = found.record
    _merge_loose(record)
    starts = {start: name for name, start in reversed(found.names.items())}  # a tied parameter: its first name
    events = [_rooted(record, event) for event in record.events]
    _relate_shared(record, events, found.shapes)
    _tie(record)
    number = _numbering(record, events, found.outputs)
    pieces: dict[str, list[Piece]] = {}
    edges = {kernel: _edges(record, kernel, number, starts, pieces) for kernel in sorted(record.kernels)}
    banks = _banks(events, number, starts, pieces)
    relations = {}
    for kind, pairs in sorted(record.relations.items()):
        joined = number[record.root(torch.cat(pairs, dim=1))]
        joined = torch.unique(joined[:, joined[0] != joined[1]], dim=1)
        if joined.shape[1]:
            relations[kind] = joined
    layer, layer_names = _layers(record, number)
    return Structure(
        num_nodes=len(layer),
        layer=layer,
        layer_names=layer_names,
        edges=edges,
        relations=relations,
        banks=banks,
        pieces={name: tuple(pieces[name]) for name in found.names if name in pieces},
        inputs=tuple(_used(record, number, ids) for ids in found.inputs),
        outputs=tuple(_used(record, number, ids) for ids in found.outputs),
        constants=found.constants,
        ties=_tied_nodes(record, number),
        held={reason: _used(record, number, torch.cat(ids)) for reason, ids in record.held.items()},
        standing=_standing(record, number, starts),
        meets=tuple(_meets(record, starts)),
        normed=frozenset(starts[first] for first in record.normed if first in starts),
        queries=tuple(number[record.root(query)] for query in record.queries),
        parts=tuple(nodes for part in record.parts if len(nodes := _used(record, number, part))),
        made=_made(record, number),
        spelled=tuple((m.line, m.literals, m.shape, _nodes(record, number, m.ids)) for m in record.made if m.literals),
    )


def _tie(record: Record) -> None:
    """Tie what shapes demand, once all roots are known."""
    tie_heads(record)
    none = torch.empty(2, 0, dtype=torch.int64)
    blocks = [pairs for kind, found in record.relations.items() if kind in COUPLING for pairs in found]
    coupled = record.root(torch.cat([none, *blocks], dim=1))
    tie_sums(record, coupled, components)
    tie_shapes(record, coupled, components)


def _tied_nodes(record: Record, number: Tensor) -> Tensor:
    """Pairs of nodes that are tied, though the ids between them be no nodes."""
    if not record.ties:
        return torch.empty(2, 0, dtype=torch.int64)
    pairs = record.root(torch.cat(record.ties, dim=1))
    ids = torch.unique(pairs)
    label = components(torch.searchsorted(ids, pairs), len(ids))
    nodes = number[ids]
    label, nodes = label[nodes >= 0], nodes[nodes >= 0]
    order = torch.argsort(label, stable=True)
    label, nodes = label[order], nodes[order]
    joined = label[1:] == label[:-1]
    return torch.stack([nodes[:-1][joined], nodes[1:][joined]])


def _standing(
    record: Record, number: Tensor, starts: Mapping[int, str]
) -> dict[str, tuple[tuple[Tensor, Tensor], ...]]:
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for elements, ids in record.fixed:
        index = elements.indices()
        shape = torch.broadcast_shapes(index.shape, ids.shape)  # type: ignore[no-untyped-call]
        nodes = number[record.root(ids)].expand(shape).reshape(-1)
        nodes = torch.where(ids.expand(shape).reshape(-1) < 0, -1, nodes)
        index = index.expand(shape).reshape(-1)
        valid = (index >= 0) & (nodes >= 0)
        pairs = torch.unique(torch.stack([index[valid], nodes[valid]]), dim=1)
        for name, mine, first in _owners(pairs[0], starts):
            found.setdefault(name, []).append((pairs[0][mine] - first, pairs[1][mine]))
    return {name: tuple(parts) for name, parts in found.items()}


def _meets(record: Record, starts: Mapping[int, str]) -> Iterable[tuple[str, Tensor, str, Tensor]]:
    for both in record.meets:
        left, right = torch.stack(both)[:, (both[0] >= 0) & (both[1] >= 0)]
        for name, mine, first in _owners(left, starts):
            for other, theirs, second in _owners(right[mine], starts):
                yield name, left[mine][theirs] - first, other, right[mine][theirs] - second


def _owners(index: Tensor, starts: Mapping[int, str]) -> Iterable[tuple[str, Tensor, int]]:
    """The tensors that element numbers belong to: name, which of them, number of its first element."""
    firsts = torch.tensor(sorted(starts))
    owner = torch.searchsorted(firsts, index.contiguous(), right=True) - 1
    for which in torch.unique(owner).tolist():
        yield starts[int(firsts[which])], owner == which, int(firsts[which])


def _nodes(record: Record, number: Tensor, ids: Tensor) -> Tensor:
    return torch.where(ids < 0, -1, number[record.root(ids)])


def _made(record: Record, number: Tensor) -> dict[str, tuple[tuple[torch.Size, Tensor], ...]]:
    found: dict[str, dict[Any, tuple[torch.Size, Tensor]]] = {}
    for made in record.made:
        ids = _nodes(record, number, made.ids)
        found.setdefault(made.path, {})[made.shape, ids.numpy().tobytes()] = (made.shape, ids)
    return {path: tuple(parts.values()) for path, parts in found.items()}


def _relate_shared(record: Record, events: Iterable[SlotEvent], shapes: Mapping[int, torch.Size]) -> None:
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


def _merge_loose(record: Record) -> None:
    """Soft ids that nothing tells apart but a common partner in a relation are one node."""
    for blocks in record.relations.values():
        for near, far in ((0, 1), (1, 0)):
            pairs = record.root(torch.cat(blocks, dim=1))
            pairs = pairs[:, record.loose(pairs[near]) & ~record.loose(pairs[far])]
            if pairs.shape[1] == 0:
                continue
            partners, group = torch.unique(pairs[far], return_inverse=True)
            head = torch.full((len(partners),), -1).scatter_reduce(0, group, pairs[near], "amax")
            record.union(pairs[near], head[group])


def _rooted(record: Record, event: SlotEvent) -> SlotEvent:
    parts = []
    for kind, index, owners in event.parts:
        pairs = torch.unique(torch.stack([record.root(owners), index]), dim=1)
        parts.append((kind, pairs[1], pairs[0]))
    if event.family == "shift" and len(torch.unique(parts[0][2])) == len(parts[0][2]):
        return SlotEvent("bias", (("bias", *parts[0][1:]),))  # one added number a channel: a bias, whoever wrote it
    return SlotEvent(event.family, tuple(parts))


def _numbering(record: Record, events: list[SlotEvent], outputs: Iterable[Tensor]) -> Tensor:
    """Root id -> node number; ids that no edge, relation, slot or output uses get none (-1)."""
    used = torch.zeros(record.count, dtype=torch.bool)
    for blocks in record.kernels.values():
        for block in blocks:
            used[record.root(block.src)] = True
            used[record.root(block.dst)] = True
    for pairs in (pairs for blocks in record.relations.values() for pairs in blocks):
        used[record.root(pairs)] = True
    for event in events:
        for _, _, owners in event.parts:
            used[owners] = True
    for ids in outputs:
        used[ids[ids >= 0]] = True
    return torch.where(used, used.cumsum(0) - 1, -1)


def _used(record: Record, number: Tensor, ids: Tensor) -> Tensor:
    """The nodes of an input or output, each once, in the order in which they stand in it."""
    nodes = number[record.root(ids[ids >= 0])].numpy()
    nodes = nodes[nodes >= 0]
    _, first = np.unique(nodes, return_index=True)
    return torch.from_numpy(nodes[np.sort(first)])


def _layers(record: Record, number: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The layer that made each node; layers of the same path are one."""
    labels = [label or "(network)" for label, _ in record.layers]
    names = {name: position for position, name in enumerate(dict.fromkeys(labels))}
    firsts = torch.tensor([first for _, first in record.layers] or [0])
    lengths = torch.diff(firsts, append=torch.tensor([record.count]))
    of_id = torch.tensor([names[label] for label in labels], dtype=torch.int64).repeat_interleave(lengths)
    layer = of_id[number >= 0]
    present, compact = torch.unique(layer, return_inverse=True)
    ordered = list(names)
    return compact, tuple(ordered[position] for position in present.tolist())


def _edges(
    record: Record, kernel: Kernel, number: Tensor, starts: Mapping[int, str], pieces: dict[str, list[Piece]]
) -> EdgeStructure:
    blocks = record.kernels[kernel]
    width, first, names, ptr = math.prod(kernel), 0, [], [0]
    for block in blocks:
        count = len(block.src)
        if block.weight.index is None:
            own = [starts[block.weight.start]]
            pieces.setdefault(own[0], []).append(Piece(kernel, first * width))
        else:
            position = first * width + torch.arange(count * width)
            own = _lay(kernel, position, block.weight.index.reshape(-1), starts, pieces)
        names.append(own[0] if len(own) == 1 else ",".join(own))
        first += count
        ptr.append(first)
    src, dst = (
        torch.cat([number[record.root(end)] for end in ends])
        for ends in ([block.src for block in blocks], [block.dst for block in blocks])
    )
    return EdgeStructure(src, dst, tuple(names), tuple(ptr))


def _lay(
    group: Kernel | str, position: Tensor, index: Tensor, starts: Mapping[int, str], pieces: dict[str, list[Piece]]
) -> list[str]:
    """Split element numbers by parameter and write down where each lies; returns the parameters' names."""
    names = []
    for name, mine, first in _owners(index, starts):
        names.append(name)
        pieces.setdefault(names[-1], []).append(Piece(group, -1, position[mine], index[mine] - first))
    return names


def _banks(
    events: list[SlotEvent], number: Tensor, starts: Mapping[int, str], pieces: dict[str, list[Piece]]
) -> dict[str, BankStructure]:
    """Lay every slot in a bank: the n-th norm on a node (not: of a width) opens its n-th, and so for each family."""
    opened: dict[str, Tensor] = {}
    laid: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}  # bank -> (node, column, element number)
    for event in events:
        count = opened.setdefault(event.family, torch.zeros(len(number), dtype=torch.int64))
        touched = torch.unique(torch.cat([owners for _, _, owners in event.parts]))
        for kind, index, owners in event.parts:
            turn = count[owners]
            for bank in torch.unique(turn).tolist():
                mine = turn == bank
                nodes, elements = owners[mine], index[mine]
                name = f"{kind}.{bank}" if bank else kind
                laid.setdefault(name, []).append((number[nodes], _rank(nodes), elements))
        count[touched] += 1
    banks = {}
    for name, parts in sorted(laid.items()):
        node, column, element = (torch.cat(column) for column in zip(*parts, strict=True))
        nodes, row = torch.unique(node, return_inverse=True)
        width = int(column.max()) + 1
        banks[name] = BankStructure(nodes, width)
        _lay(name, row * width + column, element, starts, pieces)
    return banks


def _rank(owners: Tensor) -> Tensor:
    """Position of each entry among those of its owner (owners ascend)."""
    _, counts = torch.unique_consecutive(owners, return_counts=True)
    first: Tensor = counts.cumsum(0) - counts
    return torch.arange(len(owners)) - torch.repeat_interleave(first, counts)
