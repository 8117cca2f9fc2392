"""Networks as graphs, so that a graph neural network (the metanetwork) can learn to prune them."""

from graphsparse.metanet.channels import Channels, masked
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.network_graph import COUPLING, EdgeSet, NetworkGraph, NodeBank, Slot, clear_cache

__all__ = [
    "COUPLING",
    "Channels",
    "EdgeSet",
    "MetaNetwork",
    "NetworkGraph",
    "NodeBank",
    "Slot",
    "clear_cache",
    "masked",
]
