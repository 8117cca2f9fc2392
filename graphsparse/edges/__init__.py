"""Edges: which edges of a graph to keep."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphsparse.edges.files import sparsify_file
from graphsparse.edges.keep import keep_mask
from graphsparse.edges.outofcore import sparsify_files
from graphsparse.edges.sampling import sample
from graphsparse.edges.score_table import SCORES, register, score
from graphsparse.edges.transform import sparsify

if TYPE_CHECKING:
    from graphsparse.edges.advice import Advice, advise
    from graphsparse.edges.pyg_transform import SparsifyEdges
    from graphsparse.edges.trials import Trial

_LATER = {  # what needs PyG is imported when it is first used
    "Advice": "advice",
    "advise": "advice",
    "SparsifyEdges": "pyg_transform",
    "Trial": "trials",
}

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


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'graphsparse.edges' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f"graphsparse.edges.{_LATER[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
