"""Metanetworks learn: objectives, training, and the networks they learn on."""

from graphsparse.metanet.learn.objectives import (
    OBJECTIVES,
    GroupLasso,
    GroupNorm,
    Nowcast,
    Objective,
    Repair,
)
from graphsparse.metanet.learn.training import (
    Validation,
    meta_train,
)
from graphsparse.metanet.learn.trajectories import Trajectories, Trajectory
from graphsparse.metanet.learn.zoo import (
    HEADER,
    Images,
    Recipe,
    ZooNetwork,
    load_network,
    load_zoo,
    read_header,
    restore,
    save_pruned,
    train_zoo,
)

__all__ = [
    "HEADER",
    "OBJECTIVES",
    "GroupLasso",
    "GroupNorm",
    "Images",
    "Nowcast",
    "Objective",
    "Recipe",
    "Repair",
    "Trajectories",
    "Trajectory",
    "Validation",
    "ZooNetwork",
    "load_network",
    "load_zoo",
    "meta_train",
    "read_header",
    "restore",
    "save_pruned",
    "train_zoo",
]
