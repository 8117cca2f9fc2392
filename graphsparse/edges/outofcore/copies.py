"""Parallel copies, and pairs that are named from both ends, found by marks of hashes: no sort, and no join.

Each pair sets one bit of very many. Where a bit was set twice there may be two copies, or two pairs that share a bit by
chance: those few edges alone are looked at by name. Where the bits do not fit in memory, the pairs take turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsparse.edges.outofcore import vectors
from graphsparse.edges.outofcore.engine import Tell
from graphsparse.edges.outofcore.parts import Parts, Piece
from graphsparse.edges.outofcore.passes import Array, Passes, read
from graphsparse.edges.outofcore.scratch import Scratch
from graphsparse.errors import DataError

SUSPECT_BYTES = 64  # that finding out about an edge takes
SPARSE = 16  # bits a pair, if there is room: one edge of 16 is looked at for nothing
FEWEST_BITS = 1 << 16
FEWEST = 1 << 12  # edges that are always looked at

How = tuple[Any, Any, Any]


def number_copies(passes: Passes, scratch: Scratch, undirected: bool, mirrored: bool, room: int) -> str:
    """Number the second and later copies of each arc, in the order of the list.

    Returns:
        the path of their positions, ascending, and their numbers (1 = the second copy), int64 ``[2, c]``.

    Raises:
        DataError: there are more than fit in memory.
    """
    scratch.step("copies", lambda: ({}, {"copies": _number(passes, scratch, undirected, mirrored, room)}))
    return scratch.path("copies")


def _number(passes: Passes, scratch: Scratch, undirected: bool, mirrored: bool, room: int) -> Array:
    most = max(FEWEST, room // SUSPECT_BYTES)
    bits, turns = _size(passes, room, most)
    found, number = [np.zeros((2, 0), np.int64)], 0
    for turn in range(turns):
        how = _how(bits, turns, turn)
        marks = scratch.put("marks", passes.total(_mark_copies, not undirected, mirrored, how, bits)[1])
        suspects = passes.total(_suspects, not undirected, how, marks, most // passes.engine.workers)
        vectors.release(marks)
        edges = _joined(suspects)
        copies = _copies_among(edges)
        number += copies.shape[1]
        if any(len(piece[0]) and piece[0][0] < 0 for piece in suspects) or number > most:
            raise DataError(
                f"too many edges are parallel copies to be numbered within the memory: more than {most:,}; give more "
                "memory, or merge copies into one edge each"
            )
        found.append(copies)
    every = np.concatenate(found, axis=1)
    return np.ascontiguousarray(every[:, np.argsort(every[0])])


def check_named_once(passes: Passes, scratch: Scratch, room: int) -> None:
    """Refuse a list of pairs that names some from both ends, as in memory.

    Raises:
        ValueError: there is one; it says which.
    """
    most = max(FEWEST, room // SUSPECT_BYTES)
    bits, turns = _size(passes, room, most)
    turn = 0
    while turn < turns:
        how = _how(bits, turns, turn)
        rising, falling = passes.total(_mark_directions, how, bits)
        rising &= falling
        marks = scratch.put("marks", rising)
        suspects = passes.total(_suspects, False, how, marks, most // passes.engine.workers)
        vectors.release(marks)
        tails, heads = _joined(suspects)[1:]
        keys = (np.minimum(tails, heads) << 32) | np.maximum(tails, heads)
        both = np.intersect1d(keys[tails < heads], keys[tails > heads])
        if len(both):
            u, v = int(both[0]) >> 32, int(both[0]) & 0xFFFFFFFF
            raise ValueError(
                f"undirected=True, but the parts list ({u}, {v}) and ({v}, {u}) while other arcs have no mirror: list "
                "both arcs of every pair, or each pair once in one direction"
            )
        if any(len(piece[0]) and piece[0][0] < 0 for piece in suspects):
            turn, turns = 0, 2 * turns
        else:
            turn += 1


def _size(passes: Passes, room: int, most: int) -> tuple[int, int]:
    """How many bits each of two fields of marks has for a worker, and how many turns the pairs take."""
    rows = max(1, passes.source.num_rows)
    fit = max(FEWEST_BITS, 8 * (room // 2) // (2 * passes.engine.workers))
    bits = FEWEST_BITS
    while 2 * bits <= fit and bits < SPARSE * rows:
        bits *= 2
    turns = 1
    while (rows / turns) ** 2 / bits > most / 2:
        turns *= 2
    return bits, turns


def _how(bits: int, turns: int, turn: int) -> How:
    shift = 65 - bits.bit_length()
    return np.uint64(turns), np.uint64(turn), np.uint64(shift)


def _mark_copies(
    tell: Tell, source: Parts, pieces: list[Piece], rows: int, ordered: bool, up: bool, how: How, bits: int
) -> tuple[Any, ...]:
    from graphsparse.edges.outofcore.kernels import mark_copies

    once, twice = np.zeros(bits // 64, np.uint64), np.zeros(bits // 64, np.uint64)
    for batch in read(tell, source, pieces, rows):
        mark_copies(batch.tails, batch.heads, ordered, up, how, once, twice)
    return Marks((once, twice))


class Marks(tuple[Array, Array]):
    """Bits that were set once and twice by some edges; added up, what two sets of edges set is set twice."""

    def __iadd__(self, other: Marks) -> Marks:  # type: ignore[misc, override]
        once, twice = self
        twice |= other[1]
        twice |= once & other[0]
        once |= other[0]
        return self


def _mark_directions(tell: Tell, source: Parts, pieces: list[Piece], rows: int, how: How, bits: int) -> tuple[Any, ...]:
    from graphsparse.edges.outofcore.kernels import mark_directions

    rising, falling = np.zeros(bits // 64, np.uint64), np.zeros(bits // 64, np.uint64)
    for batch in read(tell, source, pieces, rows):
        mark_directions(batch.tails, batch.heads, how, rising, falling)
    return Directions((rising, falling))


class Directions(tuple[Array, Array]):
    """Bits that arcs set which point up, and those of arcs which point down."""

    def __iadd__(self, other: Directions) -> Directions:  # type: ignore[misc, override]
        for own, more in zip(self, other, strict=True):
            np.bitwise_or(own, more, out=own)
        return self


def _suspects(
    tell: Tell, source: Parts, pieces: list[Piece], rows: int, ordered: bool, how: How, marks: str, most: int
) -> list[Array]:
    """Position, tail and head ``[3, k]`` of the edges whose bit is set; a position of -1 says that there are more."""
    from graphsparse.edges.outofcore.kernels import find_marked

    field, found, number = vectors.load(marks), [], 0
    out = np.empty(rows, np.int64)
    for batch in read(tell, source, pieces, rows):
        at = out[: find_marked(batch.tails, batch.heads, ordered, how, field, out)]
        if len(at):
            found.append(np.stack([at + batch.first, batch.tails[at], batch.heads[at]]).astype(np.int64))
            number += len(at)
        if number > most:
            return [np.array([[-1], [0], [0]]), *found]
    return found


def _joined(suspects: list[Array]) -> Array:
    every = np.concatenate([np.zeros((3, 0), np.int64), *suspects], axis=1)
    return every[:, every[0] >= 0]


def _copies_among(edges: Array) -> Array:
    """Positions and numbers ``[2, c]`` of the second and later copies among the edges ``[3, k]``."""
    keys = (edges[1] << 32) | edges[2]
    order = np.lexsort((edges[0], keys))
    keys = keys[order]
    starts = np.ones(len(keys), bool)
    starts[1:] = keys[1:] != keys[:-1]
    at = np.arange(len(keys))
    numbers = at - np.maximum.accumulate(np.where(starts, at, 0)) if len(at) else at
    later = numbers > 0
    return np.stack([edges[0][order[later]], numbers[later]])
