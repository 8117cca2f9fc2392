"""Any graph in, one inner form, the same kind of graph out."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from graphsparse.graphs.arcs import compress
from graphsparse.graphs.inner_form import EdgeList, check_edge_index, edge_list
from graphsparse.graphs.labels import label_names

__all__ = ["EdgeList", "OpenGraph", "edge_list", "open_graph"]

if TYPE_CHECKING:
    import networkx

Array = npt.NDArray[Any]


class OpenGraph(ABC):
    """A graph of any kind with its inner form, and the way back."""

    edges: EdgeList

    @abstractmethod
    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        """Build a graph of the kind that came in with the edges where ``mask`` ``[E]`` is true.

        Args:
            mask: bool ``[E]``, aligned with ``edges.edge_index``.
            edge_weight: new weights ``[E]`` (before the cut), or None to leave them as they are.
        """


def open_graph(graph: Any, undirected: bool | None = None, *, weight: str | None = None) -> OpenGraph:
    """Read a graph of any kind into an `EdgeList`, and remember how to cut the original along a mask.

    Args:
        graph: a PyG ``Data``, a networkx graph, a square scipy sparse matrix or array (every stored entry is an edge
            row -> column; the formats that pad, BSR and DIA, cannot tell a stored zero from padding, so there an entry
            is a nonzero), or an integer ``edge_index`` ``[2, E]``. It is never changed.
        undirected: whether pairs and not arcs are counted. None: networkx by its type, otherwise undirected when every
            arc has as many mirrors as copies, weights playing no part. True also takes a list that names each pair
            once.
        weight: name of the edge attribute that holds weights; by default ``edge_weight`` in ``Data`` and ``weight`` in
            networkx (where a missing one is 1). scipy's weights are the stored values.

    Returns:
        an `OpenGraph`: ``.edges`` and ``.cut(mask, edge_weight=None)``.

    Raises:
        TypeError: for a kind that is not known, ``HeteroData``, ``Batch``, a ``Data`` with ``adj_t``, ids that are no
            integers, or a networkx label without a value to be named by.
        ValueError: for ids out of range, a wrong shape, or a list that ``undirected`` contradicts.

    Example:
        >>> opened = open_graph(torch.tensor([[0, 1, 2], [1, 0, 2]]))
        >>> opened.edges.undirected, opened.edges.num_countable
        (True, 1)
        >>> opened.cut(torch.tensor([False, False, True]))
        tensor([[2], [2]])
    """
    if isinstance(graph, HeteroData):
        raise TypeError(_hetero(graph))
    if isinstance(graph, (Data, Batch)):
        return _DataGraph(graph, undirected, weight)
    if isinstance(graph, Tensor):
        return _BareGraph(graph, undirected)
    if scipy.sparse.issparse(graph):
        return _ScipyGraph(graph, undirected)
    if _is_networkx(graph):
        return _NetworkXGraph(graph, undirected, weight)
    hint = "; torch.as_tensor(...) makes an edge_index of it" if isinstance(graph, (list, tuple, np.ndarray)) else ""
    raise TypeError(
        "a graph must be a torch_geometric Data, a networkx graph, a scipy sparse matrix or an edge_index tensor, "
        f"got {type(graph).__name__}{hint}"
    )


class _BareGraph(OpenGraph):
    """A bare ``edge_index``; with new weights a pair ``(edge_index, weight)`` comes back."""

    def __init__(self, edge_index: Tensor, undirected: bool | None) -> None:
        self.edges = edge_list(edge_index, None, undirected)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        small = compress(self.edges.edge_index, mask)
        return small if edge_weight is None else (small, edge_weight[mask])


class _DataGraph(OpenGraph):
    """A PyG ``Data`` or a subclass of it."""

    def __init__(self, data: Data, undirected: bool | None, weight: str | None) -> None:
        _check_data(data)
        check_edge_index(data.edge_index)
        with warnings.catch_warnings(record=True) as guessed:  # PyG warns where it counts nodes from the edges alone
            warnings.simplefilter("always")
            num_nodes = data.num_nodes
        self.data, self.weight = data, weight or "edge_weight"
        self.counted_from_edges = bool(guessed)
        values = data.get(self.weight)
        if values is None and weight is not None:
            raise ValueError(f"the graph has no edge attribute {weight!r} to take weights from")
        if values is not None and (not isinstance(values, Tensor) or values.numel() != data.edge_index.size(1)):
            raise ValueError(f"{self.weight} must be a tensor with one number for each edge")
        x = data.x if isinstance(data.x, Tensor) else None
        self.edges = edge_list(
            data.edge_index, num_nodes, undirected, weight=None if values is None else values.reshape(-1), x=x
        )

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Data:
        data = copy.copy(self.data)
        for key, value in self.data.to_dict().items():
            if key == "edge_index":
                data.edge_index = compress(value, mask)
            elif _is_edge_level(self.data, key, value, self.edges):
                data[key] = _cut_along(value, mask, self.data.__cat_dim__(key, value))
        if self.counted_from_edges:  # else the nodes with the highest ids could vanish with their edges
            data.num_nodes = self.edges.num_nodes
        if edge_weight is not None:
            data[self.weight] = edge_weight[mask]
        return data


def _hetero(graph: HeteroData) -> str:
    """What to do with a graph of several types of nodes and edges."""
    names = ", ".join(str(kind) for kind in graph.edge_types) or "none"
    return (
        f"got HeteroData with the edge types {names}: sparsify one at a time, data[edge_type].edge_index; where it "
        "joins two types of nodes, first add the number of nodes of the first type to the ids in row 1, so that "
        "the two sides share no ids, and take it off afterwards"
    )


def _check_data(data: Any) -> None:
    if isinstance(data, Batch):
        raise TypeError("got a Batch of graphs: sparsify each graph (batch.to_data_list()) and batch the results")
    for key in ("adj_t", "adj"):
        if key in data:
            raise TypeError(
                f"the graph holds its edges in {key}; give a Data with edge_index and without {key}: "
                f"torch_geometric.utils.to_edge_index(data.{key}) gives its entries and weights (a transpose holds "
                "the heads in row 0: flip it)"
            )
    if data.edge_index is None:
        raise TypeError("the Data has no edge_index")


def _is_edge_level(data: Data, key: str, value: Any, edges: EdgeList) -> bool:
    """Whether an attribute has one entry for each edge, by PyG's rule: size, and the name where N = E.

    Other lists of node ids (``edge_label_index``, ``face``) are their own, and so are the labels of such a list.
    """
    if "index" in key or key == "face" or ("edge_label" in key and f"{key}_index" in data):
        return False
    if isinstance(value, (list, tuple)):
        size = len(value)
    elif isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        dim = data.__cat_dim__(key, value)
        if not isinstance(dim, int):
            return False
        size = value.shape[dim]
    else:
        return False
    return size == edges.num_edges and (edges.num_nodes != edges.num_edges or "edge" in key or key == "e_id")


def _cut_along(value: Any, mask: Tensor, dim: int) -> Any:
    if isinstance(value, (list, tuple)):
        kept = [entry for entry, keep in zip(value, mask.tolist(), strict=True) if keep]
        return kept if isinstance(value, list) else tuple(kept)
    if isinstance(value, np.ndarray):
        return np.compress(mask.cpu().numpy(), value, axis=dim)
    return value.index_select(dim, mask.nonzero().view(-1).to(value.device))


def _is_networkx(graph: Any) -> bool:
    """Look at the class's ancestors first: a graph of networkx cannot come in before networkx is imported."""
    if not any(cls.__module__.split(".")[0] == "networkx" for cls in type(graph).__mro__):
        return False
    import networkx

    return isinstance(graph, networkx.Graph)


