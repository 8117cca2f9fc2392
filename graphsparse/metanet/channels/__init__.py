"""Sets of coupled channels: which to keep, what they cost, how they are cut."""

from graphsparse.metanet.channels.budget import (
    TRANSPOSED,
    Budget,
    Cost,
    arguments,
    count_flops,
    count_parameters,
    flop_cost,
    prefix_for,
)
from graphsparse.metanet.channels.criteria import (
    CRITERIA,
    Evidence,
    importance,
    square_sums,
)
from graphsparse.metanet.channels.cutting import (
    KeptChannels,
    cut,
    initialise,
    layer_widths,
    shrink,
)
from graphsparse.metanet.channels.group import Cut, Group, group_of
from graphsparse.metanet.channels.held import held_layers, keep_whole, warn_of_held
from graphsparse.metanet.channels.kept_weights import refit_weights
from graphsparse.metanet.channels.latency import LatencyBudget, LayerTimes
from graphsparse.metanet.channels.least_squares import reconstruct
from graphsparse.metanet.channels.obs import output_errors
from graphsparse.metanet.channels.penalties import (
    GroupSparsity,
    group_lasso,
    group_norm,
)
from graphsparse.metanet.channels.rows import batch_statistics
from graphsparse.metanet.channels.search import least_pruned
from graphsparse.metanet.channels.sets import (
    Channels,
    Distribution,
    check_mask,
    check_options,
    keep_after,
    masked,
    removal_order,
)
from graphsparse.metanet.channels.slicing import ShrinkError, cut_out
from graphsparse.metanet.channels.units import Cuts, NetworkUnits, find_units

__all__ = [
    "CRITERIA",
    "TRANSPOSED",
    "Budget",
    "Channels",
    "Cost",
    "Cut",
    "Cuts",
    "Distribution",
    "Evidence",
    "Group",
    "GroupSparsity",
    "KeptChannels",
    "LatencyBudget",
    "LayerTimes",
    "NetworkUnits",
    "ShrinkError",
    "arguments",
    "batch_statistics",
    "check_mask",
    "check_options",
    "count_flops",
    "count_parameters",
    "cut",
    "cut_out",
    "find_units",
    "flop_cost",
    "group_lasso",
    "group_norm",
    "group_of",
    "held_layers",
    "importance",
    "initialise",
    "keep_after",
    "keep_whole",
    "layer_widths",
    "least_pruned",
    "masked",
    "output_errors",
    "prefix_for",
    "reconstruct",
    "refit_weights",
    "removal_order",
    "shrink",
    "square_sums",
    "warn_of_held",
]
