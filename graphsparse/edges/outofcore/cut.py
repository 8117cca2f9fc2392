"""The exact cut: how many edges lie in thin bins of scores, then the edges of the one bin that the count falls into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from graphsparse.edges.outofcore.copies import number_copies
from graphsparse.edges.outofcore.passes import (
    LEAST,
    TOP,
    Array,
    Cut,
    Interval,
    Passes,
    Scoring,
    collect,
    histogram,
    sample,
)
from graphsparse.edges.outofcore.scratch import Scratch
from graphsparse.edges.units import find_units
from graphsparse.graphs.inner_form import EdgeList

BINS = 20  # bits: what a worker counts in
EDGE_BYTES = 160  # that sorting a collected edge takes
FEWEST = 1 << 12  # edges that are always collected
SAMPLED_FROM = 1 << 24  # edges: of a shorter list a pass takes no longer than a sample
SAMPLED_PIECE, SAMPLED_EDGE = 16, 16  # one piece of so many is looked at, and of it one edge of so many
MOST_PIECES = 32
WIDEST = 0.01  # a guess on either side, as a share of the edges


def find_cut(
    passes: Passes, scratch: Scratch, scoring: Scoring, count: int, num_nodes: int, mirrored: bool, room: int
) -> tuple[Cut, npt.NDArray[np.int64]]:
    """The cut that leaves exactly ``count`` units, ties by the hash of the edge's name.

    Besides the edges above the cut some stay by their positions in the list, which are returned, ascending.

    Args:
        passes: over the edges.
        scratch: for the numbers of copies.
        scoring: of the edges.
        count: units to keep, fewer than there are.
        num_nodes: N.
        mirrored: whether a unit is two arcs.
        room: bytes of memory for edges that are collected.
    """
    arcs = 2 if mirrored else 1
    rank, most = arcs * count, max(FEWEST, room // EDGE_BYTES)
    guess = _guess(passes, scoring, rank, most)
    among, above, here, found = _narrow(passes, scoring, Interval(0, TOP), LEAST, rank, 0, most, guess)
    if here <= most:
        edges = _collected(passes, scoring, among, found)
        graph = EdgeList(torch.from_numpy(edges[1:3].copy()), num_nodes, scoring.undirected, mirrored)
        units = find_units(graph, torch.from_numpy(edges[3].copy().view(np.float64)), scoring.seed)
        chosen = units.best_first[: count - above // arcs]
        kept = np.concatenate([edges[0][positions[chosen]] for positions in units.arcs])
        return Cut(scoring, above=among.last), np.sort(kept)
    # Very many edges have the one score at the cut: the same search among the hashes of their names.
    if not scoring.copies:
        scoring = replace(scoring, copies=number_copies(passes, scratch, scoring.undirected, mirrored, room))
    score = among.last
    every = Interval(-(1 << 63), (1 << 63) - 1, tied=score)
    ties, above, _, _ = _narrow(passes, scoring, every, every.low, rank, above, most)
    edges = _collected(passes, scoring, ties)
    order = _by_key_and_name(edges, scoring.undirected)[: rank - above]
    return Cut(scoring, above=score, tied=score, tied_above=ties.last), np.sort(edges[0][order])


def _guess(passes: Passes, scoring: Scoring, rank: int, most: int) -> Interval | None:
    """Where the edge of a rank lies most likely, by a sample of a long list; None of a short one.

    A guess that is right spares a pass, and one that is wrong costs nothing but the sample.
    """
    source = passes.source
    pieces = source.pieces()
    chosen = pieces[:: max(SAMPLED_PIECE, len(pieces) // MOST_PIECES)]
    if source.num_rows < SAMPLED_FROM or SAMPLED_PIECE * sum(piece.rows for piece in chosen) > 2 * source.num_rows:
        return None
    keys = np.sort(np.concatenate(passes.total(sample, scoring, SAMPLED_EDGE, pieces=chosen)))
    if not len(keys):
        return None
    width = min(WIDEST, most / (4 * source.num_rows))
    at = 1 - rank / source.num_rows
    low, last = (int(keys[int(share * (len(keys) - 1))]) for share in (max(0.0, at - width), min(1.0, at + width)))
    return Interval(low, last)


def _narrow(
    passes: Passes,
    scoring: Scoring,
    among: Interval,
    base: int,
    rank: int,
    above: int,
    most: int,
    guess: Interval | None = None,
) -> tuple[Interval, int, int, Array | None]:
    """The bin that holds the edge of a rank, made thinner until it holds few edges or a single key.

    Returns:
        the bin, how many edges lie above it, how many in it, and its edges where they were guessed.
    """
    found: Array | None = None
    while True:
        shift = max(0, (among.last - base).bit_length() - BINS)
        words = scoring, among, base, shift, guess, most // passes.engine.workers
        counts, guessed = passes.total(histogram, *words)
        from_top = above + np.cumsum(counts[::-1])
        at = int(np.searchsorted(from_top, rank))
        digit = len(counts) - 1 - at
        here = int(counts[digit])
        above = int(from_top[at]) - here
        start = base + (digit << shift)
        among = replace(
            among,
            low=among.low if digit == 0 else start,
            last=min(among.last, start + (1 << shift) - 1),
        )
        base = among.low
        if guess is not None and guessed:
            found = np.concatenate(guessed, axis=1)
            if guess.low > among.low or guess.last < among.last or (found[0] < 0).any():
                found = None
        guess = None
        if here <= most or among.low == among.last:
            return among, above, here, found


def _collected(passes: Passes, scoring: Scoring, among: Interval, found: Array | None = None) -> npt.NDArray[np.int64]:
    """Positions, tails, heads and keys ``[4, k]`` in the order of the list; of those found, or by a pass."""
    if found is None:
        found = np.concatenate(passes.total(collect, scoring, among), axis=1)
    edges = found[:, (found[3] >= among.low) & (found[3] <= among.last)]
    return edges[:, np.argsort(edges[0])]


def _by_key_and_name(edges: Array, undirected: bool) -> npt.NDArray[np.int64]:
    """The order of tied edges: by the key, and where hashes collide by the names themselves."""
    tails, heads = edges[1], edges[2]
    low, high = (np.minimum(tails, heads), np.maximum(tails, heads)) if undirected else (tails, heads)
    return np.lexsort((high, low, ~edges[3]))
