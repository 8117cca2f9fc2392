"""graphsparse: graphs, and the networks that learn on them, made sparse."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphsparse import compare, data, edges, fit, graphs, metanet, nn, params, report, sparse, tickets
    from graphsparse.edges.advice import advise
    from graphsparse.edges.outofcore import sparsify_files
    from graphsparse.edges.pyg_transform import SparsifyEdges
    from graphsparse.edges.transform import sparsify
    from graphsparse.errors import DataError, GraphsparseError, TicketError, TraceError
    from graphsparse.fit import Task
    from graphsparse.tickets import Ticket, find_ticket

__version__ = "0.1.0"

_HOME = {  # public name -> module that defines it; imported when it is first used
    "SparsifyEdges": "graphsparse.edges",
    "advise": "graphsparse.edges",
    "sparsify": "graphsparse.edges",
    "sparsify_files": "graphsparse.edges",
    "DataError": "graphsparse.errors",
    "GraphsparseError": "graphsparse.errors",
    "TicketError": "graphsparse.errors",
    "TraceError": "graphsparse.errors",
    "Task": "graphsparse.fit",
    "Ticket": "graphsparse.tickets",
    "find_ticket": "graphsparse.tickets",
}
_ROOMS = ("compare", "data", "edges", "fit", "graphs", "metanet", "nn", "params", "report", "sparse", "tickets")

__all__ = [  # noqa: RUF022  (rooms first, then names)
    "compare",
    "data",
    "edges",
    "fit",
    "graphs",
    "metanet",
    "nn",
    "params",
    "report",
    "sparse",
    "tickets",
    "DataError",
    "GraphsparseError",
    "SparsifyEdges",
    "Task",
    "Ticket",
    "TicketError",
    "TraceError",
    "advise",
    "find_ticket",
    "sparsify",
    "sparsify_files",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"graphsparse.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'graphsparse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
