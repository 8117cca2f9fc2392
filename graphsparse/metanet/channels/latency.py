"""Time instead of FLOPs: a table of measured times of a network's layers, and a budget by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit.measure import evaluating, inference_ms
from graphsparse.metanet.channels.budget import LAYERS, TRANSPOSED, Budget, Cost, flop_cost
from graphsparse.metanet.graph import NetworkGraph

_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of inputs and outputs, at which a layer is timed
_NANO = 1_000_000  # ns of a ms


@dataclass(frozen=True)
class LayerTimes:
    """Measured times of a network's linear layers and convolutions at several widths.

    Attributes:
        tables: layer -> times in ms ``[5, 5]``, at shares of its inputs and of its outputs (1/8, 1/4, 1/2, 3/4, 1).
        widths: layer -> its inputs and outputs when they were measured.
        places: layer -> numbers that it gives for each output.
        rest: ms of one pass that lie in no such layer; they are taken to fall with the numbers that layers give.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        >>> times = LayerTimes.measured(net, (torch.zeros(32, 64),))
        >>> small = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64))
        >>> times.of(small) < times.of(net)
        True
    """

    tables: dict[str, Tensor]
    widths: dict[str, tuple[int, int]]
    places: dict[str, int]
    rest: float

    @staticmethod
    def measured(module: nn.Module, inputs: tuple[Any, ...]) -> LayerTimes:
        """Time the layers of a module on these inputs, one by one; layers of one form and input once."""
        seen = _calls(module, inputs)
        known: dict[Any, Tensor] = {}
        tables, widths, places = {}, {}, {}
        for name, (layer, given, made) in seen.items():
            form = (repr(layer), given)
            if form not in known:
                known[form] = _table(layer, given)
            tables[name], widths[name] = known[form], _widths(layer)
            places[name] = torch.Size(made).numel() // widths[name][1]
        with torch.no_grad(), evaluating(module):
            (total,) = inference_ms([lambda: module(*inputs)])
        rest = max(0.0, total - sum(float(table[-1, -1]) for table in tables.values()))
        return LayerTimes(tables, widths, places, rest)

    def of(self, module: nn.Module) -> float:
        """Time of one pass in ms of the module, or of what a cut has left of it."""
        total, numbers, whole = 0.0, 0, 0
        layers = dict(module.named_modules())
        for name, table in self.tables.items():
            left, (read, made) = _widths(layers[name]), self.widths[name]
            total += _between(table, left[0] / read, left[1] / made)
            numbers += self.places[name] * left[1]
            whole += self.places[name] * made
        return total + self.rest * (numbers / whole if whole else 1.0)


@dataclass(frozen=True)
class LatencyBudget(Budget):
    """A budget of time: ``speedup`` is the time of one pass before over that after, by a table of layer times.

    Layers are timed on this machine, with its threads, when the limit is asked for.

    Args:
        speedup: time before over time after, at least 1.
    """

    _times: dict[str, LayerTimes] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.speedup is None:
            raise ValueError('measure="latency" takes a speedup: the time of one pass before over that after')
        super().__post_init__()

    def exact(self, module: nn.Module, inputs: tuple[Any, ...]) -> int:
        """Nanoseconds of one pass by the table, which the first call makes."""
        if "table" not in self._times:
            self._times["table"] = LayerTimes.measured(module, inputs)
        return round(self._times["table"].of(module) * _NANO)

    def spread(self, graph: NetworkGraph, module: nn.Module, inputs: tuple[Any, ...]) -> Cost:
        """Each layer's time, spread evenly over its kernels: a first guess."""
        whole, times = self.exact(module, inputs), self._times["table"]
        per_edge = flop_cost(graph, module, inputs).per_edge
        for kernel, edges in graph.edges.items():
            for name, start, stop in zip(edges.names, edges.ptr, edges.ptr[1:], strict=False):
                table = times.tables.get(name.removesuffix(".weight"))
                per_edge[kernel][start:stop] = 0 if table is None else float(table[-1, -1]) * _NANO / (stop - start)
        rest = whole - sum(float(cost.sum()) for cost in per_edge.values())
        return Cost(per_edge, torch.zeros(graph.num_nodes, dtype=torch.float64, device=graph.layer.device), rest)


def _calls(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, tuple[nn.Module, torch.Size, torch.Size]]:
    """Each layer with the shapes of its first input and output."""
    found: dict[str, tuple[nn.Module, torch.Size, torch.Size]] = {}
    hooks = []

    def look(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if args:
                found.setdefault(name, (layer, args[0].shape, output.shape))

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, LAYERS):
            hooks.append(layer.register_forward_hook(look(name)))
    try:
        with torch.no_grad(), evaluating(module):
            module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _widths(layer: Any) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return int(layer.in_channels), int(layer.out_channels)


def _table(layer: Any, given: torch.Size) -> Tensor:
    """Times of a layer at shares of its inputs (rows) and outputs (columns)."""
    runs = []
    for read, made in itertools.product(_SHARES, _SHARES):
        narrow, axis = _narrowed(layer, read, made)
        shape = list(given)
        shape[axis] = _widths(narrow)[0]
        device = next(layer.parameters()).device
        runs.append(_run(narrow.to(device).eval(), torch.randn(shape, device=device)))
    with torch.no_grad():
        return torch.tensor(inference_ms(runs, repeats=5, patience=0.0)).view(len(_SHARES), -1)


def _run(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    return lambda: layer(x)


def _narrowed(layer: Any, read: float, made: float) -> tuple[nn.Module, int]:
    """A layer of the same kind with some of its inputs and outputs, and the axis of the former."""
    before, after = _widths(layer)
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return nn.Linear(_some(before, read), _some(after, made), layer.bias is not None), -1
    groups = layer.groups
    if groups == before > 1:  # depthwise: its channels go together
        groups = fewer = _some(before, read)
        outs = fewer * (after // before)
    else:
        fewer, outs = (_some(width // groups, share) * groups for width, share in ((before, read), (after, made)))
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
    if isinstance(layer, TRANSPOSED):
        options["output_padding"] = layer.output_padding
    kind: Any = next(kind for kind in (*TRANSPOSED, nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(layer, kind))
    narrow: nn.Module = kind(fewer, outs, layer.kernel_size, groups=groups, bias=layer.bias is not None, **options)
    return narrow, 1


def _some(width: int, share: float) -> int:
    return max(1, round(width * share))


def _between(table: Tensor, read: float, made: float) -> float:
    """A time between those of the table, linear in both shares."""
    grid = torch.tensor([0.0, *_SHARES])
    full = torch.nn.functional.pad(table, (1, 0, 1, 0))  # without channels it takes no time
    places = []
    for share in (read, made):
        at = int(torch.searchsorted(grid, torch.tensor(min(share, 1.0))).clamp(1, len(grid) - 1))
        places.append((at, float((min(share, 1.0) - grid[at - 1]) / (grid[at] - grid[at - 1]))))
    (i, a), (j, b) = places
    corners = full[i - 1 : i + 1, j - 1 : j + 1]
    return float(torch.tensor([1 - a, a]) @ corners @ torch.tensor([1 - b, b]))
