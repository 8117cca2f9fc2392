"""Parameters: which weights of a model to keep."""

from graphsparse.params.attach import L0Projection
from graphsparse.params.counting import count, prunable, weights_kept
from graphsparse.params.project import project_groups_, project_l0_, project_mask, project_nm_
from graphsparse.params.schedule import Constant, Cubic, Linear

__all__ = [
    "Constant",
    "Cubic",
    "L0Projection",
    "Linear",
    "count",
    "project_groups_",
    "project_l0_",
    "project_mask",
    "project_nm_",
    "prunable",
    "weights_kept",
]


def __dir__() -> list[str]:
    return sorted(__all__)
