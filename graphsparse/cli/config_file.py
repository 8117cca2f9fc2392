"""The file that ``--config`` reads and that every run with an ``--out`` writes: its options in TOML."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import tomli_w
import typer

from graphsparse import __version__
from graphsparse.atomic_write import atomic_write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "config.toml"
COMMAND = "command"  # the key that says whose options these are
SHARED = {"config", "as_json", "quiet", "version"}  # what is said of a run's words, not of the run


def default_values(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let the options of a file take the place of the defaults: the callback of ``--config``.

    Raises:
        typer.BadParameter: the file cannot be read, is of another command, or holds what is no option of this one.
    """
    if path is None or ctx.resilient_parsing:
        return path
    options = {key: option for option in _own(ctx) for key in _keys(option)}
    values: dict[str, Any] = {}
    for key, value in _read(ctx, path).items():
        if (plain := key.replace("_", "-")) not in options:
            close = difflib.get_close_matches(plain, options, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            known = ", ".join(_key(option) for option in _own(ctx))
            raise _wrong(ctx, f"{path}: unknown key {key!r}{hint}; 'graphsparse {_name(ctx)}' takes {known}")
        option = options[plain]
        if option.name in values:
            raise _wrong(ctx, f"{path}: {key!r} says again what another key says")
        values[option.name] = _as_typed(ctx, f"{path}: {key!r}", option, value)
    ctx.default_map = values
    return path


def write_config(ctx: typer.Context, out: Path, *, beside: bool = False, replace: bool = True) -> None:
    """Write the options of a run into its folder, or beside its file as ``FILE.config.toml``; none where neither is.

    Args:
        ctx: of the command that ran.
        out: the folder or file that it wrote.
        beside: treat a folder as a file.
        replace: False leaves a file that is there.
    """
    into = out.is_dir() and not beside
    target = out / NAME if into else out.absolute().with_name(f"{out.absolute().name}.{NAME}")
    if not out.exists() or (target.exists() and not replace):
        return
    given = {_key(option): _plain(ctx.params[option.name]) for option in _own(ctx)}
    held = {COMMAND: _name(ctx), **{key: value for key, value in given.items() if value is not None}}
    heading = f"# graphsparse {__version__}; to run it again: graphsparse {_name(ctx)} --config THIS_FILE\n"
    with atomic_write(target) as partial:
        partial.write_text(heading + tomli_w.dumps(held), encoding="utf-8")


def _read(ctx: typer.Context, path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)  # keeps are read as they are written
    except OSError as error:
        raise _wrong(ctx, f"{path}: {error.strerror}") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise _wrong(ctx, f"{path} is no TOML file: {error}") from error
    wanted = found.pop(COMMAND, _name(ctx))
    if wanted != _name(ctx):
        raise _wrong(ctx, f"{path} holds options of 'graphsparse {wanted}', not of 'graphsparse {_name(ctx)}'")
    return found


def _as_typed(ctx: typer.Context, place: str, option: Any, value: Any) -> Any:
    """A value as it would come from the command line: text, so that both are read in one way."""
    many = getattr(option, "multiple", False)
    if isinstance(value, list) and many and all(isinstance(part, (str, int)) for part in value):
        return [str(part) for part in value]
    if isinstance(value, bool):
        return value
    if not isinstance(value, (str, int)):
        kinds = "text, a number, true or false" + (", or a list of texts and numbers" if many else "")
        raise _wrong(ctx, f"{place} must be {kinds}, got {type(value).__name__} {value!r:.50}")
    return [str(value)] if many else str(value)


def _plain(value: Any) -> Any:
    """A value as TOML has it; of an empty list nothing, which is the default."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value] or None
    return str(value) if isinstance(value, Path) else value


def _own(ctx: typer.Context) -> list[Any]:
    return [option for option in ctx.command.params if option.name not in SHARED and option.name != "help"]


def _keys(option: Any) -> list[str]:
    """All names of an option in a file, the usual one first: ``--edge-keep`` is ``edge-keep``, an argument its word."""
    long = [word[2:] for word in option.opts if word.startswith("--")]
    return long or [(getattr(option, "metavar", None) or option.name).lower().replace("_", "-").rstrip(".")]


def _key(option: Any) -> str:
    return _keys(option)[0]


def _name(ctx: typer.Context) -> str:
    """What is typed after ``graphsparse``: ``"meta zoo"``."""
    names, here = [], ctx
    while here.parent is not None:
        names.append(str(here.info_name))
        here = here.parent  # type: ignore[assignment]
    return " ".join(reversed(names))


def _wrong(ctx: typer.Context, message: str) -> typer.BadParameter:
    return typer.BadParameter(message, ctx=ctx, param_hint="--config")
