"""Cutting channels out of a module for good, by what its own graph knows of each tensor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphsparse.errors import TraceError
from graphsparse.fit.measure import evaluating
from graphsparse.metanet.channels.agreement import CutRunError, agree
from graphsparse.metanet.channels.budget import LAYERS, TRANSPOSED, arguments, weight_name
from graphsparse.metanet.channels.numbers import Number, numbers_after
from graphsparse.metanet.channels.sets import check_mask, masked
from graphsparse.metanet.channels.slicing import Cut, ShrinkError, take
from graphsparse.metanet.channels.training import training_cuts, trains_alike
from graphsparse.metanet.graph import NetworkGraph, axes_of

KeptChannels = dict[str, list[int]]

_TRIES = 12  # how often a cut network is run to find out its numbers


@dataclass(frozen=True)
class _Plan:
    """How a module is cut.

    Args:
        axes: of each tensor that loses something, by its first name: which places of each axis stay.
        numbers: what its modules' numbers become.
        scales: of each tensor that makes queries of attention: a factor for each element.
    """

    axes: dict[str, list[Tensor]]
    numbers: tuple[Number, ...]
    scales: dict[str, Tensor]

    def apply(self, module: nn.Module) -> nn.Module:
        """Cut a module in place."""
        named = dict(module.named_parameters())
        with torch.no_grad():
            for name, factor in self.scales.items():
                named[name].mul_(factor.to(named[name]))
        cuts: dict[str, Cut] = {}
        for name, axes in self.axes.items():
            cuts[name] = {(axis,): kept for axis, kept in enumerate(axes) if not bool(kept.all())}
        take(module, cuts)
        for number in self.numbers:
            setattr(module.get_submodule(number.path), number.name, number.values[0])
        return module


def shrink(
    graph: NetworkGraph, keep: Tensor, example_inputs: Tensor | tuple[Any, ...]
) -> tuple[nn.Module, KeptChannels]:
    """The module of the kept channels, smaller in memory and time.

    Each axis of each parameter and buffer is cut to what its channels leave of it, and the modules' own numbers follow;
    numbers in code are found by running. The small module computes what the module of ``masked(graph, keep)`` computes,
    except where something averages over channels: a layer norm, a mean or a softmax is then over those that stay. What
    a module does in training mode only (an auxiliary head) is cut along.

    Args:
        graph: the network; its values become the small module's.
        keep: bool ``[num_nodes]``; coupled channels stay or go together, inputs and outputs stay.
        example_inputs: as for `NetworkGraph.from_module`.

    Returns:
        The module, and for each layer that lost channels the indices of those that it kept.

    Raises:
        ValueError: the mask tears coupled channels apart or drops what must stay.
        ShrinkError: the module's code counts on a width.

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
    if not kept:
        return module, kept
    plan = _planned(graph, keep, arguments(example_inputs))
    return plan.apply(module), kept


def _planned(graph: NetworkGraph, keep: Tensor, inputs: tuple[Any, ...]) -> _Plan:
    """A plan whose module runs, in both modes, and computes what the masked one does.

    Raises:
        ShrinkError: there is none; a size that a line of code spells out is named.
    """
    try:
        return _tried(graph, keep, inputs)
    except ShrinkError as error:
        spelled = graph.spelled_out(keep)
        if spelled is None:
            raise
        line, before, after = spelled
        raise ShrinkError(
            f"its code spells out {before}, and {after} would be left, in {line}: take the size from x.shape, or from "
            "a number that the module holds"
        ) from error


