"""Any graph in, one inner form, the same kind of graph out."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from graphsparse.graphs.arcs import Survey, compress, survey
from graphsparse.graphs.labels import label_names
from graphsparse.keep_rule import whole_number

if TYPE_CHECKING:
    import networkx

MOST_NODES = 1 << 31  # pairs of ids are hashed and packed as two halves of 64 bits
SPARE_NODES = 1 << 24  # so many nodes are never too many; above, at most 4,096 a node of an edge

Array = npt.NDArray[Any]
Names = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class EdgeList:
    """The inner form of every graph: what the scores and the keep rule read.

    Attributes:
        edge_index: integer ``[2, E]``, tails in row 0 and heads in row 1, in the caller's own order.
        num_nodes: number of nodes N; all ids lie in ``0..N-1``.
        undirected: whether the countable elements are pairs {u, v} (else arcs).
        mirrored: for an undirected graph, whether both arcs of each pair are listed (else each pair is named once).
        weight: edge weights ``[E]``, or None.
        x: node features ``[N, F]`` (dense or torch sparse CSR), or None.
        names: 64-bit name of each node ``[N]`` that ties are hashed from, or None where the ids are the names.
    """

    edge_index: Tensor
    num_nodes: int
    undirected: bool
    mirrored: bool
    weight: Tensor | None = None
    x: Tensor | None = None
    names: Names | None = None

    @property
    def num_edges(self) -> int:
        """Number of listed edges E (columns of ``edge_index``)."""
        return int(self.edge_index.size(1))

    @cached_property
    def survey(self) -> Survey:
        """Loops, degrees and symmetry of the list, found once."""
        return survey(self.edge_index, self.num_nodes)

    @property
    def num_countable(self) -> int:
        """Number of elements that ``keep`` counts: pairs or arcs, copies one by one, no loops."""
        arcs = self.num_edges - self.survey.loops
        return arcs // 2 if self.mirrored else arcs

    def checked_weight(self) -> Tensor:
        """The weights as finite float64 ``[E]``, ones where the graph has none.

        Raises:
            ValueError: for a weight that is missing, NaN or infinite, with its first position.
            TypeError: for complex weights.
        """
        if self.weight is None:
            return torch.ones(self.num_edges, dtype=torch.float64, device=self.edge_index.device)
        if self.weight.is_complex():
            raise TypeError("edge weights must be real numbers, got complex ones")
        weight = self.weight.to(torch.float64)
        bad = ~weight.isfinite()
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            raise ValueError(f"the weight of edge {at} is {float(weight[at])}; weights must be finite numbers")
        return weight


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


def edge_list(
    edge_index: Tensor,
    num_nodes: int | None = None,
    undirected: bool | None = None,
    *,
    weight: Tensor | None = None,
    x: Tensor | None = None,
    names: Names | None = None,
    pairs_once: bool = False,
) -> EdgeList:
    """Check an ``edge_index`` and decide whether it is undirected and mirrored, in one pass.

    Args:
        edge_index: integer ``[2, E]``.
        num_nodes: number of nodes; by default one more than the largest id.
        undirected: as in `open_graph`.
        weight: ``[E]``.
        x: ``[N, F]``.
        names: ``[N]``.
        pairs_once: that the list is known to name each pair of an undirected graph once.

    Raises:
        TypeError: for ids that are no integers, or names that are not uint64.
        ValueError: for a wrong shape, an id out of range, or a list with both arcs of some pairs only and
            ``undirected=True``.
    """
    check_edge_index(edge_index)
    if undirected not in (None, True, False):
        raise TypeError(f"undirected must be True, False or None, got {undirected!r}")
    if num_nodes is None:
        num_nodes = max(0, int(edge_index.max()) + 1) if edge_index.numel() else 0
    num_nodes = whole_number(num_nodes, "num_nodes", 0)
    _check_size(num_nodes, edge_index.size(1))
    if names is not None and names.dtype != np.uint64:
        raise TypeError(f"names must be uint64, got {names.dtype}")
    if names is not None and names.shape != (num_nodes,):
        raise ValueError(f"names must have one value for each of {num_nodes} nodes, got {list(names.shape)}")
    found = survey(edge_index, num_nodes)
    mirrored = found.symmetric and undirected is not False and not pairs_once
    if undirected and not mirrored and not pairs_once:
        _check_pairs_once(edge_index)
    both = mirrored or bool(undirected) or pairs_once
    edges = EdgeList(edge_index, num_nodes, both, mirrored, weight, x, names)
    edges.__dict__["survey"] = found  # where cached_property looks first
    return edges


def check_edge_index(edge_index: Tensor) -> None:
    """Raise a TypeError or ValueError unless ``edge_index`` is an int32 or int64 tensor ``[2, E]``."""
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"edge_index must be a tensor, got {type(edge_index).__name__}")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"edge_index must hold int64 or int32 node ids, got {edge_index.dtype}")
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index must have the shape [2, num_edges], got {list(edge_index.shape)}")


def _check_size(num_nodes: int, num_edges: int) -> None:
    """Refuse ids that ask for node vectors far beyond what the edges are worth: they are labels, no positions."""
    if num_nodes > MOST_NODES or (num_nodes > SPARE_NODES and num_nodes > SPARE_NODES * num_edges // 4096):
        raise ValueError(
            f"the graph has {num_edges:,} edges and, by its largest id, {num_nodes:,} nodes; ids are positions, and "
            f"one number for each takes {num_nodes * 8 / 1e9:,.1f} GB: relabel the nodes as 0, 1, 2 ..., as "
            "torch.unique(edge_index, return_inverse=True)[1] does"
        )


def _check_pairs_once(edge_index: Tensor) -> None:
    """Refuse a list of pairs that names some in both directions: copies, or arcs with a few mirrors missing?"""
    tails, heads = edge_index.long().cpu().numpy()
    keys = (np.minimum(tails, heads).astype(np.uint64) << np.uint64(32)) | np.maximum(tails, heads).astype(np.uint64)
    both = np.intersect1d(keys[tails < heads], keys[tails > heads])
    if len(both):
        u, v = int(both[0] >> np.uint64(32)), int(both[0] & np.uint64(0xFFFFFFFF))
        raise ValueError(
            f"undirected=True, but edge_index lists ({u}, {v}) and ({v}, {u}) while other arcs have no mirror: list "
            "both arcs of every pair (torch_geometric.utils.to_undirected), or each pair once in one direction"
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
    return size == edges.num_edges and (edges.num_nodes != edges.num_edges or "edge" in key)


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
