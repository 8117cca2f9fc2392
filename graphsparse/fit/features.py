"""Sparse features, but only for models that are shown to give the same with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphsparse.fit.rng import preserved
from graphsparse.products import quick_linear, quietly

# Above this fill a dense product with its backward pass is as fast as the sparse one (measured on 1 CPU core): torch's
# own sparse one, and that of our loops, which do the linear maps of any module on the CPU.
MAX_DENSITY, MAX_DENSITY_OF_LOOPS = 0.05, 0.2


def clear_graph_caches(model: nn.Module) -> None:
    """Make PyG layers with ``cached=True`` forget their graph, as must happen whenever the graph changes.

    Such a layer would otherwise run every later graph, a sparsified one too, as the first it saw.
    """
    for module in model.modules():
        if not isinstance(module, MessagePassing):
            continue
        for name in vars(module):
            if name.startswith("_cached_"):
                setattr(module, name, None)


def run(model: nn.Module, *inputs: Any, **named: Any) -> Any:
    """What the model returns, its linear maps of sparse features in their quickest form."""
    with quick_linear(inputs[0]):
        return model(*inputs, **named)


def features_for(model: nn.Module, x: Tensor, edge_index: Tensor, **named: Any) -> Tensor:
    """`x` as sparse CSR if it is sparse and `model` takes it so with equal results; else `x` itself.

    The model is tried once in training mode with a backward pass (its first layer may be a dropout that
    refuses sparse input only then) and once in evaluation mode against the dense result. Random state,
    modes, gradients and buffers are as before afterwards.

    Args:
        model: called as ``model(x, edge_index, **named)``.
        x: dense features [N, F] on the model's device.
        edge_index: arcs [2, E].
        named: what else the model takes.
    """
    density = int(torch.count_nonzero(x)) / x.numel() if x.numel() else 1.0
    if density > MAX_DENSITY_OF_LOOPS:
        return x
    with quietly():
        sparse = x.to_sparse_csr()
    with preserved(x.device), _untouched(model):
        try:
            model.train()
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            with quick_linear(sparse) as loops:
                outputs = model(sparse, edge_index, **named)
            if density > MAX_DENSITY and not (loops is not None and loops.served):
                return x
            if trained:
                torch.autograd.grad(outputs.sum(), trained, allow_unused=True)
            clear_graph_caches(model)
            model.eval()
            with torch.no_grad():
                outputs = run(model, sparse, edge_index, **named)
        except Exception:
            return x  # the dense path is always right; what the model cannot do is no error
        clear_graph_caches(model)
        with torch.no_grad():
            expected = model(x, edge_index, **named)
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        same = outputs.shape == expected.shape and outputs.layout == expected.layout
        return sparse if same and torch.allclose(outputs, expected, rtol=1e-4, atol=1e-5 * scale) else x


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Modes, buffers and graph caches of the model are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        clear_graph_caches(model)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
