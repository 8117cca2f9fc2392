"""Many small graphs as one: a disjoint union, from which batches are cut by index."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.fit.edge_data import EdgeData

Inputs = tuple[Tensor, Tensor, EdgeData, Tensor]


@dataclass(frozen=True, eq=False)
class Union:
    """Graphs side by side; the nodes and the edges of a graph lie together.

    Attributes:
        x: features of all nodes [N, ...].
        edge_index: arcs [2, E] between nodes of the union.
        edge_data: what all arcs carry.
        first_node: where the nodes of each graph begin [G + 1], the last entry is N.
        first_edge: where its arcs begin [G + 1].
    """

    x: Tensor
    edge_index: Tensor
    edge_data: EdgeData
    first_node: Tensor
    first_edge: Tensor

    @classmethod
    def of(cls, x: Tensor, edge_index: Tensor, edge_data: EdgeData, batch: Tensor, num_graphs: int) -> Union:
        """Arrange arcs, which may come in any order, by graph.

        Args:
            x: [N, ...].
            edge_index: [2, E], each arc within a graph.
            edge_data: a row for each arc.
            batch: the graph of each node [N], ascending.
            num_graphs: G.
        """
        graph = batch[edge_index[0].long()]
        if bool((graph[1:] < graph[:-1]).any()):
            order = torch.argsort(graph, stable=True)
            edge_index, graph, edge_data = edge_index[:, order], graph[order], edge_data.take(order)
        return cls(x, edge_index.long(), edge_data, _starts(batch, num_graphs), _starts(graph, num_graphs))

    def take(self, graphs: Tensor) -> Inputs:
        """The union of some graphs, in the order given: x, edge_index, edge data and the graph of each node.

        Example:
            >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
            >>> union = Union.of(torch.arange(4.0), edge_index, EdgeData(), torch.tensor([0, 0, 1, 1]), 2)
            >>> x, arcs, _, batch = union.take(torch.tensor([1]))
            >>> x.tolist(), arcs.tolist(), batch.tolist()
            ([2.0, 3.0], [[0, 1], [1, 0]], [0, 0])
        """
        nodes, batch = _ranges(self.first_node, graphs)
        edges, graph = _ranges(self.first_edge, graphs)
        sizes = self.first_node[graphs + 1] - self.first_node[graphs]
        shift = sizes.cumsum(0) - sizes - self.first_node[graphs]
        edge_index = self.edge_index.index_select(1, edges) + shift[graph]
        return self.x.index_select(0, nodes), edge_index, self.edge_data.take(edges), batch

    def to(self, device: torch.device | str) -> Union:
        """The same on `device`."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, (Tensor, EdgeData)):
                object.__setattr__(other, name, value.to(device))
        return other


def find_arcs(edge_index: Tensor, arcs: Tensor, num_nodes: int) -> Tensor:
    """The position of each of some arcs [2, M] in `edge_index` [2, E]; the k-th of some copies is the k-th there.

    Raises:
        ValueError: if an arc is not there, or not that often, or some but not all copies of an arc are asked for.

    Example:
        >>> find_arcs(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([[2, 0], [0, 1]]), num_nodes=3)
        tensor([2, 0])
    """
    own, wanted = (pairs[0].long() * num_nodes + pairs[1] for pairs in (edge_index, arcs))
    own_order, order = torch.argsort(own, stable=True), torch.argsort(wanted, stable=True)
    own, wanted = own[own_order], wanted[order]
    begin, end = torch.searchsorted(wanted, wanted), torch.searchsorted(wanted, wanted, right=True)
    first, after = torch.searchsorted(own, wanted), torch.searchsorted(own, wanted, right=True)
    number = torch.arange(len(wanted), device=wanted.device) - begin
    beyond = (first + number >= after).nonzero()
    if len(beyond):
        u, v = arcs[:, order[int(beyond[0])]].tolist()
        raise ValueError(f"({u}, {v}) is not an edge of the task's graphs, or not that often")
    if bool((end - begin < after - first).any()):
        raise ValueError("some copies of a parallel edge are left out: say which edges stay with with_mask")
    positions = torch.empty_like(order)
    positions[order] = own_order[first + number]
    return positions


def _starts(graph: Tensor, num_graphs: int) -> Tensor:
    """Where each graph begins in an ascending list of graph numbers [M]: [G + 1]."""
    return torch.searchsorted(graph.contiguous(), torch.arange(num_graphs + 1, device=graph.device, dtype=graph.dtype))


def _ranges(first: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The positions first[g] ... first[g + 1] - 1 of each chosen g in turn, and which of the chosen each belongs to."""
    sizes = first[chosen + 1] - first[chosen]
    which = torch.repeat_interleave(torch.arange(len(chosen), device=first.device), sizes)
    before = sizes.cumsum(0) - sizes
    positions = torch.arange(len(which), device=first.device) + (first[chosen] - before)[which]
    return positions, which
