"""Which channels of a network are cut together, in which groups, in which order, and what is left of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from graphsparse.keep_rule import Keep, exact_fraction, kept_count
from graphsparse.metanet.graph import EdgeSet, NetworkGraph, Slot, components
from graphsparse.registry import spelling

Distribution = Literal["uniform", "global", "raw"]

# Hidden units of graph networks do not reach into attention that is written as a product of matrices.
HELD = frozenset({"k-v", "q-k", "score"})
INPUT, OUTPUT = "the network reads them", "they are the network's output"


@dataclass(frozen=True)
class Channels:
    """The prunable units of a network graph.

    A *set* is what can only be cut together: channels of several layers that a residual connection, say, ties. A
    *group* is all sets of the same layers; pruning compares sets inside a group, or across groups.

    Args:
        set_of: set of each node, ``[num_nodes]``.
        group_of: group of each set, ``[num_sets]``.
        prunable: bool ``[num_sets]``: a whole group or nothing of it. Inputs, outputs and what no weights make are not
            prunable.
        layers: for each group, the layers (numbers of ``layer_names``) that it spans.
        reasons: group -> why it is not prunable.
        ends: the sets of each side of each weight, and of each part of a split axis, of which one at least stays.
    """

    set_of: Tensor
    group_of: Tensor
    prunable: Tensor
    layers: tuple[tuple[int, ...], ...]
    reasons: Mapping[int, str] = field(default_factory=dict)
    ends: tuple[Tensor, ...] = ()

    @staticmethod
    def of(graph: NetworkGraph) -> Channels:
        """The units of a graph, found once per architecture.

        Example:
            >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
            >>> channels = Channels.of(NetworkGraph.from_module(net, torch.zeros(1, 2)))
            >>> channels.group_of.tolist(), channels.prunable.tolist()
            ([0, 0, 1, 1, 1, 2], [False, False, True, True, True, False])
        """
        return graph.once(_find)

    @property
    def width(self) -> Tensor:
        """Number of sets of each group, ``[num_groups]``."""
        return torch.bincount(self.group_of, minlength=len(self.layers))

    def without(self, reasons: Mapping[int, str]) -> Channels:
        """The same units with some more groups not prunable, and why."""
        gone = torch.tensor(list(reasons), device=self.group_of.device, dtype=torch.int64)
        prunable = self.prunable & ~torch.isin(self.group_of, gone)
        return replace(self, prunable=prunable, reasons={**reasons, **self.reasons})

    def of_nodes(self, sets: Tensor) -> Tensor:
        """Spread a figure per set to the nodes."""
        return sets[self.set_of]


def _find(graph: NetworkGraph) -> Channels:
    device, graph = graph.layer.device, graph.to("cpu")
    set_of, layer = graph.coupled(), graph.layer
    num_sets, num_layers = int(set_of.max()) + 1, len(graph.layer_names)
    made, makers = _made(graph, num_sets + num_layers)
    bare = ~_of_sets(set_of, num_sets, made)  # what no weights make is of the layer in which it arises
    own = torch.stack([layer[bare], num_layers + set_of[bare]])
    ends = torch.cat([own, *(torch.stack([maker, num_layers + set_of[nodes]]) for maker, nodes in makers)], dim=1)
    part = components(ends, num_layers + num_sets + len(makers))
    _, group = torch.unique(part[num_layers : num_layers + num_sets], return_inverse=True)
    order = torch.full((int(group.max()) + 1,), num_sets).scatter_reduce(0, group, torch.arange(num_sets), "amin")
    group_of = order.argsort().argsort()[group]  # numbered as the forward pass meets them
    for name, bank in graph.banks.items():
        if name.startswith("token"):
            made[bank.nodes] = True
    held = {
        OUTPUT: torch.cat([*graph.outputs, made.new_empty(0, dtype=torch.int64)]),
        INPUT: torch.cat([*graph.inputs, made.new_empty(0, dtype=torch.int64)]),
        **graph.held,
        "no weights make them": torch.nonzero(~_of_sets(set_of, num_sets, made))[:, 0],
    }
    reasons: dict[int, str] = {}
    for reason, nodes in held.items():
        for one in torch.unique(group_of[set_of[nodes]]).tolist():
            reasons.setdefault(one, reason)
    free = torch.ones(int(group_of.max()) + 1, dtype=torch.bool)
    free[list(reasons)] = False
    layers = [torch.unique(layer[group_of[set_of] == g]).tolist() for g in range(len(free))]
    return Channels(
        set_of.to(device),
        group_of.to(device),
        free[group_of].to(device),
        tuple(tuple(found) for found in layers),
        reasons,
        _ends(graph, set_of),
    )


def _ends(graph: NetworkGraph, set_of: Tensor) -> tuple[Tensor, ...]:
    """The sets of each side of each weight and of each part of a split axis, equal ones once."""
    ends = [
        end[start:stop]
        for edges in graph.edges.values()
        for start, stop in zip(edges.ptr, edges.ptr[1:], strict=False)
        for end in (edges.src, edges.dst)
    ]
    found = (torch.unique(set_of[nodes]) for nodes in (*ends, *graph.parts))
    return tuple({sets.numpy().tobytes(): sets for sets in found}.values())


def _made(graph: NetworkGraph, first: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Which nodes weights make, and for each use of one its number (from ``first`` on) and the nodes that it makes.

    What two uses of one weight make is coupled anyway, unless one of them takes the weight transposed (an embedding
    that is the classifier, too): then it makes channels of another layer.
    """
    found: list[tuple[Tensor, Tensor]] = []
    made = torch.zeros(graph.num_nodes, dtype=torch.bool)
    for edges in graph.edges.values():
        for start, stop in zip(edges.ptr, edges.ptr[1:], strict=False):
            nodes = torch.unique(edges.dst[start:stop])
            made[nodes] = True
            found.append((torch.full_like(nodes, first + len(found)), nodes))
    return made, found


