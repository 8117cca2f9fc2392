"""Files that hold a graph: each kind is read into one inner edge list, and written again with fewer edges."""

from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, format_of, open_file

__all__ = ["FORMATS", "GraphFile", "format_of", "open_file"]
