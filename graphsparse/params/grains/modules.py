"""Whole modules: blocks, layers, branches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from graphsparse.params.counting import prunable
from graphsparse.params.grains.spanning import Spanning


@dataclass(frozen=True)
class Modules(Spanning):
    """Whole modules, each with all of its trainable parameters; a module's score is the l2 norm of its elements'.

    Args:
        names: of modules, in which ``*`` and ``?`` match as in file names; of modules inside one another that one
            pattern matches, the outer ones are meant.

    Raises:
        TypeError: if ``names`` are no strings.
        ValueError: when a model is given: for a name that it has not, a module inside another, one without trainable
            parameters, or a parameter of two of them.

    Example:
        >>> net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
        >>> blocks = Modules(["1", "2"]).bind(net)
        >>> blocks.count, list(blocks.parameters(net)), blocks.owner("2.weight")
        (2, ['1.weight', '1.bias', '2.weight', '2.bias'], 1)
    """

    names: Iterable[str]

    def __post_init__(self) -> None:
        listed = isinstance(self.names, Iterable) and not isinstance(self.names, str)
        names = tuple(self.names) if listed else (self.names,)
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"Modules are named by strings, one or more; got {names!r:.60}")
        object.__setattr__(self, "names", names)

    def bind(self, model: nn.Module) -> Modules:
        """The modules of this model that the names and patterns mean."""
        modules = {name: module for name, module in model.named_modules() if name}
        found: list[str] = []
        for pattern in self.names:
            exact = [pattern] if pattern in modules else []
            matching = exact or [name for name in modules if fnmatchcase(name, pattern)]
            matching = [
                name
                for name in matching
                if any(p.requires_grad for p in modules[name].parameters())
                and not any(name.startswith(f"{other}.") for other in matching)
            ]
            if not matching:
                raise ValueError(
                    f"{pattern!r} names no module with trainable parameters; there are {list(modules)[:12]}"
                )
            found += [name for name in matching if name not in found]
        inner = [(a, b) for a in found for b in found if a.startswith(f"{b}.")]
        if inner:
            raise ValueError(f"the module {inner[0][0]!r} lies inside {inner[0][1]!r}; name one of them")
        bound = Modules(found)
        owners: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            own = bound._module(name)
            if own is not None and owners.setdefault(id(parameter), own) != own:
                raise ValueError(
                    f"{name!r} is a parameter of {owners[id(parameter)]!r} and of {own!r}, and stays with one"
                )
        return bound

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """All trainable parameters of these modules, biases and norms among them."""
        inside = {id(p) for n, p in model.named_parameters(remove_duplicate=False) if self._module(n) is not None}
        found = {name: p for name, p in prunable(model).items() if id(p) in inside}
        strange = [name for name in found if self._module(name) is None]
        if strange:
            raise ValueError(f"{strange[0]!r} is a parameter of one of the modules and of another, and stays with that")
        return found

    @property
    def count(self) -> int:
        """How many modules there are."""
        return len(tuple(self.names))

    def owner(self, name: str) -> int:
        """The number of the module that a parameter belongs to."""
        own = self._module(name)
        assert own is not None
        return tuple(self.names).index(own)

    def _module(self, parameter: str) -> str | None:
        return next((name for name in self.names if parameter.startswith(f"{name}.")), None)