def _of_sets(set_of: Tensor, count: int, nodes: Tensor) -> Tensor:
    """Spread a mark of some nodes to all of their sets."""
    marked = torch.zeros(count, dtype=torch.bool)
    marked[set_of[nodes]] = True
    return marked[set_of]


def removal_order(
    channels: Channels,
    importance: Tensor,
    *,
    distribution: Distribution = "uniform",
    min_keep: Keep = 0.2,
    round_to: int = 1,
) -> list[Tensor]:
    """The order in which sets go: steps, each the sets (ids) of one group that are removed at once.

    ``"uniform"`` removes equal fractions of every group, the least important first; ``"global"`` compares importance,
    divided by its mean over the group, across groups; ``"raw"`` compares it as it is.

    Args:
        channels: the units.
        importance: of each set, ``[num_sets]``; higher stays longer.
        distribution: how groups share the removal.
        min_keep: the fraction of each group that always stays (at least one set), read as a ``keep``.
        round_to: after every step the group's width is a multiple of this (unless it is cut nowhere).

    Raises:
        ValueError: importance is NaN, of another length, or an option is out of range.
    """
    distribution = check_options(distribution, min_keep, round_to)
    _check(channels, importance)
    keys: list[tuple[float, float, int]] = []
    steps: list[Tensor] = []
    for group in torch.unique(channels.group_of[channels.prunable]).tolist():
        members = torch.nonzero(channels.group_of == group)[:, 0].cpu()
        value = importance[members].double().cpu()
        ranked, free = _leaving_one(channels, members, torch.argsort(value, stable=True))
        relative = value if distribution == "raw" else _relative(value)
        width = len(members)
        least = math.ceil(max(kept_count(min_keep, width), width - free) / round_to) * round_to
        left = width
        while left > least:
            after = (left - 1) // round_to * round_to
            if after < least:
                break
            gone = ranked[width - left : width - after]
            last = float(relative[gone[-1]])
            keys.append(((width - after) / width if distribution == "uniform" else last, last, len(steps)))
            steps.append(members[gone])
            left = after
    return [steps[number] for *_, number in sorted(keys)]


def _leaving_one(channels: Channels, members: Tensor, ranked: Tensor) -> tuple[Tensor, int]:
    """The ranks of a group with those last that would leave a weight without inputs or outputs; how many may go.

    Where channels are joined and then added, a group holds layers that share none of their channels.
    """
    place = torch.full((len(channels.group_of),), -1)
    place[members] = torch.arange(len(members))
    of_member: list[list[int]] = [[] for _ in members]
    left: list[int] = []
    for sets in channels.ends:
        inside = place[sets]
        if len(sets) < len(members) and bool((inside >= 0).all()):
            for member in inside.tolist():
                of_member[member].append(len(left))
            left.append(len(sets))
    goes, stays = [], []
    for member in ranked.tolist():
        if any(left[end] == 1 for end in of_member[member]):
            stays.append(member)
        else:
            goes.append(member)
            for end in of_member[member]:
                left[end] -= 1
    return torch.tensor([*goes, *stays]), len(goes)


def keep_after(channels: Channels, steps: list[Tensor]) -> Tensor:
    """The keep mask of the nodes, bool ``[num_nodes]``, once these steps of a removal order are done."""
    kept = torch.ones(len(channels.group_of), dtype=torch.bool)
    if steps:
        kept[torch.cat(steps)] = False
    return channels.of_nodes(kept.to(channels.set_of.device))