def _tried(graph: NetworkGraph, keep: Tensor, inputs: tuple[Any, ...]) -> _Plan:
    wide, keep = masked(graph, keep).to_module(), keep.cpu()
    axes = _axes(graph.staying(keep))
    axes |= _axes(training_cuts(wide, inputs, axes, known=graph.knows))
    numbers = numbers_after(wide, _all_names(wide, axes), graph.sizes_after(keep))
    firm = tuple(number for number in numbers if len(number.values) == 1)
    plan = _Plan(axes, firm, {})
    plan, level = _run(graph, wide, plan, [number for number in numbers if len(number.values) > 1], inputs)
    scales = graph.query_factors(keep)
    if (level is None or level > 1) and scales:
        scaled = replace(plan, scales=scales)
        better = _level(graph, wide, scaled, inputs)
        if better is not None and (level is None or better < level):
            plan, level = scaled, better
    small = plan.apply(graph.to_module())
    if level is None:
        raise ShrinkError(f"the cut {type(small).__name__} computes something else than the masked one")
    if not trains_alike(wide, small, inputs):
        raise ShrinkError(f"the cut {type(small).__name__} does not run in training mode")
    return plan


def _run(
    graph: NetworkGraph, wide: nn.Module, plan: _Plan, open_numbers: list[Number], inputs: tuple[Any, ...]
) -> tuple[_Plan, int | None]:
    """Find numbers that are open by running: the first choice of each, and others where the module then stops."""
    places = [0] * len(open_numbers)
    refusal: CutRunError | None = None
    for _ in range(_TRIES):
        chosen = (number._replace(values=number.values[at:]) for number, at in zip(open_numbers, places, strict=True))
        tried = replace(plan, numbers=(*plan.numbers, *chosen))
        try:
            level = _level(graph, wide, tried, inputs)
        except CutRunError as error:
            refusal = refusal or error
            path = error.path
        else:
            if level is not None or not open_numbers:
                return tried, level
            path = ""
        near = [
            number
            for number, (one, at) in enumerate(zip(open_numbers, places, strict=True))
            if at + 1 < len(one.values) and _related(one.path, path)
        ]
        if not near:
            break
        places[max(near, key=lambda number: len(open_numbers[number].path))] += 1
    if refusal is None:
        return tried, None
    where = f"in '{refusal.path}'" if refusal.path else "in its own code"
    raise ShrinkError(f"the cut {type(wide).__name__} does not run: {where}: {refusal}")


def _related(path: str, failed: str) -> bool:
    return not failed or not path or f"{path}.".startswith(f"{failed}.") or f"{failed}.".startswith(f"{path}.")


def _level(graph: NetworkGraph, wide: nn.Module, plan: _Plan, inputs: tuple[Any, ...]) -> int | None:
    return agree(wide, plan.apply(graph.to_module()), inputs)