class _NetworkXGraph(OpenGraph):
    """A networkx graph of any of the four types; all nodes and attributes stay."""

    def __init__(self, graph: networkx.Graph, undirected: bool | None, weight: str | None) -> None:
        if undirected is False and not graph.is_directed():
            raise ValueError("undirected=False, but the networkx graph is undirected; give graph.to_directed()")
        self.graph, self.weight = graph, weight or "weight"
        self.listed = list(graph.edges(keys=True) if graph.is_multigraph() else graph.edges())
        labels = list(graph.nodes)
        if set(labels) == set(range(len(labels))):
            ids, names = {label: int(label) for label in labels}, None
        else:
            ids, names = {label: i for i, label in enumerate(labels)}, label_names(labels)
        ends = np.array([(ids[edge[0]], ids[edge[1]]) for edge in self.listed], np.int64).reshape(-1, 2)
        self.edges = edge_list(
            torch.from_numpy(np.ascontiguousarray(ends.T)),
            len(labels),
            bool(undirected) if undirected is not None else not graph.is_directed(),
            weight=self._weights(weight is not None),
            names=names,
            pairs_once=not graph.is_directed(),
        )

    def _copied(self) -> networkx.Graph:
        """The graph as networkx copies it; where its class cannot be made without arguments, a deep copy."""
        try:
            return self.graph.copy()
        except TypeError:
            return copy.deepcopy(self.graph)

    def _weights(self, asked: bool) -> Tensor | None:
        values = [data.get(self.weight) for _, _, data in self.graph.edges(data=True)]
        if not asked and all(value is None for value in values):
            return None
        return torch.tensor([1.0 if value is None else _number(value) for value in values], dtype=torch.float64)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> networkx.Graph:
        small = self._copied()
        keep = mask.tolist()
        small.remove_edges_from([edge for edge, kept in zip(self.listed, keep, strict=True) if not kept])
        if edge_weight is not None:
            for edge, kept, value in zip(self.listed, keep, edge_weight.tolist(), strict=True):
                if kept:
                    small.edges[edge][self.weight] = value
        return small


