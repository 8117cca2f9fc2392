"""Units that are active together."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.scores.evidence import SCORES, Evidence, needing


@SCORES.register("hebbian")
@needing("correlation")
def by_correlation(evidence: Evidence) -> Tensor:
    r""":math:`|\operatorname{corr}(x_i, y_j)|` of the activations at a weight's two ends over the last training batch.

    All weights of a kernel have the score of their channels.

    Source: Hebb, "The organization of behavior", 1949; Konstantaropoulos et al., 2025, for growing connections by it.
    """
    assert evidence.correlation is not None
    own = evidence.correlation.abs()
    return own.view(*own.shape, *[1] * (evidence.weight.dim() - 2)).expand(evidence.weight.shape)
