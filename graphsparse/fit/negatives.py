"""Pairs that are no links, drawn for training."""

from __future__ import annotations

import torch
from torch import Tensor


class NegativePairs:
    """Uniform pairs of different nodes that are not among the known ones, as OGB's examples draw them.

    Pairs that are known are drawn again, so the count is exact; a pair may come twice (in OGB's dense sampler it does
    not). Random numbers come from torch's generator of the CPU, which `fit` seeds.

    Args:
        known: arcs [2, M] that are never drawn: both directions of a link that has none.
        num_nodes: nodes are 0 ... num_nodes - 1.

    Raises:
        ValueError: if every pair is known.

    Example:
        >>> pairs = NegativePairs(torch.tensor([[0, 1, 2], [1, 0, 0]]), num_nodes=3)
        >>> sorted(set(map(tuple, pairs.draw(100).t().tolist())))
        [(0, 2), (1, 2), (2, 1)]
    """

    def __init__(self, known: Tensor, num_nodes: int) -> None:
        known = known.detach().cpu().long()
        self.num_nodes = num_nodes
        self.known = torch.unique(known[0] * num_nodes + known[1])
        loops = int((self.known % (num_nodes + 1) == 0).sum())  # the key of (v, v) is v * (N + 1)
        self.free = num_nodes * (num_nodes - 1) - (len(self.known) - loops)
        if self.free < 1:
            raise ValueError("every pair of nodes is a link, so there are no negative pairs to learn from")

    def draw(self, count: int) -> Tensor:
        """New pairs int64 [2, count] on the CPU."""
        found = [torch.empty(2, 0, dtype=torch.long)]
        missing = count
        while missing > 0:
            tries = int(missing * self.num_nodes**2 / self.free) + 16
            pairs = torch.randint(self.num_nodes, (2, tries))
            keys = pairs[0] * self.num_nodes + pairs[1]
            pairs = pairs[:, (pairs[0] != pairs[1]) & ~self._contains(keys)][:, :missing]
            found.append(pairs)
            missing -= pairs.size(1)
        return torch.cat(found, dim=1)

    def _contains(self, keys: Tensor) -> Tensor:
        if not len(self.known):
            return torch.zeros_like(keys, dtype=torch.bool)
        at = torch.searchsorted(self.known, keys).clamp_(max=len(self.known) - 1)
        found: Tensor = self.known[at] == keys
        return found
