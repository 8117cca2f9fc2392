"""Edges out of core: which edges of a graph to keep when it lies in files and need not fit in memory."""

from graphsparse.edges.outofcore.job import sparsify_files
from graphsparse.edges.outofcore.places import works_on

__all__ = ["sparsify_files", "works_on"]
