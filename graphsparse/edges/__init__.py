"""Edges: which edges of a graph to keep."""

from graphsparse.edges.keep import keep_mask
from graphsparse.edges.sample import sample
from graphsparse.edges.scores import SCORES, register, score
from graphsparse.edges.sparsify import SparsifyEdges, sparsify

__all__ = ["SCORES", "SparsifyEdges", "keep_mask", "register", "sample", "score", "sparsify"]
