"""npz files: arrays of which one is the edges, or a matrix of ``scipy.sparse.save_npz``."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from graphsparse.graphs.columns import weight_name
from graphsparse.graphs.formats.graph_content import GraphContent, typed
from graphsparse.graphs.formats.graph_file import FORMATS, GraphFile, Mask
from graphsparse.graphs.inner_form import number_tensor
from graphsparse.graphs.interop import OpenGraph, open_graph
from graphsparse.plain_npz import read_npz

Arrays = dict[str, npt.NDArray[Any]]


@FORMATS.register("npz")
class Npz(GraphFile):
    """Plain arrays with ``edge_index`` ``[2, E]`` or ``edges`` ``[E, 2]``, or a sparse matrix; nothing is unpickled.

    Arrays with one entry an edge are cut along, by the rule for a ``Data`` that holds the same arrays; the others are
    copied as they are.
    """

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        self.source = path
        with zipfile.ZipFile(path) as packed:
            infos = packed.infolist()
        if len({info.filename for info in infos}) < len(infos):
            raise ValueError("it holds two arrays of one name")
        self.tight = any(info.compress_type != zipfile.ZIP_STORED for info in infos)
        self.arrays = read_npz(path)
        self.matrix = "edge_index" not in self.arrays and {"format", "shape", "data"} <= set(self.arrays)
        if self.matrix:
            if weight is not None:
                raise ValueError(f"the weights of a matrix are its values; it has nothing named {weight!r}")
            self.opened: OpenGraph = open_graph(_matrix(self.arrays), undirected)
            self.weights = "the values of the matrix"
        else:
            self.opened = self._open_arrays(undirected, weight)
        self.edges = self.opened.edges

    def _open_arrays(self, undirected: bool | None, weight: str | None) -> OpenGraph:
        self.key, ends = _ends(self.arrays)
        self.name = name = weight_name([key for key in self.arrays if key != self.key], weight, "array")
        from torch_geometric.data import Data

        self.data = Data()
        for key, array in self.arrays.items():
            if key not in (self.key, "num_nodes"):
                self.data[key] = (
                    number_tensor(array) if key == "x" and array.ndim > 1 and array.dtype.kind in "iuf" else array
                )
        self.data.edge_index = torch.from_numpy(ends)
        if name is not None:
            self.data[name] = _weights(self.arrays[name], name, ends.shape[1])
            self.weights = f"the array {name!r}"
        if "num_nodes" in self.arrays:
            nodes = self.arrays["num_nodes"]
            if nodes.size != 1 or nodes.dtype.kind not in "iu" or int(nodes.item()) < 0:
                raise ValueError("num_nodes must be one whole number, not negative")
            self.data.num_nodes = int(nodes.item())
        return open_graph(self.data, undirected, weight=name)

    def write(self, keep: Mask, path: Path) -> None:
        """The same members in the same order, compressed as they were."""
        if self.matrix:
            scipy.sparse.save_npz(path, self.opened.cut(torch.from_numpy(keep)), compressed=self.tight)
            return
        small = self.opened.cut(torch.from_numpy(keep))
        cut = {self.key: np.compress(keep, self.arrays[self.key], axis=0 if self.key == "edges" else 1)}
        for key, array in self.arrays.items():
            if key in self.data and key != self.key and small[key] is not self.data[key]:
                cut[key] = np.compress(keep, array, axis=self.data.__cat_dim__(key, self.data[key]))
        with zipfile.ZipFile(self.source) as packed, zipfile.ZipFile(path, "w") as out:
            for info in packed.infolist():
                member = zipfile.ZipInfo(info.filename, info.date_time)
                member.compress_type = info.compress_type
                with out.open(member, "w", force_zip64=True) as target:
                    key = info.filename.removesuffix(".npy")
                    if key in cut:
                        np.lib.format.write_array(target, cut[key], allow_pickle=False)
                    else:
                        with packed.open(info) as source:
                            shutil.copyfileobj(source, target)

    def content(self) -> GraphContent:
        """The arrays that belong to edges, or the values of a matrix."""
        edges = self.edges
        parts = edges.edge_index.long().numpy(), edges.num_nodes, None, edges.undirected, edges.mirrored
        if self.matrix:
            values = None if edges.weight is None else edges.weight.numpy()
            return GraphContent(
                *parts, {} if values is None else {"weight": values}, None if values is None else "weight"
            )
        nothing = self.opened.cut(torch.zeros(edges.num_edges, dtype=torch.bool))
        others = [key for key in self.arrays if key in self.data and key not in (self.key, "num_nodes")]
        along = [key for key in others if nothing[key] is not self.data[key] and self.arrays[key].ndim == 1]
        lost = tuple(f"the array {key!r}" for key in others if key not in along)
        return GraphContent(*parts, {key: self.arrays[key] for key in along}, self.name, lost)

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """``edge_index``, ``num_nodes``, one array for each column, and ``labels`` where nodes have other ones."""
        numbered, lost = content.ids()
        arrays: dict[str, npt.NDArray[Any]] = {
            "edge_index": np.ascontiguousarray(numbered.ends),
            "num_nodes": np.array(numbered.num_nodes),
        }
        if lost and content.labels is not None:
            arrays["labels"], lost = np.array([str(label) for label in content.labels]), []
        for name, values in numbered.columns.items():
            array = np.asarray(typed(values))
            if name in arrays or array.dtype.kind == "O":
                lost.append(f"the column {name!r}")
            else:
                arrays[name] = array
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return lost


def _ends(arrays: Arrays) -> tuple[str, npt.NDArray[np.int64]]:
    """The name of the array of edges, and the edges as ``[2, E]``."""
    key = next((key for key in ("edge_index", "edges") if key in arrays), None)
    if key is None:
        raise ValueError(f"no edge_index and no edges among its arrays ({', '.join(arrays) or 'none'})")
    edges = arrays[key]
    shape = "[E, 2]" if key == "edges" else "[2, E]"
    if edges.ndim != 2 or edges.shape[1 if key == "edges" else 0] != 2:
        raise ValueError(f"{key} must have the shape {shape}, got {list(edges.shape)}")
    if edges.dtype.kind not in "iu":
        raise ValueError(f"{key} must hold integer ids, got {edges.dtype}")
    if edges.size and not 0 <= int(edges.min()) <= int(edges.max()) < 1 << 63:
        raise ValueError(f"{key} names node {int(edges.min() if edges.min() < 0 else edges.max())}; relabel from 0")
    return key, np.ascontiguousarray(edges.T if key == "edges" else edges, np.int64)


def _weights(array: npt.NDArray[Any], name: str, number_of_edges: int) -> torch.Tensor:
    if array.size != number_of_edges:
        raise ValueError(f"{name} holds {array.size:,} numbers, and there are {number_of_edges:,} edges")
    if array.dtype.kind not in "biufc":
        return torch.full((number_of_edges,), torch.nan)
    return number_tensor(array)


def _matrix(arrays: Arrays) -> Any:
    """Build a scipy matrix from arrays that may lie; `open_graph` checks the pointers of what is compressed."""
    kind = arrays["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else kind
    parts = {"csr": 3, "csc": 3, "bsr": 3, "coo": 3, "dia": 2}
    if kind not in parts:
        raise ValueError(f"it holds a matrix in the format {kind!r}; known are {', '.join(parts)}")
    shape = arrays["shape"]
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or int(shape.min()) < 0 or shape[0] != shape[1]:
        raise ValueError(f"the matrix of a graph must be square, and its shape is {shape.tolist()}")
    nodes = int(shape[0])
    data = arrays["data"]
    if data.dtype.kind not in "biufc":
        raise ValueError(f"the values of a matrix are numbers, got {data.dtype}")
    data = data.astype(data.dtype.newbyteorder("="))
    if kind == "dia":
        offsets = _indices(arrays, "offsets")
        far = offsets.size and max(-int(offsets.min()), int(offsets.max())) > nodes
        if far or data.ndim != 2 or len(data) != len(offsets) or len(np.unique(offsets)) < len(offsets):
            raise ValueError("its diagonals and their offsets do not match")
        content: Any = data, offsets
    elif kind == "coo":
        content = data, (_indices(arrays, "row"), _indices(arrays, "col"))
    else:
        blocks = kind == "bsr" and data.ndim == 3 and 0 not in data.shape
        if kind == "bsr" and data.size and not (blocks and nodes % data.shape[1] == nodes % data.shape[2] == 0):
            raise ValueError(f"blocks of the shape {list(data.shape[1:])} do not fill a matrix of {nodes} rows")
        content = data, _indices(arrays, "indices"), _indices(arrays, "indptr")
        if not len(content[2]) or not int(content[2][-1]) == len(content[1]) == len(data):  # scipy drops the rest
            raise ValueError("indptr must end at the number of indices and of data")
    is_array = "_is_array" in arrays and bool(arrays["_is_array"].item())
    build = getattr(scipy.sparse, f"{kind}_{'array' if is_array else 'matrix'}")
    if kind == "bsr":
        return build(content, shape=(nodes, nodes), blocksize=data.shape[1:])
    return build(content, shape=(nodes, nodes))


def _indices(arrays: Arrays, name: str) -> npt.NDArray[Any]:
    """A one-dimensional array of whole numbers, in a signed kind."""
    array = arrays.get(name)
    if array is None:
        raise ValueError(f"the array {name} of the matrix is missing")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a list of whole numbers, got {array.dtype} of the shape {list(array.shape)}")
    return array.astype(np.int32 if array.dtype == np.int32 else np.int64)
