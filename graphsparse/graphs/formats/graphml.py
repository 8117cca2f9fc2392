"""GraphML files: the elements of dropped edges are taken out of the bytes, and all else stays as it was written."""

from __future__ import annotations

from pathlib import Path

from graphsparse.graphs.formats.graph_content import GraphContent
from graphsparse.graphs.formats.graph_file import FORMATS
from graphsparse.graphs.formats.xml_elements import XmlGraph, XmlReader, networkx_graph, write_text

_GRAPH = ["graphml", "graph"]
_NODE, _EDGE = [*_GRAPH, "node"], [*_GRAPH, "edge"]


class _Reader(XmlReader):
    """Names of elements count where GraphML puts them, not within data."""

    edge = _EDGE

    def __init__(self, content: bytes) -> None:
        self._key = ""
        self._text: list[str] | None = None
        super().__init__(content)

    def begin(self, attributes: dict[str, str]) -> None:
        path = self.path
        if path[-1] == "graph" and "data" not in path:
            self._begin_graph(attributes)
        elif path == [*_GRAPH, "hyperedge"]:
            raise self.wrong("has a hyperedge; edges of more than two nodes are not read")
        elif path == _NODE:
            self.add_node(attributes)
        elif path == _EDGE:
            self.add_edge(attributes, {})
            own = attributes.get("directed")
            if own is not None and (own == "true") != self.directed:
                raise self.wrong("has an edge directed otherwise than the graph; edges of both kinds are not read")
        elif path == ["graphml", "key"]:
            self._key = self.attribute(attributes, "id")
            if attributes.get("for", "all") in ("edge", "all"):
                self.names[self._key] = attributes.get("attr.name", self._key)
        elif path == [*_EDGE, "data"]:
            self._key, self._text = self.attribute(attributes, "key"), []
        elif path == [*_NODE, "data"]:
            self.node_data = True
        elif path == ["graphml", "key", "default"]:
            self._text = []

    def _begin_graph(self, attributes: dict[str, str]) -> None:
        if self.path != _GRAPH:
            raise self.wrong("has a graph within a graph; nested graphs are not read")
        if self.directed is not None:
            raise self.wrong("begins another graph; a file of one graph is read")
        self.directed = attributes.get("edgedefault") == "directed"

    def text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self) -> None:
        if self._text is not None and self.path == [*_EDGE, "data"]:
            self.data[-1][self._key] = "".join(self._text)
            self._text = None
        elif self._text is not None and self.path == ["graphml", "key", "default"]:
            self.defaults[self._key] = "".join(self._text)
            self._text = None


@FORMATS.register("graphml")
class GraphML(XmlGraph):
    """One graph of nodes and edges, directed or not as its ``edgedefault`` says; see http://graphml.graphdrawing.org.

    An edge without the attribute that holds the weights has the key's default, or 1. Several graphs, nested ones,
    hyperedges and edges of both kinds in one graph are refused: they are no graph of one edge list.
    """

    reader = _Reader

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """Written by networkx."""
        import networkx

        graph, lost = networkx_graph(content)
        write_text(path, "\n".join(networkx.generate_graphml(graph)) + "\n")
        return lost
