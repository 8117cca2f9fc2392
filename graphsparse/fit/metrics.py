"""What a result is: a metric with its direction, and figures over seeds with their interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from graphsparse.registry import Registry


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Args:
        name: as it is written into results, e.g. ``"accuracy"``.
        score: from outputs [M, C] and targets [M] to a number.
        maximize: True where larger is better.
    """

    name: str
    score: Callable[[Tensor, Tensor], float]
    maximize: bool = True

    @property
    def direction(self) -> str:
        """``"max"`` or ``"min"``."""
        return "max" if self.maximize else "min"

    def at_least(self, value: float, best: float) -> bool:
        """Whether `value` is as good as `best` or better."""
        return value >= best if self.maximize else value <= best


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Fraction of rows whose largest output is the target (one output per row: its sign).

    Args:
        outputs: logits [M, C], or [M] / [M, 1] for two classes.
        targets: class ids [M].

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        0.5
    """
    single = outputs.dim() == 1 or outputs.size(1) == 1
    predicted = (outputs.reshape(-1) > 0).long() if single else outputs.argmax(dim=1)
    return float((predicted == targets.reshape(-1)).double().mean())


def rocauc(outputs: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve of two classes (scikit-learn); the score is logit 1 - logit 0.

    Args:
        outputs: logits [M, 2], or [M] / [M, 1].
        targets: 0 or 1, [M].

    Raises:
        ValueError: if there are more than two outputs per row, or only one class among the targets.

    Example:
        >>> import torch
        >>> rocauc(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 1]))
        1.0
    """
    from sklearn.metrics import roc_auc_score

    if outputs.dim() == 2 and outputs.size(1) > 2:
        raise ValueError(f"rocauc needs two classes, but the model has {outputs.size(1)} outputs")
    targets = targets.reshape(-1)
    if targets.min() == targets.max():
        raise ValueError("rocauc is undefined: all targets are of one class")
    outputs = outputs.detach().double()
    scores = outputs[:, 1] - outputs[:, 0] if outputs.dim() == 2 and outputs.size(1) == 2 else outputs.reshape(-1)
    return float(roc_auc_score(targets.cpu().numpy(), scores.cpu().numpy()))


def check_metric(name: str, entry: object) -> Metric:
    """An entry of a table of metrics, or a TypeError."""
    if not isinstance(entry, Metric):
        raise TypeError(f"{name!r} is no metric: it is a {type(entry).__name__}, not a graphsparse.fit.Metric")
    return entry


METRICS: Registry[Metric] = Registry("metric", check=check_metric)
METRICS.register("accuracy", Metric("accuracy", accuracy))
METRICS.register("rocauc", Metric("rocauc", rocauc))


def find_metric(metric: str | Metric) -> Metric:
    """The metric of that name (one of `METRICS`, or ``"module:attribute"``), or the one that is given.

    Raises:
        ValueError: if there is none of that name.
    """
    if isinstance(metric, Metric):
        return metric
    return METRICS.find(metric)


def mean_ci(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its confidence interval: t_{n-1} * s / sqrt(n), Student's t.

    Args:
        values: one figure per seed; at least one.
        confidence: level of the interval, in (0, 1).

    Returns:
        The mean and the half-width in the unit of `values`; the half-width of a single value is NaN.

    Raises:
        ValueError: if `values` is empty or `confidence` is not in (0, 1).

    Example:
        >>> mean, half = mean_ci([0.80, 0.81, 0.82])
        >>> round(mean, 4), round(half, 4)
        (0.81, 0.0248)
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("mean_ci needs at least one value")
    mean = float(sample.mean())
    if sample.size == 1:
        return mean, math.nan
    quantile = float(stats.t.ppf((1 + confidence) / 2, sample.size - 1))
    return mean, quantile * float(sample.std(ddof=1)) / math.sqrt(sample.size)


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference over pairs of runs of the same seed, its half-width, and how many pairs favour the first."""

    mean: float
    half_width: float
    wins: int
    pairs: int


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> PairedDifference:
    """How much larger `first` is than `second`, run by run: what seeds share cancels out.

    Args:
        first, second: figures of the same seeds in the same order.
        confidence: level of the interval, in (0, 1).

    Raises:
        ValueError: if the two are not equally long or are empty.

    Example:
        >>> result = paired_difference([0.8, 0.9], [0.7, 0.7])
        >>> round(result.mean, 3), result.wins, result.pairs
        (0.15, 2, 2)
    """
    if len(first) != len(second):
        raise ValueError(f"a paired comparison needs equally many runs, got {len(first)} and {len(second)}")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, half_width = mean_ci(differences, confidence)
    return PairedDifference(mean, half_width, sum(d > 0 for d in differences), len(differences))


def finite_or_none(value: float) -> float | None:
    """The value as JSON can hold it: NaN and infinities become None.

    Example:
        >>> finite_or_none(math.nan) is None, finite_or_none(0.5)
        (True, 0.5)
    """
    return value if math.isfinite(value) else None
