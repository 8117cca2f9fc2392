"""Data sets: real graphs by name, offline first."""

from graphsparse.data.folders import cache_root, data_root
from graphsparse.data.graphs import load, names
from graphsparse.data.ogb import OgbTask, load_ogb

__all__ = ["OgbTask", "cache_root", "data_root", "load", "load_ogb", "names"]
