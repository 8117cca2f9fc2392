"""Rules of the operations that compute: what each writes into the record, and which ids come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphsparse.registry import Registry

Rule = Callable[..., Any]


def _check(name: str, entry: Any) -> Rule:
    if not callable(entry):
        raise TypeError(f"the rule of the operation {name!r} is a function, not a {type(entry).__name__}")
    return entry  # type: ignore[no-any-return]


# Name of an aten operation -> rule(record, **arguments by their schema names).
RULES: Registry[Rule] = Registry("rule of an operation", folder=__name__, check=_check)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operations."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES.register(name, function)
        return function

    return register
