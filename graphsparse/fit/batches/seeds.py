"""The order of an epoch: which nodes (links, graphs) are learned from in which step, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse import ranks
from graphsparse.fit.batches.plan import Batches


@dataclass(frozen=True)
class Epoch:
    """The steps of an epoch.

    Attributes:
        stream: what draws in the epoch depend on.
        steps: for each step the ids that this process learns from.
        wholes: the ids that all processes together learn from in each step.
        total: steps that would take every id once.
    """

    stream: int
    steps: list[Tensor]
    wholes: list[Tensor]
    total: int


def new_epoch(batches: Batches, groups: Sequence[Tensor], generator: torch.Generator) -> Epoch:
    """Shuffle ids and share them out; every group has its share in each step, and all steps are nearly equal.

    With several processes a step takes `Batches.size` ids for each of them: together they do what one process does with
    batches that are larger by their number.

    Args:
        batches: how large a step is, and how many an epoch has.
        groups: ids [m] of each group; a group may be empty.
        generator: the task's own; one number is drawn from it.

    Example:
        >>> found = new_epoch(Batches(4), [torch.arange(2), torch.arange(10, 17)], torch.Generator().manual_seed(0))
        >>> [len(step) for step in found.steps], sorted(torch.cat(found.steps).tolist())
        ([3, 3, 3], [0, 1, 10, 11, 12, 13, 14, 15, 16])
    """
    stream = int(torch.randint(2**62, (), generator=generator))
    shuffled = torch.Generator().manual_seed(stream)
    every, among = sum(map(len, groups)), ranks.count()
    total = max(-(-every // (batches.size * among)), 1)
    shares = [group[torch.randperm(len(group), generator=shuffled)].tensor_split(total) for group in groups]
    shares[1::2] = [parts[::-1] for parts in shares[1::2]]  # where one group has one more, the next has not
    steps = [torch.cat(parts) for parts in zip(*shares, strict=True)][: batches.steps]
    if among > 1:
        torch.manual_seed((stream + ranks.own()) % 2**63)  # each process has a dropout of its own, that needs no saving
    return Epoch(stream, [own_part(step) for step in steps], steps, total)


def own_part(ids: Tensor, dim: int = 0) -> Tensor:
    """This process's share of what all of them learn from in a step."""
    every, among = torch.arange(ids.size(dim), device=ids.device), ranks.count()
    return ids if among == 1 else ids.index_select(dim, every[ranks.own() :: among])
