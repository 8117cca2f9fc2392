"""GEXF files, as Gephi writes them: the elements of dropped edges are taken out of the bytes, and all else stays."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from graphsparse.graphs.formats.graph_content import GraphContent
from graphsparse.graphs.formats.graph_file import FORMATS, Mask
from graphsparse.graphs.formats.xml_elements import XmlGraph, XmlReader, networkx_graph, write_text

_GRAPH = ["gexf", "graph"]
_NODES, _EDGES = [*_GRAPH, "nodes"], [*_GRAPH, "edges"]
_EDGE = [*_EDGES, "edge"]
_KEY = [*_GRAPH, "attributes", "attribute"]
_TIMES = ("start", "end", "startopen", "endopen", "timestamp", "timestamps", "intervals")
_WEIGHT = " weight"  # the key of the attribute ``weight``; no id of a file begins with a blank


class _Reader(XmlReader):
    edge = _EDGE

    def __init__(self, content: bytes) -> None:
        self._class = ""
        self._key = ""
        self._default: list[str] | None = None
        self._kind = "undirected"
        self.counted: tuple[int, int] | None = None  # the bytes of the tag that may say how many edges there are
        super().__init__(content)

    def begin(self, attributes: dict[str, str]) -> None:
        path = self.path
        if self.counted is not None and self.counted[1] < 0:
            self.counted = self.counted[0], self.at
        if path == _GRAPH:
            if self.directed is not None:
                raise self.wrong("begins another graph; a file of one graph is read")
            if attributes.get("mode") == "dynamic":
                raise self.wrong("begins a dynamic graph, whose edges come and go; a static one is read")
            self._kind = attributes.get("defaultedgetype", "undirected")
            self.directed = self._kind == "directed"
        elif path == _EDGES:
            self.counted = self.at, -1
        elif path[-1] == "node" and path[:3] == _NODES and "attvalues" not in path:
            self.add_node(attributes)
        elif path == _EDGE:
            self._begin_edge(attributes)
        elif path[-1] == "edge" and path[:3] == _NODES:
            raise self.wrong("has edges within a node; nested graphs are not read")
        elif path[:4] == _EDGE and path[-1] in ("spell", "spells"):
            raise self.wrong("has an edge that comes and goes (spells): dynamic graphs are not read")
        elif path == [*_GRAPH, "attributes"]:
            self._class = attributes.get("class", "")
        elif path == _KEY and self._class == "edge":
            self._key = self.attribute(attributes, "id")
            self.names[self._key] = attributes.get("title", self._key)
        elif path == [*_KEY, "default"] and self._class == "edge":
            self._default = []
        elif path == [*_EDGE, "attvalues", "attvalue"]:
            self._begin_value(attributes)
        elif path[:3] == _NODES and path[-1] == "attvalue":
            self.node_data = True

    def _begin_edge(self, attributes: dict[str, str]) -> None:
        kind = attributes.get("type", self._kind)
        if not self.ends:  # a graph whose edges all say the same is of that kind
            self.directed = kind == "directed"
        if kind not in ("directed", "undirected") or (kind == "directed") != self.directed:
            raise self.wrong(f"has an edge of the type {kind!r:.20} beside others; edges of two kinds are not read")
        moment = next((name for name in _TIMES if name in attributes), None)
        if moment is not None:
            raise self.wrong(f"has an edge with {moment!r}, which comes and goes: dynamic graphs are not read")
        data = {}
        if "weight" in attributes:
            self.names.setdefault(_WEIGHT, "weight")
            data[_WEIGHT] = attributes["weight"]
        self.add_edge(attributes, data)

    def _begin_value(self, attributes: dict[str, str]) -> None:
        key = attributes.get("for", attributes.get("id"))
        if key is None:
            raise self.wrong("has a value that does not say of which attribute")
        if any(name in attributes for name in _TIMES):
            raise self.wrong("has a value that changes with time: dynamic graphs are not read")
        self.data[-1][key] = attributes.get("value", "")

    def text(self, text: str) -> None:
        if self._default is not None:
            self._default.append(text)

    def end(self) -> None:
        if self.counted is not None and self.counted[1] < 0:
            self.counted = self.counted[0], self.at
        if self._default is not None and self.path == [*_KEY, "default"]:
            self.defaults[self._key], self._default = "".join(self._default), None


@FORMATS.register("gexf")
class Gexf(XmlGraph):
    """One static graph of nodes and edges, directed or not by its ``defaultedgetype`` or its edges' own ``type``.

    Weights are the attribute ``weight`` of edges, or one that is declared. Dynamic graphs, mutual edges and edges of
    both kinds are refused. See https://gexf.net.
    """

    reader = _Reader

    def write(self, keep: Mask, path: Path) -> None:
        """The bytes without the dropped edges' elements; where the tag ``edges`` counts them, with the new count."""
        found = self.found
        assert isinstance(found, _Reader)
        if found.counted is not None and not keep.all():
            start, stop = found.counted
            tag = self.bytes[start:stop]
            count = str(int(np.count_nonzero(keep))).encode()
            new = re.sub(rb"(\scount\s*=\s*[\"'])\d+(?=[\"'])", rb"\g<1>" + count, tag, count=1)
            moved = self.spans + len(new) - len(tag)
            whole, spans = self.bytes, self.spans
            self.bytes, self.spans = whole[:start] + new + whole[stop:], moved
            try:
                super().write(keep, path)
            finally:
                self.bytes, self.spans = whole, spans
            return
        super().write(keep, path)

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """Written by networkx."""
        import networkx

        graph, lost = networkx_graph(content)
        write_text(path, "\n".join(networkx.generate_gexf(graph)) + "\n")
        return lost
