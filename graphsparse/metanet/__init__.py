"""Networks as graphs, so that a graph neural network (the metanetwork) can learn to prune them."""

from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import (
    CRITERIA,
    Channels,
    Group,
    NetworkUnits,
    ShrinkError,
    cut_out,
    find_units,
    group_of,
    masked,
    output_errors,
    reconstruct,
    refit_weights,
    shrink,
)
from graphsparse.metanet.fine_tuning import FineTune
from graphsparse.metanet.foresight import (
    Extrapolation,
    Foresight,
    MovingAverage,
    Past,
    Stay,
    StepSizes,
    learned_step_sizes,
)
from graphsparse.metanet.graph import COUPLING, EdgeSet, NetworkGraph, NodeBank, Slot, clear_cache
from graphsparse.metanet.importance import MetaImportance
from graphsparse.metanet.jump import Jump, Landing, NotTakenWarning
from graphsparse.metanet.learn import (
    OBJECTIVES,
    GroupLasso,
    GroupNorm,
    Images,
    Nowcast,
    Objective,
    Recipe,
    Repair,
    Trajectories,
    Trajectory,
    Validation,
    ZooNetwork,
    load_zoo,
    meta_train,
    restore,
    save_pruned,
    train_zoo,
)
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.metanet.pruning import PruneResult, prune
from graphsparse.metanet.shipped import pretrained
from graphsparse.metanet.tuning import TRIALS, Trial, Tuning, tune
from graphsparse.metanet.weights import WeightsResult, prune_weights

__all__ = [
    "COUPLING",
    "CRITERIA",
    "OBJECTIVES",
    "TRIALS",
    "Channels",
    "EdgeSet",
    "Extrapolation",
    "FineTune",
    "Foresight",
    "Group",
    "GroupLasso",
    "GroupNorm",
    "Images",
    "Jump",
    "Landing",
    "MetaImportance",
    "MetaNetwork",
    "MovingAverage",
    "NetworkGraph",
    "NetworkUnits",
    "NodeBank",
    "NotTakenWarning",
    "Nowcast",
    "Objective",
    "Past",
    "PruneResult",
    "Recipe",
    "Repair",
    "ShrinkError",
    "Slot",
    "Stay",
    "StepSizes",
    "Trajectories",
    "Trajectory",
    "Trial",
    "Tuning",
    "Validation",
    "WeightsResult",
    "ZooNetwork",
    "clear_cache",
    "cut_out",
    "find_units",
    "group_of",
    "learned_step_sizes",
    "load_zoo",
    "masked",
    "meta_train",
    "output_errors",
    "pretrained",
    "prune",
    "prune_weights",
    "recalibrate",
    "reconstruct",
    "refit_weights",
    "restore",
    "save_pruned",
    "shrink",
    "train_zoo",
    "tune",
]


def __dir__() -> list[str]:
    return sorted(__all__)
