"""Least squares after pruning: the weights that stay take over what the dropped channels did, layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from graphsparse.fit import Task
from graphsparse.fit.call import joined
from graphsparse.metanet.channels.budget import LAYERS, TRANSPOSED
from graphsparse.metanet.channels.cutting import output_nodes
from graphsparse.metanet.channels.sets import check_mask, masked
from graphsparse.metanet.graph import NetworkGraph

Inputs = Any


def reconstruct(
    graph: NetworkGraph,
    keep: Tensor,
    task: Task,
    *,
    inputs: Inputs = None,
    examples: int = 1024,
    samples: int = 8192,
    ridge: float = 0.01,
) -> NetworkGraph:
    r"""The network with the weights between kept channels refitted, so that each layer gives again what it gave.

    In the order of the forward pass, each linear layer and convolution gets the kernels (and bias)

    .. math:: \arg\min_{W'} \sum_r \|W' x'_r - W x_r\|^2 + \lambda \|W' - W\|^2

    where :math:`x` are its inputs in the whole network, :math:`x'` those in the network of kept channels (with the
    layers before it refitted), and :math:`\lambda` is ``ridge`` times the mean square of an input. Outputs that a batch
    norm takes up are compared up to a constant. No labels are used. Transposed convolutions, layers that are called
    more than once, and weights that are used outside of ``nn.Linear`` and ``nn.Conv*d`` stay as they are; so do dropped
    channels: see `masked` and `shrink`.

    Args:
        graph: the network.
        keep: bool ``[num_nodes]``, which channels stay.
        task: calls the network, on training examples.
        inputs: what to call it on; None takes the first ``examples`` of the training part.
        examples: how many.
        samples: examples (times positions) that each layer is fitted to, drawn at random.
        ridge: strength of the penalty, above 0.

    Raises:
        ValueError: ``keep`` is no mask of this graph, or an option is out of range.

    Source: "Channel Pruning for Accelerating Very Deep Neural Networks" (He, Zhang, Sun, ICCV 2017), its second step;
    the penalty towards the old weights and the statistics of batch norms are ours.

    Example:
        >>> net = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        >>> _ = net[0].weight.data.fill_(1.0), net[1].weight.data.fill_(1.0)  # two equal channels
        >>> x, y = torch.rand(64, 2), torch.zeros(64)
        >>> task = Task((x, y), (x, y), (x, y))
        >>> graph = NetworkGraph.from_module(nn.Sequential(*net), x)
        >>> keep = torch.tensor([1, 1, 1, 0, 1]).bool()  # nodes: two inputs, two channels, one output
        >>> reconstruct(graph, keep, task, ridge=1e-6).to_module()[1].weight.data.round(decimals=3)
        tensor([[2., 1.]])
    """
    check_mask(graph, keep)
    if not ridge > 0 or examples < 1 or samples < 1:
        raise ValueError(f"ridge, examples and samples must be above 0, got {ridge}, {examples} and {samples}")
    fitted = graph.once(_fitted_layers)
    inputs = calibration(task, examples, graph.layer.device) if inputs is None else inputs
    wide, small = graph.to_module(), masked(graph, keep).to_module()
    with torch.no_grad():
        targets = _outputs(wide, task, inputs, fitted, samples)
        _refit(small, task, inputs, fitted, keep, targets, ridge)
        refitted = graph.with_module(small)
    edges = {
        kernel: torch.where((keep[e.src] & keep[e.dst]).unsqueeze(1), refitted.edges[kernel].values, e.values)
        for kernel, e in graph.edges.items()
    }
    biases = {
        name: torch.where(keep[bank.nodes].unsqueeze(1), refitted.banks[name].values, bank.values)
        for name, bank in graph.banks.items()
        if name.split(".")[0] == "bias"
    }
    return graph.with_values(edges, biases)


def calibration(task: Task, examples: int, device: torch.device) -> Inputs:
    """Inputs of the first training examples, in one piece; the first batch's where they are no plain tensors."""
    first = next(task.batches("train", device)).inputs
    leaves = pytree.tree_leaves(first)
    if not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves) or not leaves:
        return first
    batches = -(-examples // max(1, len(leaves[0])))
    parts = [batch.inputs for batch in islice(task.batches("train", device), batches)]
    return pytree.tree_map(lambda part: part[:examples], joined(parts))


def batch_statistics(module: nn.Module) -> nn.Module:
    """Put the batch norms of a module, and nothing else, into training mode."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
    return module


class _Fitted(NamedTuple):
    """A layer in the graph: the node of each of its outputs, and whether a batch norm follows."""

    nodes: Tensor
    normed: bool


def _fitted_layers(graph: NetworkGraph) -> dict[str, _Fitted]:
    found = {}
    for name, layer in graph.to_module().named_modules():
        if not isinstance(layer, LAYERS) or isinstance(layer, TRANSPOSED) or parametrize.is_parametrized(layer):
            continue
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.padding_mode != "zeros":
            continue
        uses = output_nodes(graph, layer, name) if "weight" in layer._parameters else []
        if len(uses) == 1:
            nodes = uses[0].to(graph.layer.device)
            normed = any(
                bool(torch.isin(nodes, bank.nodes).all())
                for bank_name, bank in graph.banks.items()
                if bank_name.startswith("running_mean")
            )
            found[name] = _Fitted(nodes, normed)
    return found


Hook = Callable[..., None]


def _call(module: nn.Module, task: Task, inputs: Inputs, hooks: dict[str, Hook], *, before: bool) -> None:
    """One forward pass with batch norms on the batch's statistics and a hook on each of these layers."""
    batch_statistics(module.eval())
    layers = dict(module.named_modules())
    handles = [
        layers[name].register_forward_pre_hook(hook) if before else layers[name].register_forward_hook(hook)
        for name, hook in hooks.items()
    ]
    try:
        task.forward(module, inputs)
    finally:
        for handle in handles:
            handle.remove()


_Sample = tuple[Tensor, Tensor]  # which examples (times positions), and the layer's outputs there


def _outputs(
    wide: nn.Module, task: Task, inputs: Inputs, fitted: dict[str, _Fitted], samples: int
) -> dict[str, _Sample]:
    """Outputs of each layer that is called once, at samples drawn at random."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[_Sample]] = {name: [] for name in fitted}

    def hook(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if len(args) != 1:  # called by keyword: there is nothing to refit to
            return
        y = output.movedim(1, -1) if isinstance(layer, nn.modules.conv._ConvNd) else output
        y = y.reshape(-1, y.shape[-1])
        if len(y) > samples:
            chosen = torch.randint(len(y), (samples,), generator=generator).to(y.device)
        else:
            chosen = torch.arange(len(y), device=y.device)
        found[name].append((chosen, y[chosen]))

    _call(wide, task, inputs, {name: functools.partial(hook, name) for name in fitted}, before=False)
    return {name: targets[0] for name, targets in found.items() if len(targets) == 1}


def _refit(
    small: nn.Module,
    task: Task,
    inputs: Inputs,
    fitted: dict[str, _Fitted],
    keep: Tensor,
    targets: dict[str, _Sample],
    ridge: float,
) -> None:
    """Refit each layer in place just before it is called, so that the layers after it see its new outputs."""

    def hook(name: str, layer: Any, args: tuple[Tensor, ...]) -> None:
        (nodes, normed), (chosen, y) = fitted[name], targets[name]
        groups = int(getattr(layer, "groups", 1))
        x = _by_group(_patches(layer, args[0], chosen), groups)  # [groups, samples, inputs]
        y = _by_group(y, groups)
        old = layer.weight.flatten(1).reshape(groups, -1, x.shape[2])  # [groups, outputs, inputs]
        constant = normed or layer.bias is not None
        x_mean, y_mean = (t.mean(1, keepdim=True) * constant for t in (x, y))
        new = old + _least_squares(x - x_mean, y - y_mean, old, ridge)
        stays = keep[nodes]
        weight = torch.where(stays[:, None], new.flatten(0, 1), layer.weight.flatten(1))
        layer.weight.copy_(weight.view_as(layer.weight))
        if layer.bias is not None:
            bias = (y_mean.squeeze(1) - (new @ x_mean.transpose(1, 2)).squeeze(2)).flatten()
            layer.bias.copy_(torch.where(stays, bias, layer.bias))

    _call(small, task, inputs, {name: functools.partial(hook, name) for name in targets}, before=True)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """Columns split into groups: ``[samples, groups * n]`` to ``[groups, samples, n]``."""
    return values.reshape(len(values), groups, -1).transpose(0, 1)


def _least_squares(x: Tensor, y: Tensor, old: Tensor, ridge: float) -> Tensor:
    """The change of the weights ``old`` that brings ``x`` times them nearest to ``y``, for each group."""
    gram = x.transpose(1, 2) @ x
    strength = ridge * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-12)
    wrong = x.transpose(1, 2) @ (y - x @ old.transpose(1, 2))
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    change: Tensor = torch.linalg.solve((gram + strength * eye).double(), wrong.double())
    return change.to(gram).transpose(1, 2)


def _patches(layer: nn.Module, x: Tensor, chosen: Tensor) -> Tensor:
    """What the layer multiplies with its kernels, at the chosen samples: ``[samples, C * k]``."""
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return x.reshape(-1, x.shape[-1])[chosen]
    dims = len(layer.kernel_size)
    if x.dim() == dims + 1:  # one example without its axis
        x = x.unsqueeze(0)
    x = nn.functional.pad(x, layer._reversed_padding_repeated_twice)
    for axis in range(dims):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        x = x.unfold(2 + axis, reach, layer.stride[axis])[..., :: layer.dilation[axis]]  # a view
    at = torch.unravel_index(chosen, (x.shape[0], *x.shape[2 : 2 + dims]))
    return x.movedim(1, 1 + dims)[at].flatten(1)
