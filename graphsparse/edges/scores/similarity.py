"""Scores that compare the two ends of an edge: shared neighbours (jaccard, scan) and features (cosine).

All of them read the simple undirected graph underneath: directions, copies and self-loops play no part, and an arc
of a directed graph scores the same as its mirror.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphsparse.edges.pairs import Floats, Ints, Neighbourhoods, SimpleGraph, spread
from graphsparse.edges.score_table import register
from graphsparse.graphs.inner_form import EdgeList

CHUNK = 1 << 22  # feature values of one end that are gathered at a time


@register("jaccard")
def jaccard(graph: EdgeList) -> Tensor:
    r"""Score an edge by the overlap of its ends' neighbourhoods: :math:`|N(u) \cap N(v)| / |N(u) \cup N(v)|`.

    Neighbourhoods are those of the simple undirected graph underneath, also for a directed one. The common neighbours
    are counted as triangles, in O(E sqrt(E)) at most.

    Returns:
        float64 ``[E]`` in [0, 1); self-loops +inf.

    Source: Satuluri, Parthasarathy, Ruan, "Local graph sparsification for scalable clustering", SIGMOD 2011,
    equation 1.

    Example:
        >>> edges = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]])  # a triangle with a tail
        >>> jaccard(EdgeList(edges, 4, undirected=True, mirrored=False))
        tensor([0.3333, 0.2500, 0.2500, 0.0000], dtype=torch.float64)
    """
    near = Neighbourhoods.of(graph)
    union = near.degrees[near.fewer] + near.degrees[near.other] - near.common
    return spread(near.common / union, near.pair, graph.edge_index.device)


@register("scan")
def scan(graph: EdgeList) -> Tensor:
    r"""Score an edge by the structural similarity of its ends: :math:`|N[u] \cap N[v]| / \sqrt{|N[u]| \, |N[v]|}`.

    Closed neighbourhoods :math:`N[v] = N(v) \cup \{v\}` of the simple undirected graph underneath, also for a directed
    one. Adjacent nodes share themselves, so the numerator is the number of common neighbours + 2.

    Returns:
        float64 ``[E]`` in (0, 1]; self-loops +inf.

    Source: Xu, Yuruk, Feng, Schweiger, "SCAN: a structural clustering algorithm for networks", KDD 2007, definition 2.

    Example:
        >>> edges = torch.tensor([[0, 0, 1], [1, 2, 2]])  # a triangle: all three neighbourhoods are the same
        >>> scan(EdgeList(edges, 3, undirected=True, mirrored=False))
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    near = Neighbourhoods.of(graph)
    closed = near.degrees + 1
    sizes = np.sqrt((closed[near.fewer] * closed[near.other]).astype(np.float64))
    return spread((near.common + 2) / sizes, near.pair, graph.edge_index.device)


@register("cosine")
def cosine(graph: EdgeList) -> Tensor:
    r"""Score an edge by the cosine of its ends' features: :math:`\langle x_u, x_v \rangle / (\|x_u\| \|x_v\|)`.

    A node without any non-zero feature scores 0 with every neighbour. Sums are taken in float64 once for each pair,
    in chunks, so memory does not grow with E x F. The cosine is symmetric: directions play no part.

    Args:
        graph: the graph; its features ``x`` ``[N, F]`` are dense or torch sparse (CSR, COO), real numbers.

    Returns:
        float64 ``[E]`` in [-1, 1]; self-loops +inf.

    Raises:
        ValueError: if the graph has no features, as many rows as it has not nodes, or a NaN or infinite feature.
        TypeError: if they are complex.

    Source: the common baseline; e.g. Zhang & Zitnik, "GNNGuard", NeurIPS 2020, equation 3.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> cosine(EdgeList(torch.tensor([[0, 1], [1, 2]]), 3, undirected=True, mirrored=False, x=x))
        tensor([0.7071, 0.0000], dtype=torch.float64)
    """
    dots = _dots(graph)
    simple = SimpleGraph.of(graph)
    nodes = np.arange(graph.num_nodes)
    norms = np.sqrt(dots(nodes, nodes))
    length = norms[simple.low] * norms[simple.high]
    cosines = np.divide(dots(simple.low, simple.high), length, out=np.zeros_like(length), where=length > 0)
    return simple.spread(cosines.clip(-1.0, 1.0), graph.edge_index.device)


def _dots(graph: EdgeList) -> Callable[[Ints, Ints], Floats]:
    """A function that gives the inner products ``[P]`` of the features of nodes u and v ``[P]``, checked and scaled."""
    x = graph.x
    if x is None:
        raise ValueError("the score 'cosine' compares node features, and this graph has none (x is missing)")
    if x.is_complex():
        raise TypeError("features must be real numbers, got complex ones")
    if x.dim() == 0 or x.size(0) != graph.num_nodes:
        raise ValueError(f"features must have one row for each of the {graph.num_nodes} nodes, got {list(x.shape)}")
    x = x.detach().cpu()
    sparse = x.layout != torch.strided
    x = x.to_sparse_csr() if sparse else x.reshape(graph.num_nodes, math.prod(x.shape[1:]))
    values = x.values() if sparse else x
    if values.is_floating_point() and not bool(values.isfinite().all()):
        raise ValueError("features must be finite numbers, got a NaN or an infinite one")
    return _sparse_dots(x) if sparse else _dense_dots(x)


def _dense_dots(x: Tensor) -> Callable[[Ints, Ints], Floats]:
    width = x.size(1)
    low, high = (x.amin(1), x.amax(1)) if width else (x.new_zeros(len(x)), x.new_zeros(len(x)))
    peaks = _nonzero(np.maximum(-low.to(torch.float64).numpy(), high.to(torch.float64).numpy()))

    def rows_of(nodes: Ints) -> Floats:
        gathered: Floats = x[torch.from_numpy(nodes)].to(torch.float64).numpy()
        return gathered / peaks[nodes, None]

    def dots(u: Ints, v: Ints) -> Floats:
        products = np.empty(len(u))
        for part in _chunks(len(u), width):
            np.einsum("ij,ij->i", rows_of(u[part]), rows_of(v[part]), out=products[part])
        return products

    return dots


def _sparse_dots(x: Tensor) -> Callable[[Ints, Ints], Floats]:
    parts = x.values().to(torch.float64).numpy(), x.col_indices().numpy(), x.crow_indices().numpy()
    matrix = sp.csr_array(parts, shape=(x.size(0), x.size(1)), copy=True)
    matrix.sum_duplicates()
    if matrix.nnz:
        peaks = _nonzero(abs(matrix).max(axis=1).toarray().ravel())
        matrix.data /= np.repeat(peaks, np.diff(matrix.indptr))

    def dots(u: Ints, v: Ints) -> Floats:
        products = np.empty(len(u))
        for part in _chunks(len(u), 1 + matrix.nnz // max(1, x.size(0))):
            products[part] = np.asarray(matrix[u[part]].multiply(matrix[v[part]]).sum(1)).ravel()
        return products

    return dots


def _nonzero(peaks: Floats) -> Floats:
    """Largest absolute value of each row, 1 for zero rows: rows divided by it neither overflow nor vanish."""
    return np.where(peaks > 0, peaks, 1.0)


def _chunks(n: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, width))
    for start in range(0, n, step):
        yield slice(start, start + step)
