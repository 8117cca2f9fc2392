"""Write a graph that was read from a file with some of its edges: the same kind of file, or another one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from graphsparse.atomic_write import atomic_write
from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, Mask, check_packing, format_of


def check_target(source: Path, target: Path, file_format: str | None = None) -> type[GraphFile]:
    """Tell before any work what would fail after it.

    Args:
        source: the file that is read.
        target: where to write.
        file_format: the kind of both files, instead of their suffixes.

    Returns:
        the kind of file that is written.

    Raises:
        ValueError: the kind is not known, or ``target`` is no place for a file.
        PermissionError: its folder cannot be written to.
    """
    if target.exists() and not target.is_file():
        hint = f": name one in it, such as {target / source.name}" if target.is_dir() else ""
        raise ValueError(f"{target} is a folder or a device, and no file to write{hint}")
    kind = FORMATS.find(format_of(target, file_format))
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{target} is the file that is read; give another name")
    if not target.parent.is_dir():
        raise ValueError(f"the folder of {target} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(13, "the folder cannot be written to", str(target))
    try:
        check_packing(target, kind)
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from None
    return kind


def write_kept(file: GraphFile, keep: Mask, target: Path, kind: type[GraphFile]) -> str:
    """Write the edges where ``keep`` ``[E]`` is true, whole or not at all.

    A file of the same kind is written with all else as it was; one of another kind holds what it can.

    Returns:
        what the other kind cannot hold, and how to read it, in words; usually empty.

    Raises:
        ValueError: the graph cannot be written in that kind.
        OSError: the file cannot be written; what was there stays.
    """
    same = type(file) is kind
    if not same:
        content = file.content()
        lists_pairs = content.undirected and not content.mirrored
    try:
        with atomic_write(target) as partial:  # it has the target's suffix: writers go by it
            if same:
                file.write(file.lines_of(keep), partial)
                return ""
            lines = file.lines_of(keep)
            lost = list(content.lost)
            if (both := file.both_ways) is not None:
                lines &= np.isin(np.arange(len(lines)), both.first)
                lost += ["the second line of edges that stand in both directions"]
            lost += kind.build(content.kept(lines), partial)
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write: {reason}; what was there stays", str(target)) from error
    said = [f"{target.name} does not hold {', '.join(lost)}"] if lost else []
    if lists_pairs and not kind.says_direction:
        said.append("each pair stands in it once: read it as undirected")
    return "; ".join(said)
