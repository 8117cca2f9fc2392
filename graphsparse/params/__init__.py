"""Parameters: which weights of a model to keep."""

from graphsparse.params.attach import L0Projection, Projection
from graphsparse.params.counting import count, prunable, weights_kept
from graphsparse.params.distribution import DISTRIBUTIONS, Distribution, allot, plain_distribution
from graphsparse.params.grains import GRAINS, Blocks, Coupled, Elements, Grain, Modules, Rows, Spanning
from graphsparse.params.layered import LayeredNet, graph_figures, layered_network
from graphsparse.params.mask_files import load_masks, masks_of, save_masks, to_torch_prune_
from graphsparse.params.mask_graphs import graph_of_masks, masks_from_graph
from graphsparse.params.patterns import L0, Claim, Fixed, Groups, NofM, Pattern, UnitMap, Units, stays
from graphsparse.params.penalties import PENALTIES, Pool
from graphsparse.params.project import project_groups_, project_l0_, project_mask, project_nm_
from graphsparse.params.recipes import METHODS, Recipe, methods, register
from graphsparse.params.recovery import Recovered, recover
from graphsparse.params.rules import (
    RULES,
    Bypass,
    DropGrow,
    Gates,
    Hold,
    Late,
    Project,
    Proximal,
    Rule,
    Shrink,
    StraightThrough,
)
from graphsparse.params.schedule import Constant, Cosine, Cubic, Linear, Stages
from graphsparse.params.scores import SCORES, Evidence
from graphsparse.params.scores.ensembles import Ensembles
from graphsparse.params.scores.explore import Explore
from graphsparse.params.semi_structured import to_semi_structured
from graphsparse.params.sparsifier import Sparsifier
from graphsparse.params.whole_blocks import Bypassed, bypass_, find_blocks

__all__ = [
    "DISTRIBUTIONS",
    "GRAINS",
    "L0",
    "METHODS",
    "PENALTIES",
    "RULES",
    "SCORES",
    "Blocks",
    "Bypass",
    "Bypassed",
    "Claim",
    "Constant",
    "Cosine",
    "Coupled",
    "Cubic",
    "Distribution",
    "DropGrow",
    "Elements",
    "Ensembles",
    "Evidence",
    "Explore",
    "Fixed",
    "Gates",
    "Grain",
    "Groups",
    "Hold",
    "L0Projection",
    "Late",
    "LayeredNet",
    "Linear",
    "Modules",
    "NofM",
    "Pattern",
    "Pool",
    "Project",
    "Projection",
    "Proximal",
    "Recipe",
    "Recovered",
    "Rows",
    "Rule",
    "Shrink",
    "Spanning",
    "Sparsifier",
    "Stages",
    "StraightThrough",
    "UnitMap",
    "Units",
    "allot",
    "bypass_",
    "count",
    "find_blocks",
    "graph_figures",
    "graph_of_masks",
    "layered_network",
    "load_masks",
    "masks_from_graph",
    "masks_of",
    "methods",
    "plain_distribution",
    "project_groups_",
    "project_l0_",
    "project_mask",
    "project_nm_",
    "prunable",
    "recover",
    "register",
    "save_masks",
    "stays",
    "to_semi_structured",
    "to_torch_prune_",
    "weights_kept",
]


def __dir__() -> list[str]:
    return sorted(__all__)
