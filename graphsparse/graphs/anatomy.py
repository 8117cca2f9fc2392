"""What sparsification did to a graph: its components, triangles, homophily and lonely nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


def anatomy(
    edge_index: Tensor, num_nodes: int, y: Tensor | None = None, *, sample: int | None = None
) -> dict[str, float]:
    r"""Figures of a graph, read as undirected and simple; self-loops and copies play no part.

    ``components``: connected components, lonely nodes included. ``largest_component``: the share of the nodes in the
    largest one. ``clustering``: the mean over all nodes of :math:`2 t_v / (d_v (d_v - 1))` with :math:`t_v` triangles,
    0 where the degree is below 2. ``homophily``: the share of the edges whose ends have the same class (None without
    classes or edges). ``isolated_nodes``: nodes without a neighbour. ``mean_degree``.

    Args:
        edge_index: ``[2, E]``.
        num_nodes: N.
        y: classes ``[N]``, or None.
        sample: take the mean clustering over so many nodes, drawn with a fixed seed, instead of all: for large graphs.

    Source: clustering: Watts & Strogatz, Nature 1998; which properties: Chen et al., "Demystifying graph sparsification
    algorithms in graph properties preservation", VLDB 2024.

    Example:
        >>> import torch
        >>> triangle_and_one = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> found = anatomy(triangle_and_one, 4, torch.tensor([0, 0, 1, 1]))
        >>> found["components"], found["clustering"], round(found["homophily"], 2)
        (2, 0.75, 0.33)
    """
    matrix = _simple(edge_index, num_nodes)
    degree = np.diff(matrix.indptr)
    count, label = connected_components(matrix, directed=False)
    figures: dict[str, Any] = {
        "components": int(count),
        "largest_component": float(np.bincount(label).max() / num_nodes) if num_nodes else 0.0,
        "clustering": _clustering(matrix, degree, sample),
        "homophily": None,
        "isolated_nodes": int((degree == 0).sum()),
        "mean_degree": float(degree.mean()) if num_nodes else 0.0,
    }
    if y is not None and y.dim() == 1 and not y.is_floating_point() and matrix.nnz:
        classes = y.cpu().numpy()
        rows = np.repeat(np.arange(num_nodes), degree)
        figures["homophily"] = float((classes[rows] == classes[matrix.indices]).mean())
    return figures


def _simple(edge_index: Tensor, num_nodes: int) -> csr_array:
    """The adjacency matrix with ones, both directions, no loops."""
    row, column = edge_index.cpu().numpy()
    apart = row != column
    row, column = np.concatenate([row[apart], column[apart]]), np.concatenate([column[apart], row[apart]])
    matrix = csr_array(coo_array((np.ones(len(row), dtype=np.int64), (row, column)), shape=(num_nodes, num_nodes)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _clustering(matrix: csr_array, degree: np.ndarray[Any, Any], sample: int | None) -> float:
    """Mean local clustering coefficient, of all nodes or of a sample."""
    if not len(degree):
        return 0.0
    nodes = np.arange(len(degree))
    if sample is not None and sample < len(nodes):
        nodes = np.sort(np.random.default_rng(0).choice(len(nodes), sample, replace=False))
    triangles = np.zeros(len(nodes))
    for start in range(0, len(nodes), 4096):  # products of a few rows at a time: hubs would fill the memory
        part = matrix[nodes[start : start + 4096]]
        triangles[start : start + 4096] = (part @ matrix).multiply(part).sum(axis=1) / 2
    pairs = degree[nodes] * (degree[nodes] - 1) / 2
    return float(np.divide(triangles, pairs, out=np.zeros(len(nodes)), where=pairs > 0).mean())
