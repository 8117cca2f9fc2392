"""METIS files (``.graph``, ``.metis``): line i lists the neighbours of node i; every edge stands on two lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_content import GraphContent, number
from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, Mask
from graphsparse.graphs.inner_form import edge_list


@FORMATS.register("graph")
@FORMATS.register("metis")
class Metis(GraphFile):
    """An undirected graph without self-loops: a header ``n m [fmt [ncon]]``, then one line a node, ids from 1.

    Sizes and weights of nodes, which the header announces, stay; weights of edges are the weights. Lines that begin
    with ``%`` are comments, and stay. A line is written anew only where it loses a neighbour.
    """

    packed = True
    says_direction = True

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        if weight is not None:
            raise ValueError(f"the weights of a METIS file have no name; it has nothing named {weight!r}")
        if undirected is False:
            raise ValueError("the edges of a METIS file are undirected: they cannot be read as directed")
        self.lines = read_content(path).splitlines(keepends=True)
        rows = [at for at, line in enumerate(self.lines) if not line.lstrip().startswith(b"%")]
        filled = next((place for place, at in enumerate(rows) if self.lines[at].strip()), None)
        if filled is None:
            raise ValueError("it is empty: a first line must say how many nodes and edges there are")
        self.head, self.rows = rows[filled], rows[filled + 1 :]
        nodes, edges = self._header()
        while len(self.rows) > nodes and not self.lines[self.rows[-1]].strip():
            self.rows.pop()
        if len(self.rows) != nodes:
            raise ValueError(f"its header promises {nodes:,} nodes, and {len(self.rows):,} lines follow")
        self._entries(nodes)
        if self.ends.shape[1] != 2 * edges:
            raise ValueError(
                f"its header promises {edges:,} edges, which stand on two lines each, and the lines list "
                f"{self.ends.shape[1]:,} neighbours"
            )
        self.weights = "the weights of its edges" if self.weighted else ""
        values = torch.tensor([number(text.decode()) for text in self.texts], dtype=torch.float64)
        ends = torch.from_numpy(self.ends)
        self.edges = edge_list(ends, nodes, None, weight=values if self.weighted else None)
        if not self.edges.mirrored:
            raise ValueError(self._one_sided())

    def _header(self) -> tuple[int, int]:
        words = self.lines[self.head].split()
        if not 2 <= len(words) <= 4 or not all(word.isdigit() and len(word) < 16 for word in words):
            raise ValueError(f"line {self.head + 1} must be the header: the numbers of nodes and edges, and a format")
        form = words[2].zfill(3) if len(words) > 2 else b"000"
        if len(form) != 3 or form.strip(b"01"):
            raise ValueError(f"line {self.head + 1} has the format {form.decode()!r}; three digits 0 or 1 are known")
        sizes, of_nodes, self.weighted = (digit == ord("1") for digit in form)
        self.before = int(sizes) + (int(words[3]) if len(words) > 3 else 1) * int(of_nodes)
        return int(words[0]), int(words[1])

    def _entries(self, nodes: int) -> None:
        """Ends, the texts of weights, and how many edges each line has."""
        step = 1 + self.weighted
        tails: list[int] = []
        heads: list[int] = []
        self.texts: list[bytes] = []
        for node, at in enumerate(self.rows):
            words = self.lines[at].split()
            if len(words) < self.before or (len(words) - self.before) % step:
                beside = "a weight" if self.weighted else "its neighbours"
                raise ValueError(f"line {at + 1} has {len(words)} numbers, which do not fit the header ({beside})")
            listed = words[self.before :: step]
            for word in listed:
                if not word.isdigit() or len(word) > 18 or not 0 < int(word) <= nodes:
                    raise ValueError(f"line {at + 1} names the neighbour {word!r:.30}, and ids go from 1 to {nodes}")
                if int(word) == node + 1:
                    raise ValueError(f"line {at + 1} names node {node + 1} as its own neighbour; METIS has no loops")
                heads.append(int(word) - 1)
            tails += [node] * len(listed)
            self.texts += words[self.before + 1 :: step] if self.weighted else []
        self.ends = np.array([tails, heads], np.int64).reshape(2, -1)

    def _one_sided(self) -> str:
        arcs = set(map(tuple, self.ends.T.tolist()))
        tail, head = next(((u, v) for u, v in self.ends.T.tolist() if (v, u) not in arcs), (0, 0))
        return (
            f"line {self.rows[tail] + 1} names {head + 1} as a neighbour of {tail + 1}, and line {self.rows[head] + 1} "
            "does not name it the other way round as often"
        )

    def write(self, keep: Mask, path: Path) -> None:
        """The header with the new count; lines that lose a neighbour are written anew, the others as they were."""
        lines = list(self.lines)
        words = lines[self.head].split()
        old, new = words[1], str(int(keep.sum()) // 2).encode()
        first = lines[self.head].index(words[0]) + len(words[0])
        at = lines[self.head].index(old, first)
        lines[self.head] = lines[self.head][:at] + new + lines[self.head][at + len(old) :]
        step = 1 + self.weighted
        starts = np.searchsorted(self.ends[0], np.arange(len(self.rows) + 1))
        for node in np.unique(self.ends[0][~keep]).tolist():
            line = lines[self.rows[node]]
            words = line.split()
            kept = words[: self.before]
            for place, stays in enumerate(keep[starts[node] : starts[node + 1]].tolist()):
                if stays:
                    kept += words[self.before + place * step : self.before + (place + 1) * step]
            ending = line[len(line.rstrip(b"\r\n")) :]
            lines[self.rows[node]] = b" ".join(kept) + ending
        write_content(path, lines)

    def place(self, edge: int) -> str:
        """The line of the node that names the neighbour."""
        return f"line {self.rows[int(self.ends[0, edge])] + 1}"

    def content(self) -> GraphContent:
        """The edges and their weights."""
        lost = ("what the nodes carry",) if self.before else ()
        columns: dict[str, Any] = {} if self.edges.weight is None else {"weight": self.edges.weight.numpy()}
        return GraphContent(
            self.ends, self.edges.num_nodes, None, True, True, columns, "weight" if columns else None, lost
        )

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """One line a node; weights are written where all are whole numbers above 0, as METIS wants them."""
        if not content.undirected:
            raise ValueError("METIS files hold undirected graphs: give --undirected if each line is an edge")
        numbered, lost = content.ids()
        once, more = numbered.pairs_once()
        loops = once.ends[0] == once.ends[1]
        lost += [*more, *([f"{int(loops.sum()):,} self-loops"] if loops.any() else [])]
        once = once.kept(~loops)
        values = once.weights()
        whole = values is not None and bool((values == np.rint(values)).all() and (values > 0).all())
        lost += [f"the column {name!r}" for name in once.columns if not (whole and name == once.weight)]
        tails, heads = np.concatenate([once.ends, once.ends[::-1]], axis=1)
        order = np.lexsort((heads, tails))
        rows: list[list[str]] = [[] for _ in range(once.num_nodes)]
        both = None if values is None or not whole else np.concatenate([values, values])
        for at in order.tolist():
            rows[tails[at]].append(str(heads[at] + 1) if both is None else f"{heads[at] + 1} {int(both[at])}")
        head = f"{once.num_nodes} {once.ends.shape[1]}{' 001' if both is not None else ''}"
        write_content(path, ["".join(f"{line}\n" for line in [head, *map(" ".join, rows)]).encode()])
        return lost
