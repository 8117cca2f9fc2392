"""Ticket finders by name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from graphsparse.edges import SCORES, keep
from graphsparse.edges.score_table import check_options
from graphsparse.tickets.finders.controls import all_edges, dense_student, no_edges
from graphsparse.tickets.finders.imp import IMP
from graphsparse.tickets.finders.magnitude import Magnitude
from graphsparse.tickets.finders.one_shot import OneShot
from graphsparse.tickets.finders.random_weights import RandomWeights
from graphsparse.tickets.finders.reliance import Reliance
from graphsparse.tickets.finders.ugs import UGS
from graphsparse.tickets.finders.wd_glt import WDGLT
from graphsparse.tickets.problem import Finder

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


def check_rules(method: str, rules: Mapping[str, Any]) -> None:
    """Raise an error if a method is given a guard, a forest or score options that it has no use for, or unknown ones.

    Raises:
        ValueError: for a method that takes none, or an unknown guard.
        TypeError: for an option that the method's score does not have.

    Example:
        >>> check_rules("reliance", {"guard": "cover"})
        Traceback (most recent call last):
        ...
        ValueError: reliance chooses edges by a rule of its own and takes no guard
    """
    given = [name for name, value in rules.items() if value is not None and value is not False]
    finder = finder_of(method)
    if given and not getattr(finder, "guarded", True):
        raise ValueError(f"{method} chooses edges by a rule of its own and takes no {given[0]}")
    keep.check_rules(1, None, rules.get("guard"), bool(rules.get("forest")))
    score = finder.score if isinstance(finder, OneShot) else None
    if isinstance(finder, (IMP, Magnitude, RandomWeights)):
        score = finder.edges
    if isinstance(score, str):
        check_options(score, [name for name in rules if name not in ("guard", "forest")])


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

    ``"module:attribute"`` is a finder of one's own, imported from where Python finds modules (the command line looks in
    the working directory, too): an instance, a class (made without arguments) or a function.

    Raises:
        TypeError: for a method that is no string.
        ValueError: for an unknown name; it lists the known ones and the closest. Or there is no such module or
            attribute, or what is there cannot be called as a :class:`graphsparse.tickets.Finder`. Errors of the module
            itself are its own.

    Example:
        >>> finder_of("dspar").score
        'dspar'
    """
    if not isinstance(method, str):
        raise TypeError(f"method must be the name of a finder, got {type(method).__name__}")
    if method in FINDERS:
        return FINDERS[method]
    if method in SCORES:
        return OneShot(method)
    if ":" in method:
        return _imported(method)
    close = get_close_matches(method, finders(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown method {method!r}{hint}; known are {', '.join(finders())}")


def source_of(method: str) -> str | None:
    """A hash of the file that ``"module:attribute"`` comes from, so that an edited finder is another; else None."""
    if ":" not in method:
        return None
    finder_of(method)
    return _hash_of(sys.modules[method.partition(":")[0]])


_HASHES: dict[str, tuple[Any, str | None]] = {}  # by a module's name: its spec, new at every import, and its hash


def _hash_of(module: ModuleType) -> str | None:
    """Read once after each import: an edit while the comparison runs is not what runs."""
    spec, found = _HASHES.get(module.__name__, (None, None))
    if spec is None or spec is not module.__spec__:
        file = getattr(module, "__file__", None)
        found = None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
        _HASHES[module.__name__] = module.__spec__, found
    return found


def _imported(path: str) -> Finder:
    module, _, name = path.partition(":")
    try:
        home = importlib.import_module(module)
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name not in (module, module.partition(".")[0]):
            raise  # what the module imports is missing, not the module
        raise ValueError(f"there is no finder {path!r}: {error}") from error
    _hash_of(home)
    if not hasattr(home, name):
        raise ValueError(f"there is no finder {path!r}: {getattr(home, '__file__', module)} has no {name!r}")
    found = getattr(home, name)
    if inspect.isclass(found):
        try:
            inspect.signature(found).bind()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path!r} is a class that cannot be made without arguments") from error
        found = found()
    if not callable(found) or not _takes_four(found):
        raise ValueError(f"{path!r} is no finder, called as finder(problem, dense, edge_keep, weight_keep)")
    finder: Finder = found
    return finder


def _takes_four(found: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(found)
        signature.bind("problem", "dense", "edge_keep", "weight_keep")
    except (TypeError, ValueError):
        return False
    return all(p.kind is not p.VAR_POSITIONAL for p in signature.parameters.values())
