"""The hidden units of a problem's model: found by its network graph on a small part of the data, tried before use."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphsparse.errors import TicketError, TraceError
from graphsparse.fit import LinkTask
from graphsparse.fit.call import with_state
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_call import Arguments
from graphsparse.fit.measure import evaluating
from graphsparse.params import UnitMap, Units, prunable
from graphsparse.tickets.check import check_outputs

if TYPE_CHECKING:
    from graphsparse.metanet import NetworkUnits
    from graphsparse.tickets.problem import Found, Problem

_ARCS = 24  # of the part of the data that a model is traced on
_PAIRS = 4


@dataclass(frozen=True)
class ModelUnits:
    """The hidden units of a model.

    Attributes:
        network: of all its tensors, parameters and buffers, by their names in the model.
        trained: of its trainable parameters; what may rest is what was tried.
    """

    network: NetworkUnits
    trained: UnitMap


def units_of(problem: Problem) -> ModelUnits:
    """The hidden units of a problem's model, found once.

    Raises:
        TraceError: the model cannot be traced.
        ValueError: it has no hidden units.
    """
    if "units" not in problem.memory:
        problem.memory["units"] = _find(problem)
    found: ModelUnits = problem.memory["units"]
    return found


def units_pattern(problem: Problem, keep: Fraction) -> Units:
    """The projection that leaves so many weights in whole units.

    Raises:
        TraceError, ValueError: as `units_of`; or the keep leaves less than one unit of every layer.
    """
    training = problem.training
    trained = units_of(problem).trained
    counted = None if training.which == "all" else frozenset(prunable(problem.model, training.which))
    return Units(keep, trained, training.distribution or "global", counted)  # type: ignore[arg-type]


def _find(problem: Problem) -> ModelUnits:
    from graphsparse.metanet import NetworkGraph, NetworkUnits, find_units

    called, values = _traceable(problem)
    try:
        found = find_units(NetworkGraph.from_module(called, values))
    except TraceError as error:
        raise TraceError(
            f"the hidden units of {type(problem.model).__name__} cannot be found: {error}. Take pattern='weights', "
            "which needs no trace, or write that part in operations that torch.export follows"
        ) from error
    units = found.map
    if not units.count:
        raise ValueError(
            f"{type(problem.model).__name__} has no hidden units that could go: everything in it is an input, an "
            "output or tied to one. pattern='units' needs a hidden layer; pattern='weights' does not"
        )
    own = {name.removeprefix("model."): shape for name, shape in units.shapes.items()}
    claims = {name.removeprefix("model."): part for name, part in units.claims.items()}
    whole = replace(units, claims=claims, shapes=own, names=tuple(n.removeprefix("model.") for n in units.names))
    trained = whole.of(prunable(problem.model))
    tried = _tried(called, values, trained)
    return ModelUnits(NetworkUnits(whole, found.unit_of), trained.resting(tried))


class _Called(nn.Module):
    """A model and its decoder, if it has one, called with tensors alone."""

    def __init__(self, model: nn.Module, places: int, names: tuple[str, ...], decodes: bool) -> None:
        super().__init__()
        self.model, self.places, self.names, self.decodes = model, places, names, decodes

    def forward(self, *values: Any) -> Any:
        end = self.places + len(self.names)
        out = self.model(*values[: self.places], **dict(zip(self.names, values[self.places : end], strict=True)))
        return (out, self.model.decode(out, values[end])) if self.decodes else out  # type: ignore[operator]


def _traceable(problem: Problem) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model as a function of a small part of the data; of all nodes, where it does not run on fewer."""
    model = problem.fresh_model().cpu().eval()
    decodes = isinstance(problem.task, LinkTask) and hasattr(model, "decode")
    whole = problem.task.arguments(model).to("cpu")
    for nodes in (False, True):
        part = _part(whole, all_nodes=nodes or whole.x is None, count=problem.task.num_nodes)
        extra = (torch.arange(2 * _PAIRS).view(2, -1) % part.edge_index.max().clamp(min=1),) if decodes else ()
        values = (*part.places, *part.named.values(), *extra)
        called = _Called(model, len(part.places), tuple(part.named), decodes)
        try:
            with torch.no_grad():
                copy.deepcopy(called)(*values)  # a copy, since models remember graphs
            break
        except Exception:
            if nodes:
                raise
    return called, values


