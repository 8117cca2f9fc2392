"""Any graph in, one inner form, the same kind of graph out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True)
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
    names: npt.NDArray[np.uint64] | None = None

    @property
    def num_edges(self) -> int:
        """Number of listed edges E (columns of ``edge_index``)."""
        return int(self.edge_index.size(1))
