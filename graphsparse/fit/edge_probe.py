"""Whether a model makes anything of what edges carry, tried before it is trained."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from graphsparse.fit.edge_data import NAMES, EdgeData
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_call import Arguments, GraphCall
from graphsparse.fit.measure import device_of
from graphsparse.fit.rng import preserved, seed_all


def check_edge_data(model: nn.Module, arguments: Arguments, held: EdgeData) -> None:
    """Warn, in a line, of what edges carry and a model ignores; refuse a model that cannot be called with it.

    What its forward does not name has no place. What it names may still be ignored (PyG's ``GAT`` without ``edge_dim``
    drops ``edge_attr`` without a word): with other values a copy of the model then gives the same outputs, bit for bit.
    Where edges carry nothing and the model needs no order of them, the model is not called.

    Args:
        model: the model, which is not changed, nor are the random generators.
        arguments: what it is called with.
        held: what the edges carry.

    Raises:
        ValueError: if the model fails with these values and runs without, or fails because there are none, or no edges;
            what fails in any case is left to the training to say.
    """
    call = GraphCall(model)
    if held.others:
        _say(f"no model gets the data's {_and([*held.others])} (of edges {_and([*NAMES])} are passed)")
    given = arguments.edge_data
    unplaced = [name for name in held.held() if name not in given]
    if unplaced:
        _say(f"{call.name} has no place for the data's {_and(unplaced)} (its forward names none)")
    lacks_features = len(arguments.places) > 2 and arguments.places[2] is None and "edge_attr" in call.forward.needed
    if given or lacks_features or call.sorts or not arguments.edge_index.size(1):
        where = device_of(model)
        with preserved(where), torch.no_grad():
            _Trial(model, call.name, arguments.to(where), where).run(lacks_features)


class _Trial:
    def __init__(self, model: nn.Module, name: str, arguments: Arguments, where: torch.device) -> None:
        self.model, self.name, self.arguments, self.where = model, name, arguments, where

    def run(self, lacks_features: bool) -> None:
        given = self.arguments.edge_data
        outputs = self._outputs(self.arguments)
        if isinstance(outputs, Exception):
            self._complain(outputs, lacks_features)
            return
        for name, value in given.items():
            other = _changed(value)
            if other is None:
                continue
            moved = self._outputs(self.arguments.with_edge_data({name: other}))
            if isinstance(moved, Tensor) and moved.shape == outputs.shape and torch.equal(moved, outputs):
                hint = "; layers of PyG need edge_dim= for it" if name == "edge_attr" else ""
                _say(f"{self.name} takes {name} and makes nothing of it{hint}")

    def _complain(self, error: Exception, lacks_features: bool) -> None:
        said = f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        for name, value in self.arguments.edge_data.items():
            if isinstance(self._outputs(self.arguments.with_edge_data({name: None})), Tensor):
                raise ValueError(
                    f"{self.name} cannot be called with the data's {name}, {value.dtype} {list(value.shape)} {said}: "
                    f"build it for such values, or leave {name} out of the data"
                ) from error
        if lacks_features:
            raise ValueError(
                f"{self.name} needs edge_attr, which the data does not have {said}: set data.edge_attr to a tensor "
                "with a row for each edge"
            ) from error
        if not self.arguments.edge_index.size(1):
            raise ValueError(f"{self.name} cannot be called without edges, and the graph has none {said}") from error

    def _outputs(self, arguments: Arguments) -> Tensor | Exception:
        """Outputs of a copy in evaluation mode, or what it raised; what is zero at first, such as a gate, is not."""
        try:
            model = copy.deepcopy(self.model).eval()
        except Exception as error:
            return error
        clear_graph_caches(model)
        seed_all(0, self.where)
        for value in model.parameters():
            if value.is_floating_point() and not bool(value.any()):
                value.uniform_(0.05, 0.1)
        try:
            outputs = arguments.run(model)
        except Exception as error:
            return error
        return outputs if isinstance(outputs, Tensor) else TypeError(f"it returns a {type(outputs).__name__}")


def _changed(value: Tensor) -> Tensor | None:
    """Other values of the same kind and range, those of other edges; None for a category that all edges have."""
    other = value.roll(1, 0)
    if not torch.equal(other, value):
        return other
    if not value.is_floating_point() or not value.numel():
        return None
    return value + torch.linspace(0.5, 1, len(value), device=value.device).to(value).view(-1, *[1] * (value.dim() - 1))


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


_TOLD: ContextVar[set[str] | None] = ContextVar("told", default=None)


@contextmanager
def telling_once(told: set[str]) -> Iterator[None]:
    """Inside, what is in the set is not said again, and what is said comes into it: for runs that train many times."""
    token = _TOLD.set(told)
    try:
        yield
    finally:
        _TOLD.reset(token)


def _say(what: str) -> None:
    told = _TOLD.get()
    if told is not None:
        if what in told:
            return
        told.add(what)
    warnings.warn(f"{what}: the result is that of the same edges without", stacklevel=5)
