"""From seed nodes to a model's outputs for them: the batch is drawn, cut out of the graph, and called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.fit.batches.degrees import WholeDegrees
from graphsparse.fit.batches.loader import Neighborhoods
from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.checks import check_rows
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_call import GraphCall


class Cutter:
    """The batches of one graph for one model.

    Args:
        model: called as the task calls it.
        x: features of all nodes [N, F]; they stay where they are, batches go to the model's device.
        edge_index: arcs [2, E].
        edge_data: what they carry.
        num_nodes: N.
        batches: how they are drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        edge_index: Tensor,
        edge_data: EdgeData,
        num_nodes: int,
        batches: Batches,
    ) -> None:
        self.model, self.x, self.edge_data, self.call = model, x, edge_data, GraphCall(model)
        self.around = Neighborhoods(edge_index, num_nodes, batches)
        weight = edge_data.edge_weight if self.call.forward.takes("edge_weight") else None
        self.degrees = WholeDegrees(model, edge_index, weight, num_nodes)

    def outputs(self, steps: Sequence[Tensor], stream: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """For each step its seed nodes [B] and the model's outputs for them [B, D].

        Args:
            steps: distinct nodes; a step without any (another process has some) gives outputs without rows.
            stream: of the draws.
            device: where the model is.
        """
        whole = [step for step in steps if len(step)]
        loader = iter(self.around.around(whole, stream)) if whole else iter(())
        for seeds in steps:
            yield seeds, (self._of(next(loader), len(seeds), device) if len(seeds) else _nothing(self.model))

    def _of(self, batch: Data, count: int, device: torch.device) -> Tensor:
        nodes, arcs = batch.n_id, batch.edge_index
        x = self.x.index_select(0, nodes.to(self.x.device))
        carried = self.edge_data.take(batch.e_id) if self.edge_data else self.edge_data
        arguments = self.call.arguments(x, arcs, carried).to(device)
        clear_graph_caches(self.model)
        with self.degrees.used_in(nodes, arguments.edge_index, arguments.named.get("edge_weight")):
            outputs = arguments.run(self.model)
        return check_rows(outputs, len(nodes))[:count]


def _nothing(model: nn.Module) -> Tensor:
    """Outputs of no node, on which gradients can be asked for: they are zero."""
    used = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    return used.view(-1)[:1].view(1, 1)[:0]