def _axes(staying: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """For each tensor that loses something, which places of each axis stay."""
    found = {}
    for name, stays in staying.items():
        if not bool(stays.all()):
            axes = axes_of(stays)
            if axes is None:
                raise ShrinkError(f"what stays of '{name}' has other widths in other places")
            if not all(bool(kept.any()) for kept in axes):
                raise ShrinkError(f"nothing would be left of '{name}'")
            found[name] = axes
    return found


def _all_names(module: nn.Module, axes: Mapping[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """The cuts under all names of each tensor."""
    both = itertools.chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    named = {name: id(tensor) for name, tensor in both}
    found = {named[name]: cut for name, cut in axes.items()}
    return {name: found[tensor] for name, tensor in named.items() if tensor in found}


def kept_channels(graph: NetworkGraph, keep: Tensor, module: nn.Module) -> KeptChannels:
    """For each layer that loses channels, the indices that stay.

    Linear layers and convolutions count their outputs; anything else that makes channels (an embedding, a recurrent
    layer, attention) the nodes that it has in the graph.
    """
    found: KeptChannels = {}
    keep, layer = keep.cpu(), graph.layer.cpu()
    open_nodes = ~keep
    for name, part in module.named_modules():
        uses = output_nodes(graph, part, name) if isinstance(part, LAYERS) else []
        if uses and not bool(keep[uses[0]].all()):  # a layer that is used twice has coupled channels
            found[name] = torch.nonzero(keep[uses[0]])[:, 0].tolist()
            open_nodes[torch.cat(uses)] = False
    for number in torch.unique(layer[open_nodes]).tolist():
        found.setdefault(graph.layer_names[number], torch.nonzero(keep[layer == number])[:, 0].tolist())
    return found


def layer_widths(module: nn.Module) -> dict[str, int]:
    """Number of output channels of each linear layer and convolution, in the order of the module.

    Example:
        >>> layer_widths(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        {'0': 3, '2': 1}
    """
    return {name: _width(layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)}


def cut(module: nn.Module, kept: Mapping[str, Sequence[int]], example_inputs: Tensor | tuple[Any, ...]) -> nn.Module:
    """Cut a module in place down to the given channels of its layers, and all that hangs on them.

    Args:
        module: a module whose layers have their full widths.
        kept: layer name -> indices of the channels that stay, for each layer that loses some, as `shrink` gives them.
        example_inputs: as for `NetworkGraph.from_module`.

    Raises:
        ShrinkError: there is no such layer or channel, or the module cannot be cut so; it is then as it was.
    """
    inputs = arguments(example_inputs)
    initialise(module, inputs)
    try:
        graph = NetworkGraph.from_module(module, inputs)
    except TraceError as error:
        raise ShrinkError(f"this {type(module).__name__} cannot be traced, and so not be cut: {error}") from error
    layers = dict(module.named_modules())
    keep = torch.ones(graph.num_nodes, dtype=torch.bool, device=graph.layer.device)
    for name, stay in kept.items():
        nodes = _nodes_of(graph, layers.get(name), name)
        if not len(nodes):
            raise ShrinkError(f"the module has no linear or convolution layer named '{name}'")
        width = nodes.shape[-1]
        if not stay or min(stay) < 0 or max(stay) >= width or len(set(stay)) < len(stay):
            raise ShrinkError(f"layer '{name}' has {width} channels: the kept ones must be some of them, once each")
        gone = torch.ones(width, dtype=torch.bool)
        gone[list(stay)] = False
        keep[nodes[..., gone].to(keep.device)] = False
    try:
        check_mask(graph, keep)
    except ValueError as error:
        raise ShrinkError(f"this {type(module).__name__} cannot be cut so: {error}") from error
    return _planned(graph, keep, inputs).apply(module)


def _nodes_of(graph: NetworkGraph, layer: nn.Module | None, name: str) -> Tensor:
    """The nodes of a layer's channels, for each use, as `kept_channels` counts them."""
    uses = output_nodes(graph, layer, name) if isinstance(layer, LAYERS) else []
    if uses:
        return torch.stack(uses)
    if name not in graph.layer_names:
        return torch.empty(0, dtype=torch.int64)
    return torch.nonzero(graph.layer.cpu() == graph.layer_names.index(name))[:, 0]


def initialise(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Run a module that has lazy layers once, so that they know their widths; its other state stays as it is."""
    if any(is_lazy(parameter) for parameter in module.parameters()):
        with torch.no_grad(), evaluating(module):
            module(*inputs)


def _width(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or layer.out_channels)  # type: ignore[arg-type]


def output_nodes(graph: NetworkGraph, layer: nn.Module, path: str) -> list[Tensor]:
    """For each use of a layer, the node of each output channel, from where its weight lies in the graph."""
    shape: torch.Size = layer.weight.shape  # type: ignore[assignment]
    uses = []
    name = weight_name(layer, path)
    for slot in graph.slots(name) if graph.knows(name) else ():
        if slot.kind != "edge":
            continue
        index = torch.unravel_index(slot.element, shape)
        channel = index[0]
        if isinstance(layer, TRANSPOSED):
            channel = channel // (shape[0] // int(layer.groups)) * shape[1] + index[1]
        nodes = torch.empty(_width(layer), dtype=torch.int64)
        nodes[channel] = graph.edges[slot.group].dst[slot.row.to(graph.layer.device)].cpu()  # type: ignore[index]
        uses.append(nodes)
    return uses