def _part(whole: Arguments, *, all_nodes: bool, count: int) -> Arguments:
    """A few arcs of a graph (of two graphs, where there are many) with the nodes at their ends, or with all nodes."""
    arcs = whole.edge_index
    batch = whole.batch
    if batch is None:
        chosen = torch.arange(min(_ARCS, arcs.size(1)))
    else:
        chosen = (batch[arcs[0]] < 2).nonzero().view(-1)[: 2 * _ARCS]
    if all_nodes:
        nodes = torch.arange(count)
    elif batch is None:
        nodes = torch.unique(torch.cat([arcs[:, chosen].reshape(-1), torch.arange(min(4, count))]))
    else:
        nodes = (batch < 2).nonzero().view(-1)
    number = torch.full((count,), -1)
    number[nodes] = torch.arange(len(nodes))

    def taken(value: Any, rows: Tensor) -> Any:
        return value[rows] if isinstance(value, Tensor) else value

    edge_data = whole.edge_data
    x, _, *rest = whole.places
    places: list[Any] = [taken(x, nodes), number[arcs[:, chosen]]]
    if rest:
        places += [taken(rest[0], chosen), *(taken(value, nodes) for value in rest[1:])]
    named = {name: taken(value, chosen if name in edge_data else nodes) for name, value in whole.named.items()}
    return Arguments(tuple(places), named)


def _tried(called: nn.Module, values: tuple[Any, ...], units: UnitMap) -> list[int]:
    """The groups whose units can rest: with half of them out, what rests changes no output.

    It changes some where others look at a unit from elsewhere, as a norm over channels does.
    """
    generator = torch.Generator().manual_seed(0)
    state = {n: value.detach().clone() for n, value in (*called.named_parameters(), *called.named_buffers())}
    for value in state.values():
        if value.is_floating_point():  # so that no bias is 0, and no norm plain
            value.add_(0.1 * torch.rand(value.shape, generator=generator).to(value))
    return [group for group in range(len(units.names)) if _rests(called, values, units, group, state)]


def _rests(called: nn.Module, values: tuple[Any, ...], units: UnitMap, group: int, state: Mapping[str, Tensor]) -> bool:
    members = (units.group == group).nonzero().view(-1)
    keep = torch.ones(units.count, dtype=torch.bool)
    keep[members[::2]] = False
    outputs = []
    for chosen in (units, units.resting(())):
        changed = dict(state)
        for name in chosen.claims:
            changed[f"model.{name}"] = state[f"model.{name}"].clone()
            chosen.empty_(name, changed[f"model.{name}"], keep, resting=False)
        with torch.no_grad(), evaluating(called):
            out = with_state(called, changed)(*values)
        outputs.append(torch.cat([part.reshape(-1) for part in (out if isinstance(out, tuple) else (out,))]))
    soft, hard = outputs
    size = float(hard.abs().max().clamp(min=1e-3))
    return bool(hard.isfinite().all()) and float((soft - hard).abs().max()) <= 1e-5 * size


@dataclass(frozen=True)
class UnitCut:
    """A model whose units that are out were cut out.

    Attributes:
        cuts: what stays of each tensor that loses something, see `graphsparse.metanet.cut_out`.
        small: the smaller module, with the trained weights; None where it cannot be had.
        figures: what the metrics say of it.
        layers: for each layer how many units it has kept, and of how many.
    """

    cuts: Mapping[str, Mapping[tuple[int, ...], Tensor]]
    small: nn.Module | None
    figures: Mapping[str, Any]
    layers: Mapping[str, list[int]]


def cut_of(problem: Problem, found: Found, masks: Mapping[str, Tensor]) -> UnitCut | None:
    """Cut out the units that a finder removed, and see that the outputs stay; None for weights one by one.

    Raises:
        TicketError: the finder removed parts of units.
    """
    if problem.training.pattern == "weights":
        return None
    from graphsparse.metanet import ShrinkError, cut_out

    units = units_of(problem)
    keep = units.trained.sums({name: masks[name] for name in units.trained.shapes}) > 0
    for name, whole in units.trained.masks(keep).items():
        if not torch.equal(whole, masks[name]):
            raise TicketError(f"the finder keeps parts of units in {name}; pattern='units' keeps a unit whole or not")
    cuts = units.network.cuts(keep)
    count, left, layers = units.trained.count, int(keep.sum()), _layers(units.trained, keep)
    figures: dict[str, Any] = {"num_units": count, "num_units_kept": left, "units_kept": left / count}
    try:
        small = cut_out(problem.trained_model(found.result), cuts)
        clear_graph_caches(small)
        check_outputs(problem.task.with_mask(found.edge_mask), small, found.result.logits)
    except (ShrinkError, TicketError) as error:
        return UnitCut(cuts, None, figures | {"cut": False, "cut_refused": str(error)}, layers)
    except Exception as error:  # whatever the code of a model says to other widths
        said = f"the smaller {type(problem.model).__name__} does not run: {' '.join(str(error).split())[:200]}"
        return UnitCut(cuts, None, figures | {"cut": False, "cut_refused": said}, layers)
    return UnitCut(cuts, small, figures | {"cut": True}, layers)


def _layers(units: UnitMap, keep: Tensor) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for group, name in enumerate(units.names):
        own = keep[units.group == group]
        place, number = name, 2
        while place in found:
            place, number = f"{name} ({number})", number + 1
        found[place] = [int(own.sum()), len(own)]
    return found
