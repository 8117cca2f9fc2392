"""The table of edge scores, the folder ``scores`` in it, and the door to them: any graph in, a number for each edge."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from graphsparse.graphs.interop import EdgeList, OpenGraph, open_graph
from graphsparse.keep_rule import check_seed
from graphsparse.registry import Registry

ScoreFunction = Callable[..., Tensor]
Factors = Callable[..., tuple[Tensor, Tensor]]
Scores = Tensor | npt.NDArray[Any]
Method = str | Scores | ScoreFunction
F = TypeVar("F", bound=ScoreFunction)

FOLDER = "graphsparse.edges.scores"


FACTORS: dict[ScoreFunction, Factors] = {}  # scores that are products over the ends of an edge, and their factors


def factors_of(score: ScoreFunction) -> Callable[[Factors], Factors]:
    """Say that a score is the product of two numbers, of an edge's tail and of its head; a decorator.

    It takes what the score takes, and gives the numbers of all nodes as tails and as heads, float64 ``[N]`` each, not
    negative: then a mask is found without the scores (`graphsparse.edges.factored`).
    """

    def note(factors: Factors) -> Factors:
        FACTORS[score] = factors
        return factors

    return note


def _score(name: str, found: Any) -> ScoreFunction:
    """What was registered or imported, once it is sure that it can be called with a graph alone."""
    try:
        inspect.signature(found).bind("graph")
    except (TypeError, ValueError):
        raise TypeError(f"{name!r} is no edge score, called as score(graph: EdgeList, **options)") from None
    function: ScoreFunction = found
    return function


# Sources: the functions' own docstrings.
SCORES: Registry[ScoreFunction] = Registry(
    "edge score",
    folder=FOLDER,
    check=_score,
    kin={
        "graphsparse.tickets.finders.table:FINDERS": "it chooses edges with a model that it trains and needs a "
        "model and labels: gs.find_ticket(model, data, method='{name}'), or graphsparse ticket --method {name}"
    },
)


def register(name: str) -> Callable[[F], F]:
    """Register a score ``f(graph: EdgeList, **options) -> Tensor [E]`` under a name; a decorator.

    A score is real numbers ``[E]``, higher = keep, and should not depend on the order of the edges. Where the two arcs
    of an undirected pair differ the larger score counts, and those of self-loops are not read. It takes ``seed`` if it
    draws random numbers. A function that is not registered is called by ``"module:function"``.

    Raises:
        TypeError: if it cannot be called with a graph alone.
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
    return SCORES.register(name)


def score(
    graph: Any,
    method: str = "teddy",
    *,
    undirected: bool | None = None,
    seed: int = 0,
    kind: str | None = None,
    weight: str | None = None,
    src: str | None = None,
    dst: str | None = None,
    **options: Any,
) -> Any:
    """Score every edge of any graph; higher = keep.

    Args:
        graph: of any kind, as in `graphsparse.sparsify`, like ``kind``, ``weight``, ``src`` and ``dst``.
        method: a name in ``SCORES``: ``teddy``, ``random``, ``dspar``, ``local_degree``, ``rank_degree``, ``jaccard``,
            ``scan``, ``cosine``, ``effective_resistance``; or a function of one's own, ``"module:function"``.
        undirected: whether pairs count (True) or arcs (False); None: as the graph says.
        seed: reaches the scores that draw random numbers or break ties.
        kind: see `graphsparse.sparsify`.
        weight: see there.
        src: see there.
        dst: see there.
        **options: the score's own options.

    Returns:
        float64 ``[E]``, aligned with ``edge_index`` (networkx: with ``graph.edges``; scipy: with the entries of
        ``tocoo()``; tables: with the rows); self-loops +inf. A dict by relation for a ``HeteroData``, a list for a list
        of graphs.

    Raises:
        ValueError: for an unknown method, a seed that is no whole number, or what the score refuses (such as missing
            features).
        TypeError: for an unknown option or kind of graph.

    Example:
        >>> import torch
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> score(path, "dspar")
        tensor([1.5000, 1.5000, 1.5000, 1.5000], dtype=torch.float64)
    """
    check_seed(seed)
    check_options(method, options)  # a misspelt name should not wait for a large graph to be read
    opened = open_graph(graph, undirected, kind=kind, weight=weight, src=src, dst=dst)
    return opened.gathered(opened.each(lambda edges, _: compute(edges, method, seed=seed, **options)))


