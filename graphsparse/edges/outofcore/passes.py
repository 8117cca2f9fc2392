"""Passes over the pieces of an edge list: what a task does with its share, and how results add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsparse.edges.outofcore import vectors
from graphsparse.edges.outofcore.engine import Done, Engine, Task, Tell
from graphsparse.edges.outofcore.parts import Batch, Parts, Piece, shares
from graphsparse.errors import DataError
from graphsparse.keep_rule import mix64

Array = npt.NDArray[Any]

INFINITE = 0x7FF0 << 48  # the bits of +inf: the key of a self-loop, above those of all scores
TOP = 0x4000 << 48  # the bits of 2.0, which no score exceeds
LEAST = (1023 - 96) << 52  # those of 2^-96, below which hardly a score lies


@dataclass(frozen=True, eq=False)
class Passes:
    """An edge list, and who works on it.

    Attributes:
        source: the edge list.
        engine: runs the tasks.
        rows: edges that a task reads at once.
        bar: given what a pass is called, what hears of its progress.
    """

    source: Parts
    engine: Engine
    rows: int
    bar: Callable[[str], Tell]
    shared: list[Any] = field(default_factory=list)

    def each(self, task: Task, items: Sequence[tuple[Any, ...]], done: Done, called: str) -> None:
        """Run ``task(tell, source, *item)`` for each item."""
        self.engine.each(task, [(self._source(), *item) for item in items], done, self.bar(called))

    def total(self, task: Task, *words: Any, most: int | None = None, pieces: Sequence[Piece] | None = None) -> Any:
        """Add up what ``task(tell, source, pieces, rows, *words)`` finds in all shares of the edges.

        Args:
            task: returns numbers and arrays to be added, in tuples, or a list to be joined.
            *words: its other arguments.
            most: tasks that may hold a result at once, where results are large; by default one a worker.
            pieces: those that are read, by default all.
        """
        pieces = self.source.pieces() if pieces is None else pieces
        runs = shares(pieces, min(self.engine.workers, most or self.engine.workers)) or [[]]
        arguments = [(self._source(), run, self.rows, *words) for run in runs]
        called = task.__name__.strip("_").replace("_", " ")
        return self.engine.total(task, arguments, _add, self.bar(called))

    def _source(self) -> Any:
        if not self.shared:
            self.shared.append(self.engine.shared(self.source))
        return self.shared[0]


def _add(left: Any, right: Any) -> Any:
    """Sums of counts and arrays, in place where they can be; lists of what was found are joined."""
    if type(left) is tuple:  # and no kind of tuple that adds up in its own way
        return tuple(_add(a, b) for a, b in zip(left, right, strict=True))
    left += right
    return left


def read(tell: Tell, source: Parts, pieces: list[Piece], rows: int) -> Iterator[Batch]:
    """The batches of a share."""
    for piece in pieces:
        for batch in source.batches(piece, rows):
            yield batch
            tell(len(batch.tails))


def find_ids(tell: Tell, source: Parts, pieces: list[Piece], rows: int) -> list[tuple[int, int]]:
    """The smallest and the largest id of each batch."""
    found = []
    for batch in read(tell, source, pieces, rows):
        ends = batch.tails, batch.heads
        found.append((min(int(end.min()) for end in ends), max(int(end.max()) for end in ends)))
    return found


def survey(
    tell: Tell, source: Parts, pieces: list[Piece], rows: int, num_nodes: int, dtype: str, both: bool
) -> tuple[Any, ...]:
    """Loops, arcs that point up, balance of arcs and mirrors, and degrees: of tails and heads, or both in one."""
    from graphsparse.edges.outofcore.kernels import count_up
    from graphsparse.graphs.loops import count_tails, look_over

    of_tails = np.zeros(num_nodes, dtype)
    of_heads = of_tails if both else np.zeros(num_nodes, dtype)
    loops = up = balance = 0
    for batch in read(tell, source, pieces, rows):
        tails, heads = batch.tails, batch.heads
        largest, own, difference = look_over(tails, heads, 0, len(tails))
        if int(largest) >= num_nodes:
            _refuse_ids(source, batch, num_nodes)
        loops += int(own)
        balance += int(difference)
        up += int(count_up(tails, heads))
        count_tails(tails, heads, 0, len(tails), of_tails)
        count_tails(heads, tails, 0, len(tails), of_heads)
    return loops, up, balance, of_tails, np.zeros(0, dtype) if both else of_heads


def neighbour_sums(
    tell: Tell, source: Parts, pieces: list[Piece], rows: int, of_tails: str, of_heads: str, sides: str
) -> tuple[Any, ...]:
    """Sums over the neighbours of each node; vectors are named by their paths.

    ``sides``: ``"out"`` sums over the heads, ``"both"`` over either end in one vector, ``"each"`` in two.
    """
    from graphsparse.graphs.loops import sum_heads

    left, right = vectors.load(of_tails), vectors.load(of_heads)
    out = np.zeros(len(left), np.int64)
    into = np.zeros(len(left), np.int64) if sides == "each" else out
    for batch in read(tell, source, pieces, rows):
        tails, heads = batch.tails, batch.heads
        sum_heads(tails, heads, 0, len(tails), right, np.int64(0), out)
        if sides != "out":
            sum_heads(heads, tails, 0, len(tails), left, np.int64(0), into)
    return out, into if sides == "each" else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Scoring:
    """How the score of an edge comes from its ends; it travels to the workers.

    Attributes:
        kind: ``"product"`` or ``"sum"`` of two vectors' values, or ``"hash"`` of the edge's name.
        undirected: whether an edge's name is that of its pair.
        seed: of hashes.
        of_tails: path of a vector, or empty.
        of_heads: the same.
        copies: path of the positions and numbers of parallel copies ``[2, c]``; empty where there are none.
    """

    kind: str
    undirected: bool
    seed: int
    of_tails: str = ""
    of_heads: str = ""
    copies: str = ""

    def scores(self, batch: Batch) -> Array:
        """float64 ``[n]``; self-loops +inf."""
        from graphsparse.edges.outofcore.kernels import sums_of_ends
        from graphsparse.graphs.loops import products

        tails, heads = batch.tails, batch.heads
        if self.kind == "hash":
            found = (self.names(batch) >> np.uint64(11)) * 2.0**-53
            found[tails == heads] = np.inf
            return found
        left, right, out = vectors.load(self.of_tails), vectors.load(self.of_heads), np.empty(len(tails))
        if self.kind == "product":
            products(tails, heads, 0, len(tails), left, right, out)
        else:
            sums_of_ends(tails, heads, left, right, out)
        return out

    def keys(self, batch: Batch) -> Array:
        """Scores as int64 ``[n]`` of the same order: none is negative, so their bits serve."""
        return self.scores(batch).view(np.int64)

    def names(self, batch: Batch) -> Array:
        """uint64 ``[n]``: the hash of each edge's name, of which the number of the copy is a part."""
        from graphsparse.edges.outofcore.kernels import name_keys

        tails, heads = batch.tails, batch.heads
        out = np.empty(len(tails), np.uint64)
        name_keys(tails, heads, self.undirected, np.uint64(self.seed % (1 << 64)), out)
        here, numbers = self.copies_in(batch)
        if len(here):
            u, v = tails[here].astype(np.int64), heads[here].astype(np.int64)
            low, high = (np.minimum(u, v), np.maximum(u, v)) if self.undirected else (u, v)
            out[here] = mix64(self.seed, low, high, numbers)
        return out

    def tie_keys(self, batch: Batch) -> Array:
        """int64 ``[n]``: among equal scores the largest stay, as the smallest hash does in memory."""
        return (~self.names(batch) ^ np.uint64(1 << 63)).view(np.int64)

    def copies_in(self, batch: Batch) -> tuple[Array, Array]:
        """Positions in the batch of second and later copies, and their numbers, 1 = the second."""
        if not self.copies:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places, numbers = vectors.load(self.copies)
        a, b = np.searchsorted(places, (batch.first, batch.first + len(batch.tails)))
        return places[a:b] - batch.first, numbers[a:b]


