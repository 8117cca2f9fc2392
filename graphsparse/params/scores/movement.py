"""How far a weight has come."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.scores.evidence import SCORES, Evidence, needing


@SCORES.register("movement")
@needing("start")
def by_movement(evidence: Evidence) -> Tensor:
    r""":math:`|w - w_0|`, the distance from the value at the beginning.

    Source: Zhou et al., "Deconstructing lottery tickets", NeurIPS 2019 (their "movement").
    """
    assert evidence.start is not None
    return (evidence.weight - evidence.start).abs()
