"""Figures on disk: what they rest on, and files that are written whole."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from graphsparse.atomic_write import atomic_write

_LIBRARIES = ("graphsparse", "torch", "torch_geometric", "torch-pruning", "numpy", "scipy")


def provenance(command: str, asked: Any) -> dict[str, Any]:
    """What a figure rests on: the command, its options (the fields of ``asked``), and the versions of the libraries."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(asked).items()}
    return {"command": f"graphsparse {command}", "options": options, "versions": versions()}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that figures depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def commit() -> str | None:
    """The commit of the checkout that graphsparse runs from; None where it is installed."""
    return _git("rev-parse", "HEAD")


@cache
def unchanged() -> bool | None:
    """Whether the files of that checkout are as committed."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if changes is None else changes == ""


def _git(*words: str) -> str | None:
    here = Path(__file__)
    said = ""
    for call in (("ls-files", "--error-unmatch", str(here)), words):  # is this file git's at all?
        try:
            run = subprocess.run(["git", *call], capture_output=True, text=True, cwd=here.parent, check=False)
        except OSError:
            return None
        if run.returncode:
            return None
        said = run.stdout.strip()
    return said


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write figures; returns the path."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """The same value as JSON can say it: NaN and infinities become None, numbers of numpy numbers.

    Example:
        >>> plain({"mean": 0.5, "ci95": float("nan")})
        {'mean': 0.5, 'ci95': None}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line at once, so that a killed study loses at most the run that it was in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, allow_nan=False) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_rows(path: Path, key: Sequence[str], older: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a file of JSON lines; of those with the same values of ``key`` the last.

    A last line that a killed run left torn is cut off the file. ``older`` holds what a row means by leaving a name out,
    where rows were made before it was written.

    Raises:
        ValueError: another line is no JSON object with these keys.

    Example:
        >>> read_rows(Path("nowhere.jsonl"), ["seed"])
        []
    """
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with atomic_write(path) as partial:
            partial.write_text(whole)
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        name, row = _row(line, key, older or {}, f"line {number} of {path}")
        rows[name] = row
    return list(rows.values())


def _row(line: str, key: Sequence[str], older: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    try:
        row = {**older, **json.loads(line)}
        return json.dumps([row[name] for name in key]), row
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is no row of this study: {error!r}") from error


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, soft_wrap=True)
