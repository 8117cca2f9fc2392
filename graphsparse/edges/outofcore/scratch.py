"""What a job has done so far, in a folder beside its results: a manifest with checksums, and the numbers of nodes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt

from graphsparse.atomic_write import atomic_write
from graphsparse.edges.outofcore import vectors
from graphsparse.untrusted import read_json_object

Array = npt.NDArray[Any]
Facts = dict[str, Any]
Found = tuple[Facts, dict[str, Array]]

MANIFEST = "manifest.jsonl"
LOCK = ".lock"
FORMAT = 1


class Scratch:
    """The folder of a job. Its manifest has a line for the job and one for each step that is complete.

    Args:
        folder: it exists, and no other process works in it.
        job: everything that the result depends on, as plain values.

    Attributes:
        other: whether the manifest that is there is another job's; its steps are not gone on with.
    """

    def __init__(self, folder: Path, job: Facts) -> None:
        self.folder = folder
        first = {"format": FORMAT, "job": json.loads(json.dumps(job))}
        lines = _lines(folder / MANIFEST)
        self.other = bool(lines) and lines[0] != first
        self._steps: dict[str, Facts] = {}
        for line in [] if self.other else lines[1:]:
            self._steps[line["step"]] = line
        if not self.other:
            with atomic_write(folder / MANIFEST) as partial:  # a line that was torn is gone
                partial.write_text("".join(json.dumps(line) + "\n" for line in [first, *self._steps.values()]))

    def step(self, name: str, compute: Callable[[], Found]) -> Facts:
        """The facts of a step, its vectors at `path`: as they were left by an earlier run, or computed and kept now."""
        held = self.done(name, self.folder)
        if held is not None:
            return held
        facts, arrays = compute()
        for key, values in arrays.items():
            self.put(key, values)
        self.record(name, facts, self.folder, [f"{key}.npy" for key in arrays])
        return facts

    def done(self, name: str, folder: Path) -> Facts | None:
        """The facts of a step, if it is complete and its files in that folder are still what they were."""
        held = self._steps.get(name)
        if held is None or any(_sum(folder / file) != told for file, told in held["files"].items()):
            return None
        facts: Facts = held["facts"]
        return facts

    def record(self, name: str, facts: Facts, folder: Path, files: list[str]) -> None:
        """Write down that a step is complete, with the checksums of the files that it wrote in a folder."""
        line = {"step": name, "facts": facts, "files": {file: _sum(folder / file) for file in files}}
        self._steps[name] = line
        with (self.folder / MANIFEST).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def put(self, name: str, values: Array) -> str:
        """Write a vector for all workers to read; returns its path."""
        vectors.save(Path(self.path(name)), values)
        return self.path(name)

    def path(self, name: str) -> str:
        """Where a vector lies."""
        return str(self.folder / f"{name}.npy")

    @property
    def has_parts(self) -> bool:
        """Whether a part was written."""
        return any(name.startswith("part ") for name in self._steps)

    def clear(self, manifest: bool = False) -> None:
        """Delete the vectors and whatever else lies here; the manifest too, if asked."""
        vectors.forget(self.folder)
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()
            elif path.name != LOCK and (manifest or path.name != MANIFEST):
                path.unlink()


def _sum(path: Path) -> str | None:
    """SHA-256 of a file, read piece by piece; None where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
    except OSError:
        return None
    return found.hexdigest()


def _lines(path: Path) -> list[Facts]:
    """The lines of a manifest, up to the first one that is none."""
    found: list[Facts] = []
    try:
        content = path.read_bytes()
    except OSError:
        return found
    for line in content.split(b"\n"):
        try:
            read = read_json_object(line)
        except (ValueError, RecursionError):
            break
        if found and not (
            isinstance(read.get("step"), str)
            and isinstance(read.get("facts"), dict)
            and isinstance(read.get("files"), dict)
        ):
            break
        found.append(read)
    return found
