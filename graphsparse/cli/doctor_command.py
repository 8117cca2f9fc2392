"""``graphsparse doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from graphsparse.cli.command import Output, command
from graphsparse.cli.groups import app

_COLOURS = {"ok": "green", "note": "yellow", "broken": "red"}


@command(app, "doctor", examples=("graphsparse doctor", "graphsparse doctor --json"))
def doctor(output: Output) -> None:
    """Look at versions, devices, threads, disk, data and optional parts, and say what to do about each.

    It exits with 1 only if something that graphsparse needs is broken.
    """
    from graphsparse.cli.checkup import checks

    found = list(checks())
    for group in dict.fromkeys(check.group for check in found):
        rows = [check for check in found if check.group == group]
        drawn = Table.grid(padding=(0, 2))
        for check in rows:
            if group == "data" and check.found == "here":
                continue
            advice = f"; {check.advice}" if check.advice else ""
            state = Text(f"  {check.state}", _COLOURS[check.state])
            drawn.add_row(state, check.name, Text(f"{check.found}{advice}"))  # what was found may hold brackets
        output.console.print(group, highlight=False)
        here = [check.name for check in rows if check.found == "here"]
        if here:
            output.console.print(f"  here: {', '.join(here)}", highlight=False)
        output.console.print(drawn, highlight=False)
    broken = [check for check in found if check.state == "broken"]
    for check in broken:
        output.console.print(Text(f"broken: {check.name}: {check.found}. {check.advice}", "red"))
    if not broken:
        output.console.print("All that is needed works.", highlight=False)
    output.give({"healthy": not broken, "checks": [asdict(check) for check in found]})
    if broken:
        raise typer.Exit(1)
