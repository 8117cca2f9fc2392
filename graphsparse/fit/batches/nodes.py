"""`NodeTask` in batches: steps on sampled neighbourhoods, figures on the whole graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphsparse import ranks
from graphsparse.fit.batches.chunks import in_chunks
from graphsparse.fit.batches.cut import Cutter
from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.batches.seeds import Epoch, new_epoch
from graphsparse.fit.checks import check_rows
from graphsparse.fit.distill import Distill
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_call import Arguments, GraphCall
from graphsparse.fit.task import Evaluation

if TYPE_CHECKING:
    from graphsparse.fit.node_task import NodeTask


class SampledNodes:
    """`NodeTask` in training by batches of nodes.

    The loss of a step is an estimate of that of the whole graph: the mean over its labelled nodes and the mean over its
    distilled ones, each weighted so that over an epoch all nodes count alike. Nodes of a batch that are no seeds give
    messages only. The graph keeps its numbers: in an inductive task test nodes stay in the list, without any arc.
    """

    def __init__(
        self, task: NodeTask, batches: Batches, model: nn.Module, device: torch.device, distill: Distill | None
    ) -> None:
        self.task, self.batches, self.model, self.device, self.distill = task, batches, model, device, distill
        self.call = GraphCall(model)
        clear_graph_caches(model)
        self.training_nodes = task.training_nodes.cpu()
        self.generator = torch.Generator()
        self.is_labelled = task.masks["train"].cpu()
        self.is_distilled = torch.zeros_like(self.is_labelled)
        if distill is not None:
            self.is_distilled = distill.mask(task.num_nodes) & task.seen_in_training.cpu()
            if not bool(self.is_distilled.any()):
                raise ValueError("no node of the training graph is left to distil")
            self.teacher = distill.logits.detach()
        self.train_arcs, self.train_edge_data = task.edge_index, task.edge_data
        if task.protocol == "inductive":
            inside = task.training_edges
            self.train_arcs = task.edge_index[:, inside]
            self.train_edge_data = task.edge_data.take(inside.nonzero().view(-1))
        self._cutter: Cutter | None = None

    def losses(self) -> Iterator[Tensor]:
        if self._cutter is None:
            self._cutter = Cutter(
                self.model, self.task.x, self.train_arcs, self.train_edge_data, self.task.num_nodes, self.batches
            )
        self.model.train()
        groups = [self.is_labelled.nonzero().view(-1), (self.is_distilled & ~self.is_labelled).nonzero().view(-1)]
        epoch = new_epoch(self.batches, groups, self.generator)
        for seeds, outputs in self._cutter.outputs(epoch.steps, epoch.stream, self.device):
            yield self._loss(epoch, seeds, outputs)

    def _loss(self, epoch: Epoch, seeds: Tensor, outputs: Tensor) -> Tensor:
        loss = outputs.sum() * 0
        task, rows = self.task, self.is_labelled[seeds]
        if task.custom_loss is None:
            task.check_columns(outputs.size(1))
        if bool(rows.any()):
            own = seeds[rows]
            share = epoch.total * self._known(own) / max(self._known(self.is_labelled.nonzero().view(-1)), 1)
            loss = loss + share * task.loss(
                outputs[rows.to(self.device)], task.y[own.to(task.y.device)].to(self.device)
            )
        rows = self.is_distilled[seeds]
        if self.distill is not None and bool(rows.any()):
            own = seeds[rows]
            share = epoch.total * len(own) / int(self.is_distilled.sum())
            teacher = self.teacher[own.to(self.teacher.device)].to(self.device)
            loss = loss + share * self.distill.term(outputs[rows.to(self.device)], teacher)
        return loss

    def _known(self, nodes: Tensor) -> int:
        """How many targets some nodes have."""
        if self.task.outputs != "labels":
            return len(nodes)
        return int((~self.task.y[nodes.to(self.task.y.device)].isnan()).sum())

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        self.model.eval()
        outputs = self._whole(self.train_arcs, self.train_edge_data)
        rows = self.task.masks["val"].cpu()
        y = self.task.y[rows.to(self.task.y.device)].to(self.device)
        return Evaluation(self.task.judge(outputs[rows.to(self.device)], y), lambda: self._finish(outputs))

    @torch.no_grad()
    def _finish(self, outputs: Tensor) -> tuple[float, Tensor]:
        if self.task.protocol == "inductive":
            everywhere = self._whole(self.task.edge_index, self.task.edge_data)
            nodes = self.training_nodes.to(self.device)
            outputs = everywhere.index_copy(0, nodes, outputs[nodes])
        return self.task.score(outputs, "test"), outputs

    def _whole(self, arcs: Tensor, edge_data: EdgeData) -> Tensor:
        found = self.call.arguments(self.task.x, arcs, edge_data).to(self.device)
        return exact_outputs(self.model, found)

    def generators(self) -> list[torch.Generator]:
        return [self.generator]


def exact_outputs(model: nn.Module, arguments: Arguments) -> Tensor:
    """A model's outputs on a whole graph [N, D], its messages in chunks; the same in all processes."""
    clear_graph_caches(model)
    with torch.no_grad(), in_chunks(model):
        outputs = arguments.run(model)
    clear_graph_caches(model)
    return ranks.of_first(check_rows(outputs, len(arguments.places[0])))
