"""XML with edges as elements: a dropped edge's element is taken out of the bytes, and all else stays as written."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import torch

from graphsparse.graphs.columns import weight_name
from graphsparse.graphs.formats.content import read_content, write_content
from graphsparse.graphs.formats.graph_content import GraphContent, number, typed
from graphsparse.graphs.formats.graph_file import GraphFile, Mask
from graphsparse.graphs.inner_form import coded_edges


class XmlReader:
    """What one pass over the elements finds; a kind of file says in ``begin`` and ``end`` what they mean.

    Attributes:
        path: the elements that are open.
        directed: whether edges are directed; None where there is no graph.
        nodes: the ids of nodes.
        ends: two ids for each edge.
        lines: the line on which each edge's element begins.
        spans: its first byte, and the byte after its last.
        data: what each edge carries, by key.
        names: the names of these keys.
        defaults: their values where an edge has none.
        node_data: whether nodes carry anything.
    """

    edge: list[str]  # the path of an edge's element

    def __init__(self, content: bytes) -> None:
        self.directed: bool | None = None
        self.nodes: dict[str, None] = {}
        self.ends: list[tuple[str, str]] = []
        self.lines: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.data: list[dict[str, str]] = []
        self.names: dict[str, str] = {}
        self.defaults: dict[str, str] = {}
        self.node_data = False
        self.path: list[str] = []
        self._start = 0
        self._open = False  # whether an edge's element has ended, and its last byte is where the next thing begins
        self._parse(content)

    @abstractmethod
    def begin(self, attributes: dict[str, str]) -> None:
        """An element begins; it is the last of ``path``."""

    def end(self) -> None:
        """The last element of ``path`` ends."""

    def text(self, text: str) -> None:
        """Text within the last element of ``path``."""

    @property
    def at(self) -> int:
        """The byte that is read."""
        return self._parser.CurrentByteIndex

    def add_edge(self, attributes: dict[str, str], data: dict[str, str]) -> None:
        """Remember the edge whose element begins."""
        self.ends.append((self.attribute(attributes, "source"), self.attribute(attributes, "target")))
        self.lines.append(self._parser.CurrentLineNumber)
        self.data.append(data)
        self._start = self.at

    def add_node(self, attributes: dict[str, str]) -> None:
        """Remember the node whose element begins."""
        label = self.attribute(attributes, "id")
        if label in self.nodes:
            raise self.wrong(f"names the node {label!r:.60} again")
        self.nodes[label] = None

    def attribute(self, attributes: dict[str, str], name: str) -> str:
        """An attribute that an element must have."""
        if name not in attributes:
            raise self.wrong(f"has an element {self.path[-1]!r} without {name!r}")
        return attributes[name]

    def wrong(self, what: str) -> ValueError:
        """An error on the line that is read."""
        return ValueError(f"line {self._parser.CurrentLineNumber} {what}")

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

    def _close(self) -> None:
        if self._open:
            self.spans.append((self._start, self.at))
            self._open = False

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._close()
        self.path.append(tag.rpartition(" ")[2])
        if len(self.path) == 1 and self.path[0] != self.edge[0]:
            raise self.wrong(f"begins with the element {self.path[0]!r:.60}, not with {self.edge[0]}")
        self.begin(attributes)

    def _characters(self, text: str) -> None:
        self._close()
        self.text(text)

    def _end(self, _: str) -> None:
        self._close()
        self.end()
        self._open = self.path == self.edge
        self.path.pop()


class XmlGraph(GraphFile):
    """A graph whose edges are elements."""

    packed = True
    says_direction = True
    reader: type[XmlReader]

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        self.bytes = read_content(path)
        self.found = found = self.reader(self.bytes)
        if found.directed is None:
            raise ValueError("it holds no graph")
        if undirected is False and not found.directed:
            raise ValueError("the edges of the graph are undirected: they cannot be read as directed")
        self.spans = np.array(found.spans, np.int64).reshape(-1, 2)
        values = self._weights(weight)
        ids = {label: i for i, label in enumerate(found.nodes)}
        self.ends = np.empty((2, len(found.ends)), np.int64)
        for edge, (pair, line) in enumerate(zip(found.ends, found.lines, strict=True)):
            for row, label in enumerate(pair):
                if label not in ids:
                    raise ValueError(f"line {line} has an edge of the node {label!r:.60}, which is not in the graph")
                self.ends[row, edge] = ids[label]
        both = undirected if found.directed and undirected else not found.directed
        self.labels: list[str] = list(ids)
        self.edges = coded_edges(self.ends, self.labels, both, values, pairs_once=not found.directed)

    def _texts(self, key: str) -> list[str | None]:
        default = self.found.defaults.get(key)
        return [data.get(key, default) for data in self.found.data]

    def _weights(self, asked: str | None) -> torch.Tensor | None:
        self.key = None
        name = weight_name(list(self.found.names.values()), asked, "attribute of edges")
        key = next((key for key, spelled in self.found.names.items() if spelled == name), None)
        if name is None or key is None:
            return None
        texts = self._texts(key)
        if asked is None and all(text is None for text in texts):
            return None
        self.key, self.weights = key, f"the attribute {name!r}"
        return torch.tensor([1.0 if text is None else number(text) for text in texts], dtype=torch.float64)

    def write(self, keep: Mask, path: Path) -> None:
        """The bytes of the file without the dropped edges' elements and the white space before them."""
        blanks = b"" if b"\0" in self.bytes else b" \t\r\n"  # in UTF-16 a blank is no byte of its own
        pieces, start = [], 0
        for first, last in self.spans[~keep].tolist():
            pieces.append(self.bytes[start:first].rstrip(blanks))
            start = last
        write_content(path, [*pieces, self.bytes[start:]])

    def place(self, edge: int) -> str:
        """The line on which the edge's element begins."""
        return f"line {self.found.lines[edge]}"

    def content(self) -> GraphContent:
        """What edges carry, as text; an attribute that some edges lack is empty there, a weight 1."""
        columns: dict[str, Any] = {}
        for key, name in self.found.names.items():
            texts = self._texts(key)
            if any(text is not None for text in texts) and name not in columns:
                columns[name] = [("1" if key == self.key else "") if text is None else text for text in texts]
        lost = ("what the nodes carry",) if self.found.node_data else ()
        weight = None if self.key is None else self.found.names[self.key]
        edges = self.edges
        parts = self.ends, edges.num_nodes, typed(self.labels), edges.undirected, edges.mirrored
        return GraphContent(*parts, columns, weight, lost)


