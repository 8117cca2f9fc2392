"""Any torch module as a graph, and back."""

from graphsparse.metanet.graph.along import cut_along
from graphsparse.metanet.graph.network_graph import (
    EdgeSet,
    NetworkGraph,
    NodeBank,
    Slot,
    clear_cache,
)
from graphsparse.metanet.graph.rules import RULES
from graphsparse.metanet.graph.stays import axes_of
from graphsparse.metanet.graph.structure import COUPLING, Kernel, components
from graphsparse.metanet.graph.views import kernel_name

__all__ = [
    "COUPLING",
    "RULES",
    "EdgeSet",
    "Kernel",
    "NetworkGraph",
    "NodeBank",
    "Slot",
    "axes_of",
    "clear_cache",
    "components",
    "cut_along",
    "kernel_name",
]
