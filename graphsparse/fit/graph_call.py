"""How a model of graphs is called: by place what every one takes, by the names of its own forward what edges carry."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import Aggregation, Sequential

from graphsparse.fit.edge_data import NAMES, EdgeData
from graphsparse.fit.features import clear_graph_caches, run
from graphsparse.fit.measure import evaluating

_SORTED = {"assert_sorted_index", "to_dense_batch"}  # what an aggregation of PyG calls if it needs arcs by target


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a model is called with: ``model(*places, **named)``.

    Attributes:
        places: features (or None) and arcs; of many graphs perhaps features of the arcs and the graph of each node.
        named: the rest, by the names of the model's own forward.
    """

    places: tuple[Any, ...]
    named: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    @property
    def x(self) -> Tensor | None:
        """Features of the nodes."""
        x: Tensor | None = self.places[0]
        return x

    @property
    def edge_index(self) -> Tensor:
        """Arcs [2, E]."""
        arcs: Tensor = self.places[1]
        return arcs

    @property
    def batch(self) -> Tensor | None:
        """The graph of each node, where there are many."""
        return self.named.get("batch", self.places[3] if len(self.places) > 3 else None)

    @property
    def edge_data(self) -> dict[str, Tensor]:
        """What of the edges' data is handed over, by name."""
        placed = {"edge_attr": self.places[2]} if len(self.places) > 2 and self.places[2] is not None else {}
        return placed | {name: value for name, value in self.named.items() if name in NAMES}

    def with_x(self, x: Tensor | None) -> Arguments:
        """The same graph with other features of its nodes."""
        return Arguments((x, *self.places[1:]), self.named)

    def with_arcs(self, edge_index: Tensor) -> Arguments:
        """As many other arcs, which carry the same."""
        return Arguments((self.places[0], edge_index, *self.places[2:]), self.named)

    def with_edge_data(self, values: Mapping[str, Tensor | None]) -> Arguments:
        """The same graph whose edges carry other values; None: nothing of that name."""
        places = self.places
        if "edge_attr" in values and "edge_attr" not in self.named:
            places = (*places[:2], values["edge_attr"], *places[3:])
        named = {name: values.get(name, value) for name, value in self.named.items()}
        return Arguments(places, {name: value for name, value in named.items() if value is not None})

    def to(self, device: torch.device | str) -> Arguments:
        """The same on `device`."""
        places = tuple(value.to(device) if isinstance(value, Tensor) else value for value in self.places)
        return Arguments(places, {name: value.to(device) for name, value in self.named.items()})

    def run(self, model: nn.Module) -> Any:
        """What the model returns."""
        return run(model, *self.places, **self.named)


@dataclasses.dataclass(frozen=True)
class Forward:
    """What the forward of a model says that it takes.

    Attributes:
        places: names of what may be given by place, in order.
        names: what may be given by name.
        needed: what has no default.
        any_place: whether more may be given by place.
        any_name: whether any other name may be given, too.
    """

    places: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    any_place: bool = False
    any_name: bool = False

    @classmethod
    def own(cls, model: nn.Module) -> Forward:
        """What the model's signature says. What a ``functools.partial`` has set already is left alone."""
        forward = model.forward
        if isinstance(model, Sequential):  # of PyG: its inputs are those that it was written with
            places = tuple(model.signature.param_dict)
            return cls(places, frozenset(places), frozenset(places))
        try:
            parameters = list(inspect.signature(forward).parameters.values())
        except (TypeError, ValueError):  # a builtin that does not tell
            return cls(any_place=True)
        already = forward.keywords if isinstance(forward, functools.partial) else {}
        kinds = {parameter.kind for parameter in parameters}
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in already]
        return cls(
            places=tuple(p.name for p in named if p.kind is not p.KEYWORD_ONLY),
            names=frozenset(p.name for p in named if p.kind is not p.POSITIONAL_ONLY),
            needed=frozenset(p.name for p in named if p.default is p.empty),
            any_place=inspect.Parameter.VAR_POSITIONAL in kinds,
            any_name=inspect.Parameter.VAR_KEYWORD in kinds,
        )

    @classmethod
    def of(cls, model: nn.Module) -> Forward:
        """The same of a model that hands on whatever it gets (``**named``): what the parts take that take arcs.

        So ``torch.compile``, ``DataParallel``, averaged models and wrappers of one's own are looked through.

        Example:
            >>> from torch_geometric.nn import GCNConv
            >>> sorted(Forward.of(nn.DataParallel(GCNConv(2, 2))).names)
            ['edge_index', 'edge_weight', 'x']
        """
        own = cls.own(model)
        parts = [cls.of(part) for part in parts_with_arcs(model)] if own.any_name else []
        if not parts:
            return own
        return cls(
            places=max(own.places, parts[0].places, key=len) if own.any_place else own.places,
            names=own.names | frozenset.intersection(*(part.names for part in parts)),
            needed=own.needed | frozenset[str]().union(*(part.needed for part in parts)),
            any_place=own.any_place and parts[0].any_place,
            any_name=all(part.any_name for part in parts),
        )

    def takes(self, name: str) -> bool:
        """Whether it can be given by name."""
        return self.any_name or name in self.names


