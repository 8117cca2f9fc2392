"""A file that holds a graph, the table of its kinds, and what all kinds do in one way: weights and labels."""

from __future__ import annotations

import importlib
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graphsparse.errors import DataError
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.registry import Registry
from graphsparse.untrusted import reading

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


class GraphFile(ABC):
    """A graph in a file: its edges, and the way back to the same kind of file with some of them.

    A kind of file is a subclass that reads in its constructor, ``GraphFile(path, undirected, weight)``, and raises
    whatever it likes for what it cannot read: `open_file` makes it one ``DataError`` with the file's name.

    Attributes:
        edges: the edge list, in the order of the file.
        weights: where its weights come from, in words; empty without weights.
        note: what a reader of the report should know besides; usually empty.
        labels: what the file calls its nodes, by their numbers; None where it calls them by these.
        needs: a library that is not among the required ones, and that this kind cannot do without.
        packed: whether a file of this kind may be gzipped (``.csv.gz``).
    """

    edges: EdgeList
    weights: str = ""
    note: str = ""
    labels: Sequence[Hashable] | Array | None = None
    needs: ClassVar[str] = ""
    packed: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None: ...

    @abstractmethod
    def write(self, keep: Mask, path: Path) -> None:
        """Write the file anew to ``path``, without the edges where ``keep`` ``[E]`` is false; all else stays."""

    def place(self, edge: int) -> str:
        """Where the file holds an edge, for errors."""
        return f"edge {edge}"


def _check(name: str, entry: Any) -> type[GraphFile]:
    if not (isinstance(entry, type) and issubclass(entry, GraphFile)):
        raise TypeError(f"the file format {name!r} must be a subclass of graphsparse.graphs.formats.GraphFile")
    return entry


FORMATS: Registry[type[GraphFile]] = Registry("file format", folder="graphsparse.graphs.formats", check=_check)


def open_file(
    path: str | os.PathLike[str],
    undirected: bool | None = None,
    *,
    weight: str | None = None,
    file_format: str | None = None,
) -> GraphFile:
    """Read the graph in a file.

    Weights are read by one rule from all kinds of file: the column (CSV, Parquet), attribute (GraphML) or array (npz)
    that ``weight`` names, else the one that is called ``weight`` or ``edge_weight``; of a matrix its stored values.

    Args:
        path: the file, which must be a regular one.
        undirected: as in `graphsparse.graphs.interop.open_graph`; GraphML and symmetric Matrix Market say themselves.
        weight: name of the weights.
        file_format: a name in ``FORMATS`` or ``"module:class"``; by default the file's suffix.

    Returns:
        a `GraphFile`: ``.edges`` and ``.write(keep, path)``.

    Raises:
        DataError: the file is missing, damaged, or not what it claims; with its name and, where there is one, the line.
        ValueError: no such format.
        ModuleNotFoundError: the format needs a library that is not there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.csv"
        ...     _ = path.write_text("src,dst\\nx,y\\ny,z\\n")
        ...     open_file(path).edges.edge_index
        tensor([[0, 1], [1, 2]])
    """
    path = Path(path)
    kind = FORMATS.find(name := format_of(path, file_format))
    if kind.needs:
        try:
            importlib.import_module(kind.needs)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(f'{name} files need {kind.needs}: pip install "graphsparse[scale]"') from None
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is a folder, a device or a pipe, and no regular file")
    with reading(path, DataError, f"a graph in the format {name}"):
        if path.suffix.lower() == ".gz" and not kind.packed:
            raise ValueError("files of this kind are compressed in themselves and are not read from .gz")
        return kind(path, undirected, weight)


def format_of(path: Path, file_format: str | None = None) -> str:
    """The name in ``FORMATS`` of the kind of a file: the given one, or by its suffix (before ``.gz``).

    Example:
        >>> format_of(Path("a/edges.CSV.gz"))
        'csv'
    """
    if file_format is not None:
        FORMATS.find(file_format)
        return FORMATS.key(file_format)
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    try:
        return FORMATS.key(suffix[1:])
    except ValueError:
        known = ", ".join(f".{name}" for name in FORMATS.names())
        raise ValueError(f"{path} has the suffix {suffix!r}, which is not known; known are {known}") from None


def number(text: str) -> float:
    """A weight as written; what is no number is NaN, an error where weights are used and nowhere else."""
    try:
        return float("nan") if "_" in text else float(text)
    except ValueError:
        return float("nan")
