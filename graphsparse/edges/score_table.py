"""The table of scores: where a score registers under its name, and how it is called with checked options."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor

from graphsparse.graphs.interop import EdgeList

ScoreFunction = Callable[..., Tensor]
F = TypeVar("F", bound=ScoreFunction)

SCORES: dict[str, ScoreFunction] = {}


def register(name: str) -> Callable[[F], F]:
    """Register a score ``f(graph: EdgeList, **options) -> Tensor [E]`` under a name.

    A score is float64 ``[E]`` on the graph's device, higher = keep, +inf for self-loops, the same on both arcs of an
    undirected pair, and independent of the order of the edges. It takes ``seed`` if it draws random numbers.

    Raises:
        ValueError: if the name is taken.

    Example:
        >>> @register("constant")
        ... def constant(graph: EdgeList, *, value: float = 0.0) -> Tensor:
        ...     return torch.full((graph.num_edges,), value, dtype=torch.float64)
        >>> import torch
        >>> pair = EdgeList(torch.tensor([[0], [1]]), 2, undirected=True, mirrored=False)
        >>> compute(pair, "constant", value=2.0)
        tensor([2.], dtype=torch.float64)
        >>> del SCORES["constant"]
    """
    if name in SCORES:
        raise ValueError(f"a score named {name!r} is registered already")

    def add(function: F) -> F:
        SCORES[name] = function
        return function

    return add


def compute(graph: EdgeList, method: str, *, seed: int = 0, **options: Any) -> Tensor:
    """Score every edge of the inner form.

    Args:
        graph: the graph.
        method: a name in ``SCORES``.
        seed: reaches the scores that draw random numbers or break ties.
        **options: the score's own options.

    Returns:
        float64 ``[E]``, aligned with ``graph.edge_index``; higher = keep, self-loops +inf.

    Raises:
        ValueError: for an unknown method (names the closest), or what the score itself refuses.
        TypeError: for an unknown option (names those that there are).
    """
    if "seed" in check_options(method, options):
        options["seed"] = seed
    return find_score(method)(graph, **options)


def check_options(method: str, options: Iterable[str]) -> list[str]:
    """Everything that a score takes besides the graph; a TypeError if that is not all that is asked of it.

    Example:
        >>> check_options("random", [])
        ['seed']
    """
    takes = list(inspect.signature(find_score(method)).parameters)[1:]
    known = [name for name in takes if name != "seed"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        offers = f"its options are {', '.join(known)}" if known else "it has no options"
        raise TypeError(f"score {method!r} does not take {', '.join(unknown)}; {offers}")
    return takes


def find_score(method: str) -> ScoreFunction:
    """Look a score up by its name.

    Raises:
        ValueError: for an unknown name; names the closest.
        TypeError: if the name is no string.
    """
    if not isinstance(method, str):
        raise TypeError(f"method must be the name of a score, got {type(method).__name__}")
    if method not in SCORES:
        close = difflib.get_close_matches(method, SCORES, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"choose from {', '.join(sorted(SCORES))}"
        raise ValueError(f"unknown score {method!r}; {hint}")
    return SCORES[method]
