"""A program on the CPU: each product in the form that took least time when it was tried on the graph itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from graphsparse.fit.features import MAX_DENSITY_OF_LOOPS
from graphsparse.fit.measure import inference_ms
from graphsparse.parallel import over_slices
from graphsparse.tickets.compiled.attention import Attention
from graphsparse.tickets.compiled.portable import plain_value
from graphsparse.tickets.compiled.program import Call, Graph, Held, Map, Mix, Program, Step, Term

# Multiplications: of fewer it does not matter how they are done; fewer are done before another thread has started.
_TRIED_FROM, _SERIAL_BELOW = 1 << 18, 1 << 21
_SPARSE_BELOW = 0.5  # of the weights; above it no loop comes near a dense product


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix [n, m] in compressed rows."""

    starts: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, x: Tensor) -> Rows:
        """What is not zero in a dense matrix."""
        from graphsparse.tickets.compiled import loops

        x = x.detach().contiguous()
        starts = np.zeros(len(x) + 1, np.int64)
        loops.count_rows(x.numpy(), starts)
        np.cumsum(starts, out=starts)
        ids = np.int32 if max(int(starts[-1]), *x.shape) < 2**31 else np.int64
        columns, values = np.empty(starts[-1], ids), np.empty(starts[-1], x.numpy().dtype)
        loops.fill_rows(x.numpy(), starts, columns, values)
        return cls._of_arrays((starts.astype(ids), columns, values), (x.size(0), x.size(1)))

    @classmethod
    def _of_arrays(cls, arrays: Sequence[Any], shape: tuple[int, int]) -> Rows:
        starts, columns, values = map(torch.from_numpy, arrays)
        return cls(starts, columns, values, shape)

    @classmethod
    def of_csr(cls, x: Tensor) -> Rows:
        """A matrix that torch holds in compressed rows."""
        ids = torch.int32 if max(x.values().numel(), *x.shape) < 2**31 else torch.int64
        starts, columns = x.crow_indices().to(ids), x.col_indices().to(ids)
        return cls(starts, columns, x.values().detach(), (x.size(0), x.size(1)))

    @property
    def arrays(self) -> tuple[Any, ...]:
        """For the loops."""
        return self.starts.numpy(), self.columns.numpy(), self.values.numpy()

    @property
    def density(self) -> float:
        """Fraction of the numbers that are not zero."""
        return self.values.numel() / max(self.shape[0] * self.shape[1], 1)

    def take(self, rows: Tensor | None, columns: Tensor | None) -> Rows:
        """Some of the rows and of the columns, in the order given; None: all."""
        own = csr_array(tuple(reversed(self.arrays)), shape=self.shape)
        own = own if rows is None else own[rows.numpy()]
        own = own if columns is None else own[:, columns.numpy()]
        ids = self.columns.numpy().dtype
        parts = (own.indptr.astype(ids), own.indices.astype(ids), own.data)
        return Rows._of_arrays(parts, cast(tuple[int, int], own.shape))

    def dense(self) -> Tensor:
        """The same as a tensor."""
        return torch.from_numpy(csr_array(tuple(reversed(self.arrays)), shape=self.shape).toarray())


Value = Tensor | Rows
Way = Callable[..., Tensor]  # (value, out or None, bias or None, relu) -> out


