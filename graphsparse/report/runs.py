"""Which kinds of run a page can show: one function for each, which looks at a folder and says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsparse.errors import DataError
from graphsparse.registry import Registry
from graphsparse.report.html import write_page
from graphsparse.report.parts import Block, Command, Facts, Prose, Run, Section
from graphsparse.untrusted import LARGEST_JSON, read_bytes, read_json_object, reading

RECORD = "run.json"  # what a run writes for its page, besides its figures
PAGE = "report.html"

RunReader = Callable[[Path], Run | None]

RUNS: Registry[RunReader] = Registry("kind of run")
"""Name -> function of a path: the run that lies there, or None where it is of another kind.

A function that finds its own kind may raise whatever a damaged file makes it raise: `read_run` makes a sentence of it.
"""


def read_run(path: Path) -> Run:
    """The run in a folder (or a file, where a kind of run leaves one).

    Raises:
        DataError: there is nothing, no run that is known, or a damaged one.

    Example:
        >>> read_run(Path("nowhere"))
        Traceback (most recent call last):
        ...
        graphsparse.errors.DataError: nowhere does not exist
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    for name, reader in RUNS.items():
        with reading(path, DataError, f"a readable run of the kind {name}"):
            found = reader(path)
        if found is not None:
            return found
    raise DataError(f"{path} holds no run that a page can show; known kinds are {', '.join(RUNS.names())}")


def write_report(folder: Path, reader: RunReader) -> Path:
    """Write the page of the run that was just made in a folder, and return its path.

    Raises:
        DataError: the function does not find its run there.
        OSError: the page cannot be written.
    """
    found = reader(folder)
    if found is None:
        raise DataError(f"{folder} holds no run that its page can show")
    return write_page(folder / PAGE, [found])


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no such file.

    Raises:
        ValueError, OSError: it is damaged.
    """
    return read_json_object(read_bytes(path, largest=LARGEST_JSON)) if path.exists() else {}


def name_of(path: Path) -> str:
    """What a run is called: its folder's or file's name.

    Example:
        >>> name_of(Path("runs/cora"))
        'cora'
    """
    return path.resolve().name or str(path)


def how_made(
    record: Mapping[str, Any], folder: Path, files: Sequence[tuple[str, str]], command: str | None = None
) -> Section:
    """The section that says what was run, where, with which versions, and how to run it again.

    Args:
        record: ``typed``, ``options``, ``versions`` and ``machine`` of `graphsparse.report.provenance`; some may lack.
        folder: where the files lie.
        files: names and what is in them; those that are not there are left out.
        command: one that runs it again, where none was typed.
    """
    again = record.get("typed") or command
    blocks: list[Block] = [Command(again)] if again else [Prose("It was started from Python, or by an older version.")]
    for title, pairs in (
        ("Machine", record.get("machine") or {}),
        ("Versions", record.get("versions") or {}),
        ("Options", {name: value for name, value in (record.get("options") or {}).items() if value is not None}),
    ):
        if pairs:
            blocks += [Prose(f"{title}:"), Facts([(name, said(value)) for name, value in pairs.items()])]
    there = [(name, what) for name, what in files if (folder / name.partition(",")[0]).exists()]
    if there:
        blocks += [Prose("Files:"), Facts(there)]
    return Section("How it was made, and how to run it again", blocks)


def said(value: Any) -> str:
    """A setting in words.

    Example:
        >>> said([2.0, 4.0]), said({"distill": 1.0})
        ('2.0, 4.0', 'distill: 1.0')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {said(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(said, value))
    return str(value)
