"""Sparsify a graph that lies in a file: npz, CSV, Parquet, GraphML or Matrix Market in, the same kind out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.io
import scipy.sparse
import torch
from torch import Tensor

from graphsparse.atomic_write import atomic_write
from graphsparse.edges.transform import edge_mask
from graphsparse.errors import DataError
from graphsparse.graphs.interop import OpenGraph, edge_list, open_graph
from graphsparse.graphs.labels import label_names

Path_ = str | os.PathLike[str]


def sparsify_file(
    source: Path_,
    target: Path_,
    method: str = "teddy",
    *,
    undirected: bool | None = None,
    seed: int = 0,
    rules: dict[str, Any],
) -> str:
    """Keep the best edges of the graph in ``source`` and write it, all else unchanged, to ``target``.

    Kinds, by suffix: ``.csv`` and ``.parquet`` edge lists with columns ``src`` and ``dst`` (ids or labels; other
    columns are kept), ``.graphml``, ``.mtx`` (Matrix Market), and ``.npz``: a matrix of ``scipy.sparse.save_npz``, or
    arrays with ``edge_index`` ``[2, E]`` or ``edges`` ``[E, 2]`` (arrays ``edge_*`` of one entry an edge are cut).

    Args:
        source: the file to read; it is not changed.
        target: the file to write, atomically; its suffix must be the source's.
        method: an edge score.
        undirected: as in :func:`graphsparse.sparsify`; None looks at the edges, GraphML says itself.
        seed: of ties and of random scores.
        rules: ``keep``, ``per_node``, ``guard`` and ``forest``, as in :func:`graphsparse.sparsify`.

    Returns:
        A sentence: how the edges were read, how many were kept, and where they are.

    Raises:
        DataError: if ``source`` is missing, damaged, or holds no graph.
        ValueError: if the suffixes are unknown or differ, or an option is out of range; nothing is written.
    """
    source, target = Path(source), Path(target)
    form = _format_of(source, target)
    opened = _read(form, source, undirected)
    mask = edge_mask(opened.edges, method, seed, rules, {})
    _write(form, opened.cut(mask), target)
    edges = opened.edges
    kind = "undirected edges" if edges.undirected else "directed edges"
    kept = (int(mask.sum()) - edges.survey.loops) // (2 if edges.mirrored else 1)
    total = edges.num_countable
    share = f" ({100 * kept / total:.2f} %)" if total else ""
    loops = f", and all {edges.survey.loops:,} self-loops" if edges.survey.loops else ""
    read_as = "given" if undirected is not None else "found"
    return f"kept {kept:,} of {total:,} {kind} ({read_as} so){share}{loops}: {target}"


@dataclass(frozen=True)
class _Format:
    """How one kind of file is opened as a graph, and how what is left of it is written."""

    open: Callable[[Path, bool | None], OpenGraph]
    write: Callable[[Any, Path], None]


def _format_of(source: Path, target: Path) -> _Format:
    suffix = source.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{source} has a suffix that is not known; known are {', '.join(sorted(FORMATS))}")
    if target.suffix.lower() != suffix:
        raise ValueError(f"{target} must end in {suffix}, as {source} does: the same kind of file comes out")
    return FORMATS[suffix]


def _read(form: _Format, source: Path, undirected: bool | None) -> OpenGraph:
    if not source.is_file():
        raise DataError(f"{source} does not exist")
    try:
        return form.open(source, undirected)
    except (DataError, ModuleNotFoundError):
        raise
    except Exception as error:  # every reader has its own kinds of damage
        raise DataError(f"cannot read a graph from {source}: {error}") from error


def _write(form: _Format, graph: Any, target: Path) -> None:
    with atomic_write(target) as partial:  # it has the target's suffix: writers go by it
        form.write(graph, partial)


class _Table(OpenGraph):
    """An edge list with columns ``src`` and ``dst`` of ids or labels; the other columns go along."""

    def __init__(self, frame: Any, undirected: bool | None) -> None:
        import pandas as pd

        missing = [name for name in ("src", "dst") if name not in frame.columns]
        if missing:
            raise DataError(f"the table has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}")
        ends = pd.concat([frame["src"], frame["dst"]], ignore_index=True)
        if bool(ends.isna().any()):
            row = int(ends.isna().to_numpy().argmax()) % max(len(frame), 1)
            raise DataError(f"row {row} of the table lacks an end: src and dst must both be given")
        codes, labels = pd.factorize(ends)
        self.frame = frame
        edge_index = torch.from_numpy(codes.astype(np.int64).reshape(2, -1))
        self.edges = edge_list(edge_index, len(labels), undirected, names=label_names(labels.tolist()))

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        """The rows that stay."""
        return self.frame[mask.numpy()]


class _Arrays(OpenGraph):
    """The arrays of an npz file, one of them the edges."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], undirected: bool | None) -> None:
        self.arrays = arrays
        self.key = next((key for key in ("edge_index", "edges") if key in arrays), None)
        if self.key is None:
            raise DataError(f"no edge_index and no edges among its arrays ({', '.join(arrays) or 'none'})")
        edges = arrays[self.key]
        self.transposed = self.key == "edges"  # one row an edge
        if edges.ndim != 2 or edges.shape[1 if self.transposed else 0] != 2:
            shape = "[E, 2]" if self.transposed else "[2, E]"
            raise DataError(f"{self.key} must have the shape {shape}, got {list(edges.shape)}")
        if edges.dtype.kind not in "iu":
            raise DataError(f"{self.key} must hold integer ids, got {edges.dtype}")
        edges = edges.T if self.transposed else edges
        nodes = int(arrays["num_nodes"]) if "num_nodes" in arrays else None
        self.edges = edge_list(torch.from_numpy(np.ascontiguousarray(edges, np.int64)), nodes, undirected)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> dict[str, npt.NDArray[Any]]:
        """The arrays, those with one entry an edge cut along."""
        keep, out = mask.numpy(), dict(self.arrays)
        for key, value in self.arrays.items():
            if key == self.key:
                out[key] = value[keep] if self.transposed else value[:, keep]
            elif key.startswith("edge_") and value.ndim and len(value) == len(keep):
                out[key] = value[keep]
        return out


