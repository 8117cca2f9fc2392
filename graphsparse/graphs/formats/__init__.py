"""Files that hold a graph: each kind is read into one inner edge list, and written again with fewer edges."""

from graphsparse.graphs.formats.graph_content import GraphContent
from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, format_of, open_file
from graphsparse.graphs.formats.keep_file import check_target, write_kept

__all__ = ["FORMATS", "GraphContent", "GraphFile", "check_target", "format_of", "open_file", "write_kept"]
