"""GraphML files: the elements of dropped edges are taken out of the bytes, and all else stays as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import torch

from graphsparse.graphs.columns import weight_name
from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, Mask, number
from graphsparse.graphs.inner_form import coded_edges

_GRAPH = ["graphml", "graph"]
_NODE, _EDGE = [*_GRAPH, "node"], [*_GRAPH, "edge"]


@FORMATS.register("graphml")
class GraphML(GraphFile):
    """One graph of nodes and edges, directed or not as its ``edgedefault`` says; see http://graphml.graphdrawing.org.

    An edge without the attribute that holds the weights has the key's default, or 1. Several graphs, nested ones,
    hyperedges and edges of both kinds in one graph are refused: they are no graph of one edge list.
    """

    packed = True

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        self.content = read_content(path)
        found = _Reader(self.content)
        if found.directed is None:
            raise ValueError("it holds no graph")
        if undirected is False and not found.directed:
            raise ValueError("the edges of the graph are undirected: they cannot be read as directed")
        self.spans, self.at = np.array(found.spans, np.int64).reshape(-1, 2), found.lines
        values = self._weights(found, weight)
        ids = {label: i for i, label in enumerate(found.nodes)}
        ends = np.empty((2, len(found.ends)), np.int64)
        for edge, (pair, line) in enumerate(zip(found.ends, found.lines, strict=True)):
            for row, label in enumerate(pair):
                if label not in ids:
                    raise ValueError(f"line {line} has an edge of the node {label!r:.60}, which is not in the graph")
                ends[row, edge] = ids[label]
        both = undirected if found.directed and undirected else not found.directed
        self.edges = coded_edges(ends, list(ids), both, values, pairs_once=not found.directed)

    def _weights(self, found: _Reader, asked: str | None) -> torch.Tensor | None:
        name = weight_name(list(found.names.values()), asked, "attribute of edges")
        key = next((key for key, spelled in found.names.items() if spelled == name), None)
        if name is None or key is None:
            return None
        default = found.defaults.get(key)
        texts = [data.get(key, default) for data in found.data]
        if asked is None and all(text is None for text in texts):
            return None
        self.weights = f"the attribute {name!r}"
        return torch.tensor([1.0 if text is None else number(text) for text in texts], dtype=torch.float64)

    def write(self, keep: Mask, path: Path) -> None:
        """The bytes of the file without the dropped edges' elements and the white space before them."""
        blanks = b"" if b"\0" in self.content else b" \t\r\n"  # in UTF-16 a blank is no byte of its own
        pieces, start = [], 0
        for first, last in self.spans[~keep].tolist():
            pieces.append(self.content[start:first].rstrip(blanks))
            start = last
        write_content(path, [*pieces, self.content[start:]])

    def place(self, edge: int) -> str:
        """The line on which the edge's element begins."""
        return f"line {self.at[edge]}"


class _Reader:
    """What one pass over the elements finds. Names of elements count where GraphML puts them, not within data."""

    def __init__(self, content: bytes) -> None:
        self.directed: bool | None = None
        self.nodes: dict[str, None] = {}
        self.ends: list[tuple[str, str]] = []
        self.lines: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.data: list[dict[str, str]] = []  # of edges, by key
        self.names: dict[str, str] = {}  # of the edges' attributes, by key
        self.defaults: dict[str, str] = {}
        self._path: list[str] = []
        self._key = ""
        self._text: list[str] | None = None
        self._start = 0
        self._open = False  # whether an edge's element has ended, and its last byte is where the next thing begins
        self._parse(content)

    def _parse(self, content: bytes) -> None:
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.DefaultHandler = parser.CommentHandler = lambda _: self._close()
        parser.ProcessingInstructionHandler = lambda *_: self._close()
        parser.StartCdataSectionHandler = self._close
        parser.EntityDeclHandler = self._refuse_entities
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise ValueError(f"line {error.lineno} is no XML: {expat.ErrorString(error.code)}") from error

    def _refuse_entities(self, name: str, *_: Any) -> None:
        raise ValueError(f"it declares the entity {name!r:.60}; entities are not read")

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"line {self._parser.CurrentLineNumber} {what}")

    def _close(self) -> None:
        if self._open:
            self.spans.append((self._start, self._parser.CurrentByteIndex))
            self._open = False

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._close()
        path = self._path
        path.append(tag.rpartition(" ")[2])
        if len(path) == 1 and path != ["graphml"]:
            raise self._wrong(f"begins with the element {path[0]!r:.60}, not with graphml")
        if path[-1] == "graph" and "data" not in path:
            self._begin_graph(attributes)
        elif path == [*_GRAPH, "hyperedge"]:
            raise self._wrong("has a hyperedge; edges of more than two nodes are not read")
        elif path == _NODE:
            label = self._attribute(attributes, "id")
            if label in self.nodes:
                raise self._wrong(f"names the node {label!r:.60} again")
            self.nodes[label] = None
        elif path == _EDGE:
            self._begin_edge(attributes)
        elif path == ["graphml", "key"]:
            self._key = self._attribute(attributes, "id")
            if attributes.get("for", "all") in ("edge", "all"):
                self.names[self._key] = attributes.get("attr.name", self._key)
        elif path == [*_EDGE, "data"]:
            self._key, self._text = self._attribute(attributes, "key"), []
        elif path == ["graphml", "key", "default"]:
            self._text = []

    def _begin_graph(self, attributes: dict[str, str]) -> None:
        if self._path != _GRAPH:
            raise self._wrong("has a graph within a graph; nested graphs are not read")
        if self.directed is not None:
            raise self._wrong("begins another graph; a file of one graph is read")
        self.directed = attributes.get("edgedefault") == "directed"

    def _begin_edge(self, attributes: dict[str, str]) -> None:
        self.ends.append((self._attribute(attributes, "source"), self._attribute(attributes, "target")))
        own = attributes.get("directed")
        if own is not None and (own == "true") != self.directed:
            raise self._wrong("has an edge that is directed otherwise than the graph; edges of both kinds are not read")
        self.lines.append(self._parser.CurrentLineNumber)
        self.data.append({})
        self._start = self._parser.CurrentByteIndex

    def _attribute(self, attributes: dict[str, str], name: str) -> str:
        if name not in attributes:
            raise self._wrong(f"has an element {self._path[-1]!r} without {name!r}")
        return attributes[name]

    def _characters(self, text: str) -> None:
        self._close()
        if self._text is not None:
            self._text.append(text)

    def _end(self, _: str) -> None:
        self._close()
        if self._text is not None and self._path == [*_EDGE, "data"]:
            self.data[-1][self._key] = "".join(self._text)
            self._text = None
        elif self._text is not None and self._path == ["graphml", "key", "default"]:
            self.defaults[self._key] = "".join(self._text)
            self._text = None
        self._open = self._path == _EDGE
        self._path.pop()
