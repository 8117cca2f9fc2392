"""``graphsparse list``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from graphsparse.cli.command import Output, command
from graphsparse.cli.completion import completion
from graphsparse.cli.groups import app
from graphsparse.cli.known_names import TABLES, names_of
from graphsparse.registry import Registry

_WORDS: Registry[str] = Registry("list")
for _word, (_about, _) in TABLES.items():
    _WORDS.register(_word, _about)


@command(app, "list", examples=("graphsparse list scores", "graphsparse list --json"))
def list_names(
    output: Output,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT...",
            help=f"{', '.join(TABLES)}.",
            show_default="all of them",
            autocompletion=completion(TABLES),
        ),
    ] = None,
) -> None:
    """List what has a name, a line each: scores, finders, guards, backbones, data sets, formats and others."""
    found = {word: names_of(word) for word in map(_WORDS.key, what or TABLES)}
    for word, names in found.items():
        drawn = Table.grid(padding=(0, 2))
        for name, line in names.items():
            drawn.add_row(Text(f"  {name}"), Text(line))  # lines may hold brackets
        output.console.print(f"{word}: {TABLES[word][0]}", highlight=False, markup=False)
        output.console.print(drawn, highlight=False, markup=False)
    output.give(found)
