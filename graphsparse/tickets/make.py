"""From what a finder found to a ticket: the parts that are stored, the metrics, and what it saves and costs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear as PygLinear

from graphsparse.errors import TicketError
from graphsparse.fit import FitResult, MessageTask
from graphsparse.fit.batches.loader import sampled_by
from graphsparse.fit.graph_call import Arguments
from graphsparse.fit.measure import device_of, evaluating, inference_ms
from graphsparse.params import plain_distribution, prunable
from graphsparse.report import versions
from graphsparse.tickets.canonical import canonical_order, graph_hash
from graphsparse.tickets.check import check_found
from graphsparse.tickets.finders.controls import IGNORED
from graphsparse.tickets.finders.sparse_weights import distribution_of
from graphsparse.tickets.finders.table import finder_name, finder_of
from graphsparse.tickets.problem import Found, Problem
from graphsparse.tickets.ticket import Ticket, kept_figures
from graphsparse.tickets.units import UnitCut, cut_of
from graphsparse.tickets.weights import plain_weights


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
    training, cut = problem.training, cut_of(problem, found, masks)
    config = {
        "edge_keep": str(edge_keep),
        "weight_keep": str(weight_keep),
        "seed": problem.seed,
        "epochs": training.epochs,
        "lr": training.lr,
        "weight_decay": training.weight_decay,
        "distill": training.distill,
        "which": training.which,
        "weight_distribution": plain_distribution(distribution_of(problem)),
        "weights": plain_weights(training.weights),
        **({} if cut is None else {"pattern": training.pattern, "units": cut.layers}),
        **problem.edge_options,
        "kind": problem.task.kind,
        "direction": problem.task.metric.direction,
        **problem.about,
        **batch_config(problem.task),
    }
    return Ticket(
        method=method,
        edge_mask=found.edge_mask.cpu()[canonical_order(problem.data)],
        weight_masks=masks,
        theta0={name: theta0[name][mask] for name, mask in masks.items()},
        weights={name: state[name][mask] for name, mask in masks.items()},
        state={name: value.clone() for name, value in state.items() if name not in masks},
        logits=found.result.logits.cpu(),
        graph_hash=graph_hash(problem.data, problem.about.get("split", 0), problem.task.hashed),
        config=config,
        metrics=_metrics(problem, dense, found, masks, cut),
        versions=versions(),
        cuts={} if cut is None else cut.cuts,
    )


BATCH_SETTINGS = ("batch_size", "neighbors", "replace", "steps", "neighbors_by", "evaluated")


def batch_config(task: MessageTask) -> dict[str, Any]:
    """What a ticket's config says of training in batches; nothing without."""
    if task.batches is None:
        return {}
    drawn = {} if task.batches.neighbors is None else {"neighbors_by": sampled_by()}
    return {**task.batches.config(), **drawn, "evaluated": task.evaluated}


def _metrics(
    problem: Problem, dense: FitResult, found: Found, masks: Mapping[str, Tensor], cut: UnitCut | None
) -> dict[str, Any]:
    data, result = problem.data, found.result
    figures: dict[str, Any] = {
        "metric": problem.task.metric.name,
        "dense_test": dense.test,
        "dense_val": dense.val,
        "test": result.test,
        "val": result.val,
        "below_dense": (dense.test - result.test) * (1 if problem.task.metric.maximize else -1),
    }
    if problem.task.metric.name == "accuracy":
        figures |= {"test_accuracy": result.test, "dense_test_accuracy": dense.test, "val_accuracy": result.val}
    figures |= kept_figures(data.edge_index, found.edge_mask, masks) | {
        "dense_isolated_nodes": isolated_nodes(data.edge_index, int(data.num_nodes or 0)),
        "isolated_nodes": isolated_nodes(data.edge_index[:, found.edge_mask], int(data.num_nodes or 0)),
    }
    figures |= _costs(problem, dense, found, None if cut is None else cut.small)
    figures |= {} if cut is None else cut.figures
    if found.ignores:
        figures["ignores"] = ", ".join(found.ignores)
    taken = sorted(figures.keys() & found.metrics.keys())
    if taken:
        raise TicketError(f"a finder's own metrics cannot be called {taken[0]!r}: that is a figure of every ticket")
    return figures | dict(found.metrics)


def _costs(problem: Problem, dense: FitResult, found: Found, small: nn.Module | None) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    runs = []
    for prefix, result, task in (
        ("dense_", dense, problem.task),
        ("", found.result, problem.task.with_mask(found.edge_mask)),
    ):
        model = small if small is not None and not prefix else problem.trained_model(result)
        plain, quick = (task.arguments(model, quick=how).to(device_of(model)) for how in (False, True))
        with task.chunked(model):
            figures[f"{prefix}macs"] = macs(model, *plain.places, **plain.named)
        runs.append(partial(_pass, task, model, quick))
    once = {} if problem.task.batches is None else {"repeats": 1, "warm": 0}  # where a pass takes minutes
    dense_ms, sparse_ms = inference_ms(runs, **once)
    return figures | {"dense_inference_ms": dense_ms, "inference_ms": sparse_ms}


@torch.no_grad()
def _pass(task: MessageTask, model: nn.Module, arguments: Arguments) -> None:
    with task.chunked(model):
        arguments.run(model)


def macs(model: nn.Module, *inputs: Any, **named: Any) -> int:
    r"""Multiply-accumulates of one forward pass that skips absent edges and zero weights.

    Every linear map counts :math:`rows \cdot \mathrm{nnz}(W)`, every message-passing layer the elements of its
    messages (one weighted sum each). Pointwise functions, norms and attention scores are left out; a zero input
    feature counts as a number.

    Args:
        model: called as ``model(*inputs, **named)``.
        inputs: such as node features ``[N, F]``, dense, and ``edge_index`` ``[2, E]``.
        named: such as ``edge_weight`` ``[E]``.

    Example:
        >>> lin = torch.nn.Linear(4, 2, bias=False)
        >>> class Net(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.lin = lin
        ...     def forward(self, x, edge_index):
        ...         return self.lin(x)
        >>> macs(Net(), torch.ones(3, 4), torch.empty(2, 0, dtype=torch.long))
        24
    """
    counts: list[int] = []

    def linear(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(output.numel() // max(output.size(-1), 1) * int(module.weight.count_nonzero()))

    def message(module: Any, inputs: Any, output: Tensor) -> None:
        counts.append(output.numel())

    with ExitStack() as stack, torch.no_grad(), evaluating(model):
        for module in model.modules():
            if isinstance(module, (nn.Linear, PygLinear)):
                stack.callback(module.register_forward_hook(linear).remove)
            elif isinstance(module, MessagePassing):
                stack.callback(module.register_message_forward_hook(message).remove)
        model(*inputs, **named)
    return sum(counts)


def isolated_nodes(edge_index: Tensor, num_nodes: int) -> int:
    """Number of nodes without a neighbour; a self-loop is no neighbour.

    Example:
        >>> isolated_nodes(torch.tensor([[0, 1, 2], [1, 0, 2]]), 4)
        2
    """
    linked = torch.zeros(num_nodes, dtype=torch.bool, device=edge_index.device)
    between = edge_index[:, edge_index[0] != edge_index[1]]
    linked[between.reshape(-1)] = True
    return num_nodes - int(linked.sum())
