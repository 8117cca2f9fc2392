"""What a graph file says in any format, so that it can be written in another one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GraphContent:
    """Edges, labels of nodes and what edges carry; what no field holds is named in ``lost``.

    Attributes:
        ends: int64 ``[2, E]``, positions of the nodes.
        num_nodes: number of nodes.
        labels: the label of each node, or None where the positions are the ids.
        undirected: whether the edges are pairs.
        mirrored: whether both arcs of every pair are listed.
        columns: what edges carry by name, an array or a list ``[E]``.
        weight: the column that holds the weights, or None.
        lost: what the file holds besides, in words.
    """

    ends: Array
    num_nodes: int
    labels: Sequence[Hashable] | Array | None
    undirected: bool
    mirrored: bool
    columns: dict[str, Sequence[Any] | Array] = field(default_factory=dict)
    weight: str | None = None
    lost: tuple[str, ...] = ()

    def kept(self, keep: Mask) -> GraphContent:
        """The same with the edges where ``keep`` is true; all nodes stay."""
        columns = {name: _cut(values, keep) for name, values in self.columns.items()}
        return replace(self, ends=self.ends[:, keep], columns=columns)

    def pairs_once(self) -> tuple[GraphContent, list[str]]:
        """Each pair of an undirected graph once, and what is lost by that: a second arc that carries something else."""
        if not (self.undirected and self.mirrored):
            return self, []
        up = self.ends[0] <= self.ends[1]
        first, second = (self.kept(mask) for mask in (up, self.ends[0] >= self.ends[1]))
        order = np.lexsort(first.ends), np.lexsort(second.ends[::-1])
        differs = [
            name
            for name in self.columns
            if [first.columns[name][at] for at in order[0]] != [second.columns[name][at] for at in order[1]]
        ]
        lost = [f"what the second arc of a pair carries in {', '.join(differs)}"] if differs else []
        return replace(first, mirrored=False), lost

    def ids(self) -> tuple[GraphContent, list[str]]:
        """The same with ids from 0 in the place of labels; whole numbers that lie close together are the ids."""
        if self.labels is None:
            return self, []
        labels = self.labels
        whole = isinstance(labels, np.ndarray) and labels.dtype.kind == "i"
        if whole and len(labels) and int(min(labels)) >= 0 and int(max(labels)) < 10 * len(labels) + 1000:
            numbers = np.asarray(labels, np.int64)
            return replace(self, ends=numbers[self.ends], num_nodes=int(numbers.max()) + 1, labels=None), []
        if not len(labels):
            return replace(self, labels=None), []
        return replace(self, labels=None), ["the labels of nodes (they are numbered as they appear)"]

    def names(self) -> Sequence[Hashable] | Array:
        """The label of each node, or its id."""
        return np.arange(self.num_nodes) if self.labels is None else self.labels

    def alone(self) -> int:
        """How many nodes have no edge, and are not in a list of edges."""
        return self.num_nodes - len(np.unique(self.ends))

    def weights(self) -> Array | None:
        """The weights as float64 ``[E]``, NaN for what is no number."""
        return None if self.weight is None else numbers_of(self.columns[self.weight])


def lost_in_a_list(content: GraphContent) -> list[str]:
    """What a list of edges cannot say of a graph: nodes without edges."""
    alone = content.alone()
    return [f"{alone:,} nodes without an edge"] if alone else []


def numbers_of(values: Sequence[Any] | Array) -> Array:
    """Values as float64, NaN for what is no number."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values.astype(np.float64)
    return np.array([number(value) for value in values], np.float64)


def typed(values: Sequence[Any] | Array) -> Array | list[Any]:
    """Texts as whole numbers or fractions if all of them are spelled so; other values as they are.

    Example:
        >>> typed(["1", "2"]), typed(["1", "2.5"]), typed(["01", "x"])
        (array([1, 2]), array([1. , 2.5]), ['01', 'x'])
    """
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUS":
        return values
    values = list(values)
    if values and all(isinstance(value, str) for value in values):
        try:
            whole = [int(value) for value in values]
            if all(str(found) == value and abs(found) < 1 << 62 for found, value in zip(whole, values, strict=True)):
                return np.array(whole, np.int64)
        except ValueError:
            pass
        fractions = [number(value) for value in values]
        if all(not math.isnan(found) or value.lower() == "nan" for found, value in zip(fractions, values, strict=True)):
            return np.array(fractions, np.float64)
    return values


def number(value: Any) -> float:
    """A weight as written; what is no number is NaN, an error where weights are used and nowhere else."""
    try:
        return float("nan") if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError):
        return float("nan")


def _cut(values: Sequence[Any] | Array, keep: Mask) -> Any:
    if isinstance(values, np.ndarray):
        return values[keep]
    return [value for value, kept in zip(values, keep.tolist(), strict=True) if kept]
