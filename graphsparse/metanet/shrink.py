"""Cutting channels out of a module for good, through Torch-Pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.errors import GraphsparseError
from graphsparse.fit.measure import evaluating
from graphsparse.metanet.channels import check_mask, masked
from graphsparse.metanet.cost import arguments
from graphsparse.metanet.network_graph import NetworkGraph

if TYPE_CHECKING:
    import torch_pruning as tp

Kept = dict[str, list[int]]

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


class ShrinkError(GraphsparseError):
    """A module cannot be cut as a mask asks."""


def shrink(graph: NetworkGraph, keep: Tensor, example_inputs: Tensor | tuple[Any, ...]) -> tuple[nn.Module, Kept]:
    """The module of the kept channels, smaller in memory and time.

    It computes what the module of ``masked(graph, keep)`` computes, except where a norm averages over channels.

    Args:
        graph: the network; its values become the small module's.
        keep: bool ``[num_nodes]``; coupled channels stay or go together, inputs and outputs stay.
        example_inputs: as for `NetworkGraph.from_module`.

    Returns:
        The module, and for each layer that lost channels the indices of those that it kept.

    Raises:
        ValueError: the mask tears coupled channels apart or drops what must stay.
        ShrinkError: Torch-Pruning cannot cut this module so.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> graph = NetworkGraph.from_module(net, torch.zeros(1, 2))
        >>> small, kept = shrink(graph, torch.tensor([1, 1, 1, 0, 1, 1]).bool(), torch.zeros(1, 2))
        >>> small[0].weight.shape, kept
        (torch.Size([2, 2]), {'0': [0, 2]})
    """
    check_mask(graph, keep)
    module = graph.to_module()
    kept = kept_channels(graph, keep, module)
    cut(module, kept, example_inputs)
    _check_same(masked(graph, keep).to_module(), module, arguments(example_inputs))
    return module, kept


def kept_channels(graph: NetworkGraph, keep: Tensor, module: nn.Module) -> Kept:
    """For each layer that loses channels, the indices that stay.

    Raises:
        ShrinkError: a dropped channel is made by no linear or convolution layer.
    """
    found: Kept = {}
    made = torch.zeros(graph.num_nodes, dtype=torch.bool)
    keep = keep.cpu()
    for name, layer in module.named_modules():
        if not isinstance(layer, _LAYERS) or not graph.slots(f"{name}.weight" if name else "weight"):
            continue
        nodes = _outputs(graph, layer, f"{name}.weight" if name else "weight")
        made[nodes] = True
        if not bool(keep[nodes].all()):
            found[name] = torch.nonzero(keep[nodes])[:, 0].tolist()
    orphans = torch.nonzero(~keep & ~made)
    if len(orphans):
        where = graph.layer_names[int(graph.layer[orphans[0, 0]])]
        raise ShrinkError(f"channels of '{where}' are made by no nn.Linear or convolution: they cannot be cut")
    return found


def cut(module: nn.Module, kept: Mapping[str, Sequence[int]], example_inputs: Tensor | tuple[Any, ...]) -> nn.Module:
    """Cut a module in place down to the given output channels of its layers, and all that hangs on them.

    Args:
        module: a module whose layers have their full widths.
        kept: layer name -> indices of the output channels that stay, for each layer that loses some.
        example_inputs: as for `NetworkGraph.from_module`.

    Raises:
        ShrinkError: there is no such layer or channel, or Torch-Pruning cannot cut this module so.
    """
    layers = dict(module.named_modules())
    modes = {part: part.training for part in layers.values()}
    learns = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    width = {}
    for name, stay in kept.items():
        if name not in layers or not isinstance(layers[name], _LAYERS):
            raise ShrinkError(f"the module has no linear or convolution layer named '{name}'")
        width[name] = _width(layers[name])
        if not stay or min(stay) < 0 or max(stay) >= width[name] or len(set(stay)) < len(stay):
            raise ShrinkError(
                f"layer '{name}' has {width[name]} channels: the kept ones must be some of them, once each"
            )
    module.eval().requires_grad_(True)
    try:
        dependency = _dependencies(module, example_inputs)
        for name, stay in kept.items():
            if _width(layers[name]) == width[name]:  # else a layer that it is coupled to has cut it already
                _cut_layer(dependency, layers[name], sorted(set(range(width[name])) - set(stay)))
    except ShrinkError:
        raise
    except Exception as error:
        raise ShrinkError(f"Torch-Pruning cannot cut this {type(module).__name__}: {error}") from error
    for name, stay in kept.items():
        if _width(layers[name]) != len(stay):
            raise ShrinkError(f"layer '{name}' was left with {_width(layers[name])} channels instead of {len(stay)}")
    for part, mode in modes.items():
        part.training = mode
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(learns[name])
        parameter.grad = None
    return module


def _check_same(wide: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Torch-Pruning may cut the wrong channels, or a module's code may count on its widths: compare outputs."""
    with torch.no_grad(), evaluating(wide), evaluating(small):
        try:
            outputs = pytree.tree_leaves(small(*inputs))
        except Exception as error:
            raise ShrinkError(f"the cut {type(small).__name__} does not run: {error}") from error
        if any(isinstance(part, _OVER_CHANNELS) for part in small.modules()):
            return
        for expected, found in zip(pytree.tree_leaves(wide(*inputs)), outputs, strict=True):
            if not isinstance(expected, Tensor) or not bool(torch.isfinite(expected).all()):
                continue
            if expected.shape != found.shape or float((expected - found).abs().max()) > 1e-3 * float(
                expected.abs().max() + 1e-3
            ):
                raise ShrinkError(f"the cut {type(small).__name__} computes something else than the masked one")


def _dependencies(module: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> tp.DependencyGraph:
    import torch_pruning as tp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = arguments(example_inputs)
        return tp.DependencyGraph().build_dependency(module, example_inputs=inputs if len(inputs) > 1 else inputs[0])


def _cut_layer(dependency: tp.DependencyGraph, layer: nn.Module, gone: list[int]) -> None:
    prune = dependency.get_pruner_of_module(layer).prune_out_channels
    group = dependency.get_pruning_group(layer, prune, gone)
    if not dependency.check_pruning_group(group):
        raise ShrinkError("the mask would leave a layer without channels")
    group.prune(record_history=False)


def _width(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or layer.out_channels)  # type: ignore[arg-type]


def _outputs(graph: NetworkGraph, layer: nn.Module, weight: str) -> Tensor:
    """The node of each output channel of a layer, ``[width]``, from where its weight lies in the graph."""
    width = _width(layer)
    nodes = torch.full((width,), -1, dtype=torch.int64)
    for slot in graph.slots(weight):
        if slot.kind != "edge":
            continue
        shape: torch.Size = layer.weight.shape  # type: ignore[assignment]
        ends = graph.edges[slot.group].dst[slot.row.to(graph.layer.device)].cpu()  # type: ignore[index]
        if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            inputs, outputs = torch.unravel_index(slot.element, shape)[:2]
            group = inputs // (shape[0] // int(layer.groups))
            nodes[group * shape[1] + outputs] = ends
        else:
            nodes[torch.unravel_index(slot.element, shape)[0]] = ends
        break  # a layer that is used twice has coupled channels
    return nodes[nodes >= 0]
