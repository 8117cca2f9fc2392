"""Ticket finders by name: each file of this folder registers its own, and every edge score is a one-shot finder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from graphsparse.edges import SCORES, keep
from graphsparse.edges.score_table import check_options
from graphsparse.fit import MessageTask
from graphsparse.registry import Registry
from graphsparse.tickets.problem import Finder, Problem

EDGE_RULES = ("guard", "forest")


def _finder(name: str, found: Any) -> Finder:
    """What was registered or imported, once it is sure to be called as a finder; of a class, an instance.

    An imported edge score, which is called with a graph alone, is a one-shot finder as the registered ones are.
    """
    if ":" in name and _is_score(found):
        return _one_shot(name)
    if inspect.isclass(found):
        try:
            inspect.signature(found).bind()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name!r} is a class that cannot be made without arguments") from error
        found = found()
    if not callable(found) or not _takes_four(found):
        raise ValueError(f"{name!r} is no finder, called as finder(problem, dense, edge_keep, weight_keep)")
    takes = getattr(found, "takes", ())
    if not isinstance(takes, (tuple, list, set, frozenset)) or not all(isinstance(option, str) for option in takes):
        raise ValueError(f"takes of {name!r} must list the options of edges that it obeys, got {takes!r:.50}")
    finder: Finder = found
    return finder


def _is_score(found: Any) -> bool:
    if inspect.isclass(found) or not callable(found):
        return False
    try:
        inspect.signature(found).bind("graph")
    except (TypeError, ValueError):
        return False
    return not any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(found).parameters.values())


def _one_shot(score: str) -> Finder:
    from graphsparse.tickets.finders.one_shot import OneShot  # which registers itself here

    return OneShot(score)


def _takes_four(found: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(found)
        signature.bind("problem", "dense", "edge_keep", "weight_keep")
    except (TypeError, ValueError):
        return False
    return all(p.kind is not p.VAR_POSITIONAL for p in signature.parameters.values())


# Sources: the classes' and functions' own docstrings.
FINDERS: Registry[Finder] = Registry("finder", folder="graphsparse.tickets.finders", check=_finder)


def register(name: str, finder: Finder) -> None:
    """Make a finder known as ``find_ticket(..., method=name)``.

    Args:
        name: how it is called; it must be free.
        finder: called as ``finder(problem, dense, edge_keep, weight_keep)``, see :class:`graphsparse.tickets.Finder`;
            a class is made without arguments.

    Raises:
        ValueError: if the name is taken by another finder or by an edge score, or it cannot be called so.

    Example:
        >>> from graphsparse.tickets import OneShot
        >>> register("locally-dense", OneShot("local_degree"))
        >>> "locally-dense" in finders()
        True
        >>> del FINDERS["locally-dense"]
    """
    if name in SCORES:
        raise ValueError(f"there is already an edge score {name!r}, which is a finder; choose another name")
    FINDERS.register(name, finder)


def finders() -> list[str]:
    """The names that ``find_ticket`` takes as ``method=``: the registered finders, and every edge score as a one-shot.

    Example:
        >>> {"teddy", "ugs", "wd-glt", "imp", "magnitude", "no-edges", "dense-student"} <= set(finders())
        True
    """
    return sorted({*FINDERS, *SCORES})


def finder_name(method: str) -> str:
    """A method's name as it is registered; raises as `finder_of` does, but imports nothing.

    Example:
        >>> finder_name("WD_GLT")
        'wd-glt'
    """
    known: Registry[str] = Registry("finder")
    for name in finders():
        known.register(name, name)
    return known.key(method)


def finder_of(method: str) -> Finder:
    """The finder behind a method's name; every edge score is a one-shot finder.

    ``"module:attribute"`` is a finder of one's own, imported from where Python finds modules (the command line looks in
    the working directory, too): an instance, a class (made without arguments), a function, or an edge score.

    Raises:
        TypeError: for a method that is no string.
        ValueError: for an unknown name; it lists the known ones and the closest. Or there is no such module or
            attribute, or what is there cannot be called as a :class:`graphsparse.tickets.Finder`. Errors of the module
            itself are its own.
    """
    name = finder_name(method)
    if name in FINDERS or ":" in name:
        return FINDERS.find(name)
    return _one_shot(name)


def options_of(score: str | Callable[..., Any]) -> tuple[str, ...]:
    """What a finder takes that chooses its edges by a score: the rules of `graphsparse.edges.keep_mask`, its options.

    Example:
        >>> options_of("random")
        ('guard', 'forest')
    """
    if isinstance(score, str):
        own: Iterable[str] = check_options(score, [])
    else:
        own = list(inspect.signature(score).parameters)[1:]
    return (*EDGE_RULES, *(name for name in own if name != "seed"))


class EdgesByScore:
    """What finders share whose edges a score chooses; ``edges`` is its name, or a function of scores."""

    edges: str | Callable[..., Any]

    @property
    def takes(self) -> tuple[str, ...]:
        """What it may be told of its edges: the rules, and the options of its score."""
        return options_of(self.edges)

    def check(self, problem: Problem) -> None:
        """Score the edges once, so that what the score refuses is told before anything is trained."""
        problem.edge_mask(self.edges, Fraction(1, 2))


def check_batches(method: str, task: MessageTask) -> None:
    """Raise an error for a task in mini-batches and a finder that cannot do with them.

    Such a finder has an attribute ``whole_graph`` that is True.

    Raises:
        ValueError: naming what to do instead.
    """
    if task.batches is not None and getattr(finder_of(method), "whole_graph", False):
        raise ValueError(
            f"{method} learns a mask of every edge, so it takes the whole graph in every step: leave batch_size out, "
            "or take a method that chooses the edges once (teddy, reliance, any score) or by rounds (imp)"
        )


def check_rules(method: str, rules: Mapping[str, Any]) -> None:
    """Raise an error for what a method is told of its edges and has no use for, so that no ticket records it.

    Args:
        method: its name.
        rules: ``guard``, ``forest`` and options of the score, by name; no guard (None) and no forest (False) are none.

    Raises:
        ValueError: for a method that takes none, or an unknown guard.
        TypeError: for an option that the method does not have, or a forest that is neither True nor False.

    Example:
        >>> check_rules("reliance", {"guard": "cover"})
        Traceback (most recent call last):
        ...
        ValueError: reliance chooses edges by a rule of its own and takes no guard
        >>> check_rules("ugs", {"power": 1})
        Traceback (most recent call last):
        ...
        TypeError: ugs does not take power; it takes guard, forest
    """
    takes = tuple(getattr(finder_of(method), "takes", ()))
    if not isinstance(forest := rules.get("forest", False), bool):
        raise TypeError(f"forest must be True or False, got {forest!r:.50}")
    unused = {"guard": None, "forest": False}
    given = [name for name, value in rules.items() if name not in unused or value is not unused[name]]
    for name in given:
        if not takes:
            raise ValueError(f"{method} chooses edges by a rule of its own and takes no {name}")
        if name not in takes:
            raise TypeError(f"{method} does not take {name}; it takes {', '.join(takes)}")
    keep.check_rules(1, None, rules.get("guard"), forest)