def _open_csv(path: Path, undirected: bool | None) -> OpenGraph:
    import pandas as pd

    return _Table(pd.read_csv(path), undirected)


def _open_parquet(path: Path, undirected: bool | None) -> OpenGraph:
    import pandas as pd

    _need_pyarrow()
    return _Table(pd.read_parquet(path), undirected)


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError('Parquet files need pyarrow: pip install "graphsparse[scale]"') from None


def _open_npz(path: Path, undirected: bool | None) -> OpenGraph:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if "format" in arrays and "shape" in arrays:
        return open_graph(scipy.sparse.load_npz(path), undirected)
    return _Arrays(arrays, undirected)


def _write_npz(graph: Any, path: Path) -> None:
    if scipy.sparse.issparse(graph):
        scipy.sparse.save_npz(path, cast(Any, graph))
    else:
        np.savez_compressed(path, **graph)


def _open_graphml(path: Path, undirected: bool | None) -> OpenGraph:
    import networkx as nx

    return open_graph(nx.read_graphml(path), undirected)


def _write_graphml(graph: Any, path: Path) -> None:
    import networkx as nx

    nx.write_graphml(graph, path)


def _open_mtx(path: Path, undirected: bool | None) -> OpenGraph:
    return open_graph(scipy.sparse.coo_array(scipy.io.mmread(path)), undirected)


FORMATS = {
    ".csv": _Format(_open_csv, lambda frame, path: frame.to_csv(path, index=False)),
    ".parquet": _Format(_open_parquet, lambda frame, path: frame.to_parquet(path, index=False)),
    ".npz": _Format(_open_npz, _write_npz),
    ".graphml": _Format(_open_graphml, _write_graphml),
    ".mtx": _Format(_open_mtx, lambda matrix, path: scipy.io.mmwrite(path, matrix)),
}
