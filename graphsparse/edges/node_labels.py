"""Classes of nodes that stand beside a graph: in a table of nodes and labels, a mapping or a list."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.errors import DataError
from graphsparse.graphs.formats.content import inner_suffix, read_content
from graphsparse.graphs.formats.text_lines import decoded
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.graphs.labels import label_names
from graphsparse.untrusted import reading

NODE, LABEL = ("node", "id", "name"), ("label", "class", "y")  # what the columns may be called
UNKNOWN = -1


def node_classes(given: Any, edges: EdgeList) -> tuple[Tensor, str]:
    """The class of each node, int64 ``[N]`` with -1 where none is given, and a sentence on labels that were left out.

    Args:
        given: the path of a table of nodes and labels (:func:`read_labels`), a mapping from nodes, as the graph calls
            them, to labels, or labels in the order of the nodes ``[N]``.
        edges: the graph.

    Raises:
        DataError: the file is missing or damaged.
        ValueError: no node of the graph has a label, or a list is of another length.

    Example:
        >>> from graphsparse.graphs.inner_form import edge_list
        >>> graph = edge_list(torch.tensor([[0, 1], [1, 2]]))
        >>> node_classes({0: "a", 2: "b", 9: "b"}, graph)
        (tensor([ 0, -1,  1]), '1 of 3 labels is of a node without edges, and not used')
    """
    if isinstance(given, (str, os.PathLike)):
        given = read_labels(given)
    count = edges.num_nodes
    if not isinstance(given, Mapping):
        values = given.tolist() if isinstance(given, (Tensor, np.ndarray)) else list(given)
        if len(values) != count:
            raise ValueError(f"there are {len(values):,} labels for {count:,} nodes: give one for each, or a mapping")
        given = dict(zip(range(count), values, strict=True))
        names = np.arange(count, dtype=np.uint64)
    else:
        names = np.arange(count, dtype=np.uint64) if edges.names is None else edges.names
    place = {name: at for at, name in enumerate(names.tolist())}
    known = {node: label for node, label in given.items() if label is not None and label == label}  # noqa: PLR0124
    found = {place[name]: label for name, label in zip(_names(known), known.values(), strict=True) if name in place}
    if not found:
        raise ValueError(f"none of the {len(known):,} labels is of a node with edges: are the nodes called alike?")
    classes = {label: at for at, label in enumerate(sorted(set(found.values()), key=_in_order))}
    y = torch.full((count,), UNKNOWN)
    y[torch.tensor(list(found))] = torch.tensor([classes[label] for label in found.values()])
    gone = len(known) - len(found)
    left = f"{gone:,} of {len(known):,} labels {'is' if gone == 1 else 'are'} of {'a node' if gone == 1 else 'nodes'}"
    return y, f"{left} without edges, and not used" if gone else ""


def read_labels(path: str | os.PathLike[str]) -> dict[Hashable, str]:
    """Node -> label, of a table of two columns: ``node`` and ``label``, in a first line or without one.

    The columns may also be called ``id`` or ``name``, and ``class`` or ``y``; other columns are not read. They are
    separated by commas, in ``.tsv`` by tabs and in ``.txt`` by white space; the file may be packed (``.gz``, ``.zst``).

    Raises:
        DataError: the file is missing or damaged, has other columns, or names a node twice; with the line.
    """
    path = Path(path)
    with reading(path, DataError, "a table of nodes and labels"):
        rows = [(at, cells) for at, cells in enumerate(_cells(path), 1) if any(cells)]
        if not rows:
            raise ValueError("it is empty")
        first = [cell.strip().lower() for cell in rows[0][1]]
        ends = [next((first.index(name) for name in names if name in first), None) for names in (NODE, LABEL)]
        if None in ends:
            if any(end is not None for end in ends) or len(first) != 2:
                raise ValueError(f"its columns must be node and label, got {', '.join(first)!r:.80}")
            ends = [0, 1]
        else:
            del rows[0]
        node, label = (int(end) for end in ends if end is not None)
        found: dict[Hashable, str] = {}
        for at, cells in rows:
            if len(cells) != len(first):
                raise ValueError(f"line {at} has {len(cells)} cells, and the first has {len(first)}")
            name = cells[node].strip()
            if name in found:
                raise ValueError(f"line {at} names node {name!r:.60} again")
            if cells[label].strip():
                found[name] = cells[label].strip()
        return found


def _cells(path: Path) -> list[list[str]]:
    text = decoded(read_content(path)).removeprefix("\ufeff")
    if inner_suffix(path) in (".txt", ".dat"):
        return [[] if line.startswith("#") else line.split() for line in text.splitlines()]
    return list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if inner_suffix(path) == ".tsv" else ","))


def _names(nodes: Mapping[Hashable, Any]) -> list[int]:
    """The nodes by their 64-bit names, as the graph has them; a text that spells a whole number is one."""
    names: list[int] = label_names([_number(node) for node in nodes]).tolist()
    return names


def _number(node: Hashable) -> Hashable:
    if isinstance(node, str) and node.lstrip("-").isdecimal() and str(int(node)) == node:
        return int(node)
    return node


def _in_order(label: Any) -> tuple[int, float, str]:
    """Labels in an order of their own: numbers by value, then texts."""
    try:
        return 0, float(label), str(label)
    except (TypeError, ValueError):
        return 1, 0.0, str(label)
