"""The sum of all weights' sizes."""

from __future__ import annotations

from torch import Tensor

from graphsparse.params.penalties.group_lasso import group_lasso
from graphsparse.params.penalties.penalty import PENALTIES, Pool


@PENALTIES.register("l1")
def l1(pool: Pool) -> Tensor:
    r"""Factors of :math:`\operatorname{prox}` of :math:`\lambda \|w\|_1`, weight by weight, whatever is cut together.

    .. math:: w_i \leftarrow \operatorname{sign}(w_i) \max(0, |w_i| - \eta \lambda)

    Source: Tibshirani, "Regression shrinkage and selection via the lasso", 1996.
    """
    return group_lasso(pool)


l1.elementwise = True  # type: ignore[attr-defined]
