"""The sum of the groups' norms."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.penalties.penalty import PENALTIES, Pool


@PENALTIES.register("group-lasso")
def group_lasso(pool: Pool) -> Tensor:
    r"""Factors of :math:`\operatorname{prox}` of :math:`\lambda \sum_g \sqrt{d_g}\, \|w_g\|_2`.

    .. math:: w_g \leftarrow \max\Big(0,\; 1 - \frac{\eta \lambda \sqrt{d_g}}{\|w_g\|_2}\Big)\, w_g

    with :math:`d_g` the size of a group. For single weights this is soft thresholding, the l1 norm.

    Source: Yuan & Lin, "Model selection and estimation in regression with grouped variables", 2006.
    """
    return (1 - pool.strength * pool.rates * pool.sizes.sqrt() / pool.norms).clamp(min=0).nan_to_num(0)
