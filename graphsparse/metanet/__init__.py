"""Networks as graphs, so that a graph neural network (the metanetwork) can learn to prune them."""

from graphsparse.metanet.channels import Channels, masked
from graphsparse.metanet.criteria import CRITERIA
from graphsparse.metanet.importance import MetaImportance
from graphsparse.metanet.meta_train import Validation, meta_train
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.network_graph import COUPLING, EdgeSet, NetworkGraph, NodeBank, Slot, clear_cache
from graphsparse.metanet.objectives import OBJECTIVES, GroupLasso, GroupNorm, Objective, Repair
from graphsparse.metanet.prune import FineTune, PruneResult, prune
from graphsparse.metanet.reconstruct import reconstruct
from graphsparse.metanet.shrink import ShrinkError, shrink
from graphsparse.metanet.weights import WeightsResult, prune_weights
from graphsparse.metanet.zoo import Images, Recipe, ZooNetwork, load_zoo, restore, save_pruned, train_zoo

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
