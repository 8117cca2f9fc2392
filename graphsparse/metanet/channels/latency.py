"""Time instead of FLOPs: a table of measured times of a network's layers, and a budget by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from graphsparse.fit.measure import evaluating, least_ms
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
        rest: ms of one pass in other operations; they are taken to fall with the numbers that layers give.
        calls: ms that stay however narrow the network becomes: what it costs to call all other operations.

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
    calls: float = 0.0

    @staticmethod
    def measured(module: nn.Module, inputs: tuple[Any, ...]) -> LayerTimes:
        """Time the layers of a module on these inputs, one by one; layers of one form and input once."""
        seen = _calls(module, inputs)
        known: dict[Any, Tensor] = {}
        tables, widths, places = {}, {}, {}
        for name, (layer, given, made) in seen.items():
            form = (repr(layer), given.shape, given.stride(), given.dtype, _format(layer.weight))
            if form not in known:
                known[form] = _table(layer, given)
            tables[name], widths[name] = known[form], _widths(layer)
            places[name] = torch.Size(made).numel() // widths[name][1]
        with torch.no_grad(), evaluating(module):
            (total,) = least_ms([lambda: module(*inputs)], repeats=9)
        others = max(0.0, total - sum(float(table[-1, -1]) for table in tables.values()))
        rest = min(others, _numbers_ms(module, inputs))
        return LayerTimes(tables, widths, places, rest, others - rest)

    def of(self, module: nn.Module) -> float:
        """Time of one pass in ms of the module, or of what a cut has left of it."""
        total, numbers, whole = 0.0, 0, 0
        layers = dict(module.named_modules())
        for name, table in self.tables.items():
            left, (read, made) = _widths(layers[name]), self.widths[name]
            total += _between(table, left[0] / read, left[1] / made)
            numbers += self.places[name] * left[1]
            whole += self.places[name] * made
        return total + self.calls + self.rest * (numbers / whole if whole else 1.0)


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


def _calls(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, tuple[Any, Tensor, torch.Size]]:
    """Each layer with its first input, without memory, and the shape of its first output."""
    found: dict[str, tuple[nn.Module, Tensor, torch.Size]] = {}
    hooks = []

    def look(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if args:
                found.setdefault(name, (layer, args[0].to("meta"), output.shape))

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


class _Others(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Times each operation outside of layers, in the order of a pass, and the same of one number instead of many."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = False  # of a layer
        self.spent: list[float] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, found = kwargs or {}, []
        if self.inside or func.is_view:
            return func(*args, **kwargs)
        few = pytree.tree_map_only(Tensor, lambda t: t[(slice(1),) * t.dim()].clone(), (args, kwargs))
        (whole,) = least_ms([lambda: found.append(func(*args, **kwargs))], repeats=1, warm=0)
        try:
            (one,) = least_ms([lambda: func(*few[0], **few[1])], repeats=1, warm=0)
        except Exception:  # such as a pool that is wider than one number
            one = 0.0
        self.spent.append(max(0.0, whole - one))
        return found[0]


def _numbers_ms(module: nn.Module, inputs: tuple[Any, ...], passes: int = 5) -> float:
    """Time in ms of a pass outside of layers that goes with how many numbers there are, and not with calls."""
    with torch.no_grad(), evaluating(module), _Others() as mode:
        hooks = [h for layer in module.modules() if isinstance(layer, LAYERS) for h in _around(layer, mode)]
        spent = []
        try:
            for _ in range(passes):
                mode.spent = []
                module(*inputs)
                spent.append(mode.spent)
        finally:
            for handle in hooks:
                handle.remove()
    return float(sum(min(times) for times in zip(*spent, strict=True)))


def _around(layer: nn.Module, mode: _Others) -> list[RemovableHandle]:
    """Tell the mode when a pass goes into a layer and out again."""

    def enter(*_: Any) -> None:
        mode.inside = True

    def leave(*_: Any) -> None:
        mode.inside = False

    return [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]


def _widths(layer: Any) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return int(layer.in_channels), int(layer.out_channels)


def _format(tensor: Tensor) -> torch.memory_format:
    """Channels last or contiguous: what a tensor of the same axes is to be laid out like."""
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = forms.get(tensor.dim(), torch.contiguous_format)
    return torch.contiguous_format if tensor.is_contiguous() or not tensor.is_contiguous(memory_format=last) else last


def _table(layer: Any, given: Tensor) -> Tensor:
    """Times of a layer at shares of its inputs (rows) and outputs (columns), on numbers like those that it is given."""
    runs, weight = [], layer.weight
    for read, made in itertools.product(_SHARES, _SHARES):
        narrow, axis = _narrowed(layer, read, made)
        narrow.to(weight.device, weight.dtype)
        if isinstance(narrow, nn.modules.conv._ConvNd):
            narrow.weight.data = narrow.weight.data.contiguous(memory_format=_format(weight))
        shape = list(given.shape)
        shape[axis] = _widths(narrow)[0]
        x = torch.randn(shape, device=weight.device, dtype=given.dtype).contiguous(memory_format=_format(given))
        runs.append(_run(narrow.eval(), x))
    with torch.no_grad():
        return torch.tensor(least_ms(runs)).view(len(_SHARES), -1)


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