def masked(graph: NetworkGraph, keep: Tensor) -> NetworkGraph:
    """The graph with every value of a dropped channel set to zero: what a shrunk network computes, at full width.

    Kernels that come from or go to a dropped node become zero, and so do its norm and bias parameters; running
    statistics stay, and so does a scalar that other channels share. Gradients flow through.

    Args:
        graph: the network.
        keep: bool ``[num_nodes]``.

    Raises:
        ValueError: the mask has another shape or type.
    """
    check_mask(graph, keep)
    edges = {k: e.values * _kept_edges(graph, e, keep).unsqueeze(1) for k, e in graph.edges.items()}
    common = graph.once(_common)
    banks = {k: b.values * (keep[b.nodes].unsqueeze(1) | common[k]) for k, b in graph.banks.items() if not b.input_only}
    return graph.with_values(edges, banks)


def _kept_edges(graph: NetworkGraph, edges: EdgeSet, keep: Tensor) -> Tensor:
    """Edges of kept nodes; a dropped channel whose kernel is divided by its norm keeps it, and nobody reads it."""
    kept = keep[edges.src] & keep[edges.dst]
    for name, start, stop in zip(edges.names, edges.ptr, edges.ptr[1:], strict=False):
        if name in graph.normed:
            kept[start:stop] |= ~keep[edges.dst[start:stop]]
    return kept


def in_common(graph: NetworkGraph, slot: Slot) -> Tensor:
    """For each place of a node slot, whether its element lies in several sets: a scalar that channels share."""
    assert slot.nodes is not None
    sets = Channels.of(graph).set_of[slot.nodes].cpu()
    none = torch.zeros(int(slot.element.max()) + 1 if len(slot.element) else 0, dtype=torch.int64)
    low = none.scatter_reduce(0, slot.element, sets, "amin", include_self=False)
    high = none.scatter_reduce(0, slot.element, sets, "amax", include_self=False)
    return (low != high)[slot.element]


def _common(graph: NetworkGraph) -> dict[str, Tensor]:
    """For each bank, which of its values stand for elements that lie in several sets."""
    common = {name: torch.zeros(bank.values.shape, dtype=torch.bool) for name, bank in graph.banks.items()}
    for name in graph.to_state_dict():
        for slot in graph.slots(name):
            if isinstance(slot.group, str):
                common[slot.group][slot.row, slot.column] = in_common(graph, slot)
    return {name: values.to(graph.layer.device) for name, values in common.items()}


def check_mask(graph: NetworkGraph, keep: Tensor) -> None:
    """Raise ValueError unless ``keep`` is a bool mask of the graph's nodes that drops coupled channels together."""
    if keep.dtype != torch.bool or keep.shape != (graph.num_nodes,):
        raise ValueError(f"keep must be bool [{graph.num_nodes}], one for each node; got {keep.dtype} {[*keep.shape]}")
    channels = Channels.of(graph)
    first = torch.zeros(len(channels.group_of), dtype=torch.bool, device=keep.device)
    first[channels.set_of] = keep  # any one of the set's nodes
    torn = torch.nonzero(channels.of_nodes(first) != keep)
    if len(torn):
        name = graph.layer_names[int(graph.layer[torn[0, 0]])]
        raise ValueError(f"keep tears channels apart that are coupled, in layer '{name}': keep or drop a set whole")
    if not bool((first | channels.prunable).all()):
        node = torch.nonzero(~keep & ~channels.of_nodes(channels.prunable))[0, 0]
        name = graph.layer_names[int(graph.layer[node])]
        raise ValueError(f"keep drops channels of '{name}', which must stay: inputs and outputs are kept")


def check_options(distribution: str, min_keep: Keep, round_to: int) -> Distribution:
    """Raise ValueError unless these are options of `removal_order`; the distribution as it is spelled."""
    named = spelling(distribution, get_args(Distribution)) if isinstance(distribution, str) else None
    if named is None:
        raise ValueError(f"distribution is one of {', '.join(get_args(Distribution))}, not {distribution!r}")
    if not 0 < exact_fraction(min_keep, "min_keep") <= 1:
        raise ValueError(f"min_keep must lie in (0, 1], got {min_keep}")
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to must be a whole number of at least 1, got {round_to}")
    return cast(Distribution, named)


def _check(channels: Channels, importance: Tensor) -> None:
    if importance.shape != channels.group_of.shape:
        raise ValueError(f"importance must have one value for each of {len(channels.group_of)} sets")
    bad = torch.nonzero(torch.isnan(importance))
    if len(bad):
        raise ValueError(f"the importance of channel set {int(bad[0, 0])} is NaN")


def _relative(value: Tensor) -> Tensor:
    """Importance over its mean in the group; as it is where the mean is no scale to divide by."""
    mean = float(value.mean())
    return value / mean if 0 < mean < math.inf else value
