"""What stands behind the values of a traced network, and the record that a trace keeps of nodes, edges and slots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor


class UncoveredError(Exception):
    """A rule met something that it does not cover; the interpreter adds the operation and the module to its words."""


@dataclass(frozen=True)
class Ids:
    """An activation: an int64 tensor of its shape that names the node behind each element, -1 where there is none.

    Axes along which an id repeats are usually expanded (stride 0), so that an activation of a convolution costs as
    much memory as its channels.
    """

    tensor: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape


@dataclass(frozen=True)
class Elements:
    """A parameter, or a part of one: which element of which parameter stands behind each element.

    ``index`` counts through all parameters in one numbering; without it, the value is one whole parameter in its own
    order, whose first element has the number ``start``.
    """

    start: int
    shape: torch.Size
    index: Tensor | None = None

    def indices(self) -> Tensor:
        """The numbers of all elements, in this value's shape."""
        if self.index is not None:
            return self.index
        return torch.arange(self.start, self.start + math.prod(self.shape)).view(self.shape)


@dataclass(frozen=True)
class Const:
    """A tensor whose value is known: an integer input, a buffer, or what was computed from them alone.

    ``stored`` are the elements of the buffers that stand behind each of its elements (-1: none), ``buffer`` is its name
    where it is a whole buffer as it is, ``origin`` the position of the input that it is.
    """

    tensor: Tensor
    stored: tuple[Elements, ...] = ()
    buffer: str | None = None
    origin: int | None = None

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape


@dataclass(frozen=True)
class Mixed:
    """What is computed from several elements of parameters each, such as the norm of a kernel.

    ``index`` has the value's own shape and one more axis, along which lie the numbers of those elements.
    """

    index: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.index.shape[:-1]


Value: TypeAlias = Ids | Elements | Const | Mixed
VALUES = (Ids, Elements, Const, Mixed)


