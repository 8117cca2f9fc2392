"""The convex envelope of "at most k groups"."""

from __future__ import annotations

import torch
from torch import Tensor

from graphsparse.params.penalties.penalty import PENALTIES, Pool


@PENALTIES.register("group-envelope")
def group_envelope(pool: Pool) -> Tensor:
    r"""Factors of :math:`\operatorname{prox}` of the weighted group sparse envelope for a count k of groups.

    .. math:: \lambda\, GS_k(w) = \frac{\lambda}{2} \min_{0 \le u \le 1,\; \sum u = k} \sum_g d_g \|w_g\|^2 / u_g,
        \qquad w_g = \frac{u_g}{u_g + a_g}\, v_g, \qquad
        u_g = \operatorname{clip}\big(\mu \sqrt{d_g \lambda}\, \|v_g\| - a_g,\; 0,\; 1\big)

    with :math:`a_g = \eta_g \lambda d_g`, :math:`\eta_g` the learning rate, :math:`d_g` the size of the group over the
    mean size, and :math:`\mu` such that the :math:`u_g` add up to k. Their sum is piecewise linear in :math:`\mu`: its
    break points are sorted, and the piece that passes k is solved. Strong groups are shrunk as by a weight decay of
    :math:`\lambda d_g` (which plain sizes would make hundreds of times larger in wide layers), weak ones more, and some
    vanish; how many grows with :math:`\lambda`, and only for a large one no more than k are left.

    Source: Refael et al., "Learning k-level structured sparse neural networks using group envelope regularization",
    2022, for the penalty; Argyriou et al., "Sparse prediction with the k-support norm", NeurIPS 2012; the map is our
    derivation.
    """
    weight = pool.strength * pool.sizes / pool.sizes.mean()
    at, slope = pool.rates * weight, weight.sqrt() * pool.norms.double()
    shrinks = (at > 0) & (slope > 0)
    levels = torch.ones_like(at)
    k = max(0, pool.keep - int(((at == 0) & (slope > 0)).sum()))  # what is not trained stays
    if k < int(shrinks.sum()):
        levels[shrinks] = _levels(slope[shrinks], at[shrinks], k)
    return levels / (levels + at)


def _levels(slope: Tensor, at: Tensor, k: int) -> Tensor:
    """The u of each group, which add up to k."""
    breaks, order = torch.cat([at / slope, (at + 1) / slope]).sort()
    rise = torch.cat([slope, -slope])[order].cumsum(0)  # of the sum, after each break point
    sums = torch.cat([rise.new_zeros(1), (rise[:-1] * breaks.diff()).cumsum(0)])
    blur = torch.finfo(sums.dtype).eps * len(sums) * float(slope.sum() * breaks[-1])  # of the sums
    end = int(torch.searchsorted(sums, k - blur))  # the first break point with the sum: not one behind a flat piece
    piece = max(end - 1, 0)
    rest = (k - sums[piece]) / rise[piece].clamp(min=torch.finfo(rise.dtype).tiny)
    mu = torch.minimum(breaks[piece] + rest, breaks[end])
    return (mu * slope - at).clamp(0, 1)