def parts_with_arcs(model: nn.Module) -> list[nn.Module]:
    """The direct parts of a model whose forward takes arcs by name, or hands them on."""
    return [part for part in model.children() if "edge_index" in Forward.of(part).names]


def name_under(model: nn.Module) -> str:
    """The class of a model, under what is wrapped around it."""
    while Forward.own(model).any_name and len(parts := parts_with_arcs(model)) == 1:
        model = parts[0]
    return type(model).__name__


class GraphCall:
    """From a graph to the arguments of one model.

    Edge data is passed by the names of the model's forward. Floats come in the type of the model's parameters. Arcs are
    sorted by their target for a model with an aggregation that needs it (LSTM, GRU, LCM ...), and for no other.

    Args:
        model: the model.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> held = EdgeData(edge_weight=torch.ones(1), edge_type=torch.zeros(1, dtype=torch.long))
        >>> arcs = torch.tensor([[0], [1]])
        >>> list(GraphCall(GCNConv(2, 2)).arguments(torch.ones(2, 2), arcs, held).named)
        ['edge_weight']
    """

    def __init__(self, model: nn.Module) -> None:
        self.name = name_under(model)
        self.own, self.forward = Forward.own(model), Forward.of(model)
        self.sorts = any(map(needs_order, model.modules()))
        floats = {value.dtype for value in model.parameters() if value.is_floating_point()}
        self.dtype = floats.pop() if len(floats) == 1 else None

    def arguments(
        self, x: Tensor | None, edge_index: Tensor, edge_data: EdgeData, batch: Tensor | None = None
    ) -> Arguments:
        """What the model is called with.

        Args:
            x: features [N, ...], or None.
            edge_index: arcs [2, E].
            edge_data: what they carry.
            batch: the graph of each node [N], if there are many: then ``model(x, edge_index, edge_attr, batch)``,
                unless the forward names ``batch`` at another place.

        Raises:
            ValueError: if the forward needs, without a default, what the data does not have, or cannot be called so.
        """
        edge_index, edge_data = self.ordered(edge_index, edge_data)
        held = {name: self._typed(value) for name, value in edge_data.held().items()}
        places: tuple[Any, ...] = (None if x is None else self._typed(x), edge_index)
        named = {name: value for name, value in held.items() if self.forward.takes(name)}
        lacking = [name for name in NAMES if name in self.forward.needed and name not in held]
        if batch is not None and self._names_batch():
            named["batch"] = batch
        elif batch is not None:
            named.pop("edge_attr", None)
            places = (*places, held.get("edge_attr"), batch)
            lacking = [name for name in lacking if name != "edge_attr"]
        if lacking:
            raise ValueError(
                f"{self.name} needs {' and '.join(lacking)}, which the data does not have: set data.{lacking[0]} to a "
                "tensor with a row for each edge, or give the argument a default"
            )
        self._check_call(places, named)
        return Arguments(places, named)

    def _check_call(self, places: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Refuse a model whose forward cannot be called so."""
        given = {*self.own.places[: len(places)], *named}
        few = len(places) > len(self.own.places) and not self.own.any_place
        if not few and self.own.needed <= given:
            return
        call = ", ".join([*("x", "edge_index", "edge_attr", "batch")[: len(places)], *(f"{name}=" for name in named)])
        names = ", ".join(self.own.places) or "nothing"
        said = f"takes {names} by place" if few else f"needs {', '.join(sorted(self.own.needed - given))}, too"
        raise ValueError(
            f"{self.name} is called as model({call}), and its forward {said}: give a module whose forward takes these"
        )

    def ordered(self, edge_index: Tensor, edge_data: EdgeData) -> tuple[Tensor, EdgeData]:
        """Arcs in the order that the model needs, and what they carry."""
        if not self.sorts:
            return edge_index, edge_data
        order = by_target(edge_index)
        return edge_index[:, order], edge_data.take(order)

    def _typed(self, value: Tensor) -> Tensor:
        return value if self.dtype is None or not value.is_floating_point() else value.to(self.dtype)

    def _names_batch(self) -> bool:
        third, fourth = (*self.forward.places[2:4], "", "")[:2]
        return "batch" in self.forward.names and (fourth != "batch" or third in ("edge_weight", "edge_type"))


def by_target(edge_index: Tensor) -> Tensor:
    """Positions [E] that sort arcs [2, E] by their target, those of a target in the order that they have."""
    return torch.argsort(edge_index[1], stable=True)


def needs_order(module: nn.Module) -> bool:
    """Whether it is an aggregation of PyG that lays messages out by target (LSTM, GRU, LCM ...), filled up to the most.

    Example:
        >>> from torch_geometric.nn import LSTMAggregation, SumAggregation
        >>> needs_order(LSTMAggregation(2, 2)), needs_order(SumAggregation())
        (True, False)
    """
    if not isinstance(module, Aggregation):
        return False
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and bool(_SORTED & {*code.co_names})


def whole_outputs(model: nn.Module, arguments: Arguments) -> Tensor:
    """Outputs of one pass in eval mode; the model's modes are as before, and no graph is remembered."""
    with evaluating(model):
        clear_graph_caches(model)
        outputs: Tensor = arguments.run(model)
        clear_graph_caches(model)
    return outputs
