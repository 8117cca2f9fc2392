"""The tree of commands: each file beside this one adds one command to one of these groups."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from graphsparse.cli.command import Version, print_ending

ORDER = ("ticket", "sparsify", "advise", "bench", "report", "sparse", "meta", "data", "list", "doctor")  # in the help


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

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        print_ending(("graphsparse ticket --dataset cora", "graphsparse doctor"))

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make graphs, and the networks that learn on them, sparse.",
)
meta = typer.Typer(
    no_args_is_help=True, help="Networks as graphs: train a metanetwork that prunes networks, and use it."
)
bench = typer.Typer(no_args_is_help=True, help="Compare methods on real data, with intervals and paired differences.")
sparse = typer.Typer(no_args_is_help=True, help="Networks with few weights: train one by any method.")
data = typer.Typer(no_args_is_help=True, help="Data sets: which there are, what is here, and fetching the others.")


def _version_alone(version: Version = False) -> None:
    pass


for _name, _group in {"": app, "meta": meta, "bench": bench, "sparse": sparse, "data": data}.items():
    _group.callback()(_version_alone)
    if _name:
        app.add_typer(_group, name=_name)
