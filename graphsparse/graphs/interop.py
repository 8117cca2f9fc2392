"""Any graph in, one inner form, the same kind of graph out: the table of kinds, and the door to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.registry import Registry

__all__ = ["KINDS", "EdgeList", "OpenGraph", "edge_list", "open_graph", "register_kind"]

T = TypeVar("T")
K = TypeVar("K", bound="type[OpenGraph]")

ONE = None  # the name of the part of a graph that has one


class OpenGraph(ABC):
    """A graph of any kind with its inner form, and the way back.

    A kind is a subclass that says which objects it ``accepts``, reads one in its constructor,
    ``Kind(graph, undirected, **options)``, and writes it back in ``cut``. A kind that holds several graphs, each with a
    count of its own, has ``parts`` and overrides ``cut_parts``, ``gathered`` and ``scattered`` instead.

    Attributes:
        says: what its objects are called, with the article.
        options: reading options that it takes besides ``undirected``: ``weight``, ``src``, ``dst``.
        edges: the inner form.
    """

    says: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    edges: EdgeList

    @abstractmethod
    def __init__(self, graph: Any, undirected: bool | None, **options: Any) -> None: ...

    @classmethod
    @abstractmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        """Whether an object is of this kind; with ``asked``, whether it can be, since the caller named the kind."""

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        """Build a graph of the kind that came in with the edges where ``mask`` ``[E]`` is true.

        Args:
            mask: bool ``[E]``, aligned with ``edges.edge_index``.
            edge_weight: new weights ``[E]`` (before the cut), or None to leave them as they are.
        """
        raise TypeError(f"{self.says} holds several graphs: cut them by cut_parts")

    @property
    def parts(self) -> Mapping[Hashable, EdgeList]:
        """The graphs that keep a count of their own, by name; usually one."""
        return {ONE: self.edges}

    def cut_parts(self, masks: Mapping[Any, Tensor], weights: Mapping[Any, Tensor] | None = None) -> Any:
        """Do what `cut` does with a mask (and new weights) for each of the ``parts``."""
        return self.cut(masks[ONE], None if weights is None else weights[ONE])

    def gathered(self, values: Mapping[Any, Tensor]) -> Any:
        """Values of the edges of each part in the form in which the caller sees edges."""
        return values[ONE]

    def scattered(self, values: Any) -> Mapping[Any, Any]:
        """The inverse of `gathered`: what the caller has for all edges, part by part."""
        return {ONE: values}

    def each(self, use: Callable[[EdgeList, Any], T]) -> dict[Hashable, T]:
        """``use(edges, name)`` of each part, by name; an error says which part it is about."""
        found = {}
        for name, edges in self.parts.items():
            with about(name):
                found[name] = use(edges, name)
        return found


@contextmanager
def about(name: Hashable) -> Iterator[None]:
    """Let an error say which part of a graph it is about, a graph by its number or a relation by its name."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if name is ONE:
            raise
        part = f"graph {name}" if isinstance(name, int) else f"the relation {name}"
        raise type(error)(f"{part}: {error}") from error


def _check(name: str, entry: Any) -> type[OpenGraph]:
    if not (isinstance(entry, type) and issubclass(entry, OpenGraph)):
        raise TypeError(f"the graph kind {name!r} must be a subclass of graphsparse.graphs.OpenGraph")
    return entry


KINDS: Registry[type[OpenGraph]] = Registry("graph kind", folder="graphsparse.graphs.kinds", check=_check)


def register_kind(name: str) -> Callable[[K], K]:
    """Register a kind of graph, a subclass of `OpenGraph`, under a name; a decorator.

    The kind that was registered last is asked first, so that a user's own goes before this package's.

    Raises:
        TypeError: it is no subclass of `OpenGraph`.
        ValueError: the name is taken.

    Example:
        >>> import torch
        >>> @register_kind("words")
        ... class Words(OpenGraph):
        ...     says = "a string of pairs such as '0-1 1-2'"
        ...     def __init__(self, graph, undirected):
        ...         self.words = graph.split()
        ...         ends = [[int(end) for end in word.split("-")] for word in self.words]
        ...         self.edges = edge_list(torch.tensor(ends).t(), None, undirected)
        ...     @classmethod
        ...     def accepts(cls, graph, asked=False):
        ...         return isinstance(graph, str) and "-" in graph
        ...     def cut(self, mask, edge_weight=None):
        ...         return " ".join(word for word, kept in zip(self.words, mask.tolist()) if kept)
        >>> open_graph("0-1 1-2").cut(torch.tensor([False, True]))
        '1-2'
        >>> del KINDS["words"]
    """
    return KINDS.register(name)


