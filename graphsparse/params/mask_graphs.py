"""Sparse networks as graphs of their units, and layered networks from any graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from graphsparse.params.counting import is_matrix
from graphsparse.params.layered import check_isolated, directed, layers_of
from graphsparse.params.mask_files import check_masks, masks_of


@dataclass(frozen=True)
class _Stage:
    """A layer of units: the matrix by which earlier ones enter, and that by which it sees itself one step before.

    Attributes:
        enter: name of the parameter ``[gates * units, inputs]``.
        again: name of the parameter ``[gates * units, units]``, of a recurrent layer.
        gates, units, inputs: sizes.
        first: the first of the earlier layers whose units enter, side by side; 0 is the network's input.
    """

    enter: str
    again: str | None
    gates: int
    units: int
    inputs: int
    first: int = 0


def graph_of_masks(net: nn.Module, masks: Mapping[str, Tensor] | None = None) -> nx.DiGraph:
    """The units of a network as nodes, and what connects them as edges.

    Args:
        net: a network of ``Linear`` layers and recurrent ones (``RNN``, ``GRU``, ``LSTM`` or their cells), in the order
            in which they are called; a layer takes the units of the one before it, or of several side by side.
        masks: bool, by name; None: what :func:`masks_of` finds. A matrix without a mask is dense.

    Returns:
        Nodes are numbered layer by layer, and have ``layer`` (0: the inputs) and ``unit``. An edge of a layer with
        several gates has ``gates``, the numbers of those that keep it; a recurrent one joins units of one layer.

    Raises:
        ValueError: for layers that are no chain, of other kinds (convolutions, attention), bidirectional ones or
            projections, or masks of another model.

    Source: Stier & Granitzer, "Structural analysis of sparse neural networks", 2019.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
        >>> mask = torch.tensor([[True, False], [False, True], [False, False]])
        >>> graph = graph_of_masks(net, {"0.weight": mask})
        >>> sorted(graph.edges), [graph.nodes[node]["layer"] for node in graph]
        ([(0, 2), (1, 3), (2, 5), (3, 5), (4, 5)], [0, 0, 1, 1, 1, 2])
    """
    stages = _stages(net)
    found = masks_of(net) if masks is None else dict(masks)
    check_masks(net, {name: mask for name, mask in found.items() if masks is not None})
    starts = _starts(stages)
    graph = nx.DiGraph()
    for layer, size in enumerate([stages[0].inputs, *(stage.units for stage in stages)]):
        graph.add_nodes_from((starts[layer] + i, {"layer": layer, "unit": i}) for i in range(size))
    for layer, stage in enumerate(stages, start=1):
        for name, start in ((stage.enter, starts[stage.first]), (stage.again, starts[layer])):
            if name is None:
                continue
            shape = net.get_parameter(name).shape
            kept = found.get(name, torch.ones(shape, dtype=torch.bool)).cpu().view(stage.gates, stage.units, -1)
            for unit, source in kept.any(0).nonzero().tolist():
                gates = kept[:, unit, source].nonzero().view(-1).tolist()
                more = {} if stage.gates == 1 else {"gates": tuple(gates)}
                graph.add_edge(start + source, starts[layer] + unit, **more)
    return graph


def masks_from_graph(net: nn.Module, graph: nx.Graph) -> dict[str, Tensor]:
    """Masks of a network by a graph of its units.

    A graph of :func:`graph_of_masks`, whose nodes have layers, gives back its masks. Of any other the nodes stand in
    layers by the longest path that leads to them; an undirected one is directed from the earlier node to the later, in
    the order in which they are listed. Its layers are all layers of the network, or all but the inputs and outputs,
    which are then dense. In a network of one recurrent layer (and dense ones around it) the nodes are its units, the
    edges are those from one time step to the next, an undirected edge goes both ways, and cycles are welcome.

    Args:
        net: as for :func:`graph_of_masks`.
        graph: any networkx graph.

    Returns:
        bool masks by the names of the parameters, all of ``net``'s matrices.

    Raises:
        ValueError: for a cycle, nodes without edges, layers that are not those of the network, or edges that jump over
            a layer where the network has no such connection.
        TypeError: for what is no graph of networkx.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> graph = nx.DiGraph([("a", "d"), ("b", "d"), ("b", "e"), ("c", "e")])
        >>> masks_from_graph(net, graph)["2.weight"].int()
        tensor([[1, 1, 0],
                [0, 1, 1]], dtype=torch.int32)
    """
    if not isinstance(graph, nx.Graph):
        raise TypeError(f"graph is one of networkx, got {type(graph).__name__}")
    stages = _stages(net)
    masks = {
        name: torch.zeros(net.get_parameter(name).shape, dtype=torch.bool)
        for stage in stages
        for name in (stage.enter, stage.again)
        if name is not None
    }
    sizes = [stages[0].inputs, *(stage.units for stage in stages)]
    if graph and all("layer" in graph.nodes[node] for node in graph):
        place = _given(graph, sizes)
        edges = list(graph.edges(data="gates"))
    else:
        again = [layer for layer, stage in enumerate(stages, start=1) if stage.again is not None]
        if again:
            place, layers = _recurrent(graph, sizes, again), again
        else:
            place, layers = _longest_paths(graph, sizes)
        edges = list(directed(graph, both=bool(again)).edges(data="gates"))
        for layer, stage in enumerate(stages, start=1):  # what the graph does not speak of is dense
            if layer not in layers or again or layer == min(layers) or stage.first not in range(min(layers), layer):
                masks[stage.enter].fill_(True)
    for source, target, gates in edges:
        _connect(stages, masks, place[source], place[target], gates, (source, target))
    return masks


def _stages(net: nn.Module) -> list[_Stage]:
    """The layers of a network, each with what enters it."""
    plain: list[_Stage] = []
    for prefix, module in net.named_modules():
        lead = f"{prefix}." if prefix else ""
        if isinstance(module, nn.Linear):
            plain.append(_Stage(f"{lead}weight", None, 1, module.out_features, module.in_features))
        elif isinstance(module, nn.RNNBase):
            if module.bidirectional or module.proj_size:
                raise ValueError(f"{prefix or 'the network'!r} is bidirectional or has projections, which are no chain")
            for i in range(module.num_layers):
                enter = module.get_parameter(f"weight_ih_l{i}")
                names = (f"{lead}weight_ih_l{i}", f"{lead}weight_hh_l{i}")
                gates = len(enter) // module.hidden_size
                plain.append(_Stage(*names, gates, module.hidden_size, enter.shape[1]))
        elif isinstance(module, nn.RNNCellBase):
            gates = len(module.weight_ih) // module.hidden_size
            names = (f"{lead}weight_ih", f"{lead}weight_hh")
            plain.append(_Stage(*names, gates, module.hidden_size, module.input_size))
    if not plain:
        raise ValueError("the network has no Linear or recurrent layer, whose units could be nodes")
    known = {name for stage in plain for name in (stage.enter, stage.again)}
    for name, parameter in net.named_parameters():
        home = net.get_submodule(name.rpartition(".")[0])
        looks_up = isinstance(home, (nn.Embedding, nn.EmbeddingBag))  # the network's inputs
        if "weight" in name.rpartition(".")[2] and is_matrix(parameter) and not looks_up and name not in known:
            raise ValueError(
                f"{name!r} is a weight of {type(home).__name__}: a graph of units has Linear and recurrent layers"
            )
    sizes, stages = [plain[0].inputs], []
    for layer, stage in enumerate(plain, start=1):
        first = next((i for i in reversed(range(layer)) if sum(sizes[i:layer]) == stage.inputs), None)
        if first is None:
            raise ValueError(
                f"{stage.enter!r} takes {stage.inputs} units, and the layers before it have {sizes}: they are no chain"
            )
        stages.append(_Stage(stage.enter, stage.again, stage.gates, stage.units, stage.inputs, first))
        sizes.append(stage.units)
    return stages


def _starts(stages: list[_Stage]) -> list[int]:
    starts = [0]
    for size in [stages[0].inputs, *(stage.units for stage in stages)]:
        starts.append(starts[-1] + size)
    return starts


def _given(graph: nx.Graph, sizes: list[int]) -> dict[Any, tuple[int, int]]:
    """The place of each node by its own words."""
    place = {node: (int(data["layer"]), int(data["unit"])) for node, data in graph.nodes(data=True) if "unit" in data}
    wanted = {(layer, unit) for layer, size in enumerate(sizes) for unit in range(size)}
    if len(place) != len(graph) or set(place.values()) != wanted or len(place) != len(wanted):
        raise ValueError(f"the nodes' layers and units are not those of the network, whose layers have {sizes} units")
    return place


def _recurrent(graph: nx.Graph, sizes: list[int], again: list[int]) -> dict[Any, tuple[int, int]]:
    check_isolated(graph)
    if len(again) > 1 or len(graph) != sizes[again[0]]:
        raise ValueError(
            f"a graph of {len(graph)} units is for one recurrent layer of as many; there are {len(again)}, of "
            f"{[sizes[layer] for layer in again]} units"
        )
    return {node: (again[0], unit) for unit, node in enumerate(graph)}


def _longest_paths(graph: nx.Graph, sizes: list[int]) -> tuple[dict[Any, tuple[int, int]], list[int]]:
    """The place of each node, and the layers that the graph speaks of."""
    layer_of = layers_of(directed(graph))
    widths = [list(layer_of.values()).count(i) for i in range(max(layer_of.values()) + 1)]
    if widths not in (sizes, sizes[1:-1]):
        raise ValueError(
            f"the graph's layers have {widths} nodes, the network's {sizes} units ({sizes[1:-1]} without its ends); "
            "layered_network(graph, inputs, outputs) makes one that fits"
        )
    lead = 0 if widths == sizes else 1
    seen = [0] * len(widths)
    place = {}
    for node in graph:
        layer = layer_of[node]
        place[node] = lead + layer, seen[layer]
        seen[layer] += 1
    return place, list(range(lead, lead + len(widths)))


def _connect(
    stages: list[_Stage],
    masks: dict[str, Tensor],
    source: tuple[int, int],
    target: tuple[int, int],
    gates: Any,
    edge: Any,
) -> None:
    """Keep the weight of an edge, in all gates unless it names some."""
    layer, unit = target
    stage = stages[layer - 1] if layer else None
    if stage is not None and stage.again is not None and source[0] == layer:
        name, column = stage.again, source[1]
    elif stage is not None and stage.first <= source[0] < layer:
        between = sum(stages[i - 1].units if i else stages[0].inputs for i in range(stage.first, source[0]))
        name, column = stage.enter, between + source[1]
    else:
        raise ValueError(
            f"the edge {edge} leads from layer {source[0]} to layer {layer}, and the network has no such connection"
        )
    for gate in range(stage.gates) if gates is None else gates:
        masks[name][gate * stage.units + unit, column] = True
