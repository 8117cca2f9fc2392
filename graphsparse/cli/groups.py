"""The tree of commands: each file beside this one adds one command to one of these groups."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class Interrupted(BaseException):
    """Carries an interruption past typer, which would end the process without a word at a KeyboardInterrupt."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Commands(TyperGroup):
    """The outermost group, which lets an interruption through."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(getattr(error, "status", 130)) from error


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make graphs, and the networks that learn on them, sparse.",
)
meta = typer.Typer(
    no_args_is_help=True, help="Networks as graphs: train a metanetwork that prunes networks, and use it."
)
app.add_typer(meta, name="meta")
bench = typer.Typer(no_args_is_help=True, help="Compare methods on real data, with intervals and paired differences.")
app.add_typer(bench, name="bench")
