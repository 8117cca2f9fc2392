"""The gradient's size."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.scores.evidence import SCORES, Evidence, needing


@SCORES.register("gradient")
@needing("grad")
def by_gradient(evidence: Evidence) -> Tensor:
    r""":math:`|g|`: how fast the loss would change with the weight, also where the weight is cut.

    Source: Evci et al., "Rigging the lottery", ICML 2020.
    """
    assert evidence.grad is not None
    return evidence.grad.abs()
