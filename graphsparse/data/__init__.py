"""Data sets: real graphs by name, offline first."""

from graphsparse.data.folders import cache_root, data_root
from graphsparse.data.graphs import load, names

__all__ = ["cache_root", "data_root", "load", "names"]
