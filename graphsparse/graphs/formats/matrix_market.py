"""Matrix Market files: each entry is an edge on a line of its own, and the lines that stay are written as they were."""

from __future__ import annotations

import re
from itertools import compress
from pathlib import Path

import numpy as np
import torch

from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_content import GraphContent, number
from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, Mask
from graphsparse.graphs.inner_form import edge_list

_BANNER = re.compile(rb"%%MatrixMarket\s+(\w+)\s+(\w+)\s+([\w-]+)\s+([\w-]+)\s*", re.IGNORECASE)
_SIZE = re.compile(rb"\s*(\d{1,20})\s+(\d{1,20})\s+(\d{1,20})\s*")
_REAL = rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[edED][+-]?\d+)?|inf(?:inity)?|nan)"
_VALUES = {b"pattern": b"", b"integer": rb"\s+([+-]?\d+)", b"real": rb"\s+(" + _REAL + rb")"}
_VALUES |= {b"double": _VALUES[b"real"], b"complex": rb"\s+(" + _REAL + rb"\s+" + _REAL + rb")"}
_SYMMETRIES = (b"general", b"symmetric", b"hermitian")


@FORMATS.register("mtx")
class MatrixMarket(GraphFile):
    """A square matrix in the coordinate format: an entry (i, j) is an edge i -> j with the stored value as its weight.

    In a symmetric or Hermitian file an entry stands for both directions, so the edges are undirected. Copies of an
    entry are edges of their own. See https://math.nist.gov/MatrixMarket/formats.html.
    """

    packed = True
    says_direction = True

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        if weight is not None:
            raise ValueError(f"the weights of a matrix are its values; it has nothing named {weight!r}")
        content = read_content(path)
        self.lines = content.splitlines(keepends=True)
        field, symmetry = self._banner()
        filled = [at for at, line in enumerate(self.lines) if line.strip() and not line.lstrip().startswith(b"%")]
        self.size, self.at = self._size_line(filled), np.array(filled[1:], np.int64)
        nodes, number_of_edges = (int(self.size[group]) for group in (1, 3))
        if len(self.at) != number_of_edges:
            raise ValueError(f"its size line promises {number_of_edges:,} entries, and {len(self.at):,} lines follow")
        ends, values = self._entries(field, nodes)
        pairs_once = symmetry != b"general"
        if pairs_once and undirected is False:
            raise ValueError(
                f"the matrix is {symmetry.decode()}, and so are its edges: they cannot be read as directed"
            )
        weights = (
            None
            if field == b"pattern"
            else torch.tensor(values, dtype=torch.complex128 if field == b"complex" else torch.float64)
        )
        self.weights = "" if weights is None else "the values of the matrix"
        self.edges = edge_list(torch.from_numpy(ends), nodes, undirected, weight=weights, pairs_once=pairs_once)

    def _banner(self) -> tuple[bytes, bytes]:
        found = _BANNER.fullmatch(self.lines[0]) if self.lines else None
        if found is None:
            raise ValueError("line 1 must read %%MatrixMarket matrix coordinate FIELD SYMMETRY")
        thing, form, field, symmetry = (word.lower() for word in found.groups())
        if (thing, form) != (b"matrix", b"coordinate"):
            raise ValueError(
                f"it holds a {thing.decode()} in {form.decode()} form; a graph is a matrix in coordinate form"
            )
        if field not in _VALUES or symmetry not in _SYMMETRIES:
            raise ValueError(
                f"{field.decode()} {symmetry.decode()} matrices are not read as graphs; the field may be "
                f"{', '.join(map(bytes.decode, _VALUES))}, and the symmetry {', '.join(map(bytes.decode, _SYMMETRIES))}"
            )
        return field, symmetry

    def _size_line(self, filled: list[int]) -> re.Match[bytes]:
        found = _SIZE.fullmatch(self.lines[filled[0]]) if filled else None
        if found is None:
            place = f"line {filled[0] + 1}" if filled else "after the comments there"
            raise ValueError(f"{place} must be the size line: rows, columns and entries")
        if int(found[1]) != int(found[2]):
            raise ValueError(f"the matrix of a graph must be square, got {int(found[1])} x {int(found[2])}")
        self.size_at = filled[0]
        return found

    def _entries(self, field: bytes, nodes: int) -> tuple[np.ndarray, list[float] | list[complex]]:
        """Ends ``[2, E]`` from 0, and values."""
        entry = re.compile(rb"\s*(\d{1,20})\s+(\d{1,20})" + _VALUES[field] + rb"\s*", re.IGNORECASE).fullmatch
        ends: list[int] = []
        texts: list[bytes] = []
        for at in self.at.tolist():
            found = entry(self.lines[at])
            if found is None:
                raise ValueError(f"line {at + 1} is no entry of a {field.decode()} matrix: {self.lines[at][:60]!r}")
            row, column = int(found[1]), int(found[2])
            if not (0 < row <= nodes and 0 < column <= nodes):
                raise ValueError(f"line {at + 1} names the entry ({row}, {column}), and the ids go from 1 to {nodes}")
            ends += (row - 1, column - 1)
            if field != b"pattern":
                texts.append(found[3])
        pairs = np.array(ends, np.int64).reshape(-1, 2)
        return np.ascontiguousarray(pairs.T), [_value(text, field == b"complex") for text in texts]

    def write(self, keep: Mask, path: Path) -> None:
        """Banner, comments and kept lines as they were; the size line's count is what is left."""
        stay = np.ones(len(self.lines), bool)
        stay[self.at[~keep]] = False
        first, last = self.size.span(3)
        line = self.lines[self.size_at]
        size = line[:first] + str(int(keep.sum())).encode() + line[last:]
        before, after = self.lines[: self.size_at], self.lines[self.size_at + 1 :]
        write_content(path, [*before, size, *compress(after, stay[self.size_at + 1 :].tolist())])

    def content(self) -> GraphContent:
        """The entries and their values."""
        edges = self.edges
        parts = edges.edge_index.numpy(), edges.num_nodes, None, edges.undirected, edges.mirrored
        if edges.weight is None:
            return GraphContent(*parts)
        if edges.weight.is_complex():
            return GraphContent(*parts, lost=("the values, which are complex",))
        return GraphContent(*parts, {"weight": edges.weight.numpy()}, "weight")

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """A general matrix, or a symmetric one where pairs are named once; its values are the weights."""
        numbered, lost = content.ids()
        lost += [f"the column {name!r}" for name in numbered.columns if name != numbered.weight]
        values = numbered.weights()
        low, high = np.sort(numbered.ends, axis=0)
        once = numbered.undirected and not numbered.mirrored
        rows, columns = (high, low) if once else numbered.ends  # of a symmetric matrix the lower half is written
        symmetry, field = "symmetric" if once else "general", "pattern" if values is None else "real"
        size = numbered.num_nodes
        lines = [f"%%MatrixMarket matrix coordinate {field} {symmetry}\n", f"{size} {size} {len(rows)}\n"]
        ends = [f"{row} {column}" for row, column in zip((rows + 1).tolist(), (columns + 1).tolist(), strict=True)]
        if values is None:
            lines += [f"{pair}\n" for pair in ends]
        else:
            lines += [f"{pair} {value!r}\n" for pair, value in zip(ends, values.tolist(), strict=True)]
        write_content(path, ["".join(lines).encode()])
        return lost

    def place(self, edge: int) -> str:
        """The line of the entry."""
        return f"line {self.at[edge] + 1}"


def _value(text: bytes, is_complex: bool) -> float | complex:
    real, *imaginary = (number(part.decode().lower().replace("d", "e")) for part in text.split())
    return complex(real, *imaginary) if is_complex else real
