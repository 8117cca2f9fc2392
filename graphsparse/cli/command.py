"""What every command has: examples and exit codes in its help, ``--config``, ``--json``, ``--quiet``, ``--version``."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from graphsparse import __version__
from graphsparse.cli.completion import of_help
from graphsparse.cli.config_file import SHARED, default_values, write_config
from graphsparse.cli.known_names import fill_in

EXIT_CODES = " Exit codes: 0 fine, 1 failed, 2 wrong use, 130 interrupted, 143 terminated."
PANEL = "Every command"


@dataclass(frozen=True)
class Output:
    """Where a command's words go.

    Attributes:
        as_json: one JSON object on standard output, and everything else on standard error.
        quiet: nothing but errors, warnings and that object.
    """

    as_json: bool = False
    quiet: bool = False

    @property
    def console(self) -> Console:
        """For tables and sentences."""
        return Console(stderr=self.as_json, quiet=self.quiet)

    def give(self, found: Mapping[str, Any] | Path) -> None:
        """Print the JSON object, or the file that holds it, if it was asked for."""
        if self.as_json:
            text = found.read_text(encoding="utf-8") if isinstance(found, Path) else json.dumps(found, indent=2)
            print(text.rstrip("\n"))

    def plan(self, lines: Sequence[str], cost: Mapping[str, Any]) -> None:
        """Say what would be run: in lines, and as the JSON object."""
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self.give(cost)


class _Command(TyperCommand):
    """A command whose help names what the tables hold; they are read when the help is wanted, which takes seconds."""

    examples: tuple[str, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for option in self.params:
            if getattr(option, "help", None):
                option.help = fill_in(option.help)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)
        print_ending(self.examples)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = str(getattr(error, "option_name", ""))
            if "sparsity" not in option:
                raise
            advice = "there is no such option: say how much to keep, which is 1 - sparsity (--help names the options)"
            raise typer.BadParameter(advice, ctx=ctx, param_hint=option) from error


def print_ending(examples: tuple[str, ...]) -> None:
    """Print the last lines of a help: the examples, a line each, and the exit codes."""
    lines = [" Examples:", *(f"   {example}" for example in examples), "", EXIT_CODES]
    Console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def command(
    group: typer.Typer, name: str, *, examples: tuple[str, ...], writes: str | None = None, beside: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a function to a group of commands, with what every command has; a decorator.

    The function is called with an `Output` and its own options. It may return the error that the command ends with.

    Args:
        group: where the command belongs.
        name: what it is called there.
        examples: command lines that work, two or more, for the help.
        writes: the option that names the folder or file that the command writes; the options that it ran with are
            written there, too.
        beside: not into that folder, which holds nothing else, but beside it, as for a file.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            output = Output(as_json=given.pop("as_json"), quiet=given.pop("quiet"))
            for shared in ("config", "version"):
                given.pop(shared)
            if given.get("tensorboard") is not None:
                from graphsparse.fit.tensorboard_log import summary_writer

                summary_writer()  # that it is missing is told before anything is done
            try:
                with _silence(output.quiet):
                    failure = function(output, **given)
            except KeyboardInterrupt:
                if writes is not None and given[writes] is not None:
                    write_config(ctx, given[writes], beside=beside, replace=False)
                raise
            if writes is not None and given[writes] is not None and not given.get("dry_run"):
                write_config(ctx, given[writes], beside=beside)
            if isinstance(failure, Exception):
                raise failure

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        for option in own:
            _complete(option)
        run.__signature__ = inspect.Signature([_CONTEXT, *own, *_SHARED_OPTIONS])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (_CONTEXT, *own, *_SHARED_OPTIONS)}
        return group.command(name, cls=type("Command", (_Command,), {"examples": examples}))(run)

    return add


def _complete(option: inspect.Parameter) -> None:
    """Let a shell complete the values of an option or argument whose help names a table."""
    for about in getattr(option.annotation, "__metadata__", ()):
        if about.autocompletion is None:
            about.autocompletion = of_help(about.help)


def show_version(wanted: bool) -> None:
    """Print the version and end, if it is wanted."""
    if wanted:
        print(f"graphsparse {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=show_version, is_eager=True, help="Print the version and end.", rich_help_panel=PANEL
    ),
]


def _silence(quiet: bool) -> Any:
    if not quiet:
        return nullcontext()
    from graphsparse.progress import silent

    return silent()


def _option(name: str, kind: Any, default: Any, *words: str, **more: Any) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(*words, rich_help_panel=PANEL, **more)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_CONTEXT = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_SHARED_OPTIONS = [
    _option(
        "config",
        Path | None,
        None,
        "--config",
        callback=default_values,
        is_eager=True,
        metavar="FILE",
        help="A TOML file of options; those on the command line win.",
    ),
    _option("as_json", bool, False, "--json", help="Print one JSON object, and all else on standard error."),
    _option("quiet", bool, False, "--quiet", "-q", help="Print warnings and errors only (and the JSON object)."),
    inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Version),
]
assert {option.name for option in _SHARED_OPTIONS} == SHARED
