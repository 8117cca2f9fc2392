"""Edges: which edges of a graph to keep."""

from graphsparse.edges.advice import Advice, advise
from graphsparse.edges.files import sparsify_file
from graphsparse.edges.keep import keep_mask
from graphsparse.edges.outofcore import sparsify_files
from graphsparse.edges.sampling import sample
from graphsparse.edges.score_table import SCORES, register, score
from graphsparse.edges.transform import SparsifyEdges, sparsify
from graphsparse.edges.trials import Trial

__all__ = [
    "SCORES",
    "Advice",
    "SparsifyEdges",
    "Trial",
    "advise",
    "keep_mask",
    "register",
    "sample",
    "score",
    "sparsify",
    "sparsify_file",
    "sparsify_files",
]


def __dir__() -> list[str]:
    return sorted(__all__)
