"""Several labels a row, each of which holds (1), does not (0), or is not known (NaN): their loss and their figures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from graphsparse.fit.metrics import Metric, check_metric
from graphsparse.fit.ogb_metrics import graph_metric
from graphsparse.registry import Registry


def binary_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits [M, C], the mean over the targets [M, C] that are known; zero if none is.

    Example:
        >>> round(float(binary_loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, torch.nan]]))), 4)
        0.6931
    """
    known = ~torch.isnan(targets)
    losses = functional.binary_cross_entropy_with_logits(
        outputs[known], targets[known].to(outputs.dtype), reduction="none"
    )
    mean: Tensor = losses.sum() / max(losses.numel(), 1)
    return mean


def micro_f1(outputs: Tensor, targets: Tensor) -> float:
    """F1 of all labels of all rows together, a label being told where its logit is above 0; unknown ones do not count.

    F1 = 2 TP / (2 TP + FP + FN); zero where nothing holds and nothing is told.

    Args:
        outputs: logits [M, C].
        targets: 0, 1 or NaN, [M, C].

    Source: how PPI is judged: Hamilton et al., "Inductive representation learning on large graphs", NeurIPS 2017.

    Example:
        >>> micro_f1(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, torch.nan]]))
        0.5
    """
    known = ~torch.isnan(targets)
    told, holds = (outputs > 0)[known], (targets == 1)[known]
    hits = int((told & holds).sum())
    either = int(told.sum()) + int(holds.sum())
    return 2 * hits / either if either else 0.0


LABEL_METRICS: Registry[Metric] = Registry("metric of several labels a node", check=check_metric)
LABEL_METRICS.register("rocauc", graph_metric("rocauc"))
LABEL_METRICS.register("ap", graph_metric("ap"))
LABEL_METRICS.register("micro-f1", Metric("micro-f1", micro_f1))


def label_metric(metric: str | Metric) -> Metric:
    """A metric of several labels: its `score` takes logits [M, C] and targets [M, C] of 0, 1 and NaN.

    Args:
        metric: ``"rocauc"`` and ``"ap"`` (average precision) are means over those labels that hold for some rows and
            not for others, as OGB has them; ``"micro-f1"`` is of all labels together; ``"module:attribute"`` one of
            your own; or a `Metric`.

    Raises:
        ValueError: if there is none of that name.

    Example:
        >>> label_metric("rocauc").score(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]]))
        1.0
    """
    return metric if isinstance(metric, Metric) else LABEL_METRICS.find(metric)


def check_label_values(y: Tensor, row: str) -> None:
    """Refuse what is neither 0, 1 nor NaN.

    Raises:
        ValueError: naming the first such value and its row.
    """
    wrong = ((y != 0) & (y != 1) & ~y.isnan()).nonzero()
    if len(wrong):
        number, label = wrong[0].tolist()
        raise ValueError(
            f"data.y holds {float(y[number, label]):g} at {row} {number}, label {label}; "
            "labels are 0, 1 or NaN (not known)"
        )


def check_judged(y: Tensor, part: str, metric: str, row: str) -> None:
    """Refuse labels [M, C] of a part of the data that no model can be judged by.

    Raises:
        ValueError: if none is known; or, for ``"rocauc"`` and ``"ap"``, none both holds and does not.
    """
    if bool(y.isnan().all()):
        raise ValueError(f"{part}_mask selects no {row} with a known label")
    both = ((y == 0).any(dim=0) & (y == 1).any(dim=0)).any()
    if metric in ("rocauc", "ap") and part != "train" and not bool(both):
        raise ValueError(f"{metric} is undefined: in {part}_mask every label holds for all or for none")
