"""Hidden units of a network: which elements of which tensors go with a channel, and how channels lie in heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.metanet.channels.sets import HELD
from graphsparse.metanet.graph import NetworkGraph, Slot, components
from graphsparse.params import Claim, UnitMap, stays

Cuts = dict[str, dict[tuple[int, ...], Tensor]]

_READS = frozenset({"scale", "slope"})  # node features by which others read a channel; the rest makes it


@dataclass(frozen=True)
class NetworkUnits:
    """The hidden units of a network.

    Attributes:
        map: which elements of the parameters and buffers make up each unit; whatever makes a unit may rest.
        unit_of: int64 ``[num_nodes]``, the unit of each node of the network's graph, -1 where it has none.
    """

    map: UnitMap
    unit_of: Tensor

    def cuts(self, keep: Tensor) -> Cuts:
        """What stays of each tensor that loses something, if the units ``keep`` (bool ``[U]``) stay.

        Returns:
            For each such tensor by name: axes -> bool of the sizes of those axes, see `cut_out`.
        """
        found: Cuts = {}
        for name, claims in self.map.claims.items():
            for claim in claims:
                alive = stays(claim.units, keep)
                if not bool(alive.all()):
                    own = found.setdefault(name, {})
                    own[claim.axes] = alive & own[claim.axes] if claim.axes in own else alive
        return found


def find_units(graph: NetworkGraph) -> NetworkUnits:
    """The hidden units of a network's graph.

    A unit is a channel with all that is coupled to it: the rows of the layers that make it, the columns of the layers
    that read it, its biases and norms. Channels that are added, multiplied, stacked or averaged one to one are one
    unit, and so are the query, the key and the value at one place of a head. Inputs and outputs of the network are no
    units, and the channels of attention that is written as a product of matrices stay. A group of units is made by the
    same layers; its lanes are the heads of attention.

    Args:
        graph: the network.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> units = find_units(NetworkGraph.from_module(net, torch.zeros(1, 2)))
        >>> masks = units.map.masks(torch.tensor([True, False, True]))
        >>> masks["0.bias"], masks["2.weight"]
        (tensor([ True, False,  True]), tensor([[ True, False,  True]]))
    """
    return graph.once(_find)


def _find(graph: NetworkGraph) -> NetworkUnits:
    graph = graph.to("cpu")
    module = graph.to_module()
    shapes = {name: value.shape for name, value in (*module.named_parameters(), *module.named_buffers())}
    uses = {name: _uses(graph, name, shape.numel()) for name, shape in shapes.items()}
    creators = [(name, use.nodes[use.creates]) for name, found in uses.items() for use in found]
    creators = [(name, nodes) for name, nodes in creators if len(nodes)]
    if not creators:
        none = torch.empty(0, dtype=torch.int64)
        return NetworkUnits(UnitMap({}, shapes, none, none, ()), torch.full((graph.num_nodes,), -1))
    pairs = torch.cat([graph.coupled_pairs(), _passed_on(graph)], dim=1)
    set_of = components(pairs, graph.num_nodes)
    lanes = _lanes(graph, set_of)
    tied = _same_places(set_of, _groups(set_of, creators), lanes)
    if tied.shape[1]:  # queries, keys and values of one attention have one width
        before, set_of = set_of, components(torch.cat([pairs, tied], dim=1), graph.num_nodes)
        lanes = {int(set_of[(before == one).nonzero()[0, 0]]): lane for one, lane in lanes.items()}
    sets, part = int(set_of.max()) + 1, _groups(set_of, creators)
    made, held = (torch.zeros(sets, dtype=torch.bool) for _ in range(2))
    made[set_of[torch.cat([nodes for _, nodes in creators])]] = True
    ends = [pairs.flatten() for kind, pairs in graph.relations.items() if kind in HELD]
    held[set_of[torch.cat([*graph.inputs, *graph.outputs, *ends])]] = True
    for found in uses.values():
        for use in found:
            held[set_of[use.torn(set_of)]] = True
    whole = torch.zeros(int(part.max()) + 1, dtype=torch.bool)
    whole[part[held & made]] = True
    free = made & ~held & ~whole[part]
    number = torch.where(free, free.cumsum(0) - 1, -1)
    _, group = torch.unique(part[free], return_inverse=True)
    names = [""] * (int(group.max()) + 1 if len(group) else 0)
    for name, nodes in creators:
        for one in torch.unique(group[number[set_of[nodes]][number[set_of[nodes]] >= 0]]).tolist():
            names[one] = names[one] or name.rpartition(".")[0] or name
    unit_of = number[set_of]
    claims = {name: tuple(use.claim(unit_of, shapes[name]) for use in found) for name, found in uses.items()}
    kept = {name: tuple(claim for claim in found if claim is not None) for name, found in claims.items()}
    lane = _numbered(group, [lanes.get(one, ()) for one in free.nonzero().view(-1).tolist()])
    return NetworkUnits(
        UnitMap({n: found for n, found in kept.items() if found}, shapes, group, lane, tuple(names)), unit_of
    )


@dataclass(frozen=True)
class _Use:
    """Elements of a tensor in one role, and the node of each."""

    size: int
    element: Tensor
    nodes: Tensor
    creates: Tensor  # whether the node is computed by this element in the first place
    rests: Tensor  # whether nothing reads this element once what reads the node is gone
    shared: bool = False  # an element on several nodes belongs to none of them

    def _ends(self, of_node: Tensor) -> tuple[Tensor, Tensor]:
        none, values = torch.full((self.size,), -1), of_node[self.nodes]
        low = none.scatter_reduce(0, self.element, values, "amin", include_self=False)
        return low, none.scatter_reduce(0, self.element, values, "amax", include_self=False)

    def torn(self, set_of: Tensor) -> Tensor:
        """Nodes of several sets that one element serves, so that no cut can part them."""
        low, high = self._ends(set_of)
        return self.nodes[(low != high)[self.element]] if not self.shared else self.nodes[:0]

    def claim(self, unit_of: Tensor, shape: torch.Size) -> Claim | None:
        """The units of the elements, along the fewest axes; None if there are none."""
        low, high = self._ends(unit_of)
        units = torch.where(low == high, low, -1).view(shape)
        if not bool((units >= 0).any()):
            return None
        rests = torch.ones(self.size, dtype=torch.bool)
        rests[self.element[~self.rests]] = False
        rests = rests.view(shape)
        axes = tuple(axis for axis in range(len(shape)) if bool((units != units.narrow(axis, 0, 1)).any()))
        for axis in range(len(shape)):
            if axis not in axes:
                units, rests = units.narrow(axis, 0, 1), rests.all(axis, keepdim=True)
        small = [shape[axis] for axis in axes]
        return Claim(axes, units.reshape(small).clone(), rests.reshape(small).clone())


def _uses(graph: NetworkGraph, name: str, size: int) -> list[_Use]:
    slots = graph.slots(name)
    if not slots:
        return []
    kernels = [slot for slot in slots if not isinstance(slot.group, str)]
    found = [_own(slot, size) for slot in slots if isinstance(slot.group, str)]
    if kernels:
        element = torch.cat([slot.element for slot in kernels])
        second = torch.zeros(graph.num_nodes, dtype=torch.bool)  # a product is gone with one factor: the other rests
        second[graph.relations.get("multiply", torch.empty(2, 0, dtype=torch.int64))[1]] = True
        edges = [graph.edges[slot.group] for slot in kernels if not isinstance(slot.group, str)]
        into, out = (
            torch.cat([getattr(each, end)[slot.row] for each, slot in zip(edges, kernels, strict=True)])
            for end in ("dst", "src")
        )
        yes = torch.ones_like(element, dtype=torch.bool)
        found += [_Use(size, element, into, yes, ~second[into]), _Use(size, element, out, ~yes, ~yes)]
    return found


def _own(slot: Slot, size: int) -> _Use:
    assert slot.nodes is not None
    kind = str(slot.group).partition(".")[0]
    of_kind = torch.ones_like(slot.element, dtype=torch.bool)
    creates, rests = of_kind & (kind == "token"), of_kind & (kind not in _READS)
    return _Use(size, slot.element, slot.nodes, creates, rests, shared=True)


def _passed_on(graph: NetworkGraph) -> Tensor:
    """Pairs of nodes [2, n]: channels that are summed or compared (over heads or layers), and what goes on of them.

    A node that layers read, or that goes out, stands for a channel. Any other is a score or a norm, which many channels
    make up together without being one.
    """
    reduced = graph.relations.get("reduce", torch.empty(2, 0, dtype=torch.int64))
    return reduced[:, _read(graph)[reduced[1]]]


def _read(graph: NetworkGraph) -> Tensor:
    """Which nodes layers read, or go out, or are coupled to such a one; bool [num_nodes]."""
    read = torch.zeros(graph.num_nodes, dtype=torch.bool)
    read[torch.cat([*graph.outputs, *(edges.src for edges in graph.edges.values())])] = True
    set_of = components(graph.coupled_pairs(), graph.num_nodes)
    whole = torch.zeros(int(set_of.max()) + 1, dtype=torch.bool)
    whole[set_of[read]] = True
    return whole[set_of]


def _lanes(graph: NetworkGraph, set_of: Tensor) -> dict[int, tuple[int, ...]]:
    """For each set of channels the scores (their sets) that it makes up, or that weigh it: those of its head."""
    none = torch.empty(2, 0, dtype=torch.int64)
    reduced, spread = graph.relations.get("reduce", none), graph.relations.get("broadcast", none)
    score = torch.zeros(graph.num_nodes, dtype=torch.bool)
    score[reduced[1]] = True
    score &= ~_read(graph)
    whole = torch.zeros(int(set_of.max()) + 1, dtype=torch.bool)
    whole[set_of[score]] = True
    both = torch.cat([set_of[reduced], set_of[spread.flip(0)]], dim=1)  # channel, score
    both = torch.unique(both[:, whole[both[1]] & ~whole[both[0]]], dim=1)
    found: dict[int, tuple[int, ...]] = {}
    for one, lane in both.T.tolist():
        found[one] = (*found.get(one, ()), lane)
    return found


def _groups(set_of: Tensor, creators: Sequence[tuple[str, Tensor]]) -> Tensor:
    """The group of each set: sets that one tensor makes are of one group."""
    sets = int(set_of.max()) + 1
    pairs = [torch.stack([set_of[nodes], torch.full_like(nodes, sets + i)]) for i, (_, nodes) in enumerate(creators)]
    return components(torch.cat(pairs, dim=1), sets + len(creators))[:sets]


def _same_places(set_of: Tensor, part: Tensor, lanes: dict[int, tuple[int, ...]]) -> Tensor:
    """Pairs of nodes [2, n] at the same places of equal heads that groups share."""
    first = torch.full((len(part),), len(set_of)).scatter_reduce(0, set_of, torch.arange(len(set_of)), "amin")
    tables: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for one in sorted(lanes, key=lambda one: int(first[one])):
        tables.setdefault(int(part[one]), {}).setdefault(lanes[one], []).append(int(first[one]))
    seen: dict[tuple[tuple[tuple[int, ...], int], ...], dict[tuple[int, ...], list[int]]] = {}
    pairs: list[tuple[int, int]] = []
    for table in tables.values():
        form = tuple(sorted((lane, len(members)) for lane, members in table.items()))
        other = seen.setdefault(form, table)
        if other is not table:
            for lane, members in table.items():
                pairs += zip(members, other[lane], strict=True)
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T


def _numbered(group: Tensor, lanes: Sequence[tuple[int, ...]]) -> Tensor:
    """The lane of each unit within its group, all 0 where lanes are not equally wide."""
    lane = torch.zeros_like(group)
    for one in range(int(group.max()) + 1 if len(group) else 0):
        members = (group == one).nonzero().view(-1).tolist()
        number = {key: place for place, key in enumerate(dict.fromkeys(lanes[unit] for unit in members))}
        own = torch.tensor([number[lanes[unit]] for unit in members])
        if len(torch.unique(torch.bincount(own))) == 1:
            lane[members] = own
    return lane
