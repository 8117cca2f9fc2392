"""What a finder hands over, held against what it was asked for: a comparison may trust any finder's figures then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphsparse.edges.each import counts_by_graph
from graphsparse.errors import TicketError
from graphsparse.fit import MessageTask
from graphsparse.graphs.arcs import survey
from graphsparse.graphs.interop import EdgeList, open_graph
from graphsparse.keep_rule import kept_count
from graphsparse.params import prunable
from graphsparse.tickets.problem import Found, Problem


def check_found(
    problem: Problem, found: Found, edge_keep: Fraction, weight_keep: Fraction, may_ignore: Collection[str] = ()
) -> None:
    """Raise a TicketError if what a finder found is not what it was asked for, or not what it trained.

    Edges and weights are at most as many as the keeps say, both arcs of a pair stay or go, self-loops stay, dropped
    weights are zero, the outputs are those of the weights on the edges, and the figures those of the outputs.

    Args:
        problem: what was to be solved.
        found: what the finder handed over.
        edge_keep, weight_keep: what it was asked for.
        may_ignore: the keeps that the finder need not obey: a control's.
    """
    _check_ignored(found, may_ignore)
    graph, keep = open_graph(problem.data).edges, None if "edge_keep" in found.ignores else edge_keep
    check_edges(graph, found.edge_mask, problem.task.graph_of, keep, "finder")
    _check_weights(problem, found.weight_masks, None if "weight_keep" in found.ignores else weight_keep)
    result, task = found.result, problem.task.with_mask(found.edge_mask)
    for name, mask in found.weight_masks.items():
        if bool(result.state[name].cpu()[~mask.cpu()].any()):
            raise TicketError(f"the finder dropped weights of {name}, but its trained model has values there")
    check_outputs(task, problem.trained_model(result), result.logits)
    check_claims(scores(task, result.logits), {"test": result.test, "val": result.val}, "outputs", "finder")


def scores(task: MessageTask, outputs: Tensor) -> dict[str, float]:
    """The metric of both parts that a ticket reports."""
    return {part: task.score(outputs, part) for part in ("test", "val")}


def check_claims(found: Mapping[str, float], claims: Mapping[str, Any], source: str, who: str) -> None:
    """A TicketError for the first figure that is not claimed as it was found."""
    for name, value in found.items():
        claimed = claims.get(name)
        if not isinstance(claimed, (int, float)) or not abs(value - claimed) <= 1e-6:  # NaN is not
            raise TicketError(f"the {source} give {name} {value:.6f}, the {who} claims {claimed}")


def check_outputs(task: MessageTask, model: nn.Module, stored: Tensor) -> float:
    """The largest difference of a model's outputs from those that were stored; a TicketError if that is no rounding."""
    outputs, stored = task.predict(model).cpu(), stored.cpu()
    if outputs.shape != stored.shape:
        raise TicketError(f"the weights give outputs {list(outputs.shape)}, those stored are {list(stored.shape)}")
    if not bool(stored.isfinite().all()):  # an infinite output would allow any difference
        raise TicketError("the stored outputs are not finite")
    error = float((outputs - stored).abs().max())
    if not error <= 1e-3 * max(float(stored.abs().max()), 1.0):
        raise TicketError(f"the weights give outputs that differ from the stored ones by up to {error:.3g}")
    return error


def _check_ignored(found: Found, may_ignore: Collection[str]) -> None:
    own = [keep for keep in found.ignores if keep not in may_ignore]
    if own:
        raise TicketError(f"the finder ignores {own[0]!r}, which the controls alone may: a finder keeps what is asked")
    if "ignores" in found.metrics:
        raise TicketError("a finder's own metrics cannot be called 'ignores': only the controls ignore a keep")


def check_edges(graph: EdgeList, mask: Tensor, graph_of: Tensor | None, keep: Fraction | None, who: str) -> None:
    """A TicketError unless a mask of edges keeps whole pairs, all self-loops, and at most what ``keep`` allows."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (graph.num_edges,):
        what = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TicketError(f"the {who}'s edge mask must be bool [{graph.num_edges}], got {what}")
    edge_index, mask = graph.edge_index.cpu(), mask.cpu()
    tails, heads = edge_index
    if not bool(mask[tails == heads].all()):
        raise TicketError(f"the {who} dropped self-loops, which are no edges to be counted: they stay")
    left = edge_index[:, mask]
    if graph.mirrored and not survey(left, graph.num_nodes).symmetric:
        raise TicketError(f"the {who} kept one arc of an undirected edge and dropped the other")
    if keep is not None:
        _check_counts(graph, left, graph_of, keep, who)


def _check_counts(graph: EdgeList, left: Tensor, graph_of: Tensor | None, keep: Fraction, who: str) -> None:
    def countable(arcs: Tensor) -> Tensor:
        tails, heads = arcs
        counted: Tensor = tails[tails < heads if graph.mirrored else tails != heads]
        return counted

    ends, stay = (countable(arcs).numpy() for arcs in (graph.edge_index.cpu(), left))
    _, allowed = counts_by_graph(ends, graph.num_nodes, graph_of, keep)
    of_nodes = np.zeros(graph.num_nodes, np.int64) if graph_of is None else graph_of.cpu().numpy()
    kept = np.bincount(of_nodes[stay], minlength=len(allowed))
    if (kept > allowed).any():
        number = int(np.argmax(kept > allowed))
        where = "" if graph_of is None else f" of graph {number}"
        raise TicketError(f"the {who} kept {kept[number]} edges{where}, but {allowed[number]} were asked for")


def check_weight_count(masks: Mapping[str, Tensor], total: int, keep: Fraction, who: str) -> None:
    """A TicketError if masks keep more than ``keep`` of ``total`` weights."""
    kept, allowed = sum(int(mask.sum()) for mask in masks.values()), kept_count(keep, total)
    if kept > allowed:
        raise TicketError(f"the {who} kept {kept} weights, but {allowed} were asked for")


def _check_weights(problem: Problem, masks: Mapping[str, Tensor], keep: Fraction | None) -> None:
    parameters = prunable(problem.model, "all")
    for name, mask in masks.items():
        if name not in parameters:
            raise TicketError(f"the finder has a mask for {name!r}, which is no weight of the model")
        if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
            raise TicketError(f"the finder's mask of {name} must be bool {list(parameters[name].shape)}")
    if keep is None:
        return
    counted = prunable(problem.model, problem.training.which)
    whole = {name: masks.get(name, torch.ones_like(value, dtype=torch.bool)) for name, value in counted.items()}
    check_weight_count(whole, sum(value.numel() for value in counted.values()), keep, "finder")
