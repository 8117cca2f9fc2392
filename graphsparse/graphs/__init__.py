"""Graphs: any graph or table in, one inner edge list, the same kind out."""

from graphsparse.graphs.formats import FORMATS, GraphContent, GraphFile, open_file
from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph, open_graph, register_kind

__all__ = [
    "FORMATS",
    "KINDS",
    "EdgeList",
    "GraphContent",
    "GraphFile",
    "OpenGraph",
    "edge_list",
    "open_file",
    "open_graph",
    "register_kind",
]


def __dir__() -> list[str]:
    return sorted(__all__)
