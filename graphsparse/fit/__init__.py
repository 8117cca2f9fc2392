"""Training: tasks, one loop with best-on-validation and resume, metrics and their intervals."""

from graphsparse.fit.distill import Distill
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.loop import Callback, DivergedError, FitResult, fit
from graphsparse.fit.metrics import (
    METRICS,
    Metric,
    PairedDifference,
    accuracy,
    find_metric,
    finite_or_none,
    mean_ci,
    paired_difference,
    rocauc,
)
from graphsparse.fit.node_task import NodeTask
from graphsparse.fit.progress import Bars, Report
from graphsparse.fit.schedule import ClipNorm, Schedule, cosine, milestones
from graphsparse.fit.task import BaseTask, Batch, Evaluation, Session, Task

__all__ = [
    "METRICS",
    "Bars",
    "BaseTask",
    "Batch",
    "Callback",
    "ClipNorm",
    "Distill",
    "DivergedError",
    "Evaluation",
    "FitResult",
    "Metric",
    "NodeTask",
    "PairedDifference",
    "Report",
    "Schedule",
    "Session",
    "Task",
    "accuracy",
    "clear_graph_caches",
    "cosine",
    "find_metric",
    "finite_or_none",
    "fit",
    "mean_ci",
    "milestones",
    "paired_difference",
    "rocauc",
]
