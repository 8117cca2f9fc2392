"""What a network costs in FLOPs and parameters, what a keep mask would leave of them, and how much may stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.nn.dense.linear import Linear as GraphLinear

from graphsparse.fit.measure import evaluating
from graphsparse.keep_rule import exact_fraction, is_number
from graphsparse.metanet.channels.sets import in_common
from graphsparse.metanet.graph import NetworkGraph, Slot

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# What makes channels and costs FLOPs; PyG's linear layer lies inside of GCNConv, SAGEConv ...
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, GraphLinear)


def arguments(example_inputs: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments that example inputs stand for."""
    return example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)


def count_flops(module: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> int:
    """Floating-point operations of one forward pass: two per multiply-accumulate of matrix products and convolutions.

    Counted by PyTorch's own counter as the pass runs; pointwise functions and norms are left out.

    Example:
        >>> count_flops(nn.Linear(4, 3), torch.zeros(1, 4))
        24
    """
    try:
        return _counted_flops(module, arguments(example_inputs), grad=False)
    except AssertionError:  # its hooks ask for gradients where a parameter is a module's input
        return _counted_flops(module, arguments(example_inputs), grad=True)


def _counted_flops(module: nn.Module, inputs: tuple[Any, ...], *, grad: bool) -> int:
    with torch.set_grad_enabled(grad), evaluating(module), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class Cost:
    """FLOPs or parameters as a sum over kernel edges: what a mask leaves is known without cutting anything.

    Exact where all the cost lies in linear layers, convolutions and norms; elsewhere (products of activations) an
    estimate, whose fixed part is ``rest``.

    Args:
        per_edge: kernel class -> cost of each edge, ``[num_edges]`` float64.
        per_node: cost of each node, ``[num_nodes]`` float64.
        rest: what no channel decides.
    """

    per_edge: Mapping[Any, Tensor]
    per_node: Tensor
    rest: float

    def left(self, graph: NetworkGraph, keep: Tensor | None = None) -> float:
        """The cost of the kept part; of everything if ``keep`` is None."""
        if keep is None:
            return self.rest + float(self.per_node.sum()) + sum(float(c.sum()) for c in self.per_edge.values())
        kept = sum(float((self.per_edge[k] * (keep[e.src] & keep[e.dst])).sum()) for k, e in graph.edges.items())
        return self.rest + float((self.per_node * keep).sum()) + kept


def flop_cost(graph: NetworkGraph, module: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> Cost:
    """FLOPs of the module, spread over the graph's kernel edges.

    Args:
        graph: the module's graph.
        module: the module; one forward pass is run.
        example_inputs: as for `NetworkGraph.from_module`; FLOPs are those of this input.
    """
    positions = _positions(module, arguments(example_inputs))
    per_edge = {}
    for kernel, edges in graph.edges.items():
        cost = torch.zeros(len(edges.src), dtype=torch.float64)
        for name, start, stop in zip(edges.names, edges.ptr, edges.ptr[1:], strict=False):
            times = positions.get(name, [0])  # of each use, in turn, as the graph lists them
            cost[start:stop] = 2.0 * edges.values.shape[1] * (times.pop(0) if len(times) > 1 else times[0])
        per_edge[kernel] = cost.to(graph.layer.device)
    total = count_flops(module, example_inputs)
    rest = max(0.0, total - sum(float(cost.sum()) for cost in per_edge.values()))
    return Cost(per_edge, torch.zeros(graph.num_nodes, dtype=torch.float64, device=graph.layer.device), rest)


def parameter_cost(graph: NetworkGraph, module: nn.Module) -> Cost:
    """Parameters of the module, spread over the graph's kernel edges and nodes; elements used twice count once."""
    device = graph.layer.device
    per_edge = {
        kernel: torch.zeros(len(e.src), dtype=torch.float64, device=device) for kernel, e in graph.edges.items()
    }
    per_node = torch.zeros(graph.num_nodes, dtype=torch.float64, device=device)
    placed = 0
    for name, parameter in module.named_parameters():
        seen = torch.zeros(parameter.numel(), dtype=torch.bool)
        for slot in graph.slots(name):
            counted = _counted(graph, slot, seen)
            placed += int(counted.sum())
            if isinstance(slot.group, str):
                per_node.index_add_(0, graph.banks[slot.group].nodes[slot.row.to(device)], counted.to(per_node))
            else:
                per_edge[slot.group].index_add_(0, slot.row.to(device), counted.to(per_node))
    return Cost(per_edge, per_node, float(count_parameters(module) - placed))


def _counted(graph: NetworkGraph, slot: Slot, seen: Tensor) -> Tensor:
    """Which places of a slot stand for the whole element: its first one, as uses of one element are coupled.

    A scalar that all channels share belongs to none of them. ``seen`` marks the elements that were counted before.
    """
    size, count = len(seen), len(slot.element)
    place = torch.arange(count)
    first = torch.full((size,), count).scatter_reduce(0, slot.element, place, "amin")
    counted = (first[slot.element] == place) & ~seen[slot.element]
    if slot.nodes is not None:
        counted &= ~in_common(graph, slot)
    seen[slot.element] = True
    return counted


@dataclass(frozen=True)
class Budget:
    """How small a network is to become: exactly one of the three.

    Args:
        speedup: FLOPs before over FLOPs after, at least 1.
        flops, params: the fraction that may stay, in (0, 1], or the number of FLOPs or parameters, above 1.
    """

    speedup: float | None = None
    flops: float | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("speedup", "flops", "params") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of speedup, flops and params, got {', '.join(given) or 'none'}")
        value = getattr(self, given[0])
        if not (is_number(value) and value > 0 and (given[0] != "speedup" or value >= 1)):
            least = ">= 1" if given[0] == "speedup" else "> 0"
            raise ValueError(f"{given[0]} must be a number {least}, got {value!r:.50}")

    def limit(self, module: nn.Module, inputs: tuple[Any, ...]) -> Fraction:
        """The largest cost within the budget, which is read as the decimal that was written."""
        if self.speedup is not None:
            return self.exact(module, inputs) / exact_fraction(self.speedup, "speedup")
        value = exact_fraction(self.flops if self.flops is not None else self.params or 0.0, "the budget")
        return value if value > 1 else value * self.exact(module, inputs)

    def exact(self, module: nn.Module, inputs: tuple[Any, ...]) -> int:
        """The cost of a module."""
        return count_parameters(module) if self.params is not None else count_flops(module, inputs)

    def spread(self, graph: NetworkGraph, module: nn.Module, inputs: tuple[Any, ...]) -> Cost:
        """The cost spread over a graph."""
        return parameter_cost(graph, module) if self.params is not None else flop_cost(graph, module, inputs)


def prefix_for(steps: int, cost_after: Callable[[int], float], target: float | Fraction) -> int:
    """The smallest number of steps whose cost is at most ``target``; ``steps + 1`` if none is (the cost never rises).

    Example:
        >>> prefix_for(10, lambda k: 100 - 10 * k, 45)
        6
    """
    return _first(0, steps + 1, lambda k: cost_after(k) <= target)


def first_reaching(steps: int, reaches: Callable[[int], bool], guess: int) -> int:
    """The smallest number of steps that ``reaches``; ``steps + 1`` if none does; few are tried near a guess.

    Example:
        >>> tried = []
        >>> first_reaching(1000, lambda k: tried.append(k) or k >= 333, guess=330), tried
        (333, [330, 331, 333, 332])
    """
    low, high, stride = 0, steps + 1, 1
    at = guess
    if reaches(guess):
        while low < (high := at):
            at = max(low, high - stride)
            stride *= 2
            if not reaches(at):
                low = at + 1
                break
        return _first(low, high, reaches)
    low = guess + 1
    while low < high:
        at = min(high - 1, low + stride - 1)
        stride *= 2
        if reaches(at):
            return _first(low, at, reaches)
        low = at + 1
    return high


def _first(low: int, high: int, reaches: Callable[[int], bool]) -> int:
    """The smallest number from ``low`` on that reaches; ``high`` if none below it does."""
    while low < high:
        middle = (low + high) // 2
        if reaches(middle):
            high = middle
        else:
            low = middle + 1
    return low


def weight_name(layer: nn.Module, path: str) -> str:
    """The parameter that holds a layer's kernels, which a norm of weights may have put in the weight's place."""
    names = ("weight", "weight_v", "weight_orig", *(f"parametrizations.weight.{n}" for n in ("original1", "original")))
    own, shape = dict(layer.named_parameters()), layer.weight.shape
    found = (name for name in names if name in own and own[name].shape == shape)
    return f"{path}.".lstrip(".") + next(found, "weight")


def _positions(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, list[int]]:
    """Weight name -> how often each of its kernels is applied in one pass, for each use."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    first = {id(parameter): name for name, parameter in reversed(parameters.items())}  # of one that layers share
    found: dict[str, list[int]] = {}

    def look(path: str, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            times = output.numel() // layer.out_features
        elif isinstance(layer, TRANSPOSED):
            times = args[0].numel() // layer.in_channels
        else:
            times = output.numel() // layer.out_channels
        name = weight_name(layer, path)
        found.setdefault(first[id(parameters[name])] if name in parameters else name, []).append(times)

    layers = [(path, layer) for path, layer in module.named_modules() if isinstance(layer, LAYERS)]
    hooks = [layer.register_forward_hook(partial(look, path)) for path, layer in layers]
    try:
        with torch.no_grad(), evaluating(module):
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