class Engine:
    """A program made ready for its graph.

    Args:
        program: a simplified one, whose tensors are float32 or float64 on the CPU.
        x: features [N, F] of the graph, dense or CSR, which the forms are tried on; None if the model has none.
        threads: of the loops.
        reorder: number the nodes anew, so that neighbours lie near each other.

    Attributes:
        notes: the forms that were taken, in words, with the times of those that were tried.
        multiplications: of all products in the forms taken.
        traffic: bytes that are read and written at least: each matrix once where it is used, each result once.
    """

    def __init__(self, program: Program, x: Tensor | None, *, threads: int = 1, reorder: bool = False) -> None:
        self.threads, self.order, self.notes = threads, None, []
        if reorder:
            program, self.order = _reordered(program)
            self.notes.append("nodes are numbered anew, neighbours near each other (reverse Cuthill-McKee)")
            self.back = torch.argsort(self.order)
        self.program = program
        self.steps = _with_relus(program)
        self.sparse = x is not None and _takes_rows(self.steps, 0) and _fill(x) <= MAX_DENSITY_OF_LOOPS
        self.last_use = {source: number for number, (step, _) in enumerate(self.steps) for source in step.sources}
        self.held: dict[int, Value] = {step.out: self._hold(step) for step, _ in self.steps if isinstance(step, Held)}
        self.ways: dict[tuple[int, int], Way] = {}
        self.multiplications = self.traffic = 0
        self.features = None if x is None else self.prepare(x)
        if isinstance(self.features, Rows):
            self.notes.append(f"features in compressed rows ({self.features.density:.1%} of them are not zero)")
        self._tune()

    def prepare(self, x: Tensor) -> Value:
        """Features [N, F] in the form that the first products take, which may be used many times."""
        live = self.program.live
        if x.layout == torch.sparse_csr:
            rows = Rows.of_csr(x)
        elif self.sparse:  # whatever these are: the first products take the form that the graph's own have
            rows = Rows.of(x)
        else:
            x = x if live is None else x.index_select(1, live)
            return x if self.order is None else x.index_select(0, self.order)
        rows = rows if live is None and self.order is None else rows.take(self.order, live)
        return rows if self.sparse else rows.dense()

    @torch.no_grad()
    def __call__(self, features: Value | None) -> Tensor:
        """Outputs [N, C] of features that `prepare` gave; None: of the graph's own."""
        values: dict[int, Any] = {0: self.features if features is None else features, **self.held}
        for number, (step, relu) in enumerate(self.steps):
            if not isinstance(step, Held):
                values[step.out] = self._value(step, relu, values)
            for source in step.sources:
                if self.last_use[source] == number and source != self.program.output:
                    values.pop(source, None)
        out: Tensor = values[self.program.output]
        return out if self.order is None else out.index_select(0, self.back)

    def _hold(self, step: Held) -> Value:
        sparse = _takes_rows(self.steps, step.out) and _fill(step.value) <= MAX_DENSITY_OF_LOOPS
        return Rows.of(step.value) if sparse else step.value.contiguous()

    def _value(self, step: Step, relu: bool, values: Mapping[int, Any]) -> Tensor:
        if isinstance(step, Call) and isinstance(step.function, Attention):
            return step.function.by_loops(self.threads, *(values[number] for number in step.sources))
        if not isinstance(step, Mix):
            return plain_value(step, values)
        out: Tensor | None = None
        last = len(step.terms) - 1
        for place, term in enumerate(step.terms):
            bias = step.bias if place == last else None
            out = self.ways[step.out, place](values[term.source], out, bias, relu and place == last)
        assert out is not None
        return out

    # Forms of products, and which of them is the fastest

    @torch.no_grad()
    def _tune(self) -> None:
        values: dict[int, Any] = {0: self.features, **self.held}
        for step, relu in self.steps:
            for place, term in enumerate(step.terms if isinstance(step, Mix) else ()):
                cost, self.ways[step.out, place] = self._fastest(step.out, term, values[term.source])
                self.multiplications += int(cost)
                self.traffic += _bytes(term.graph) + _bytes(term.weight)
            if not isinstance(step, Held):
                values[step.out] = self._value(step, relu, values)
                self.traffic += _bytes(values[step.out]) + sum(_bytes(values[source]) for source in step.sources)

    def _fastest(self, number: int, term: Term, value: Value) -> tuple[float, Way]:
        ways = self._ways(term, value)
        work = {name: cost for name, (cost, _) in ways.items()}
        least = min(work.values())
        names = [name for name in work if work[name] <= 8 * least or work[name] < _TRIED_FROM]
        if len(names) == 1 or least < _TRIED_FROM:
            return ways[min(names, key=lambda name: work[name])]
        times = inference_ms([partial(ways[name][1], value, None, None, False) for name in names], 3, 0.02)
        best = min(range(len(names)), key=lambda place: times[place])
        said = ", ".join(f"{name} {ms:.2f} ms" for name, ms in zip(names, times, strict=True))
        self.notes.append(f"product {number}: {names[best]} (tried: {said})")
        return ways[names[best]]

    def _ways(self, term: Term, value: Value) -> dict[str, tuple[float, Way]]:
        """Each form with its multiplications."""
        if term.weight is None:
            assert isinstance(value, Tensor)
            cost = float(value.numel() if term.graph is None else term.graph.values.numel() * value.size(1))
            return {"edges": (cost, partial(self._summed, term))}
        maps = self._maps(term.weight, value)
        if term.graph is None:
            return maps
        width_out, width_in = term.weight.shape
        arcs, found = term.graph.values.numel(), dict[str, tuple[float, Way]]()
        for name, (cost, way) in maps.items():
            found[f"{name}, then edges"] = cost + arcs * width_out, partial(self._weights_first, term, way)
            if isinstance(value, Tensor):
                found[f"edges, then {name}"] = cost + arcs * width_in, partial(self._edges_first, term, way)
        return found

    def _maps(self, weight: Tensor, value: Value) -> dict[str, tuple[float, Way]]:
        """Forms of v W^T."""
        from graphsparse.tickets.compiled import loops

        turned = weight.t().contiguous()
        full = int(weight.count_nonzero()) / max(weight.numel(), 1)
        if isinstance(value, Rows):
            cost = float(value.values.numel() * len(weight))
            maps: dict[str, tuple[float, Way]] = {"dense weights": (cost, partial(self._rows, turned))}
            if full <= _SPARSE_BELOW:
                few = Rows.of(turned)
                maps["sparse weights"] = (cost * full, partial(self._rows_of_rows, few))
            return maps
        cost = float(value.size(0) * weight.numel())
        maps = {"dense weights": (cost, partial(_dense, turned))}
        if full <= _SPARSE_BELOW:
            few = Rows.of(weight)
            maps["sparse weights"] = (cost * full, partial(self._loop_over, loops.by_sparse_weights, few, len(weight)))
        return maps

    def _summed(self, term: Term, x: Tensor, out: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
        """A term without weights."""
        x = x if term.columns is None else x.index_select(1, term.columns)
        if term.graph is None:
            x = x if term.inner is None else x + term.inner
            fresh = term.inner is not None or term.columns is not None
            out = out.add_(x) if out is not None else x if fresh else x.clone()
            out = out if bias is None else out + bias
            return torch.relu(out) if relu else out
        if term.inner is None:
            return self._along(term.graph, x, out, bias, relu)
        return _outer(self._along(term.graph, x, out, bias, False), term, relu)

    def _weights_first(
        self, term: Term, way: Way, x: Value, out: Tensor | None, bias: Tensor | None, relu: bool
    ) -> Tensor:
        assert term.graph is not None
        return self._along(term.graph, way(x, None, term.inner, False), out, bias, relu)

    def _edges_first(
        self, term: Term, way: Way, x: Tensor, out: Tensor | None, bias: Tensor | None, relu: bool
    ) -> Tensor:
        assert term.graph is not None
        summed = self._along(term.graph, x, None, None, False)
        if term.inner is None:
            return way(summed, out, bias, relu)
        return _outer(way(summed, out, bias, False), term, relu)

    def _along(self, graph: Graph, x: Tensor, out: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
        from graphsparse.tickets.compiled import loops

        own = Rows(graph.starts, graph.columns, graph.values, (len(graph.sums), len(graph.sums)))
        return self._gather(loops.gather, own.arrays, own, x, out, bias, relu)

    def _rows(self, weight: Tensor, x: Rows, out: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
        from graphsparse.tickets.compiled import loops

        return self._gather(loops.gather, x.arrays, x, weight, out, bias, relu)

    def _gather(
        self, loop: Any, arrays: Any, rows: Rows, x: Tensor, out: Tensor | None, bias: Tensor | None, relu: bool
    ) -> Tensor:
        return self._slices(loop, (*arrays, x.contiguous().numpy()), rows, x.size(1), x.dtype, out, bias, relu)

    def _rows_of_rows(self, weight: Rows, x: Rows, out: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
        from graphsparse.tickets.compiled import loops

        arrays = (*x.arrays, *weight.arrays)
        return self._slices(loops.gather_sparse, arrays, x, weight.shape[1], weight.values.dtype, out, bias, relu)

    def _loop_over(
        self, loop: Any, weight: Rows, width: int, x: Tensor, out: Tensor | None, bias: Tensor | None, relu: bool
    ) -> Tensor:
        arrays = (*weight.arrays, x.contiguous().numpy())
        return self._slices(loop, arrays, x, width, x.dtype, out, bias, relu)

    def _slices(
        self,
        loop: Any,
        arrays: Sequence[Any],
        rows: Value,
        width: int,
        dtype: torch.dtype,
        out: Tensor | None,
        bias: Tensor | None,
        relu: bool,
    ) -> Tensor:
        add, count = out is not None, rows.shape[0]
        out = torch.empty(count, width, dtype=dtype) if out is None else out
        shift = torch.zeros(width, dtype=dtype) if bias is None else bias
        entries = rows.values.numel() if isinstance(rows, Rows) else rows.numel()
        threads = 1 if entries * width < _SERIAL_BELOW else self.threads
        last = (shift.numpy(), out.numpy(), add, relu)
        over_slices(lambda start, stop: loop(*arrays, *last, start, stop), count, threads)
        return out


def _bytes(held: Value | Graph | None) -> int:
    """What a matrix takes, in compressed rows or dense."""
    if held is None:
        return 0
    parts = (held,) if isinstance(held, Tensor) else (held.starts, held.columns, held.values)
    return sum(part.numel() * part.element_size() for part in parts)


def _fill(x: Tensor) -> float:
    if x.layout == torch.sparse_csr:
        return x.values().numel() / max(x.numel(), 1)
    return int(torch.count_nonzero(x)) / x.numel() if x.numel() else 1.0


def _dense(weight: Tensor, x: Tensor, out: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
    """x times weight [in, out]."""
    if out is not None:
        out = out.addmm_(x, weight)
        out = out if bias is None else out.add_(bias)
    else:
        out = x @ weight if bias is None else torch.addmm(bias, x, weight)
    return out.relu_() if relu else out


def _outer(out: Tensor, term: Term, relu: bool) -> Tensor:
    """What the term's own constants add, once edges are summed over."""
    assert term.graph is not None
    assert term.inner is not None
    out = out.addr_(term.graph.sums, term.inner)
    return out.relu_() if relu else out


def _takes_rows(steps: Sequence[tuple[Step, bool]], number: int) -> bool:
    """Whether a value is only ever multiplied with weights."""
    users = [step for step, _ in steps if number in step.sources]
    return bool(users) and all(
        isinstance(step, Mix) and all(term.weight is not None for term in step.terms if term.source == number)
        for step in users
    )


def _with_relus(program: Program) -> list[tuple[Step, bool]]:
    """The steps; a mix that only a ReLU follows does it by itself."""
    uses, steps = program.uses(), list(program.steps)
    behind = {step.source: step for step in steps if isinstance(step, Map) and step.name == "relu"}
    merged: list[tuple[Step, bool]] = []
    gone = set()
    for step in steps:
        after = behind.get(step.out)
        if isinstance(step, Mix) and after is not None and after.columns is None and uses[step.out] == 1:
            merged.append((replace(step, out=after.out), True))
            gone.add(after.out)
        elif not (isinstance(step, Map) and step.out in gone):
            merged.append((step, False))
    return merged


def _reordered(program: Program) -> tuple[Program, Tensor]:
    """The same program of nodes in another order, and that order [N]."""
    graphs = {id(term.graph): term.graph for term in program.terms() if term.graph is not None}
    first = max(graphs.values(), key=lambda graph: graph.values.numel())
    order = torch.from_numpy(reverse_cuthill_mckee(_scipy(first), symmetric_mode=False).astype(np.int64))
    moved = {name: _moved(graph, order) for name, graph in graphs.items()}

    def of(step: Step) -> Step:
        if isinstance(step, Mix):
            terms = (term if term.graph is None else replace(term, graph=moved[id(term.graph)]) for term in step.terms)
            return replace(step, terms=tuple(terms))
        return replace(step, value=step.value.index_select(0, order)) if isinstance(step, Held) else step

    return program.with_steps(tuple(map(of, program.steps))), order


def may_reorder(program: Program) -> bool:
    """Whether no step knows its nodes by their numbers."""
    has_graph = any(term.graph is not None for term in program.terms())
    return has_graph and not any(isinstance(step, Call) for step in program.steps)


def _scipy(graph: Graph) -> csr_array:
    size = len(graph.sums)
    return csr_array((graph.values.numpy(), graph.columns.numpy(), graph.starts.numpy()), shape=(size, size))


def _moved(graph: Graph, order: Tensor) -> Graph:
    matrix = _scipy(graph)[order.numpy()][:, order.numpy()]
    matrix.sort_indices()
    ids = graph.starts.numpy().dtype
    starts, columns = (torch.from_numpy(part.astype(ids)) for part in (matrix.indptr, matrix.indices))
    return Graph(starts, columns, torch.from_numpy(matrix.data), graph.sums[order])
