"""A group of coupled channels that can be looked at: everything that must be cut together, by layer, axis and index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.metanet.channels.budget import LAYERS, weight_name
from graphsparse.metanet.channels.cutting import output_nodes
from graphsparse.metanet.channels.sets import Channels
from graphsparse.metanet.graph import NetworkGraph


@dataclass(frozen=True)
class Cut:
    """What goes of one parameter or buffer.

    Attributes:
        name: of the parameter or buffer, as in ``state_dict()``.
        module: what it belongs to, such as ``"Conv2d(3, 16, ...)"``.
        role: ``"out"`` (channels that a layer makes), ``"in"`` (channels that it takes), or ``"own"`` (a norm's, a
            bias's).
        axis: of the tensor.
        indices: along that axis.
    """

    name: str
    module: str
    role: str
    axis: int
    indices: tuple[int, ...]

    def __str__(self) -> str:
        """Such as ``conv1.weight, axis 0 (out), idxs (2) =[0, 3]``."""
        shown = list(self.indices)
        listed = str(shown) if len(shown) <= 12 else f"{str(shown[:10])[:-1]}, ...]"
        return f"{self.name}, axis {self.axis} ({self.role}), idxs ({len(shown)}) ={listed}"


@dataclass(frozen=True)
class Group:
    """Coupled channels: what a cut of some of them takes along.

    Attributes:
        root: the layer that was asked for.
        channels: its channels.
        prunable: whether they may be cut at all; inputs and outputs of the network may not.
        cuts: everything that goes, the root's own first.
    """

    root: str
    channels: tuple[int, ...]
    prunable: bool
    cuts: tuple[Cut, ...]

    def __iter__(self) -> Iterator[Cut]:
        return iter(self.cuts)

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, number: int) -> Cut:
        return self.cuts[number]

    def __str__(self) -> str:
        """One line a tensor, in the manner of Torch-Pruning's groups."""
        line = "-" * 32
        state = "" if self.prunable else " (held: inputs, outputs and heads stay)"
        rows = [f"[{number}] {cut}, on {cut.module}" for number, cut in enumerate(self.cuts)]
        rows[0] += " (Pruning Root)"
        return "\n".join([line, f"{'Pruning Group':^32}{state}", line, *rows, line])


def group_of(graph: NetworkGraph, layer: str, channels: int | Sequence[int] | None = None) -> Group:
    """What must be cut together with channels of a layer: "what goes with channel 3 of conv1?".

    Args:
        graph: the network.
        layer: a linear layer or convolution, as in ``named_modules()``.
        channels: output channels of that layer; None takes all of them, the whole group.

    Raises:
        ValueError: there is no such layer in the graph, or no such channel.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> print(group_of(NetworkGraph.from_module(net, torch.zeros(1, 2)), "0", 1))
        --------------------------------
                 Pruning Group
        --------------------------------
        [0] 0.weight, axis 0 (out), idxs (1) =[1], on Linear(in_features=2, out_features=3, bias=True) (Pruning Root)
        [1] 0.bias, axis 0 (own), idxs (1) =[1], on Linear(in_features=2, out_features=3, bias=True)
        [2] 2.weight, axis 1 (in), idxs (1) =[1], on Linear(in_features=3, out_features=1, bias=True)
        --------------------------------
    """
    module = graph.to_module()
    layers = dict(module.named_modules())
    uses = output_nodes(graph, layers[layer], layer) if isinstance(layers.get(layer), LAYERS) else []
    if not uses:
        known = [name for name, part in layers.items() if isinstance(part, LAYERS)]
        raise ValueError(f"the network has no linear layer or convolution named {layer!r}; it has {', '.join(known)}")
    width, weight = len(uses[0]), weight_name(layers[layer], layer)
    chosen = range(width) if channels is None else [channels] if isinstance(channels, int) else list(channels)
    if not chosen or min(chosen) < 0 or max(chosen) >= width:
        raise ValueError(f"layer {layer!r} has the channels 0 to {width - 1}, got {list(chosen)}")
    units = Channels.of(graph)
    sets = torch.unique(units.set_of[uses[0][list(chosen)].to(units.set_of.device)])
    gone = torch.isin(units.set_of, sets).cpu()
    found = [cut for name, value in module.state_dict().items() for cut in _cuts(graph, name, value, gone, layers)]
    found.sort(key=lambda cut: (cut.name != weight or cut.role != "out", cut.name.rpartition(".")[0] != layer))
    return Group(layer, tuple(chosen), bool(units.prunable[sets].all()), tuple(found))


def _cuts(graph: NetworkGraph, name: str, value: Tensor, gone: Tensor, layers: dict[str, torch.nn.Module]) -> list[Cut]:
    """What goes of one tensor: for each role, the axis and indices that its elements of gone channels fill."""
    touched: dict[str, list[Tensor]] = {}
    for slot in graph.slots(name):
        if isinstance(slot.group, str):
            assert slot.nodes is not None
            touched.setdefault("own", []).append(slot.element[gone[slot.nodes.cpu()]])
            continue
        edges, row = graph.edges[slot.group], slot.row.to(graph.layer.device)
        for role, ends in (("out", edges.dst), ("in", edges.src)):
            touched.setdefault(role, []).append(slot.element[gone[ends[row].cpu()]])
    module = repr(layers[name.rpartition(".")[0]]).split("\n", maxsplit=1)[0]
    found = []
    for role, parts in touched.items():
        elements = torch.unique(torch.cat(parts)).cpu()
        if len(elements):
            axis, indices = _along(elements, value.shape)
            found.append(Cut(name, module, role, axis, indices))
    return found


def _along(elements: Tensor, shape: torch.Size) -> tuple[int, tuple[int, ...]]:
    """The axis whose fewest indices, whole, hold these elements; a scalar has axis 0 and index 0."""
    if not shape:
        return 0, (0,)
    places = [torch.unique(place) for place in torch.unravel_index(elements, shape)]
    sizes = [len(place) * (shape.numel() // shape[axis]) for axis, place in enumerate(places)]
    axis = min(range(len(shape)), key=lambda axis: sizes[axis])
    return axis, tuple(places[axis].tolist())
