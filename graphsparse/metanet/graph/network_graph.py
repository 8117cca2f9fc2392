"""A network as a graph: a node for each channel, an edge for each kernel, a slot for each parameter element."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from graphsparse.errors import TraceError
from graphsparse.hashing import quick_hash
from graphsparse.metanet.graph.architecture import empty_copy, filled_copy, signature, tensors
from graphsparse.metanet.graph.stays import query_factors, staying
from graphsparse.metanet.graph.structure import COUPLING, Kernel, Structure, build, components
from graphsparse.metanet.graph.trace import trace
from graphsparse.metanet.graph.transfer import Return, gather, scatter, ways_back
from graphsparse.metanet.graph.widths import sizes_after
from graphsparse.report.html import fragment

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import HeteroData


@dataclass(frozen=True)
class EdgeSet:
    """The edges of one kernel class.

    ``src``, ``dst`` [num_edges] are node ids, ``values`` [num_edges, k] flattened kernels, k the product of the
    kernel's size (1 for a linear layer, whose kernel is ``()``). Edges ``ptr[i] : ptr[i + 1]`` belong
    to parameter ``names[i]``.
    """

    src: Tensor
    dst: Tensor
    values: Tensor
    names: tuple[str, ...]
    ptr: tuple[int, ...]


@dataclass(frozen=True)
class NodeBank:
    """One kind of node feature: ``nodes`` [m] ascending, ``values`` [m, columns].

    ``input_only`` features (running statistics) describe a node and are nothing that a metanetwork should change.
    """

    nodes: Tensor
    values: Tensor
    input_only: bool


class Slot(NamedTuple):
    """Where elements of a parameter lie: ``element[i]`` is ``values[row[i], column[i]]`` of an edge set or bank.

    ``kind`` is "edge" or "node", ``group`` the kernel class or the bank; ``nodes`` are the node ids of a node slot.
    """

    kind: str
    group: Kernel | str
    element: Tensor
    row: Tensor
    column: Tensor
    nodes: Tensor | None


@dataclass(frozen=True)
class _Architecture:
    """What is found once for an architecture."""

    structure: Structure
    back: dict[str, Return]
    constants: dict[str, str]  # buffers that the trace read -> digest of what it read
    derived: dict[Any, Any] = field(default_factory=dict)  # what else follows from the structure alone


_T = TypeVar("_T")
_CACHE: OrderedDict[Any, list[_Architecture]] = OrderedDict()
_CACHE_SIZE = 16


@dataclass(frozen=True)
class NetworkGraph:
    """A network as a graph, and the way back.

    Nodes are channels (neurons), numbered in the order of the forward pass. ``edges`` maps a kernel size to the
    :class:`EdgeSet` of all weights of that kernel, ``relations`` a type to pairs [2, n] of nodes (residual ``add``,
    ``multiply``, ``depthwise``, ``grouped``, ``q-k``, ``k-v`` ...), ``banks`` a kind of node feature (``bias``,
    ``gamma``, ``beta``, ``running_mean``, ``running_var``; ``gamma.1`` for a second norm on the same node; ``token`` or
    ``shift`` for class tokens and positions) to its :class:`NodeBank`. ``layer`` [num_nodes] numbers ``layer_names``,
    the modules that made the nodes. ``inputs`` and ``outputs`` hold, for each of the module's inputs and outputs, the
    nodes behind it. The graph shares no memory with the module it came from.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> graph = NetworkGraph.from_module(net, torch.zeros(1, 2))
        >>> graph
        NetworkGraph(nodes=6, edges={(): 9}, relations={}, banks={'bias': 4})
        >>> graph.outputs
        (tensor([5]),)
        >>> torch.equal(graph.to_module()[0].weight, net[0].weight)
        True
    """

    num_nodes: int
    layer: Tensor
    layer_names: tuple[str, ...]
    edges: dict[Kernel, EdgeSet]
    relations: dict[str, Tensor]
    banks: dict[str, NodeBank]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    _architecture: _Architecture = field(repr=False)
    _shell: nn.Module = field(repr=False)
    _rest: dict[str, Tensor] = field(repr=False)  # what lies nowhere in the graph, or only in part

    @staticmethod
    def from_module(module: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> NetworkGraph:
        """Turn any module into a graph, by tracing it in evaluation mode; the module is not changed.

        The trace is made once per architecture and form of the inputs, and kept; after that a graph costs a copy of the
        weights. Parameters that the traced call does not use (heads for training only) stay outside and come back as
        they are.

        Args:
            module: any ``torch.nn.Module`` that ``torch.export`` can trace.
            example_inputs: one tensor, or the tuple of the module's positional arguments.

        Raises:
            TraceError: an operation is not covered (named, with its module), or the module cannot be exported.

        Source: "Meta Pruning via Graph Metanetworks", arXiv 2506.12041, section 3 (made generic and exact).
        """
        inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        shell = empty_copy(module)
        state = {name: tensor.detach() for name, tensor in tensors(module).items()}
        found = _architecture_of(module, inputs, state)
        device = next(iter(state.values())).device if state else torch.device("cpu")
        rest = {
            name: tensor.clone()
            for name, tensor in state.items()
            if name not in found.back or found.back[name].elements is not None
        }
        values = gather(found.structure, state)
        return _assembled(found, values, shell, rest, device)

    def to_state_dict(self) -> dict[str, Tensor]:
        """The state dict of the module, put together from the graph's values; gradients flow back into these.

        A parameter that is used more than once has a value for each use: equal ones come back as they are, different
        ones as their mean (taken in float64). Tensors may be views of the graph's values: copy what is to be changed.
        """
        full = self._tensors()
        return {name: full[alias] for name, alias in self._names().items()}

    def to_module(self) -> nn.Module:
        """A new module with the graph's values: the same class, attributes and mode as the one the graph came from."""
        return filled_copy(self._shell, {name: tensor.detach().clone() for name, tensor in self._tensors().items()})

    def with_values(
        self, edges: Mapping[Kernel, Tensor] | None = None, banks: Mapping[str, Tensor] | None = None
    ) -> NetworkGraph:
        """The same graph with other values for some kernel classes and banks.

        Raises:
            ValueError: a kernel class or bank is unknown, or its values have another shape.
        """
        edge_sets, node_banks = dict(self.edges), dict(self.banks)
        for kernel, values in (edges or {}).items():
            _check_fit(edge_sets, kernel, values)
            edge_sets[kernel] = replace(edge_sets[kernel], values=values)
        for name, values in (banks or {}).items():
            _check_fit(node_banks, name, values)
            node_banks[name] = replace(node_banks[name], values=values)
        return replace(self, edges=edge_sets, banks=node_banks)

    def with_module(self, module: nn.Module) -> NetworkGraph:
        """The same graph with the weights, biases and norms of a module that `to_module` gave and somebody changed."""
        state = {name: tensor.detach() for name, tensor in tensors(module).items()}
        values = gather(self._architecture.structure, state)
        banks = {name: values[name] for name, bank in self.banks.items() if not bank.input_only}
        return self.with_values({kernel: values[kernel] for kernel in self.edges}, banks)

    def to(self, device: torch.device | str) -> NetworkGraph:
        """The graph with all its tensors on a device."""
        return replace(
            self,
            layer=self.layer.to(device),
            edges={
                kernel: replace(e, src=e.src.to(device), dst=e.dst.to(device), values=e.values.to(device))
                for kernel, e in self.edges.items()
            },
            relations={kind: pairs.to(device) for kind, pairs in self.relations.items()},
            banks={
                name: replace(b, nodes=b.nodes.to(device), values=b.values.to(device)) for name, b in self.banks.items()
            },
            inputs=tuple(nodes.to(device) for nodes in self.inputs),
            outputs=tuple(nodes.to(device) for nodes in self.outputs),
            _rest={name: tensor.to(device) for name, tensor in self._rest.items()},
        )

    def slots(self, name: str) -> tuple[Slot, ...]:
        """Where each element of a parameter or buffer lies; empty for what the traced call does not use.

        Raises:
            KeyError: the module has no such parameter.
        """
        alias = self._names(everything=True)[name]
        return tuple(self._slot(piece, alias) for piece in self._architecture.structure.pieces.get(alias, ()))

    def knows(self, name: str) -> bool:
        """Whether a parameter or buffer of this name is part of the module and lies in the graph."""
        names = self._names(everything=True)
        return name in names and names[name] in self._architecture.structure.pieces

    def staying(self, keep: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter and buffer stay when nodes go, see `stays.staying`."""
        return staying(self._architecture.structure, self._shapes(), keep.cpu())

    def query_factors(self, keep: Tensor) -> dict[str, Tensor]:
        """Factors for what makes queries of attention when heads become narrower, see `stays.query_factors`."""
        return query_factors(self._architecture.structure, self._shapes(), keep.cpu())

    def sizes_after(self, keep: Tensor) -> dict[str, set[tuple[int, int]]]:
        """For each module the lengths (before, after) of the axes of what its own operations made."""
        keep = keep.cpu()
        return {
            path: {size for shape, ids in parts for size in sizes_after(ids, shape, keep)}
            for path, parts in self._architecture.structure.made.items()
        }

    def spelled_out(self, keep: Tensor) -> tuple[str, int, int] | None:
        """A line of code that spells out a size which a mask of nodes changes, with that size and what it becomes."""
        keep = keep.cpu()
        for line, literals, shape, nodes in self._architecture.structure.spelled:
            for before, after in sizes_after(nodes, shape, keep):
                if before in literals and before != after:
                    return line, before, after
        return None

    @property
    def held(self) -> dict[str, Tensor]:
        """Nodes that cannot be cut, by the reason why."""
        found = self._architecture.structure.held
        return {reason: nodes.to(self.layer.device) for reason, nodes in found.items()}

    @property
    def normed(self) -> frozenset[str]:
        """Weights that are divided by their own norm."""
        return self._architecture.structure.normed

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Nodes of the parts into which axes are split, of which one each has to stay."""
        return self._architecture.structure.parts

    def _shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in tensors(self._shell).items()}

    def once(self, make: Callable[[NetworkGraph], _T]) -> _T:
        """What ``make`` gives for this graph, made once per architecture and device.

        ``make`` is a named function that reads the structure (nodes, layers, edges, relations) and no values.
        """
        key = (make, self.layer.device)
        if key not in self._architecture.derived:
            self._architecture.derived[key] = make(self)
        found: _T = self._architecture.derived[key]
        return found

    def coupled(self) -> Tensor:
        """Number [num_nodes] of the set of channels that can only be pruned together with each node.

        Two nodes are in one set if relations of the types in ``COUPLING`` connect them, or shapes tie them: equal parts
        of an axis, heads of one width.
        """
        pairs = torch.cat([self.coupled_pairs().cpu(), self._architecture.structure.ties], dim=1)
        return components(pairs, self.num_nodes).to(self.layer.device)

    def coupled_pairs(self) -> Tensor:
        """The pairs of nodes [2, n] of all relations of the types in ``COUPLING``."""
        kinds = [pairs for kind, pairs in self.relations.items() if kind in COUPLING]
        return torch.cat([*kinds, torch.empty(2, 0, dtype=torch.int64, device=self.layer.device)], dim=1)

    def to_data(self) -> HeteroData:
        """The graph for PyTorch Geometric: node type ``channel``, an edge type for each kernel class and relation."""
        from graphsparse.metanet.graph.views import to_data

        return to_data(self)

    def to_networkx(self) -> nx.MultiDiGraph:
        """The graph for networkx, with layers, kinds, kernels and parameters as attributes."""
        from graphsparse.metanet.graph.views import to_networkx

        return to_networkx(self)

    def print(self) -> None:
        """Print what a person wants to know: layers, kernels, relations, features, inputs and outputs."""
        print(self)

    def __str__(self) -> str:
        from graphsparse.metanet.graph.views import description

        return description(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: layers, kernels, relations and features as tables."""
        from graphsparse.metanet.graph.views import blocks

        return fragment(blocks(self))

    def __repr__(self) -> str:
        edges = {kernel: len(edge.src) for kernel, edge in self.edges.items()}
        relations = {kind: pairs.shape[1] for kind, pairs in self.relations.items()}
        banks = {name: len(bank.nodes) for name, bank in self.banks.items()}
        return f"NetworkGraph(nodes={self.num_nodes}, edges={edges}, relations={relations}, banks={banks})"

    def _slot(self, piece: Any, name: str) -> Slot:
        group = piece.group
        edge = not isinstance(group, str)
        width = (self.edges[group] if edge else self.banks[group]).values.shape[1]
        whole = torch.arange(tensors(self._shell)[name].numel())
        element = whole if piece.element is None else piece.element
        position = piece.start + whole if piece.position is None else piece.position
        row = position // width
        nodes = None if edge else self.banks[group].nodes[row.to(self.layer.device)]
        return Slot("edge" if edge else "node", group, element, row, position % width, nodes)

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by their first names."""
        values: dict[Kernel | str, Tensor] = {kernel: edge.values for kernel, edge in self.edges.items()}
        values.update({name: bank.values for name, bank in self.banks.items()})
        out = {}
        for name, shell in tensors(self._shell).items():
            back = self._architecture.back.get(name)
            out[name] = self._rest[name] if back is None else scatter(back, values, self._rest.get(name, shell))
        return out

    def _names(self, everything: bool = False) -> dict[str, str]:
        """Name in the state dict (or any name of a parameter or buffer) -> first name of the same tensor."""
        first = {id(tensor): name for name, tensor in reversed(tensors(self._shell).items())}
        named: dict[str, Any] = {}
        if everything:
            named |= dict(self._shell.named_parameters(remove_duplicate=False))
            named |= dict(self._shell.named_buffers(remove_duplicate=False))
        else:
            named |= self._shell.state_dict(keep_vars=True)
        return {name: first[id(tensor)] for name, tensor in named.items() if id(tensor) in first}


def clear_cache() -> None:
    """Forget the traces of all architectures."""
    _CACHE.clear()


def _check_fit(groups: Mapping[Any, EdgeSet | NodeBank], key: Any, values: Tensor) -> None:
    if key not in groups:
        raise ValueError(f"the graph has no {key!r}; it has {', '.join(map(repr, groups))}")
    if values.shape != groups[key].values.shape:
        raise ValueError(f"values of {key!r} have shape {tuple(values.shape)}, not {tuple(groups[key].values.shape)}")


def _architecture_of(module: nn.Module, inputs: tuple[Any, ...], state: dict[str, Tensor]) -> _Architecture:
    key = signature(module, inputs)
    for found in _CACHE.get(key, ()):
        if all(quick_hash(state[name]) == seen for name, seen in found.constants.items()):
            _CACHE.move_to_end(key)
            return found
    for name, tensor in state.items():
        if tensor.is_complex():
            raise TraceError(f"parameter '{name}' is complex; real parameters are covered")
    structure = build(trace(module, inputs))
    back = ways_back(structure, {name: tensor.numel() for name, tensor in state.items()})
    found = _Architecture(structure, back, {name: quick_hash(state[name]) for name in structure.constants})
    _CACHE.setdefault(key, []).append(found)
    _CACHE.move_to_end(key)
    while len(_CACHE) > _CACHE_SIZE:
        _CACHE.popitem(last=False)
    return found


def _assembled(
    found: _Architecture,
    values: Mapping[Kernel | str, Tensor],
    shell: nn.Module,
    rest: dict[str, Tensor],
    device: torch.device,
) -> NetworkGraph:
    structure = found.structure
    graph = NetworkGraph(
        num_nodes=structure.num_nodes,
        layer=structure.layer,
        layer_names=structure.layer_names,
        edges={k: EdgeSet(e.src, e.dst, values[k], e.names, e.ptr) for k, e in structure.edges.items()},
        relations=dict(structure.relations),
        banks={
            name: NodeBank(bank.nodes, values[name], name.startswith("running_"))
            for name, bank in structure.banks.items()
        },
        inputs=structure.inputs,
        outputs=structure.outputs,
        _architecture=found,
        _shell=shell,
        _rest=rest,
    )
    return graph if device.type == "cpu" else graph.to(device)
