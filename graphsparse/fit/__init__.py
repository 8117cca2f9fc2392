"""Training: tasks of nodes, links, graphs and images, one loop with resume, metrics with intervals."""

from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.batches.sampler import NeighborhoodSampler
from graphsparse.fit.distill import Distill
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_task import GraphTask
from graphsparse.fit.link_task import LinkTask
from graphsparse.fit.loop import Callback, DivergedError, FitResult, fit
from graphsparse.fit.message_task import MessageTask
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
from graphsparse.fit.ogb_metrics import graph_metric, link_metric
from graphsparse.fit.schedule import ClipNorm, Schedule, cosine, milestones
from graphsparse.fit.steps import rehearsed, steps_of
from graphsparse.fit.task import BaseTask, Batch, Evaluation, Session, Task
from graphsparse.progress import Bars, Report

__all__ = [
    "METRICS",
    "Bars",
    "BaseTask",
    "Batch",
    "Batches",
    "Callback",
    "ClipNorm",
    "Distill",
    "DivergedError",
    "Evaluation",
    "FitResult",
    "GraphTask",
    "LinkTask",
    "MessageTask",
    "Metric",
    "NeighborhoodSampler",
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
    "graph_metric",
    "link_metric",
    "mean_ci",
    "milestones",
    "paired_difference",
    "rehearsed",
    "rocauc",
    "steps_of",
]


def __dir__() -> list[str]:
    return sorted(__all__)