@dataclass(frozen=True)
class Interval:
    """Keys between two integers, both included; of ties, only where the score has that key.

    Attributes:
        low: the smallest.
        last: the largest.
        tied: None for keys of scores; for keys of ties, the key of the score.
    """

    low: int
    last: int
    tied: int | None = None

    def keys(self, scoring: Scoring, batch: Batch) -> tuple[Array, Array]:
        """The keys that are meant ``[k]``, and where they stand in the batch ``[k]``."""
        scores = scoring.keys(batch)
        if self.tied is None:
            return scores, np.arange(len(scores))
        where = np.flatnonzero(scores == self.tied)
        return (scoring.tie_keys(batch)[where] if len(where) else np.zeros(0, np.int64)), where


def sample(tell: Tell, source: Parts, pieces: list[Piece], rows: int, scoring: Scoring, step: int) -> list[Array]:
    """The keys of one edge of ``step``; self-loops are left out."""
    found = []
    for batch in read(tell, source, pieces, rows):
        keys = scoring.keys(batch)[::step]
        found.append(keys[keys != INFINITE])
    return found


def histogram(
    tell: Tell,
    source: Parts,
    pieces: list[Piece],
    rows: int,
    scoring: Scoring,
    among: Interval,
    base: int,
    shift: int,
    guess: Interval | None = None,
    most: int = 0,
) -> tuple[Array, list[Array]]:
    """The number of keys in each bin of ``2^shift`` from ``base`` on, among those of an interval.

    Edges in the interval ``guess`` are collected on the way, if they are at most ``most``; a row of -1 says that they
    are more.
    """
    from graphsparse.edges.outofcore.kernels import count_between

    counts = np.zeros(((among.last - base) >> shift) + 1, np.int64)
    found: list[Array] = []
    number = 0
    for batch in read(tell, source, pieces, rows):
        keys, where = among.keys(scoring, batch)
        count_between(keys, among.low, among.last, base, shift, counts)
        if guess is not None and number <= most:
            here = _inside(guess, batch, keys, where)
            found += here
            number += sum(edges.shape[1] for edges in here)
    if number > most:
        found = [np.full((4, 1), -1, np.int64)]
    return counts, found


