"""What a ticket saves and costs: multiply-accumulates, and the nodes that it isolates."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear as PygLinear

from graphsparse.fit.measure import evaluating


def macs(model: nn.Module, *inputs: Any) -> int:
    r"""Multiply-accumulates of one forward pass that skips absent edges and zero weights.

    Every linear map counts :math:`rows \cdot \mathrm{nnz}(W)`, every message-passing layer the elements of its
    messages (one weighted sum each). Pointwise functions, norms and attention scores are left out; a zero input
    feature counts as a number.

    Args:
        model: called as ``model(*inputs)``.
        inputs: such as node features ``[N, F]``, dense, and ``edge_index`` ``[2, E]``.

    Example:
        >>> lin = torch.nn.Linear(4, 2, bias=False)
        >>> class Net(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.lin = lin
        ...     def forward(self, x, edge_index):
        ...         return self.lin(x)
        >>> macs(Net(), torch.ones(3, 4), torch.empty(2, 0, dtype=torch.long))
        24
    """
    counts: list[int] = []

    def linear(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(output.numel() // max(output.size(-1), 1) * int(module.weight.count_nonzero()))

    def message(module: Any, inputs: Any, output: Tensor) -> None:
        counts.append(output.numel())

    with ExitStack() as stack, torch.no_grad(), evaluating(model):
        for module in model.modules():
            if isinstance(module, (nn.Linear, PygLinear)):
                stack.callback(module.register_forward_hook(linear).remove)
            elif isinstance(module, MessagePassing):
                stack.callback(module.register_message_forward_hook(message).remove)
        model(*inputs)
    return sum(counts)


def isolated_nodes(edge_index: Tensor, num_nodes: int) -> int:
    """Number of nodes without a neighbour; a self-loop is no neighbour.

    Example:
        >>> isolated_nodes(torch.tensor([[0, 1, 2], [1, 0, 2]]), 4)
        2
    """
    linked = torch.zeros(num_nodes, dtype=torch.bool, device=edge_index.device)
    between = edge_index[:, edge_index[0] != edge_index[1]]
    linked[between.reshape(-1)] = True
    return num_nodes - int(linked.sum())
