"""What a ticket shows of itself, on a page and in a notebook: its metric's unit, and what is kept of each tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsparse.report import Unit
from graphsparse.report.parts import Block, Cell, Facts, Sheet, figure

if TYPE_CHECKING:
    from graphsparse.tickets.ticket import Ticket


def layer_rows(ticket: Ticket) -> list[tuple[str, str, int, int]]:
    """Name, shape, number of weights and of kept ones of each tensor that the ticket prunes."""
    return [
        (name, " x ".join(map(str, mask.shape)) or "1", mask.numel(), int(mask.sum()))
        for name, mask in ticket.weight_masks.items()
    ]


def layer_sheet(ticket: Ticket) -> Sheet:
    """The same as a table."""
    return Sheet(
        "Weights kept in each tensor",
        ["tensor", "shape", "weights", "kept", "kept, %"],
        [
            [name, shape, figure(total, digits=0), figure(kept, digits=0), figure(kept / max(total, 1), scale=100)]
            for name, shape, total, kept in layer_rows(ticket)
        ],
    )


def unit_rows(ticket: Ticket) -> list[tuple[str, int, int]]:
    """Name, number of units and of kept ones of each layer of a ticket of units; none for weights one by one."""
    layers = ticket.config.get("units", {})
    return [(name, int(total), int(left)) for name, (left, total) in layers.items()]


def unit_sheet(ticket: Ticket) -> Sheet:
    """The same as a table."""
    return Sheet(
        "Units kept in each layer",
        ["layer", "units", "kept", "kept, %"],
        [
            [name, figure(total, digits=0), figure(left, digits=0), figure(left / max(total, 1), scale=100)]
            for name, total, left in unit_rows(ticket)
        ],
    )


def ticket_blocks(ticket: Ticket) -> list[Block]:
    """What a notebook shows of a ticket."""
    found = ticket.metrics
    unit = Unit(found["metric"], ticket.config.get("direction") != "min")
    rows: list[list[Cell | str]] = [
        [unit.words, unit.cell(found["dense_test"]), unit.cell(found["test"])],
        ["edges kept, %", figure(1.0, scale=100), figure(found["edges_kept"], scale=100)],
        ["weights kept, %", figure(1.0, scale=100), figure(found["weights_kept"], scale=100)],
    ]
    for key, words, scale in (("macs", "MACs, million", 1e-6), ("inference_ms", "one forward pass, ms", 1.0)):
        if f"dense_{key}" in found:
            rows.append([words, figure(found[f"dense_{key}"], scale=scale), figure(found[key], scale=scale)])
    about = [("method", ticket.method), ("data set", str(ticket.config.get("dataset") or "-")), ("hash", ticket.hash)]
    beside = Sheet("The ticket beside the dense model", ["figure", "dense", "ticket"], rows)
    return [Facts(about), beside, *([unit_sheet(ticket)] if unit_rows(ticket) else []), layer_sheet(ticket)]