def collect(
    tell: Tell, source: Parts, pieces: list[Piece], rows: int, scoring: Scoring, among: Interval
) -> list[Array]:
    """The edges of an interval: for each batch position, tail, head and key, int64 ``[4, k]``."""
    found = []
    for batch in read(tell, source, pieces, rows):
        found += _inside(among, batch, *among.keys(scoring, batch))
    return found


def _inside(among: Interval, batch: Batch, keys: Array, where: Array) -> list[Array]:
    inside = (keys >= among.low) & (keys <= among.last)
    if not inside.any():
        return []
    at = where[inside]
    return [np.stack([at + batch.first, batch.tails[at], batch.heads[at], keys[inside]])]


@dataclass(frozen=True)
class Cut:
    """Which edges stay.

    Attributes:
        scoring: how they are scored; None keeps them all.
        above: edges with a larger key stay.
        tied: of edges with this key of a score those stay whose key of ties is larger than ``tied_above``; -1: none.
        tied_above: see there.
        besides: path of the positions of other edges that stay, ascending.
    """

    scoring: Scoring | None
    above: int = 0
    tied: int = -1
    tied_above: int = 0
    besides: str = ""

    def mask(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """bool ``[n]``."""
        if self.scoring is None:
            return np.ones(len(batch.tails), bool)
        keys = self.scoring.keys(batch)
        mask: npt.NDArray[np.bool_] = keys > self.above
        if self.tied >= 0:
            where = np.flatnonzero(keys == self.tied)
            if len(where):
                mask[where] = self.scoring.tie_keys(batch)[where] > self.tied_above
        if self.besides:
            places = vectors.load(self.besides)
            a, b = np.searchsorted(places, (batch.first, batch.first + len(batch.tails)))
            mask[places[a:b] - batch.first] = True
        return mask


def _refuse_ids(source: Parts, batch: Batch, num_nodes: int) -> None:
    bad = [(end < 0) | (end >= num_nodes) for end in (batch.tails, batch.heads)]
    at = int(np.argmax(bad[0] | bad[1]))
    node = int(batch.tails[at] if bad[0][at] else batch.heads[at])
    why = "ids are 0, 1, 2 ..." if node < 0 else f"the file claims that none is above {num_nodes - 1:,}"
    raise DataError(f"{source.place(batch.first + at)} names node {node}; {why}")


def write_part(tell: Tell, source: Parts, number: int, rows: int, cut: Cut, target: str) -> int:
    """Write a part with the edges that stay; returns how many these are."""

    def mask_of(batch: Batch) -> npt.NDArray[np.bool_]:
        tell(len(batch.tails))
        return cut.mask(batch)

    return source.write(source.parts[number], Path(target), mask_of, rows)
