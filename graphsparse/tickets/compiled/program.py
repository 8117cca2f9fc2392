"""What a model of one graph computes, as a short list of steps on matrices with a row for each node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Ref:
    """A value of the program, by its number."""

    number: int


@dataclass(frozen=True, eq=False)
class Graph:
    """A matrix [N, N] in compressed rows, whose product sums what arrives at each node.

    Attributes:
        starts, columns, values: rows, heads of the entries, and what they weigh; int32 (int64 above 2^31) and floats.
        sums: of each row [N].
    """

    starts: Tensor
    columns: Tensor
    values: Tensor
    sums: Tensor


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of a `Mix`: M (v W^T + 1 c^T).

    Attributes:
        source: number of v [N, in].
        weight: W [out, in]; None is the identity.
        graph: M; None is the identity.
        inner: c [out], or None for zeros.
        columns: which columns of v are taken, where the weight is the identity; None: all.
    """

    source: int
    weight: Tensor | None = None
    graph: Graph | None = None
    inner: Tensor | None = None
    columns: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One value of the program.

    Attributes:
        out: its number.
    """

    out: int

    @property
    def sources(self) -> tuple[int, ...]:
        """Numbers of the values that it is computed from."""
        return ()


@dataclass(frozen=True, eq=False)
class Held(Step):
    """A matrix [N, c] that the model itself holds, such as learned rows of nodes."""

    value: Tensor


@dataclass(frozen=True, eq=False)
class Mix(Step):
    """A sum of terms, plus a bias [out] or none."""

    terms: tuple[Term, ...]
    bias: Tensor | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(term.source for term in self.terms)


@dataclass(frozen=True, eq=False)
class Map(Step):
    """A function of each element by itself, of some columns of a value, or of all (None)."""

    source: int
    function: Callable[[Tensor], Tensor]
    name: str
    columns: Tensor | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Scale(Step):
    """Each column times its own number, plus its own number: a norm in evaluation, for one; columns as in `Map`."""

    source: int
    factor: Tensor
    shift: Tensor
    columns: Tensor | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Join(Step):
    """Values side by side, of each some columns or all (None)."""

    parts: tuple[int, ...]
    columns: tuple[Tensor | None, ...]

    @property
    def sources(self) -> tuple[int, ...]:
        return self.parts


@dataclass(frozen=True, eq=False)
class Call(Step):
    """Anything else, as it was called: a function, or a layer that has no form of its own here."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    name: str
    pick: int | None = None  # of a tuple that comes back

    @property
    def sources(self) -> tuple[int, ...]:
        leaves = pytree.tree_leaves((self.args, dict(self.named)))
        return tuple(leaf.number for leaf in leaves if isinstance(leaf, Ref))

    def run(self, values: Mapping[int, Tensor]) -> Tensor:
        """The value."""
        args, named = pytree.tree_map(
            lambda leaf: values[leaf.number] if isinstance(leaf, Ref) else leaf, (self.args, dict(self.named))
        )
        out = self.function(*args, **named)
        result: Tensor = out if self.pick is None else out[self.pick]
        return result


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in order; value 0 is the features of the nodes.

    Attributes:
        steps: what is computed.
        widths: columns of the values that are matrices with a row a node, by number.
        output: number of what comes out.
        live: columns of the features that have a part in it [k]; None: all.
        notes: what was done to it, in words.
    """

    steps: tuple[Step, ...]
    widths: Mapping[int, int]
    output: int
    live: Tensor | None = None
    notes: tuple[str, ...] = field(default=())

    def with_steps(self, steps: tuple[Step, ...], *notes: str) -> Program:
        """The same with other steps."""
        return replace(self, steps=steps, notes=(*self.notes, *notes))

    def uses(self) -> dict[int, int]:
        """How often each value is used; the output once more."""
        counts = {self.output: 1}
        for step in self.steps:
            for source in step.sources:
                counts[source] = counts.get(source, 0) + 1
        return counts

    def terms(self) -> Iterator[Term]:
        """All terms of all mixes."""
        for step in self.steps:
            if isinstance(step, Mix):
                yield from step.terms

    @property
    def opaque(self) -> tuple[str, ...]:
        """Names of the steps that are run as they are."""
        return tuple(step.name for step in self.steps if isinstance(step, Call))
