"""Ticket finders by name."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from difflib import get_close_matches

from graphsparse.edges import SCORES
from graphsparse.tickets.controls import all_edges, dense_student, no_edges
from graphsparse.tickets.imp import IMP
from graphsparse.tickets.magnitude import Magnitude
from graphsparse.tickets.problem import Finder
from graphsparse.tickets.random_weights import RandomWeights
from graphsparse.tickets.reliance import Reliance
from graphsparse.tickets.teddy import OneShot
from graphsparse.tickets.ugs import UGS
from graphsparse.tickets.wd_glt import WDGLT

# Sources: the classes' and functions' own docstrings. Every edge score is a one-shot finder besides.
FINDERS: dict[str, Finder] = {
    "teddy": OneShot("teddy"),
    "reliance": Reliance(),
    "ugs": UGS(),
    "wd-glt": WDGLT(),
    "imp": IMP(),
    "magnitude": Magnitude(),
    "random": OneShot("random"),
    "random-weights": RandomWeights(),
    "no-edges": no_edges,
    "all-edges": all_edges,
    "dense-student": dense_student,
}


def register(name: str, finder: Finder) -> None:
    """Make a finder known as ``find_ticket(..., method=name)``.

    Args:
        name: how it is called; it must be free.
        finder: called as ``finder(problem, dense, edge_keep, weight_keep)``, see :class:`graphsparse.tickets.Finder`.

    Raises:
        ValueError: if the name is taken by another finder or by an edge score.

    Example:
        >>> register("locally-dense", OneShot("local_degree"))
        >>> "locally-dense" in finders()
        True
        >>> del FINDERS["locally-dense"]
    """
    if name in FINDERS or name in SCORES:
        raise ValueError(f"there is already a method {name!r}; choose another name")
    FINDERS[name] = finder


def finders() -> list[str]:
    """The names that ``find_ticket`` takes as ``method=``: the registered finders, and every edge score as a one-shot.

    Example:
        >>> {"teddy", "ugs", "wd-glt", "imp", "magnitude", "no-edges", "dense-student"} <= set(finders())
        True
    """
    return sorted({*FINDERS, *SCORES})


def finder_of(method: str) -> Finder:
    """The finder behind a method's name; every edge score is a one-shot finder.

    ``"module:attribute"`` is a finder of one's own, imported from where Python finds modules or from the working
    directory: an instance, a class (made without arguments) or a function.

    Raises:
        ValueError: for an unknown name; it lists the known ones and the closest. Or there is nothing to import, or what
            is there cannot be called as a :class:`graphsparse.tickets.Finder`.

    Example:
        >>> finder_of("dspar").score
        'dspar'
    """
    if method in FINDERS:
        return FINDERS[method]
    if method in SCORES:
        return OneShot(method)
    if ":" in method:
        return _imported(method)
    close = get_close_matches(method, finders(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown method {method!r}{hint}; known are {', '.join(finders())}")


def _imported(path: str) -> Finder:
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing of the caller's hides a library
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ValueError(f"there is no finder {path!r}: {error}") from error
    if inspect.isclass(found):
        found = found()
    try:
        inspect.signature(found).bind("problem", "dense", "edge_keep", "weight_keep")
    except TypeError as error:
        raise ValueError(f"{path!r} is no finder, called as finder(problem, dense, edge_keep, weight_keep)") from error
    finder: Finder = found
    return finder