def open_graph(graph: Any, undirected: bool | None = None, *, kind: str | None = None, **options: Any) -> OpenGraph:
    """Read a graph of any kind into an `EdgeList`, and remember how to cut the original along a mask.

    Args:
        graph: a graph of any kind in `KINDS`; docs/graphs-and-files.md lists them. It is never changed. Of a matrix
            every stored entry is an edge row -> column (of forms that pad, and of dense ones, every nonzero entry).
        undirected: whether pairs and not arcs are counted. None: graphs that know it say so (networkx, igraph,
            networkit, graph-tool); the others are undirected when every arc has as many mirrors as copies, weights
            playing no part. True also takes a list that names each pair once.
        kind: a name in `KINDS` or ``"module:class"``, for arrays that could be read in two ways.
        **options: ``weight``, the name of the edge attribute or column that holds weights (by default ``edge_weight``
            in PyG, ``weight`` elsewhere; the weights of matrices are their values); ``src`` and ``dst``, the names of
            the columns of a table that hold the ends.

    Returns:
        an `OpenGraph`: ``.edges`` and ``.cut(mask, edge_weight=None)``, or ``.parts`` and ``.cut_parts``.

    Raises:
        TypeError: for a kind that is not known, ids that are no integers, or a label without a value to be named by.
        ValueError: for ids out of range, a wrong shape, a list that ``undirected`` contradicts, an array that could
            be read in two ways, or an option that the kind does not have.

    Example:
        >>> import torch
        >>> opened = open_graph(torch.tensor([[0, 1, 2], [1, 0, 2]]))
        >>> opened.edges.undirected, opened.edges.num_countable
        (True, 1)
        >>> opened.cut(torch.tensor([False, False, True]))
        tensor([[2], [2]])
    """
    found = kind_of(graph) if kind is None else KINDS.find(kind)
    if kind is not None and not found.accepts(graph, asked=True):
        raise TypeError(f"kind={kind!r} is {found.says}, got {_called(graph)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in found.options:
            takes = f"it takes {', '.join(f'{option}=' for option in found.options) or 'none'}"
            raise ValueError(f"{name}= is no option of {found.says}; {takes}")
    return found(graph, undirected, **given)


def kind_of(graph: Any) -> type[OpenGraph]:
    """The kind of an object.

    Raises:
        TypeError: there is none; the sentence names those that are, and what converts.
    """
    for found in reversed(list(KINDS.values())):
        if found.accepts(graph):
            return found
    first = KINDS["data"].says
    others = sorted({found.says for found in KINDS.values()} - {first})
    raise TypeError(f"a graph must be {first}, {', '.join(others)}; got {_called(graph)}: {_conversion(graph)}")


def of_library(graph: Any, library: str, *names: str) -> bool:
    """Whether an object's class, or one that it inherits from, is of that library (and has one of the names).

    It looks at names only: an object of a library cannot come in before that library is imported.

    Example:
        >>> import networkx
        >>> of_library(networkx.Graph(), "networkx"), of_library(networkx.Graph(), "igraph")
        (True, False)
    """
    return any(
        cls.__module__.partition(".")[0] == library and (not names or cls.__name__ in names)
        for cls in type(graph).__mro__
    )


def _called(graph: Any) -> str:
    kind = type(graph)
    home = kind.__module__.partition(".")[0]
    return kind.__name__ if home == "builtins" else f"{kind.__name__} of {home}"


_CONVERSIONS = (  # of kinds that are met and have a way of their own: library, class, the line
    ("polars", "LazyFrame", "graph.collect() makes a table of it"),
    ("pandas", "Series", "graph.reset_index() makes a table of it; name the columns of the ends by src= and dst="),
    ("dask", "", "graph.compute() makes a pandas table of it"),
    ("rustworkx", "", "torch.tensor(graph.edge_list()).t() makes an edge_index of it"),
    ("cugraph", "", "graph.to_pandas_edgelist() makes a table of it"),
    ("jraph", "", "torch.tensor([graph.senders.tolist(), graph.receivers.tolist()]) makes an edge_index of it"),
    ("jax", "", "numpy.asarray(graph) makes an array of it"),
    ("cupy", "", "graph.get() makes an array of it"),
    ("tensorflow", "", "graph.numpy() makes an array of it"),
    ("torch_geometric", "TemporalData", "torch.stack([graph.src, graph.dst]) is its edge_index"),
    (
        "torch_geometric",
        "Batch",
        "Batch.from_data_list([gs.sparsify(one, ...) for one in graph.to_data_list()]) takes each graph by itself",
    ),
    ("torch_geometric", "Dataset", "give one of its graphs, graph[0], or list(graph), each on a count of its own"),
    ("builtins", "dict", "networkx.from_dict_of_lists(graph) makes a graph of lists of neighbours"),
    ("builtins", "set", "list(graph) makes a list of pairs of it"),
    ("builtins", "generator", "list(graph) makes a list of pairs of it"),
)


def _conversion(graph: Any) -> str:
    for library, name, line in _CONVERSIONS:
        if of_library(graph, library, *([name] if name else [])):
            return line
    return "torch.tensor([sources, targets]) makes an edge_index of the two ends of its edges"
