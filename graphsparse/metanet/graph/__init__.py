"""Any torch module as a graph, and back."""

from graphsparse.metanet.graph.network_graph import (
    COUPLING,
    EdgeSet,
    NetworkGraph,
    NodeBank,
    Slot,
    clear_cache,
    components,
)
from graphsparse.metanet.graph.rules import RULES
from graphsparse.metanet.graph.structure import Kernel
from graphsparse.metanet.graph.views import kernel_name

__all__ = [
    "COUPLING",
    "RULES",
    "EdgeSet",
    "Kernel",
    "NetworkGraph",
    "NodeBank",
    "Slot",
    "clear_cache",
    "components",
    "kernel_name",
]
