"""Networks as graphs, so that a graph neural network (the metanetwork) can learn to prune them."""

from graphsparse.metanet.channels.criteria import CRITERIA
from graphsparse.metanet.channels.cutting import ShrinkError, shrink
from graphsparse.metanet.channels.least_squares import reconstruct
from graphsparse.metanet.channels.sets import Channels, masked
from graphsparse.metanet.graph.network_graph import COUPLING, EdgeSet, NetworkGraph, NodeBank, Slot, clear_cache
from graphsparse.metanet.importance import MetaImportance
from graphsparse.metanet.learn.objectives import OBJECTIVES, GroupLasso, GroupNorm, Objective, Repair
from graphsparse.metanet.learn.training import Validation, meta_train
from graphsparse.metanet.learn.zoo import Images, Recipe, ZooNetwork, load_zoo, restore, save_pruned, train_zoo
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.pruning import FineTune, PruneResult, prune
from graphsparse.metanet.weights import WeightsResult, prune_weights

__all__ = [
    "COUPLING",
    "CRITERIA",
    "OBJECTIVES",
    "Channels",
    "EdgeSet",
    "FineTune",
    "GroupLasso",
    "GroupNorm",
    "Images",
    "MetaImportance",
    "MetaNetwork",
    "NetworkGraph",
    "NodeBank",
    "Objective",
    "PruneResult",
    "Recipe",
    "Repair",
    "ShrinkError",
    "Slot",
    "Validation",
    "WeightsResult",
    "ZooNetwork",
    "clear_cache",
    "load_zoo",
    "masked",
    "meta_train",
    "prune",
    "prune_weights",
    "reconstruct",
    "restore",
    "save_pruned",
    "shrink",
    "train_zoo",
]


def __dir__() -> list[str]:
    return sorted(__all__)
