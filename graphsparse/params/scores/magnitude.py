"""Size."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.scores.evidence import SCORES, Evidence


@SCORES.register("magnitude")
def by_magnitude(evidence: Evidence) -> Tensor:
    r""":math:`|w|`.

    Source: Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS 2015.
    """
    return evidence.weight.abs()