def parted(opened: OpenGraph, method: Method) -> Callable[[Hashable], Method]:
    """The method for each part of an open graph, by the part's name: scores that are given are those of all parts."""
    if isinstance(method, str) or callable(method):
        return lambda _: method
    scores = opened.scattered(method)
    return lambda name: scores[name]


def score_edges(graph: EdgeList, method: Method, seed: int, options: dict[str, Any]) -> tuple[Scores, bool]:
    """Scores ``[E]`` by name, given, or from a function, and whether they are sure to be symmetric.

    Symmetric scores are equal on both arcs of a pair and +inf on loops, as this package's own are; what others hand
    over or register is looked at instead.

    Raises:
        TypeError: for a method of another kind, or options that it does not take.
        ValueError: as `compute`.
    """
    check_words(options)
    if isinstance(method, (Tensor, np.ndarray)):
        if options:
            raise TypeError(f"given scores take no options, got {', '.join(options)}")
        return method, False
    if isinstance(method, str):
        function = SCORES.find(method)
        own = str(getattr(function, "__module__", "")).startswith(f"{FOLDER}.")
        return _call(function, method, graph, seed, options), own
    if callable(method):
        return method(graph, **options), False
    raise TypeError(f"method must be a score's name, scores [E] or a function, got {type(method).__name__}")


def find_factors(graph: EdgeList, method: Method, seed: int, options: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The factors ``[N]`` of a score that has them (`factors_of`), else None.

    Raises:
        TypeError, ValueError: as `score_edges`.
    """
    if not isinstance(method, str) or (factors := FACTORS.get(SCORES.find(method))) is None:
        return None
    check_words(options)
    if "seed" in _taken(factors, method, options):
        options = options | {"seed": seed}
    return factors(graph, **options)


def compute(graph: EdgeList, method: str, *, seed: int = 0, **options: Any) -> Tensor:
    """Score every edge of the inner form.

    Args:
        graph: the graph.
        method: a name in ``SCORES``.
        seed: reaches the scores that draw random numbers or break ties.
        **options: the score's own options.

    Returns:
        what the score returns ``[E]``, aligned with ``graph.edge_index``; of this package's own float64, higher = keep,
        self-loops +inf, both arcs of a pair the same.

    Raises:
        ValueError: for an unknown method (names the closest), or what the score itself refuses.
        TypeError: for an unknown option (names those that there are).
    """
    return _call(SCORES.find(method), method, graph, seed, options)


def check_words(options: Iterable[str]) -> None:
    """Raise a TypeError where somebody says sparsity, which no score has as an option: it is told to say keep."""
    if "sparsity" in options:
        raise TypeError("say keep instead of sparsity: keep is the kept fraction, 1 - sparsity (keep=0.3 removes 70 %)")


def check_options(method: str, options: Iterable[str]) -> list[str]:
    """Everything that a score takes besides the graph; a TypeError if that is not all that is asked of it.

    Example:
        >>> check_options("random", [])
        ['seed']
    """
    return _taken(SCORES.find(method), method, options)


def _call(function: ScoreFunction, name: str, graph: EdgeList, seed: int, options: dict[str, Any]) -> Tensor:
    if "seed" in _taken(function, name, options):
        options = options | {"seed": seed}
    return function(graph, **options)


def _taken(function: Callable[..., Any], name: str, options: Iterable[str]) -> list[str]:
    takes = list(inspect.signature(function).parameters.values())[1:]
    known = [option.name for option in takes if option.name != "seed" and option.kind is not option.VAR_KEYWORD]
    unknown = sorted(set(options) - set(known))
    check_words(unknown)
    if unknown and not any(option.kind is option.VAR_KEYWORD for option in takes):
        offers = f"its options are {', '.join(known)}" if known else "it has no options"
        raise TypeError(f"edge score {name!r} does not take {', '.join(unknown)}; {offers}")
    return [option.name for option in takes]
