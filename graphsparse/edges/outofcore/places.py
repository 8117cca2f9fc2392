"""Where a job reads, writes, and keeps what it has done so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.edges.outofcore.arrays import ArrayList
from graphsparse.edges.outofcore.engine import Engine, Tell
from graphsparse.edges.outofcore.parts import ParquetParts, Part, Parts, find_files
from graphsparse.edges.outofcore.scratch import MANIFEST, Facts, Scratch
from graphsparse.edges.outofcore.tables import CSV, as_parquet
from graphsparse.errors import DataError

HIDDEN = ".graphsparse"
PARQUET = (".parquet",)
ARRAY = (".npy", ".npz")

Ends = tuple[str | None, str | None]


@dataclass(frozen=True)
class Places:
    """The files of a job.

    Attributes:
        source: the file or folder that is read.
        files: names and paths of its parts.
        target: the file or folder that is written.
        scratch: the folder of what the job has done so far.
        ends: the columns of the ends, if they are not called as usual.
        array: the list in one array, where the source is a memory map.
    """

    source: Path
    files: tuple[tuple[str, Path], ...]
    target: Path
    scratch: Path
    ends: Ends
    array: ArrayList | None = None

    @property
    def one_file(self) -> bool:
        """Whether a file is written, not a folder."""
        return self.scratch.parent != self.target

    @property
    def identity(self) -> Facts:
        """What tells these files from others, and from themselves after a change."""
        about = [(name, path.stat()) for name, path in self.files]
        parts = [[name, found.st_size, found.st_mtime_ns] for name, found in about]
        return {"path": str(self.source.absolute()), "parts": parts, "ends": list(self.ends)}

    def open(self, scratch: Scratch, engine: Engine, bar: Callable[[str], Tell]) -> Parts:
        """The parts of the list, looked at; tables in text are made Parquet first."""
        if self.array is not None:
            return self.array
        if self.source.suffix.lower() == ".npy":
            return ArrayList.open(self.source)
        if self.source.suffix.lower() == ".npz":
            return ArrayList.packed(self.source, self.scratch)
        left, files = [], []
        for name, path in self.files:
            table = path
            if _ends_in(path, CSV):
                table = self.scratch / "tables" / f"{name}.parquet"
                if scratch.done(f"table {name}", table.parent) is None:
                    left.append((str(path), str(table), self.ends))
            files.append((_written(name), table, path))

        def done(at: int, _: Any) -> None:
            table = Path(left[at][1])
            name = table.relative_to(self.scratch / "tables").as_posix().removesuffix(".parquet")
            scratch.record(f"table {name}", {}, table.parent, [table.name])

        if left:
            engine.each(_convert, left, done, bar("tables in text"))
        return ParquetParts.open(files, *self.ends)

    def out(self, part: Part) -> Path:
        """Where a part is written."""
        return self.target if self.one_file else self.target / part.name

    def check_free(self) -> None:
        """Raise a ValueError if the target folder holds something that no job of this kind has written."""
        if not self.one_file and self._occupied() and not (self.scratch / MANIFEST).exists():
            raise ValueError(f"{self.target} is not empty: name a new folder for the parts")

    def begin(self, job: Facts) -> Scratch:
        """The scratch folder, with what an earlier run of the same job has done.

        Raises:
            ValueError: the target folder holds what another job has written.
        """
        scratch = Scratch(self.scratch, job)
        if scratch.other:
            if not self.one_file and self._occupied():
                raise ValueError(
                    f"{self.target} is not empty: it holds parts of another job (other files, method, keep or seed); "
                    "name a new folder, or delete this one"
                )
            scratch.clear(manifest=True)
            scratch = Scratch(self.scratch, job)
        return scratch

    def all_there(self, scratch: Scratch, parts: Sequence[Part]) -> bool:
        """Whether every part was written and is still what it was."""
        return all(scratch.done(f"part {part.name}", self.out(part).parent) is not None for part in parts)

    def discard(self, scratch: Scratch) -> None:
        """Remove what the job has written, since its files cannot be read to the end."""
        if not self.one_file:
            for name in map(_written, dict(self.files)):
                if scratch.done(f"part {name}", (self.target / name).parent) is not None:
                    (self.target / name).unlink()
            for folder in sorted({(self.target / name).parent for name, _ in self.files}, reverse=True):
                with suppress(OSError):
                    folder.rmdir()
        scratch.clear(manifest=True)

    def finish(self, scratch: Scratch) -> None:
        """Remove what is needed no longer; beside parts the manifest stays, and says that they are complete."""
        scratch.clear(manifest=self.one_file)

    def _occupied(self) -> bool:
        return self.target.is_dir() and any(path.name != HIDDEN for path in self.target.iterdir())


def find_places(src: Any, dst: str | os.PathLike[str], ends: tuple[str, str] | None) -> Places:
    """Find the files of a job, and see that they can be read and written.

    Raises:
        DataError: there is nothing to read.
        ValueError: the target is the source, lies in it, or is not empty.
    """
    target, array = Path(dst), None
    if isinstance(src, np.memmap):
        array = ArrayList.mapped(src)
        src = array.parts[0].path
    source = Path(src)
    columns: Ends = (None, None) if ends is None else _two(ends)
    if not source.exists():
        raise DataError(f"{source} does not exist")
    if source.is_dir():
        return _folders(source, target, columns)
    if not source.is_file():
        raise DataError(f"{source} is a device or a pipe, and no regular file")
    if target.is_dir():
        raise ValueError(f"{target} is a folder, and {source} is one file: name a file")
    for readable, written in ((PARQUET, ".parquet"), (CSV, ".parquet"), (ARRAY, ".npy")):
        if array is not None or _ends_in(source, readable):
            suffix = written if array is None else ".npy"
            break
    else:
        raise ValueError(f"{source}: out of core are read {', '.join((*PARQUET, *CSV, *ARRAY))}")
    if target.suffix.lower() != suffix:
        raise ValueError(f"{target}: out of core {source.name} is written as a file whose name ends in {suffix}")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the file that is read; give another name")
    if not target.parent.is_dir():
        raise ValueError(f"the folder of {target} does not exist")
    scratch = target.parent / f".{target.name}{HIDDEN}"
    return Places(source, ((source.name, source),), target, scratch, columns, array)


def works_on(source: Path, target: Path) -> bool:
    """Whether files of these names are read and written out of core: other kinds are read whole."""
    kinds = ((PARQUET, ".parquet"), (CSV, ".parquet"), ((".npy",), ".npy"))
    return source.is_dir() or any(
        _ends_in(source, readable) and target.suffix.lower() == written for readable, written in kinds
    )


def _folders(source: Path, target: Path, ends: Ends) -> Places:
    files, texts = find_files(source, PARQUET), find_files(source, CSV)
    if files and texts:
        raise DataError(f"{source} holds parts of two kinds, {files[0][0]} and {texts[0][0]}: take those of one away")
    files = files or texts
    if not files:
        raise DataError(f"{source} holds no part: no file whose name ends in {', '.join((*PARQUET, *CSV))}")
    names = [_written(name) for name, _ in files]
    if len(set(names)) < len(names):
        raise DataError(f"two parts of {source} would be written as {max(names, key=names.count)}: rename one")
    inside = target.absolute().resolve()
    if inside == source.resolve() or source.resolve() in inside.parents:
        raise ValueError(f"{target} lies in {source}, which is read: name another folder")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, and {source} is a folder of parts: name a folder")
    places = Places(source, tuple(files), target, target / HIDDEN, ends)
    places.check_free()
    return places


def _written(name: str) -> str:
    """The name of the part that is written for one that is read: the same, of a table in text that of Parquet."""
    suffix = next((suffix for suffix in sorted(CSV, key=len, reverse=True) if name.lower().endswith(suffix)), "")
    return f"{name[: -len(suffix)]}.parquet" if suffix else name


def _ends_in(path: Path, suffixes: Sequence[str]) -> bool:
    return any(path.name.lower().endswith(suffix) for suffix in suffixes)


def _convert(tell: Tell, source: str, target: str, ends: Ends) -> None:
    as_parquet(Path(source), Path(target), ends)
    tell(0)


def _two(ends: Any) -> Ends:
    if isinstance(ends, str) or len(ends) != 2:
        raise ValueError(f"ends must be the names of two columns, got {ends!r:.100}")
    return ends[0], ends[1]