def collapse(tensor: Tensor) -> Tensor:
    """The tensor with every expanded axis cut to length 1: the same ids, each written once."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def along(vector: Tensor, axis: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """A vector laid along one axis of a shape and expanded over the others."""
    view = [1] * len(shape)
    view[axis] = -1
    return vector.view(view).expand(shape)


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """The shape to which all broadcast."""
    return torch.Size(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def nothing(shape: torch.Size | tuple[int, ...]) -> Ids:
    """An activation that belongs to no node."""
    return Ids(torch.full((), -1).expand(shape))


@dataclass(frozen=True)
class EdgeBlock:
    """The edges of one use of one weight; row r holds ``weight.indices().view(rows, k)[r]``."""

    weight: Elements
    src: Tensor
    dst: Tensor


@dataclass(frozen=True)
class SlotEvent:
    """One operation that lays parameter elements on nodes; its parts share a bank number."""

    family: str
    parts: tuple[tuple[str, Tensor, Tensor], ...]  # (kind of feature, element numbers, ids), the two of one length


@dataclass(frozen=True)
class Made:
    """What an operation made: the module that it belongs to, the ids and, for a change of shape, that it is one."""

    path: str
    shape: torch.Size
    ids: Tensor  # collapsed
    reshaped: bool
    literals: frozenset[int] = frozenset()  # numbers that its line of code spells out
    line: str = ""


@dataclass
class Record:
    """The record of one trace.

    Ids are *real* (the output channel of a layer) or *soft*: elements of an input, a constant or a parameter that is
    used directly, each with an id of its own until an operation shows which of them are one channel. Soft ids merge
    with each other and, those of inputs excepted, with at most one real id; ``root`` answers which id speaks now.
    """

    path: str = ""  # module path of the operation that is being interpreted: the layer of the nodes it makes
    count: int = 0
    kernels: dict[tuple[int, ...], list[EdgeBlock]] = field(default_factory=dict)
    relations: dict[str, list[Tensor]] = field(default_factory=dict)
    events: list[SlotEvent] = field(default_factory=list)
    layers: list[tuple[str, int]] = field(default_factory=list)  # (label, first id)
    vocabularies: dict[int, Tensor] = field(default_factory=dict)  # embedding table -> ids of its rows
    tokens: dict[int, Tensor] = field(default_factory=dict)  # integer input -> ids of the rows that it looks up
    keys: dict[int, Tensor] = field(default_factory=dict)  # node of an attention score -> ids of the keys behind it
    numbers: frozenset[int] = frozenset()  # the whole numbers that the module at ``path`` holds
    ties: list[Tensor] = field(default_factory=list)  # pairs that no cut can part, for the sake of shapes alone
    held: dict[str, list[Tensor]] = field(default_factory=dict)  # why channels cannot be cut -> ids
    fixed: list[tuple[Elements, Tensor]] = field(default_factory=list)  # elements and the ids that they stand on
    meets: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # elements that are computed with elements
    normed: set[int] = field(default_factory=set)  # weights (first elements) that are divided by their own norm
    queries: list[Tensor] = field(default_factory=list)  # [heads, width] of each attention
    heads: list[Tensor] = field(default_factory=list)  # queries and keys of which no module has the width as a number
    parts: list[Tensor] = field(default_factory=list)  # ids of parts of an axis, of which one each stays
    made: list[Made] = field(default_factory=list)
    _parent: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    _soft: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    _input: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    _pinned: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    def new(
        self,
        shape: tuple[int, ...] | torch.Size,
        *,
        soft: bool = False,
        of_input: bool = False,
        label: str | None = None,
    ) -> Tensor:
        """Fresh ids in a shape; those of an input are soft."""
        size = math.prod(shape)
        first, self.count = self.count, self.count + size
        if self.count > len(self._parent):
            room = max(self.count, 2 * len(self._parent))
            fresh = torch.arange(len(self._parent), room)
            self._parent = torch.cat([self._parent, fresh])
            no = torch.zeros_like(fresh, dtype=torch.bool)
            self._soft, self._input, self._pinned = (
                torch.cat([flags, no]) for flags in (self._soft, self._input, self._pinned)
            )
        self._soft[first : self.count] = soft or of_input
        self._input[first : self.count] = of_input
        self.layers.append((self.path if label is None else label, first))
        return torch.arange(first, self.count).view(shape)

    def root(self, ids: Tensor) -> Tensor:
        """The ids that speak for the given ones; -1 stays -1."""
        if ids.numel() == 0 or self.count == 0:
            return ids
        return torch.where(ids < 0, ids, self._parent[ids.clamp(min=0)])

    def soft(self, ids: Tensor) -> Tensor:
        """Which of these root ids are soft (-1 is not)."""
        return self._soft[ids.clamp(min=0)] & (ids >= 0)

    def token(self, ids: Tensor) -> Tensor:
        """Which of these root ids are soft and of no input: they may become part of a real one."""
        return self.soft(ids) & ~self._input[ids.clamp(min=0)]

    def loose(self, ids: Tensor) -> Tensor:
        """Which of these root ids are soft and not yet known to be one channel."""
        return self.soft(ids) & ~self._pinned[ids.clamp(min=0)]

    def pin(self, ids: Tensor) -> Tensor:
        """Say that each of these root ids is one channel; returns them."""
        self._pinned[ids[ids >= 0]] = True
        return ids

    def union(self, left: Tensor, right: Tensor) -> bool:
        """Merge pairs of root ids; False, and nothing done, if two real ids, or one and an input, would become one."""
        if left.numel() == 0:
            return True
        nodes, compact = torch.unique(torch.stack([left, right]), return_inverse=True)
        size, (rows, columns) = len(nodes), compact.numpy()
        graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
        groups, label_array = connected_components(graph, directed=False)
        labels = torch.from_numpy(label_array.astype(np.int64))
        real, given = ~self._soft[nodes], self._input[nodes]
        reals, inputs = (torch.bincount(labels[which], minlength=groups) for which in (real, given))
        if bool(((reals > 1) | ((reals > 0) & (inputs > 0))).any()):
            return False
        rank = nodes + self.count * (2 * real + given.long())  # a real id speaks, else an input's, else the newest
        speaker = torch.full((groups,), -1).scatter_reduce(0, labels, rank, "amax") % self.count
        pinned = torch.zeros(groups, dtype=torch.bool).index_put((labels,), self._pinned[nodes], accumulate=True)
        self._pinned[speaker] |= pinned
        self._parent[nodes] = speaker[labels]
        self._parent[: self.count] = self._parent[self._parent[: self.count]]
        return True

    def edges(self, kernel: tuple[int, ...], weight: Elements, src: Tensor, dst: Tensor) -> None:
        """Kernel edges of one use of a weight, in the order of its elements."""
        self.kernels.setdefault(kernel, []).append(EdgeBlock(weight, src.reshape(-1), dst.reshape(-1)))

    def relate(self, kind: str, src: Tensor, dst: Tensor) -> None:
        """Typed relation edges between ids that differ."""
        pairs = torch.stack([src.reshape(-1), dst.reshape(-1)])
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs >= 0).all(0)]
        if pairs.shape[1]:
            self.relations.setdefault(kind, []).append(pairs)

    def tie(self, src: Tensor, dst: Tensor) -> None:
        """Pairs of ids that are cut together, though no operation brings them together."""
        shape = broadcast(src.shape, dst.shape)
        pairs = torch.stack([part.expand(shape).reshape(-1) for part in (src, dst)])
        self.ties.append(pairs[:, (pairs >= 0).all(0)])

    def hold(self, reason: str, ids: Tensor) -> None:
        """Say why these ids cannot be cut."""
        self.held.setdefault(reason, []).append(collapse(ids).reshape(-1))

    def stand(self, stored: Sequence[Elements], ids: Tensor) -> None:
        """Elements that go with ids, and are no features of theirs."""
        self.fixed += [(elements, collapse(ids)) for elements in stored if elements.shape.numel() > 1]

    def meet(self, left: Tensor, right: Tensor) -> None:
        """Elements of parameters that are computed with each other: one that lies on no id goes with the other."""
        shape = broadcast(left.shape, right.shape)
        self.meets.append((left.expand(shape).reshape(-1), right.expand(shape).reshape(-1)))

    def lay(self, family: str, *parts: tuple[str, Elements, Tensor]) -> None:
        """Slots: the elements of each part lie on the ids that they meet (both broadcast)."""
        flat = []
        for kind, elements, ids in parts:
            shape = broadcast(elements.shape, ids.shape)
            index = elements.indices().expand(shape).reshape(-1)
            owners = ids.expand(shape).reshape(-1)
            self.pin(owners)
            pairs = torch.stack([owners, index])
            if index.numel() > elements.shape.numel() or owners.numel() > ids.numel():
                pairs = torch.unique(pairs, dim=1)
            flat.append((kind, pairs[1], pairs[0]))
        if flat:
            self.events.append(SlotEvent(family, tuple(flat)))
