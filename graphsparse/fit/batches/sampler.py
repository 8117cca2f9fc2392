"""Neighbourhoods drawn from one graph, the same for a seed in any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.sampler import BaseSampler, EdgeSamplerInput, NodeSamplerInput, SamplerOutput

from graphsparse.parallel import over_slices

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Incoming:
    """The arcs of a graph, arranged by their head; those of a head in the order of the list.

    Attributes:
        first: where the arcs of each head begin [N + 1], int64; the last entry is E.
        sources: the tail of each arranged arc [E].
        positions: its place in the list [E].

    Example:
        >>> arcs = Incoming.of(torch.tensor([[0, 2, 1], [1, 0, 0]]), num_nodes=3)
        >>> arcs.first.tolist(), arcs.sources.tolist(), arcs.positions.tolist()
        ([0, 2, 3, 3], [2, 1, 0], [1, 2, 0])
    """

    first: npt.NDArray[np.int64]
    sources: Ints
    positions: Ints

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> Incoming:
        """Arrange arcs [2, E] between nodes 0 ... num_nodes - 1."""
        from graphsparse.fit.batches import kernels

        tails, heads = (ends.contiguous().numpy() for ends in edge_index.detach().cpu())
        first = np.zeros(num_nodes + 1, np.int64)
        np.cumsum(np.bincount(heads, minlength=num_nodes), out=first[1:])
        kind: type[np.int32] | type[np.int64] = np.int32 if max(num_nodes, len(heads)) < 2**31 else np.int64
        sources, positions = np.empty(len(heads), kind), np.empty(len(heads), kind)
        kernels.place(tails, heads, first[:-1].copy(), sources, positions)
        return cls(first, sources, positions)

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.first) - 1

    @property
    def degrees(self) -> npt.NDArray[np.int64]:
        """Arcs that lead to each node [N]."""
        return np.diff(self.first)


class NeighborhoodSampler(BaseSampler):  # type: ignore[misc]
    """Draws in-neighbours of seed nodes, hop by hop: what PyG's ``NodeLoader`` asks for its batches.

    What is drawn for a node depends on `seed` and on the node's id, not on the batch, the process, or the order of the
    work. With equal numbers at all hops a node has the same neighbours in every batch of a seed. The nodes of a batch
    begin with its seed nodes, in their order; its arcs are sorted by their head.

    Args:
        edge_index: arcs [2, E], or arranged ones.
        num_nodes: N.
        neighbors: how many in-neighbours at each hop at most; -1 is all.
        replace: draw with replacement: then exactly so many, where there is one; all are taken once.
        seed: another one for each epoch.

    Source: Hamilton, Ying, Leskovec, "Inductive representation learning on large graphs", NeurIPS 2017.

    Example:
        >>> ring = torch.stack([torch.arange(5), torch.arange(1, 6) % 5])
        >>> found = NeighborhoodSampler(ring, 5, (1, 1)).sample_from_nodes(NodeSamplerInput(None, torch.tensor([3])))
        >>> found.node.tolist(), found.row.tolist(), found.col.tolist(), found.edge.tolist()
        ([3, 2, 1], [1, 2], [0, 1], [2, 1])
    """

    def __init__(
        self,
        edge_index: Tensor | Incoming,
        num_nodes: int,
        neighbors: Sequence[int],
        *,
        replace: bool = False,
        seed: int = 0,
    ) -> None:
        self.arcs = edge_index if isinstance(edge_index, Incoming) else Incoming.of(edge_index, num_nodes)
        self.neighbors, self.replace, self.seed = tuple(neighbors), replace, seed
        self._local = np.full(num_nodes, -1, np.int32 if num_nodes < 2**31 else np.int64)

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """The neighbourhood of distinct seed nodes, as PyG has it."""
        from graphsparse.fit.batches import kernels

        known = len(index.node)
        nodes = index.node.numpy().astype(np.int64)
        self._local[nodes] = np.arange(known)
        rows, cols, slots, new = [], [], [], 0
        num_nodes, num_arcs = [known], list[int]()
        try:
            for wanted in self.neighbors:
                targets = nodes[new:known]
                out_first = self._places(targets, wanted)
                drawn = np.empty(out_first[-1], np.int64)
                seed = np.uint64(self.seed % 2**64)
                step = partial(kernels.draw, nodes=targets, first=self.arcs.first, out_first=out_first)
                over_slices(partial(step, replace=self.replace and wanted >= 0, seed=seed, slots=drawn), len(targets))
                nodes = np.concatenate([nodes[:known], np.empty(len(drawn), np.int64)])
                row = np.empty(len(drawn), np.int64)
                cols.append(np.repeat(np.arange(new, known), np.diff(out_first)))
                new, known = known, kernels.number(drawn, self.arcs.sources, self._local, nodes, known, row)
                rows.append(row)
                slots.append(drawn)
                num_nodes.append(known - new)
                num_arcs.append(len(drawn))
        finally:
            self._local[nodes[:known]] = -1
        return SamplerOutput(
            node=torch.from_numpy(nodes[:known].copy()),
            row=torch.from_numpy(np.concatenate(rows)),
            col=torch.from_numpy(np.concatenate(cols)),
            edge=torch.from_numpy(self.arcs.positions[np.concatenate(slots)].astype(np.int64)),
            num_sampled_nodes=num_nodes,
            num_sampled_edges=num_arcs,
            metadata=(index.input_id, index.time),
        )

    def sample_from_edges(self, index: EdgeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """Not offered: links are batches of the nodes at their ends."""
        raise NotImplementedError("sample the nodes at the ends of links: sample_from_nodes")

    def _places(self, targets: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
        """Where the draws of each target go [M + 1]."""
        counts = self.arcs.first[targets + 1] - self.arcs.first[targets]
        if wanted >= 0 and self.replace:
            counts = np.where(counts > 0, wanted, 0)
        elif wanted >= 0:
            counts = np.minimum(counts, wanted)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
