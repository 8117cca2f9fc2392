"""Methods by name: each is a choice on the five axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphsparse.params.grains import Rows
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.rules import Bypass, DropGrow, Gates, Hold, Project, Proximal, Shrink, StraightThrough
from graphsparse.params.schedule import Cubic, Linear, Stages
from graphsparse.params.scores.ensembles import Ensembles
from graphsparse.params.scores.explore import Explore
from graphsparse.registry import Registry

Axes = dict[str, Any]
AXES = ("pattern", "distribution", "score", "schedule", "rule")


@dataclass(frozen=True)
class Recipe:
    """A method: what it chooses on the axes, given the steps of the training and the N:M pattern if there is one.

    Args:
        about: one line.
        choose: called as ``choose(steps, pattern)``; gives values for some of ``pattern``, ``distribution``, ``score``,
            ``schedule`` and ``rule``.
        timed: whether it needs ``steps``.
        n_of_m: whether it takes ``keep="N:M"``, and nothing else.
        modules: whether it takes ``pattern=Modules(names)``, and nothing else.
    """

    about: str
    choose: Callable[[int, NofM | None], Axes]
    timed: bool = False
    n_of_m: bool = False
    modules: bool = False

    def axes(self, name: str, steps: int | None, pattern: NofM | None) -> Axes:
        """The choices.

        Raises:
            ValueError: for a method without the steps or the kind of ``keep`` that it needs.
        """
        if self.timed and steps is None:
            raise ValueError(f"{name!r} needs steps=, the optimizer steps of the whole training (epochs times batches)")
        if self.n_of_m and pattern is None:
            raise ValueError(f"{name!r} keeps N of every M weights: keep is a pattern such as '2:4'")
        found = self.choose(steps or 0, pattern)
        unknown = sorted(set(found) - set(AXES))
        if unknown:
            raise ValueError(f"the method {name!r} chooses {unknown}; the axes are {', '.join(AXES)}")
        return dict(found)


def _checked(name: str, entry: object) -> Recipe:
    if isinstance(entry, Recipe):
        return entry
    if isinstance(entry, Mapping):
        fixed = dict(entry)
        unknown = sorted(set(fixed) - set(AXES))
        if unknown:
            raise ValueError(f"the method {name!r} chooses {unknown}; the axes are {', '.join(AXES)}")
        return Recipe("a method of the user's own", lambda steps, pattern: fixed)
    raise TypeError(f"a method is a Recipe, or the values of its axes by name; {name!r} is {entry!r:.50}")


METHODS: Registry[Recipe] = Registry("method", check=_checked)


def methods() -> list[str]:
    """Names of the methods that a :class:`Sparsifier` takes.

    Example:
        >>> "rigl" in methods()
        True
    """
    return METHODS.names()


def register(name: str, recipe: Recipe | Mapping[str, Any]) -> None:
    """Add a method of one's own.

    Args:
        name: a free name.
        recipe: a :class:`Recipe`, or the values of its axes by name, where nothing depends on the steps.

    Raises:
        TypeError, ValueError: for a taken name, or what is no recipe.

    Example:
        >>> register("snip", {"score": "taylor", "rule": Hold(), "distribution": "global"})
        >>> "snip" in methods()
        True
        >>> del METHODS["snip"]
    """
    METHODS.register(name, recipe)


def _every(steps: int) -> int:
    """Steps between two exchanges: 100 as published, fewer where so few steps would leave less than twenty of them."""
    return min(100, max(1, steps // 20))


def _part(steps: int, share: float) -> int:
    return max(1, int(share * steps))


def _ramp(steps: int, pattern: NofM | None) -> Axes:
    end = _part(steps, 0.75)
    return {"distribution": "uniform", "schedule": Cubic(end, every=max(1, end // 50)), "rule": Hold()}


def _exchange(grow: Any, *, until: float = 0.75, **options: Any) -> Callable[[int, NofM | None], Axes]:
    def make(steps: int, pattern: NofM | None) -> Axes:
        return {"distribution": "erk", "rule": DropGrow(grow, every=_every(steps), until=until, **options)}

    return make


def _stages(steps: int, pattern: NofM | None) -> Axes:
    assert pattern is not None
    n, m = pattern.n, pattern.m
    kept = sorted({max(n, m - 1), *(max(n, m >> i) for i in range(1, m.bit_length())), n}, reverse=True)
    return {"schedule": Stages([f"{each}:{m}" for each in kept], end=max(steps, 1)), "rule": StraightThrough(decay=0.0)}


def _ensembles(steps: int, pattern: NofM | None) -> Axes:
    grow = DropGrow(Ensembles("hebbian"), every=_every(steps), first=Ensembles("random"))
    return {"distribution": "uniform", "rule": grow}


def _envelope(steps: int, pattern: NofM | None) -> Axes:
    rule = Proximal("group-envelope", 1e-3, schedule=Linear(end=max(1, _part(steps, 0.75))))
    return {"pattern": Rows(1), "distribution": "uniform", "rule": rule}


def _static(distribution: str) -> Recipe:
    about = f"masks drawn at random once, shared out by {distribution!r}"
    return Recipe(about, lambda steps, pattern: {"distribution": distribution, "score": "random", "rule": Hold()})


for _distribution in ("uniform", "er", "erk"):
    METHODS.register(f"random-{_distribution}", _static(_distribution))
METHODS.register(
    "magnitude",
    Recipe("the largest weights stay, once", lambda steps, pattern: {"distribution": "uniform", "rule": Hold()}),
)
METHODS.register("gmp", Recipe("the largest weights stay, fewer of them along a cubic ramp", _ramp, timed=True))
METHODS.register(
    "iht",
    Recipe(
        "the largest weights after every step", lambda steps, pattern: {"distribution": "uniform", "rule": Project()}
    ),
)
METHODS.register(
    "iss",
    Recipe(
        "the weakest shrink a little after every step, then go",
        lambda steps, pattern: {"distribution": "uniform", "rule": Shrink()},
        timed=True,
    ),
)
METHODS.register("set", Recipe("drop by size, grow at random", _exchange("random", until=1.0), timed=True))
METHODS.register("rigl", Recipe("drop by size, grow by gradient", _exchange("gradient"), timed=True))
METHODS.register(
    "dst-ee", Recipe("drop by size, grow by gradient and what was seldom tried", _exchange(Explore()), timed=True)
)
METHODS.register(
    "dsl",
    Recipe(
        "drop by size of all layers together, grow by gradient where it is large",
        _exchange("gradient", fraction=0.5, budget="moving"),
        timed=True,
    ),
)
METHODS.register(
    "blocks",
    Recipe(
        "whole blocks are gated, then drawn to the identity, then taken out",
        lambda steps, pattern: {"rule": Bypass()},
        timed=True,
        modules=True,
    ),
)
METHODS.register(
    "gates",
    Recipe(
        "inputs are gated with noise, and those of more signal than noise stay",
        lambda steps, pattern: {"pattern": Rows(1), "distribution": "uniform", "rule": Gates()},
        timed=True,
    ),
)
METHODS.register("g2g", Recipe("ensembles of units; drop by size, grow by Hebb's rule", _ensembles, timed=True))
METHODS.register(
    "group-lasso",
    Recipe(
        "a group lasso on inputs, by proximal steps; the strongest stay",
        lambda steps, pattern: {"pattern": Rows(1), "distribution": "uniform", "rule": Proximal("group-lasso", 1e-2)},
        timed=True,
    ),
)
METHODS.register("group-envelope", Recipe("an envelope of the count of inputs, which rises", _envelope, timed=True))
METHODS.register("nm", Recipe("N of every M, cut once", lambda steps, pattern: {"rule": Hold()}, n_of_m=True))
METHODS.register(
    "nm-ste",
    Recipe(
        "N of every M in the forward pass", lambda steps, pattern: {"rule": StraightThrough(decay=0.0)}, n_of_m=True
    ),
)
METHODS.register(
    "nm-sr-ste",
    Recipe(
        "N of every M in the forward pass, the others decay",
        lambda steps, pattern: {"rule": StraightThrough(decay=2e-4)},
        n_of_m=True,
    ),
)
METHODS.register(
    "nm-fade",
    Recipe(
        "N of every M, the others fade from the forward pass",
        lambda steps, pattern: {"rule": StraightThrough(decay=0.0, fade="exponential")},
        timed=True,
        n_of_m=True,
    ),
)
METHODS.register("nm-stages", Recipe("N of every M, in tightening patterns", _stages, timed=True, n_of_m=True))
