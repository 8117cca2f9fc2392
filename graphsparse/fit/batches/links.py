"""`LinkTask` in batches: pairs of nodes, and the neighbourhoods of their ends."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.fit.batches.cut import Cutter
from graphsparse.fit.batches.nodes import exact_outputs
from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.batches.seeds import Epoch, new_epoch, own_part
from graphsparse.fit.distill import Distill
from graphsparse.fit.link_task import LinkSession, LinkTask

_STEPS_AT_ONCE = 256  # whose negative pairs are drawn together


class SampledLinks(LinkSession):
    """`LinkTask` in training by batches of links: as many negative pairs, and what is drawn around their ends.

    Embeddings of all nodes are made for evaluation only, layer by layer.
    """

    def __init__(
        self, task: LinkTask, batches: Batches, model: nn.Module, device: torch.device, distill: Distill | None
    ) -> None:
        super().__init__(task, model, distill)
        assert task.x is not None  # `LinkTask.in_batches` sees to it
        self.batches, self.device = batches, device
        self.generator = torch.Generator()
        self.cutter = Cutter(model, task.x, task.edge_index, task.edge_data, task.num_nodes, batches)

    def _embed(self) -> Tensor:
        return exact_outputs(self.model, self.arguments.to(self.device))

    def losses(self) -> Iterator[Tensor]:
        self.model.train()
        epoch = new_epoch(self.batches, [torch.arange(self.task.training_links.size(1))], self.generator)
        for first in range(0, len(epoch.steps), _STEPS_AT_ONCE):
            yield from self._of_steps(epoch, range(first, min(first + _STEPS_AT_ONCE, len(epoch.steps))))

    def _of_steps(self, epoch: Epoch, numbers: range) -> Iterator[Tensor]:
        pairs = [self._pairs(epoch, number) for number in numbers]
        ends = [torch.unique(each) for each in pairs]
        stream = epoch.stream + numbers.start
        for number, each, (seeds, z) in zip(
            numbers, pairs, self.cutter.outputs(ends, stream, self.device), strict=True
        ):
            if not len(seeds):
                yield z.sum() * 0
                continue
            yield self._loss(z, torch.searchsorted(seeds, each).to(self.device), each, len(epoch.wholes[number]))

    def _pairs(self, epoch: Epoch, number: int) -> Tensor:
        """The links of a step, then as many pairs that are none: the same whoever draws them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((epoch.stream + 2 * number + 1) % 2**63)
            negative = own_part(self.task.negatives.draw(len(epoch.wholes[number])), dim=1)
        links = self.task.training_links.cpu()[:, epoch.steps[number]]
        return torch.cat([links, negative], dim=1)

    def _loss(self, z: Tensor, pairs: Tensor, ids: Tensor, size: int) -> Tensor:
        """The share of these pairs in the loss of the step; `pairs` are places in `z`, `ids` nodes of the graph."""
        logits, count = self.task.decode(self.model, z, pairs), pairs.size(1) // 2
        targets = torch.zeros_like(logits)
        targets[:count] = 1
        loss = 2 * functional.binary_cross_entropy_with_logits(logits, targets)
        if self.distill is not None:
            loss = loss + self.distill.term(logits[:, None], self._taught(ids.to(self.teacher.device))[:, None].to(z))
        return loss * (count / size)

    def generators(self) -> list[torch.Generator]:
        return [self.generator]