def networkx_graph(content: GraphContent) -> tuple[Any, list[str]]:
    """The graph for networkx's writers, each pair of an undirected one once, and what is lost by that."""
    import networkx

    once, lost = content.pairs_once()
    pairs = once.ends.T if not once.undirected else np.sort(once.ends, axis=0).T
    copies = len(pairs) > len(np.unique(pairs, axis=0)) if len(pairs) else False
    kinds = {
        (False, False): "Graph",
        (False, True): "MultiGraph",
        (True, False): "DiGraph",
        (True, True): "MultiDiGraph",
    }
    graph = getattr(networkx, kinds[not once.undirected, copies])()
    names = [str(name) for name in content.names()]
    graph.add_nodes_from(names)
    columns = {name: list(np.asarray(typed(values)).tolist()) for name, values in once.columns.items()}
    gone = [name for name, values in columns.items() if any(value is None for value in values)]
    rows = (
        zip(*(columns[name] for name in columns if name not in gone), strict=True) if len(columns) > len(gone) else None
    )
    kept = [name for name in columns if name not in gone]
    for tail, head in once.ends.T.tolist():
        carried = dict(zip(kept, next(rows), strict=True)) if rows is not None else {}
        graph.add_edge(names[tail], names[head], **{key: value for key, value in carried.items() if value != ""})
    return graph, [*lost, *(f"the column {name!r}, which has gaps" for name in gone)]


def write_text(path: Path, text: str) -> None:
    """Write a new file in UTF-8."""
    write_content(path, [text.encode()])