def _number(value: Any) -> float:
    """An attribute that is no number becomes NaN: an error where weights are used, and nowhere else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


class _ScipyGraph(OpenGraph):
    """A scipy sparse matrix or array: entries in the order of its COO or, for CSC, its own form."""

    def __init__(self, matrix: Any, undirected: bool | None) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"the matrix of a graph must be square, got the shape {tuple(matrix.shape)}")
        _check_compressed(matrix)
        self.matrix = matrix
        coo = matrix.tocoo()
        if matrix.format == "bsr":  # the padding of its blocks is no edge
            stored = coo.data != 0
            coo = type(coo)((coo.data[stored], (coo.row[stored], coo.col[stored])), shape=coo.shape)
        self.coo = coo
        ends = torch.from_numpy(np.stack([coo.row, coo.col]))
        if coo.data.dtype in (np.longdouble, np.clongdouble):
            values = torch.from_numpy(coo.data.astype(np.float64))
        else:
            values = torch.from_numpy(np.array(coo.data))
        self.edges = edge_list(ends, matrix.shape[0], undirected, weight=values)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        keep = mask.cpu().numpy()
        values = self.coo.data if edge_weight is None else edge_weight.cpu().numpy()
        cut = _cut_compressed if self.matrix.format in ("csr", "csc") else _cut_coo
        return cut(self.matrix, self.coo, values, keep)


def _check_compressed(matrix: Any) -> None:
    """scipy trusts the arrays of a compressed matrix; wrong ones crash the process or invent edges."""
    if matrix.format not in ("csr", "csc", "bsr"):
        return
    rows, columns = matrix.blocksize if matrix.format == "bsr" else (1, 1)
    major, minor = matrix.shape[0] // rows, matrix.shape[1] // columns  # square: the same for csc
    starts, ids = matrix.indptr, matrix.indices
    sound = (
        starts.shape == (major + 1,)
        and starts[0] == 0
        and starts[-1] == len(ids) == len(matrix.data)
        and bool((starts[1:] >= starts[:-1]).all())
        and (len(ids) == 0 or (int(ids.min()) >= 0 and int(ids.max()) < minor))
    )
    if not sound:
        raise ValueError(f"the {matrix.format} matrix is damaged: its indptr and indices do not fit its shape")


def _cut_compressed(matrix: Any, coo: Any, values: Array, keep: Array) -> Any:
    """Cut CSR and CSC in place of their own arrays: building them anew would add copies up."""
    kept_before = np.concatenate([[0], np.cumsum(keep)]).astype(matrix.indptr.dtype)
    parts = values[keep], matrix.indices[: len(keep)][keep], kept_before[matrix.indptr]
    return type(matrix)(parts, shape=matrix.shape)


def _cut_coo(matrix: Any, coo: Any, values: Array, keep: Array) -> Any:
    small = type(coo)((values[keep], (coo.row[keep], coo.col[keep])), shape=matrix.shape)
    if matrix.format == "bsr":
        return small.tobsr(blocksize=matrix.blocksize)
    return small.asformat(matrix.format)
