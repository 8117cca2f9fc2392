"""A program in torch's own operations: what can be exported, and what runs where the loops of `engine` do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.tickets.compiled.program import Call, Graph, Held, Join, Map, Mix, Program, Scale, Step, Term


def summed(graph: Graph, x: Tensor) -> Tensor:
    """The product of a graph's matrix and x [N, w]."""
    starts = graph.starts.long()
    rows = torch.repeat_interleave(torch.arange(len(starts) - 1, device=x.device), starts.diff())
    return _scattered(rows, graph.columns.long(), graph.values, x)


def _scattered(rows: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
    sent = x.index_select(0, columns) * values.unsqueeze(1)
    return torch.zeros_like(x).index_add(0, rows, sent)


def mixed(step: Mix, values: Mapping[int, Tensor], product: Any = summed) -> Tensor:
    """The value of a mix: weights first, edges then, unless that makes the product with the graph wider."""
    out: Tensor | None = None
    for term in step.terms:
        part = _term(term, values[term.source], product)
        out = part if out is None else out + part
    assert out is not None
    return out if step.bias is None else out + step.bias


def _term(term: Term, x: Tensor, product: Any) -> Tensor:
    graph, weight = term.graph, term.weight
    x = _taken(x, term.columns)
    if graph is not None and weight is not None and weight.size(1) < weight.size(0):
        x, first = product(graph, x) @ weight.t(), True
    else:
        x, first = x if weight is None else x @ weight.t(), False
    if graph is not None and not first:
        x = product(graph, x)
    if term.inner is None:
        return x
    return x + (term.inner if graph is None else graph.sums.unsqueeze(1) * term.inner)


class Portable(nn.Module):
    """A program as a module of features [N, F] in torch's own operations; its tensors are buffers.

    Args:
        program: what it computes.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.output, self.steps = program.output, program.steps
        self._names: dict[int, str] = {}
        self._graphs: dict[int, str] = {}
        if program.live is not None:
            self.register_buffer("live", program.live)
        self.taken = program.live is not None
        for step in self.steps:
            if isinstance(step, Call) and isinstance(step.function, nn.Module):
                self.add_module(f"layer{step.out}", step.function)
            for term in step.terms if isinstance(step, Mix) else ():
                if term.graph is not None and id(term.graph) not in self._graphs:
                    self._hold_graph(term.graph)

    def _hold_graph(self, graph: Graph) -> None:
        name = f"graph{len(self._graphs)}"
        self._graphs[id(graph)] = name
        starts = graph.starts.long()
        rows = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
        for part, value in (("rows", rows), ("columns", graph.columns.long()), ("values", graph.values)):
            self.register_buffer(f"{name}_{part}", value)

    def _summed(self, graph: Graph, x: Tensor) -> Tensor:
        name = self._graphs[id(graph)]
        rows, columns, values = (getattr(self, f"{name}_{part}") for part in ("rows", "columns", "values"))
        return _scattered(rows, columns, values, x)

    def forward(self, x: Tensor | None = None) -> Tensor:
        """Outputs of features [N, F]."""
        values: dict[int, Any] = {0: x if x is None or not self.taken else x.index_select(1, self.get_buffer("live"))}
        for step in self.steps:
            values[step.out] = self._value(step, values)
        out: Tensor = values[self.output]
        return out

    def _value(self, step: Step, values: Mapping[int, Tensor]) -> Tensor:
        if isinstance(step, Mix):
            return mixed(step, values, self._summed)
        return plain_value(step, values)


def _taken(x: Tensor, columns: Tensor | None) -> Tensor:
    return x if columns is None else x.index_select(1, columns)


def plain_value(step: Step, values: Mapping[int, Tensor]) -> Tensor:
    """The value of a step that is no mix."""
    if isinstance(step, Held):
        return step.value
    if isinstance(step, Map):
        return step.function(_taken(values[step.source], step.columns))
    if isinstance(step, Scale):
        return _taken(values[step.source], step.columns) * step.factor + step.shift
    if isinstance(step, Join):
        return torch.cat([_taken(values[part], own) for part, own in zip(step.parts, step.columns, strict=True)], dim=1)
    assert isinstance(step, Call)
    return step.run(values)
