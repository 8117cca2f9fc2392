"""From what a finder found to a ticket: the metrics, and the parts that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphsparse.errors import TicketError
from graphsparse.fit import FitResult
from graphsparse.fit.features import run
from graphsparse.fit.measure import inference_ms
from graphsparse.params import plain_distribution, prunable
from graphsparse.report import versions
from graphsparse.tickets.canonical import canonical_order, graph_hash
from graphsparse.tickets.check import check_found
from graphsparse.tickets.cost import isolated_nodes, macs
from graphsparse.tickets.finders.controls import IGNORED
from graphsparse.tickets.finders.table import finder_name, finder_of
from graphsparse.tickets.problem import Found, Problem, on_device
from graphsparse.tickets.ticket import Ticket, kept_figures


def make_ticket(problem: Problem, dense: FitResult, method: str, edge_keep: Fraction, weight_keep: Fraction) -> Ticket:
    """Run a finder on a problem whose dense model is trained, and make the ticket of what it finds."""
    found = finder_of(method)(problem, dense, edge_keep, weight_keep)
    return as_ticket(problem, dense, finder_name(method), edge_keep, weight_keep, found)


def as_ticket(
    problem: Problem, dense: FitResult, method: str, edge_keep: Fraction, weight_keep: Fraction, found: Found
) -> Ticket:
    """Turn what a finder found into a ticket with its metrics, once it is checked."""
    check_found(problem, found, edge_keep, weight_keep, IGNORED.get(method, ()))
    parameters = prunable(problem.model, "all")
    masks = {
        name: found.weight_masks.get(name, torch.ones_like(value, dtype=torch.bool)).cpu()
        for name, value in parameters.items()
    }
    state = {name: value.detach().cpu() for name, value in found.result.state.items()}
    theta0 = {name: value.detach().cpu() for name, value in problem.model.state_dict().items()}
    training = problem.training
    config = {
        "edge_keep": str(edge_keep),
        "weight_keep": str(weight_keep),
        "seed": problem.seed,
        "epochs": training.epochs,
        "lr": training.lr,
        "weight_decay": training.weight_decay,
        "distill": training.distill,
        "which": training.which,
        "weight_distribution": plain_distribution(training.distribution),
        **problem.edge_options,
        "kind": problem.task.kind,
        "direction": problem.task.metric.direction,
        **problem.about,
    }
    return Ticket(
        method=method,
        edge_mask=found.edge_mask.cpu()[canonical_order(problem.data.edge_index)],
        weight_masks=masks,
        theta0={name: theta0[name][mask] for name, mask in masks.items()},
        weights={name: state[name][mask] for name, mask in masks.items()},
        state={name: value.clone() for name, value in state.items() if name not in masks},
        logits=found.result.logits.cpu(),
        graph_hash=graph_hash(problem.data, problem.about.get("split", 0), problem.task.hashed),
        config=config,
        metrics=_metrics(problem, dense, found, masks),
        versions=versions(),
    )


def _metrics(problem: Problem, dense: FitResult, found: Found, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    data, result = problem.data, found.result
    figures: dict[str, Any] = {
        "metric": problem.task.metric.name,
        "dense_test": dense.test,
        "dense_val": dense.val,
        "test": result.test,
        "val": result.val,
    }
    if problem.task.metric.name == "accuracy":
        figures |= {"test_accuracy": result.test, "dense_test_accuracy": dense.test, "val_accuracy": result.val}
    figures |= kept_figures(data.edge_index, found.edge_mask, masks) | {
        "dense_isolated_nodes": isolated_nodes(data.edge_index, int(data.num_nodes or 0)),
        "isolated_nodes": isolated_nodes(data.edge_index[:, found.edge_mask], int(data.num_nodes or 0)),
    }
    figures |= _costs(problem, dense, found)
    if found.ignores:
        figures["ignores"] = ", ".join(found.ignores)
    taken = sorted(figures.keys() & found.metrics.keys())
    if taken:
        raise TicketError(f"a finder's own metrics cannot be called {taken[0]!r}: that is a figure of every ticket")
    return figures | dict(found.metrics)


def _costs(problem: Problem, dense: FitResult, found: Found) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    runs = []
    for prefix, result, task in (
        ("dense_", dense, problem.task),
        ("", found.result, problem.task.with_mask(found.edge_mask)),
    ):
        model = problem.trained_model(result)
        figures[f"{prefix}macs"] = macs(model, *on_device(task.inputs(), model))
        runs.append(torch.no_grad()(partial(run, model, *on_device(task.inputs_for(model), model))))
    dense_ms, sparse_ms = inference_ms(runs)
    return figures | {"dense_inference_ms": dense_ms, "inference_ms": sparse_ms}
