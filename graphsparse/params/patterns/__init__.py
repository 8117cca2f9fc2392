"""Patterns: which weights of some tensors stay together, each an exact mask."""

from graphsparse.params.patterns.fixed import Fixed
from graphsparse.params.patterns.groups import Groups
from graphsparse.params.patterns.l0 import L0
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.patterns.pattern import Pattern
from graphsparse.params.patterns.unit_map import Claim, UnitMap, stays
from graphsparse.params.patterns.units import Units

__all__ = ["L0", "Claim", "Fixed", "Groups", "NofM", "Pattern", "UnitMap", "Units", "stays"]


def __dir__() -> list[str]:
    return sorted(__all__)
