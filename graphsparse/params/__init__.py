"""Parameters: which weights of a model to keep."""

from graphsparse.params.attach import L0Projection, Projection
from graphsparse.params.counting import count, prunable, weights_kept
from graphsparse.params.distribution import DISTRIBUTIONS, Distribution, allot, plain_distribution
from graphsparse.params.patterns import L0, Claim, Fixed, Groups, NofM, Pattern, UnitMap, Units, stays
from graphsparse.params.project import project_groups_, project_l0_, project_mask, project_nm_
from graphsparse.params.schedule import Constant, Cubic, Linear

__all__ = [
    "DISTRIBUTIONS",
    "L0",
    "Claim",
    "Constant",
    "Cubic",
    "Distribution",
    "Fixed",
    "Groups",
    "L0Projection",
    "Linear",
    "NofM",
    "Pattern",
    "Projection",
    "UnitMap",
    "Units",
    "allot",
    "count",
    "plain_distribution",
    "project_groups_",
    "project_l0_",
    "project_mask",
    "project_nm_",
    "prunable",
    "stays",
    "weights_kept",
]


def __dir__() -> list[str]:
    return sorted(__all__)
