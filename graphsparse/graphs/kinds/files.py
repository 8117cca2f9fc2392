"""Graphs in files: a path is read, and what comes back can be written, as the same kind of file or another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.errors import DataError
from graphsparse.graphs.formats.graph_file import GraphFile, Mask, open_file
from graphsparse.graphs.formats.keep_file import check_target, write_kept
from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph


class KeptFile:
    """A file's graph with the edges that were kept.

    Attributes:
        path: the file that was read.
        file: the whole graph.
        keep: bool ``[E]``, which of its edges stay.

    Example:
        >>> import tempfile
        >>> import graphsparse as gs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.txt"
        ...     _ = path.write_text("# a square\\n0 1\\n1 2\\n2 3\\n3 0\\n")
        ...     small = gs.sparsify(path, "random", keep=0.5, undirected=True)
        ...     small.write(Path(folder) / "b.txt")
        ...     print((Path(folder) / "b.txt").read_text(), end="")
        ''
        # a square
        1 2
        2 3
    """

    def __init__(self, path: Path, file: GraphFile, keep: Mask) -> None:
        self.path, self.file, self.keep = path, file, keep

    @property
    def edge_index(self) -> Tensor:
        """The kept edges, int64 ``[2, kept]``, as positions of the nodes."""
        return self.file.edges.edge_index[:, torch.from_numpy(self.keep)]

    @property
    def num_edges(self) -> int:
        """The number of kept edges."""
        return int(self.keep.sum())

    def write(self, path: str | os.PathLike[str]) -> str:
        """Write the file with the kept edges; another suffix converts.

        Returns:
            what the other kind of file cannot hold, in words; usually empty.

        Raises:
            ValueError: the kind is not known, or cannot hold the graph.
            OSError: it cannot be written.
        """
        target = Path(path)
        return write_kept(self.file, self.keep, target, check_target(self.path, target))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path.name}: {self.num_edges:,} of {len(self.keep):,} edges)"


@KINDS.register("file")
class FileGraph(OpenGraph):
    """The path of a file of any kind in `graphsparse.graphs.FORMATS`; a `KeptFile` comes back."""

    says = "the path of a file"
    options = ("weight", "src", "dst")

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return isinstance(graph, (str, os.PathLike, KeptFile))

    def __init__(self, graph: Any, undirected: bool | None, weight: str | None = None, **options: Any) -> None:
        if isinstance(graph, KeptFile):
            if weight is not None or options:
                raise ValueError("the file was read already: give weight=, src= and dst= with its path")
            self.path, self.file, self.before = graph.path, graph.file, graph.keep
        else:
            self.path = Path(graph)
            if not self.path.exists():
                raise DataError(f"{self.path} does not exist; data sets are loaded by graphsparse.data.load(name)")
            if self.path.is_dir():
                raise DataError(f"{self.path} is a folder, and no file with a graph")
            self.file = open_file(self.path, undirected, weight=weight, **options)
            self.before = np.ones(self.file.edges.num_edges, bool)
        self.edges = self._kept(undirected) if isinstance(graph, KeptFile) else self.file.edges

    def _kept(self, undirected: bool | None) -> EdgeList:
        whole, stay = self.file.edges, torch.from_numpy(self.before)
        once = whole.undirected and not whole.mirrored
        return edge_list(
            whole.edge_index[:, stay],
            whole.num_nodes,
            True if once else undirected,
            weight=None if whole.weight is None else whole.weight[stay],
            names=whole.names,
            pairs_once=once,
        )

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> KeptFile:
        if edge_weight is not None:
            raise ValueError(
                "new weights are not written into a file: sample a table or a graph that was read from it in memory"
            )
        keep = self.before.copy()
        keep[keep] = mask.cpu().numpy()
        return KeptFile(self.path, self.file, keep)
