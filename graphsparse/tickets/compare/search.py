"""Sweeps over sparsity levels and seeds; the sparsest ticket within a tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from graphsparse.errors import TicketError
from graphsparse.fit import FitResult, mean_ci
from graphsparse.params import prunable
from graphsparse.tickets.finders.controls import IGNORED
from graphsparse.tickets.finders.table import finder_name
from graphsparse.tickets.make import make_ticket
from graphsparse.tickets.problem import Problem
from graphsparse.tickets.ticket import Ticket
from graphsparse.tickets.units import units_pattern

LEVELS = range(1, 21)


def level_keeps(level: int) -> tuple[Fraction, Fraction]:
    """What the paper's level keeps, exactly: edges 0.95^level, weights 0.9^level.

    Example:
        >>> edges, weights = level_keeps(20)
        >>> round(float(edges), 4), round(float(weights), 4)
        (0.3585, 0.1216)
    """
    return Fraction(95, 100) ** level, Fraction(9, 10) ** level


def sparsest_within(problem: Problem, dense: FitResult, method: str, tolerance: float) -> Ticket:
    """Try the paper's levels from the sparsest down; return the first within ``tolerance`` of the dense validation.

    Of units, a level that leaves less than one of every layer is passed over.

    Raises:
        TicketError: if none is; it names the closest level.
    """
    closest: tuple[float, int] | None = None
    for level in reversed(LEVELS):
        if not _leaves_units(problem, method, level_keeps(level)[1]):
            continue
        ticket = make_ticket(problem, dense, method, *level_keeps(level))
        worse = dense.val - ticket.metrics["val"]
        if not problem.task.metric.maximize:
            worse = -worse
        if worse <= tolerance + 1e-9:  # 0.6 - 0.59 is a little more than 0.01 in binary
            return ticket
        closest = min(closest or (worse, level), (worse, level))
    assert closest is not None
    raise TicketError(
        f"no level of {method} is within {tolerance:g} of the dense validation {problem.task.metric.name} "
        f"{dense.val:.4f}; the closest is level {closest[1]}, {closest[0]:.4f} worse"
    )


def _leaves_units(problem: Problem, method: str, keep: Fraction) -> bool:
    """Whether so many weights can be kept: of units not where that is less than one of every layer."""
    if problem.training.pattern != "units" or "weight_keep" in IGNORED.get(finder_name(method), ()):
        return True
    try:
        units_pattern(problem, keep).check(prunable(problem.model))
    except ValueError:
        return False
    return True


def summarise(tickets: Mapping[int, Ticket]) -> dict[str, Any]:
    """Means of the tickets' metrics with 95 % half widths (``*_ci95``, None for one seed).

    Args:
        tickets: the ticket of each seed.

    Returns:
        ``metric``, of a control what it ``ignores``, a mean and a half width for each figure, ``seeds`` (one object
        each), and ``ticket_hash`` of the ticket with the best validation metric; the test part plays no role in that
        choice.
    """
    first = next(iter(tickets.values())).metrics
    summary: dict[str, Any] = {"metric": first["metric"]}
    if "ignores" in first:  # a control: what it was asked to keep and did not
        summary["ignores"] = first["ignores"]
    for key in (key for key, value in first.items() if isinstance(value, (int, float))):
        mean, half_width = mean_ci([ticket.metrics[key] for ticket in tickets.values()])
        summary |= {key: mean, f"{key}_ci95": half_width}
    each = [{"seed": seed, **ticket.metrics, "ticket_hash": ticket.hash} for seed, ticket in tickets.items()]
    return summary | {"seeds": each, "ticket_hash": best_on_validation(tickets).hash}


def best_on_validation(tickets: Mapping[int, Ticket]) -> Ticket:
    """The ticket with the best validation metric, the earliest seed among equals."""
    sign = -1 if next(iter(tickets.values())).config.get("direction") == "min" else 1
    return max(tickets.values(), key=lambda ticket: sign * ticket.metrics["val"])
