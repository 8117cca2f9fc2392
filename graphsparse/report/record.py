"""Figures on disk: what they rest on, and files that are written whole."""

from __future__ import annotations

import json
import math
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from graphsparse.atomic_write import atomic_write
from graphsparse.cores import usable_cores

_LIBRARIES = ("graphsparse", "torch", "torch_geometric", "torch-pruning", "numpy", "scipy")


def provenance(command: str, asked: Any) -> dict[str, Any]:
    """What a figure rests on: the command, its options (the fields of ``asked``), versions, and the machine.

    ``typed`` is the command line as a person gave it, None where it was not one.
    """
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(asked).items()}
    return {
        "command": f"graphsparse {command}",
        "typed": typed_command(),
        "options": options,
        "versions": versions(),
        "machine": machine(),
    }


def typed_command() -> str | None:
    """The command line that this process was started by, where it is the program ``graphsparse``."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    ours = program.stem == "graphsparse" or program.parts[-2:] == ("graphsparse", "__main__.py")
    return shlex.join(["graphsparse", *sys.argv[1:]]) if ours else None


@cache
def machine() -> dict[str, str]:
    """What kind of machine this is, without its name: system, processor, cores that this process may use."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # elsewhere than on Linux
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"


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


def write_json(path: Path, content: Mapping[str, Any], *, dense: bool = False) -> Path:
    """Write figures, for people, or ``dense``: without line breaks, for long lists; returns the path."""
    layout: dict[str, Any] = {"separators": (",", ":")} if dense else {"indent": 2}
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, allow_nan=False, **layout) + "\n")
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


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, soft_wrap=True)
