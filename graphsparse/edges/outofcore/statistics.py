"""From degrees to what the scores are made of: the statistics of nodes, for the scores that are functions of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from graphsparse.edges.outofcore import vectors
from graphsparse.edges.outofcore.passes import Array, Passes, Scoring, neighbour_sums
from graphsparse.edges.outofcore.scratch import Scratch
from graphsparse.edges.scores.degrees import inverse_roots, reciprocals, two_hop

BLOCK = 1 << 20  # nodes at a time, so that what is made on the way takes no memory to speak of
METHODS = ("dspar", "random", "teddy")


def scoring_of(
    passes: Passes,
    scratch: Scratch,
    method: str,
    options: dict[str, Any],
    undirected: bool,
    sides: str,
    seed: int,
    most: int,
) -> Scoring:
    """The scores of a method, its vectors computed; degrees lie at ``degree_out`` and ``degree_in``.

    Args:
        passes: over the edges.
        scratch: holds the vectors.
        method: one of `METHODS`.
        options: of the score.
        undirected: whether pairs are scored.
        sides: which ends a neighbour sum reads: see `neighbour_sums`.
        seed: of hashes.
        most: tasks that may hold sums at once.
    """
    if method == "random":
        return Scoring("hash", undirected, seed)
    names = ("of_tails",) if undirected else ("of_tails", "of_heads")
    if method == "teddy":
        scratch.step("statistics", lambda: ({}, _two_hop(passes, scratch, options, sides, most)))
    else:
        scratch.step("statistics", lambda: ({}, _reciprocals(scratch, names)))
    vectors.release(scratch.path("degree_out"), scratch.path("degree_in"))
    return Scoring(
        "product" if method == "teddy" else "sum", undirected, seed, scratch.path(names[0]), scratch.path(names[-1])
    )


def _two_hop(passes: Passes, scratch: Scratch, options: dict[str, Any], sides: str, most: int) -> dict[str, Array]:
    degrees = ["degree_out"] if sides != "each" else ["degree_out", "degree_in"]
    # One less than each root: that of degree 1 is 2^32. The degrees that it takes from the sums are added again.
    roots = [
        scratch.put(f"root{at}", _blocks(_roots_less_one, np.uint32, vectors.load(scratch.path(name))))
        for at, name in enumerate(degrees)
    ]
    sums = passes.total(neighbour_sums, roots[0], roots[-1], sides, most=most)
    vectors.release(*roots)
    normalization = options.get("normalization", "degree")
    found = {}
    for name, degree, own in zip(("of_tails", "of_heads"), degrees, sums, strict=False):
        counts = vectors.load(scratch.path(degree))
        statistic = own.view(np.float64)  # in the place of the sums
        for start in range(0, len(own), BLOCK):
            here = slice(start, start + BLOCK)
            count = torch.from_numpy(counts[here].astype(np.int64))
            total = torch.from_numpy(own[here]) + count
            statistic[here] = two_hop(total, count, normalization).numpy()
        found[name] = statistic
    return found


def _roots_less_one(degrees: Array) -> Array:
    found: Array = np.maximum(inverse_roots(torch.from_numpy(degrees.astype(np.int64))).numpy() - 1, 0)
    return found


def _reciprocals(scratch: Scratch, names: tuple[str, ...]) -> dict[str, Array]:
    def of(degrees: Array) -> Array:
        found: Array = reciprocals(torch.from_numpy(degrees.astype(np.int64))).numpy()
        return found

    sides = zip(names, ("degree_out", "degree_in"), strict=False)
    return {name: _blocks(of, np.float64, vectors.load(scratch.path(degree))) for name, degree in sides}


def _blocks(function: Callable[[Array], Array], dtype: Any, values: Array) -> Array:
    out = np.empty(len(values), dtype)
    for start in range(0, len(values), BLOCK):
        out[start : start + BLOCK] = function(values[start : start + BLOCK])
    return out
