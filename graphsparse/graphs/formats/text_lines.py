"""Text with one edge a line: what stays is written as it was read, and labels are read alike from every such file."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import compress
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.graphs.formats.content import write_content
from graphsparse.graphs.formats.graph_content import GraphContent, number
from graphsparse.graphs.formats.graph_file import Array, GraphFile, Mask
from graphsparse.graphs.labels import label_codes


class TextLines(GraphFile):
    """Lines of which some are edges.

    Attributes:
        lines: the text, line by line.
        starts: the first line of each edge ``[E]``.
        stops: the line after its last ``[E]``.
        labels: the label of each node.
        codes: the ends as positions among the labels ``[2, E]``.
    """

    packed = True
    options = ("src", "dst", "header", "one_based")
    lines: list[str]
    starts: Array
    stops: Array
    labels: Sequence[Hashable] | Array
    codes: Array

    def set_edges(
        self,
        tails: list[str],
        heads: list[str],
        weights: list[str] | None,
        undirected: bool | None,
        one_based: bool,
    ) -> None:
        """Make the edge list of the texts of ends and weights."""
        values = None if weights is None else torch.tensor([number(cell) for cell in weights], dtype=torch.float64)
        self.codes, self.labels = _whole_codes(tails, heads) or label_codes(tails, heads)
        if one_based:
            self.labels = self._counted_from_zero(self.labels)
        self.list_edges(self.codes, self.labels, undirected, values)

    def _counted_from_zero(self, labels: Any) -> Any:
        if not isinstance(labels, np.ndarray):
            raise ValueError("ids that count from 1 are whole numbers, and there are other labels")
        if len(labels) and int(labels.min()) < 1:
            wrong = int(labels.argmin())
            place = self.place(int((self.codes == wrong).any(0).argmax()))
            raise ValueError(f"{place} names node {int(labels[wrong])}, and ids that count from 1 begin there")
        return labels - 1

    def write(self, keep: Mask, path: Path) -> None:
        """Comments, blank lines and kept records, byte for byte."""
        gone = np.zeros(len(self.lines) + 1, np.int8)
        gone[self.starts[~keep]] += 1
        gone[self.stops[~keep]] -= 1
        stay = np.cumsum(gone[:-1], dtype=np.int8) == 0
        text = "".join(compress(self.lines, stay.tolist()))
        write_content(path, [f"{self.mark(keep)}{text}".encode()])

    def mark(self, keep: Mask) -> str:
        """What must stand above the lines that stay, so that they are read back as they were; usually nothing."""
        return ""

    def place(self, edge: int) -> str:
        """The first line of the edge's record."""
        line = edge if self.both_ways is None else self.both_ways.first[edge]
        return f"line {self.starts[line] + 1}"

    def found(self, columns: dict[str, Any], weight: str | None, lost: list[str]) -> GraphContent:
        """The content, with what is beside the ends."""
        edges = self.edges
        return GraphContent(
            self.codes,
            edges.num_nodes,
            self.labels,
            edges.undirected,
            edges.mirrored,
            columns,
            weight,
            tuple(lost),
        )


NO_HEADER = "# no header"  # a first line that says so: what comes first is an edge, whatever it looks like


def plain_cells(lines: list[str], delimiter: str, width: int, comments: str = "#") -> list[str] | None:
    """All cells, row by row, of lines that hold ``width`` cells each and nothing to be looked at more closely.

    None where a line has another number of delimiters, a quote or a carriage return, or begins a comment.
    """
    text = "".join(lines)
    if '"' in text or any(text.startswith(sign) or f"\n{sign}" in text for sign in comments):
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            return None
    if {*map(methodcaller("count", delimiter), lines)} - {width - 1}:
        return None
    return text.removesuffix("\n").replace("\n", delimiter).split(delimiter) if lines else []


def decoded(content: bytes) -> str:
    """Text in UTF-8.

    Raises:
        ValueError: it is none, with the line.
    """
    if (nul := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise ValueError(f"line {line} holds a NUL byte: it is no text, or not in UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(f"line {line} is not in UTF-8 (byte {byte:#04x}); save the table in UTF-8") from error


def _whole_codes(tails: list[str], heads: list[str]) -> tuple[Array, Array] | None:
    """Ends ``[2, E]`` and labels as `label_codes` finds them, where all are whole numbers of 64 bits; else None."""
    texts = [*tails, *heads]
    try:
        values = np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError):
        return None
    digits = np.searchsorted(10 ** np.arange(1, 19), np.abs(values), side="right") + 1 + (values < 0)
    if sum(map(len, texts)) != digits.sum() or not all(map(str.isascii, texts)):
        return None  # any other spelling of a number, such as 01, is longer
    labels, first, codes = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)  # nodes in the order in which they appear
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[codes].reshape(2, -1), labels[order]
