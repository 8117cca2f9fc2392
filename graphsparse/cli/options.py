"""What several commands' options share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import typer

from graphsparse.cli.completion import completion

Number = TypeVar("Number", int, float)

Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:1 ..., or auto: the GPU if there is one.",
        autocompletion=completion(["auto", "cpu", "cuda"]),
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be run and about what it costs, and run nothing.")
]
Tensorboard = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Also write each training's loss and validation figure there, for TensorBoard."),
]

# How a graph in a file is read.
Undirected = Annotated[
    bool | None,
    typer.Option(
        "--undirected/--directed",
        help="Whether a line is an edge, whatever its direction, or an arc.",
        show_default="undirected if every arc has its mirror",
    ),
]
Weight = Annotated[
    str | None, typer.Option(help="Column, attribute or array of weights.", show_default="weight or edge_weight")
]
Src = Annotated[str | None, typer.Option(help="Column of a table with the first ends.", show_default="src or source")]
Dst = Annotated[str | None, typer.Option(help="Column with the second ends.", show_default="dst or target")]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first line names the columns.", show_default="look"),
]
OneBased = Annotated[bool, typer.Option("--one-based", help="Ids in the table count from 1.")]


def words(given: list[str] | None, default: str) -> list[str]:
    """What an option that may be repeated, or hold commas, lists: each word once."""
    found = [word.strip() for part in given or [default] for word in part.split(",")]
    return list(dict.fromkeys(word for word in found if word))


def numbers(option: str, given: list[str] | None, default: str, kind: type[Number]) -> list[Number]:
    """The same as numbers; a word that is none is an error that names the option."""
    try:
        return [kind(word) for word in words(given, default)]
    except ValueError as error:
        whole = "whole " if kind is int else ""
        raise ValueError(f"{option} takes {whole}numbers, separated by commas; got {','.join(given or [])}") from error
