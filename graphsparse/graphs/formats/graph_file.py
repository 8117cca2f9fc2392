"""A file that holds a graph, the table of its kinds, and what all kinds do in one way: weights and labels."""

from __future__ import annotations

import importlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.errors import DataError
from graphsparse.graphs.both_ways import BothWays, edges_of_lines
from graphsparse.graphs.formats.content import PACKINGS, inner_suffix, zstd_library
from graphsparse.graphs.formats.graph_content import GraphContent
from graphsparse.graphs.inner_form import EdgeList, coded_edges
from graphsparse.registry import Registry
from graphsparse.untrusted import reading

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


class GraphFile(ABC):
    """A graph in a file: its edges, and the way back to the same kind of file with some of them.

    A kind of file is a subclass that reads in its constructor, ``GraphFile(path, undirected, weight, **options)``, and
    raises whatever it likes for what it cannot read: `open_file` makes it one ``DataError`` with the file's name.
    Files of a kind with ``content`` can be written in another kind, and those of a kind with ``build`` made of one.

    Attributes:
        edges: the edge list, in the order of the file.
        weights: where its weights come from, in words; empty without weights.
        note: what a reader of the report should know besides; usually empty.
        labels: what the file calls its nodes, by their numbers; None where it calls them by these.
        both_ways: which lines are one edge, where some edges stand in both directions; else a line is an edge.
        needs: a library that is not among the required ones, and that this kind cannot do without.
        packed: whether a file of this kind may be packed (``.csv.gz``, ``.csv.zst``).
        says_direction: whether a file of this kind says itself that its edges are undirected.
        options: reading options that it takes: ``src``, ``dst``, ``header``, ``one_based``.
    """

    edges: EdgeList
    weights: str = ""
    note: str = ""
    labels: Sequence[Hashable] | Array | None = None
    both_ways: BothWays | None = None
    needs: ClassVar[str] = ""
    packed: ClassVar[bool] = False
    says_direction: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None: ...

    @abstractmethod
    def write(self, keep: Mask, path: Path) -> None:
        """Write the file anew to ``path``, without the lines where ``keep`` ``[E]`` is false; all else stays."""

    def list_edges(
        self, codes: Array, labels: Sequence[Hashable] | Array, undirected: bool | None, weights: Tensor | None
    ) -> None:
        """Make ``edges`` of a list of ends ``[2, E]``; of the weights of an edge's two lines the larger one counts."""
        if undirected and (both := edges_of_lines(codes)) is not None:
            self.both_ways, codes = both, codes[:, both.first]
            if weights is not None:
                found = np.full(len(both.first), -np.inf)
                with np.errstate(invalid="ignore"):  # NaN stays NaN
                    np.maximum.at(found, both.edge_of, weights.numpy())
                weights = torch.from_numpy(found)
        self.edges = coded_edges(codes, labels, undirected, weights, pairs_once=self.both_ways is not None)
        if self.both_ways is not None:
            self.note = self.both_ways.said

    def lines_of(self, keep: Mask) -> Mask:
        """Which lines stay ``[E]``, where ``keep`` says so of the edges."""
        return keep if self.both_ways is None else keep[self.both_ways.edge_of]

    def place(self, edge: int) -> str:
        """Where the file holds an edge, for errors."""
        return f"edge {edge}"

    def content(self) -> GraphContent:
        """Everything that another format could hold, and the names of what none does."""
        raise ValueError("files of this kind are written as the same kind only")

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """Write a new file of this kind, and return what it cannot hold, in words."""
        raise ValueError("files of this kind are not made from files of other kinds")


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
    **options: Any,
) -> GraphFile:
    """Read the graph in a file.

    Weights are read by one rule from all kinds of file: the column (CSV, Parquet), attribute (GraphML) or array (npz)
    that ``weight`` names, else the one that is called ``weight`` or ``edge_weight``; of a matrix its stored values.

    Args:
        path: the file, which must be a regular one.
        undirected: as in `graphsparse.graphs.interop.open_graph`; GraphML and symmetric Matrix Market say themselves.
        weight: name of the weights.
        file_format: a name in ``FORMATS`` or ``"module:class"``; by default the file's suffix.
        **options: of tables: ``src`` and ``dst``, the names of the columns of the ends; ``header``, whether a first
            line names the columns (None: it is looked at); ``one_based``, whether ids count from 1.

    Returns:
        a `GraphFile`: ``.edges`` and ``.write(keep, path)``.

    Raises:
        DataError: the file is missing, damaged, or not what it claims; with its name and, where there is one, the line.
        ValueError: no such format, or an option that it does not have.
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
    if file_format is None and not path.suffix and not path.exists():
        raise DataError(f"{path} does not exist")  # rather than that it lacks a suffix
    kind = FORMATS.find(name := format_of(path, file_format))
    if kind.needs:
        try:
            importlib.import_module(kind.needs)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(f'{name} files need {kind.needs}: pip install "graphsparse[scale]"') from None
    given = {key: value for key, value in options.items() if value is not None and (value or key == "header")}
    for key in given:
        if key not in kind.options:
            takes = f"it takes {', '.join(kind.options)}" if kind.options else "it says itself where its edges are"
            raise ValueError(f"{key} is no option of a file in the format {name}: {takes}")
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is a folder, a device or a pipe, and no regular file")
    with reading(path, DataError, f"a graph in the format {name}"):
        check_packing(path, kind)
        return kind(path, undirected, weight, **given)


def check_packing(path: Path, kind: type[GraphFile]) -> None:
    """Refuse ``.gz`` and ``.zst`` of a kind that is compressed in itself.

    Raises:
        ValueError: such a file.
        ModuleNotFoundError: nothing here packs ``.zst``.
    """
    packing = path.suffix.lower()
    if packing in PACKINGS and not kind.packed:
        raise ValueError(f"files of this kind are compressed in themselves and are not kept in {packing}")
    if packing == ".zst":
        zstd_library()


def format_of(path: Path, file_format: str | None = None) -> str:
    """The name in ``FORMATS`` of the kind of a file: the given one, or by its suffix (before ``.gz`` or ``.zst``).

    Example:
        >>> format_of(Path("a/edges.CSV.gz"))
        'csv'
    """
    if file_format is not None:
        FORMATS.find(file_format)
        return FORMATS.key(file_format)
    suffix = inner_suffix(path)
    try:
        return FORMATS.key(suffix[1:])
    except ValueError:
        known = ", ".join(f".{name}" for name in FORMATS.names())
        said = f"{path} has the suffix {suffix!r}, which is not known; known are {known}"
        raise ValueError(f"{said}; another kind is named by file_format= (--format)") from None
