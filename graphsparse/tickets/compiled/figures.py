"""What a compiled ticket gains, as figures for a page and a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from graphsparse.fit.measure import evaluating, inference_ms
from graphsparse.tickets.problem import Problem
from graphsparse.tickets.ticket import Ticket


def compiled_figures(ticket: Ticket, problem: Problem) -> dict[str, Any]:
    """Median times of a pass in one run: the dense model, the ticket's as it is, and compiled.

    The dense model has its initial weights, on which its time does not hang.

    Args:
        ticket: the ticket.
        problem: what it was found for.

    Returns:
        ``dense_ms``, ``plain_ms``, ``ms``, and ``plan``, what the compiled one does, line by line.
    """
    model = problem.fresh_model()
    fast = ticket.compile(model, problem.data, task=problem.task)
    dense = problem.task.arguments(model)
    with torch.no_grad(), evaluating(model):
        runs: list[Callable[[], object]] = [partial(dense.run, model), partial(fast.arguments.run, fast.model), fast]
        dense_ms, plain_ms, ms = inference_ms(runs)
    return {"dense_ms": dense_ms, "plain_ms": plain_ms, "ms": ms, "plan": list(fast.plan)}
