"""Figures of links and of graphs as the Open Graph Benchmark's own evaluators compute them.

An evaluator of OGB belongs to a data set, but what it computes depends on its metric alone: here each metric borrows
the evaluator of one data set that has it. None of them reads data or asks the network.

Source: Hu et al., "Open Graph Benchmark: datasets for machine learning on graphs", NeurIPS 2020.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from torch import Tensor

from graphsparse.fit.metrics import Metric
from graphsparse.ogb_import import import_ogb
from graphsparse.registry import one_of

GRAPH_METRICS = {"rocauc": "ogbg-molhiv", "ap": "ogbg-molpcba", "rmse": "ogbg-molesol"}  # and whose evaluator has it
_HITS = re.compile(r"hits@([1-9]\d*)")


def link_metric(name: str) -> Metric:
    """A metric of links: its `score` takes the outputs of positive pairs and those of negative pairs.

    Args:
        name: ``"hits@K"``: the share of positives [P] above the K-th best of all negatives [M]; ``"mrr"``: the mean
            reciprocal rank of each positive [P] among its own negatives [P, K]; ``"rocauc"``: of [P] and [M].

    Raises:
        ValueError: if there is none of that name.

    Example:
        >>> import torch
        >>> link_metric("hits@2").score(torch.tensor([3.0, 1.5]), torch.tensor([0.0, 1.0, 2.0, 4.0]))
        0.5
    """
    name = name.strip().lower()
    if hits := _HITS.fullmatch(name):
        return Metric(name, functools.partial(_hits, k=int(hits[1])))
    if name == "mrr":
        return Metric(name, _mrr)
    if name == "rocauc":
        return Metric(name, _link_rocauc)
    raise ValueError(f"there is no metric of links named {name!r}; there are hits@K (such as hits@20), mrr and rocauc")


def negatives_needed(name: str) -> int:
    """The fewest negatives for which a metric of links says something: OGB counts every hit where there are fewer.

    Example:
        >>> negatives_needed("hits@20"), negatives_needed("mrr")
        (20, 1)
    """
    hits = _HITS.fullmatch(name)
    return int(hits[1]) if hits else 1


def graph_metric(name: str) -> Metric:
    """A metric of graphs: its `score` takes outputs [G, T] and targets [G, T] of T tasks; NaN targets do not count.

    Args:
        name: ``"rocauc"`` and ``"ap"`` (average precision) are means over those tasks that have both classes;
            ``"rmse"`` is the mean over tasks, and smaller is better; ``"accuracy"``: targets hold a one at the class of
            each graph and zeros elsewhere, the largest output says the class.

    Raises:
        ValueError: if there is none of that name.

    Example:
        >>> import torch
        >>> graph_metric("rmse").score(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
        1.4142135...
    """
    name = one_of(name, "the metric of graphs", [*GRAPH_METRICS, "accuracy"])
    if name == "accuracy":
        return Metric(name, _class_accuracy)
    return Metric(name, functools.partial(_of_graphs, name=name), maximize=name != "rmse")


@functools.cache
def _evaluator(kind: str, dataset: str) -> Any:
    return import_ogb(f"{kind}proppred").Evaluator(dataset)


def _hits(positive: Tensor, negative: Tensor, k: int) -> float:
    evaluator = _evaluator("link", "ogbl-ddi")
    evaluator.K = k
    return float(evaluator.eval({"y_pred_pos": positive, "y_pred_neg": negative})[f"hits@{k}"])


def _mrr(positive: Tensor, negative: Tensor) -> float:
    ranks = _evaluator("link", "ogbl-citation2").eval({"y_pred_pos": positive, "y_pred_neg": negative})
    return float(ranks["mrr_list"].mean())


def _link_rocauc(positive: Tensor, negative: Tensor) -> float:
    return float(_evaluator("link", "ogbl-vessel").eval({"y_pred_pos": positive, "y_pred_neg": negative})["rocauc"])


def _class_accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(dim=1) == targets.argmax(dim=1)).double().mean())


def _of_graphs(outputs: Tensor, targets: Tensor, name: str) -> float:
    evaluator = _evaluator("graph", GRAPH_METRICS[name])
    evaluator.num_tasks = targets.size(1)
    figures = {"y_true": targets.double(), "y_pred": outputs.detach().double()}
    return float(evaluator.eval(figures)[name])
