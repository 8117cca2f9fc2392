"""The change of the loss to first order."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.scores.evidence import SCORES, Evidence, needing


@SCORES.register("taylor")
@needing("grad")
def by_taylor(evidence: Evidence) -> Tensor:
    r""":math:`|w\,g|`: by how much the loss would change, to first order, if the weight were cut.

    Source: Lee et al., "SNIP", ICLR 2019; Molchanov et al., CVPR 2019.
    """
    assert evidence.grad is not None
    return (evidence.weight * evidence.grad).abs()
