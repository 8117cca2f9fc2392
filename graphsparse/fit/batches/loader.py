"""PyG's loader over neighbourhoods: by its own sampler where its libraries are there, else by ours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch_geometric import typing
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import BaseSampler, EdgeSamplerInput, NeighborSampler, NodeSamplerInput, SamplerOutput

from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.batches.sampler import Incoming, NeighborhoodSampler
from graphsparse.hashing import tensor_hash


def sampled_by() -> str:
    """Who draws neighbours on this machine: ``"pyg-lib"`` or ``"torch-sparse"`` where they are installed, else
    ``"graphsparse"``.
    """
    if typing.WITH_PYG_LIB:
        return "pyg-lib"
    return "torch-sparse" if typing.WITH_TORCH_SPARSE else "graphsparse"


class Neighborhoods:
    """Batches of a graph: seed nodes, what is drawn around them, and the arcs between.

    Args:
        edge_index: arcs [2, E].
        num_nodes: N.
        batches: how many neighbours, with or without replacement, and how many processes draw.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int, batches: Batches) -> None:
        self.edge_index, self.num_nodes, self.batches = edge_index.cpu(), num_nodes, batches
        self._sampler: BaseSampler | None = None

    def around(self, steps: Sequence[Tensor], stream: int) -> NodeLoader:
        """A loader that gives for each step a ``Data`` with `n_id` [n] (the seed nodes first, in their order),
        `edge_index` [2, e] by place in `n_id`, and `e_id` [e], positions in the list of arcs.

        Args:
            steps: distinct seed nodes of each step.
            stream: of the draws.
        """
        if self._sampler is None:
            self._sampler = self._new_sampler()
        self._sampler.seed = stream
        ends = list(accumulate(map(len, steps), initial=0))
        return NodeLoader(
            Data(num_nodes=self.num_nodes, edge_index=torch.empty(2, 0, dtype=torch.long)),
            self._sampler,
            input_nodes=torch.cat(list(steps)),
            batch_sampler=[list(range(begin, end)) for begin, end in pairwise(ends)],
            num_workers=self.batches.workers,
            generator=torch.Generator().manual_seed(stream % 2**63),  # else each epoch would draw from the global one
        )

    def _new_sampler(self) -> BaseSampler:
        if sampled_by() != "graphsparse":
            return _SeededSampler(self.edge_index, self.num_nodes, self.batches)
        arcs = Incoming.of(self.edge_index, self.num_nodes)
        return NeighborhoodSampler(arcs, self.num_nodes, self.batches.hops, replace=self.batches.replace)


class _SeededSampler(BaseSampler):  # type: ignore[misc]
    """PyG's ``NeighborSampler``, which draws from torch's global generator, by a seed for each batch."""

    def __init__(self, edge_index: Tensor, num_nodes: int, batches: Batches) -> None:
        data = Data(edge_index=edge_index, num_nodes=num_nodes)
        self.seed, self._inner = 0, NeighborSampler(data, list(batches.hops), replace=batches.replace)

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """The neighbourhood of seed nodes; the global generator is as before."""
        word = int(tensor_hash(index.node)[:15], 16)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed ^ word) % 2**63)
            return self._inner.sample_from_nodes(index, **kwargs)

    def sample_from_edges(self, index: EdgeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """Not offered: links are batches of the nodes at their ends."""
        raise NotImplementedError("sample the nodes at the ends of links: sample_from_nodes")

    @property
    def edge_permutation(self) -> Tensor | None:
        """Where PyG has put each arc."""
        found: Tensor | None = self._inner.edge_permutation
        return found
