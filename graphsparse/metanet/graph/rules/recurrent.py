"""Rules of recurrent layers: a unit is one node, with the rows of all its gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphsparse.metanet.graph.id_algebra import activation, channels
from graphsparse.metanet.graph.record import Const, Elements, Ids, Record, UncoveredError, Value
from graphsparse.metanet.graph.rules import rule


def _units(
    record: Record,
    source: Tensor,
    read: Value,
    again: Value,
    biases: Sequence[Value | None],
    project: Value | None = None,
) -> tuple[Tensor, Tensor]:
    """Nodes of what a layer gives and of its units, which are the same unless it projects them."""
    for weight in (read, again, *biases, project):
        if weight is not None and not isinstance(weight, Elements):
            raise UncoveredError("a weight of the recurrent layer is no parameter")
    assert isinstance(read, Elements)
    assert isinstance(again, Elements)
    width = again.shape[1] if project is None else project.shape[1]
    units = out = record.new((width,))
    rows = units.repeat(read.shape[0] // width)
    record.edges((), read, source.expand(read.shape), rows[:, None].expand(read.shape))
    if isinstance(project, Elements):
        out = record.new((project.shape[0],))
        record.edges((), project, units.expand(project.shape), out[:, None].expand(project.shape))
    record.edges((), again, out.expand(again.shape), rows[:, None].expand(again.shape))
    for bias in biases:
        if isinstance(bias, Elements):
            record.lay("bias", ("bias", bias, rows))
    return out, units


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(
    record: Record,
    name: str,
    input: Value,
    hx: Any,
    params: list[Value],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    **options: Any,
) -> tuple[Ids, ...]:
    """Layers of units; those of all layers and directions have one width, and so lose the same places."""
    source = channels(record, activation(record, input), -1)
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    outs, units = [], []
    for layer in range(num_layers):
        for direction in range(directions):
            first = (layer * directions + direction) * each
            read, again, *rest = params[first : first + each]
            biases = rest[:2] if has_biases else []
            out, own = _units(record, source, read, again, biases, *rest[len(biases) :])
            outs.append(out)
            units.append(own)
        source = torch.cat(outs[-directions:])
    for out, own in zip(outs[1:], units[1:], strict=True):
        record.tie(outs[0], out)
        record.tie(units[0], own)
    states = [torch.stack(outs), torch.stack(units)][: 2 if name == "lstm" else 1]
    for given, state in zip(hx if name == "lstm" else [hx], states, strict=True):
        _tie_given(record, given, state)
    shape = (*input.shape[:-1], len(source))
    batch = input.shape[:-1][int(bool(options.get("batch_first", False))) ^ 1 :][:1] if len(input.shape) > 2 else ()
    final = [state.view(len(state), *[1] * len(batch), -1).expand(len(state), *batch, -1) for state in states]
    return (Ids(source.expand(shape)), *map(Ids, final))


def _tie_given(record: Record, given: Value, state: Tensor) -> None:
    if not isinstance(given, Const):
        ids = activation(record, given)
        for number, own in enumerate(state):
            record.tie(channels(record, ids[number], -1), own)


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(record: Record, name: str, input: Value, hx: Any, **weights: Any) -> Any:
    """One step of a recurrent layer."""
    source = channels(record, activation(record, input), -1)
    read, again, *biases = weights.values()
    out, _ = _units(record, source, read, again, biases)
    for given in hx if name == "lstm_cell" else [hx]:
        _tie_given(record, _batch(given), out[None])
    ids = Ids(out.expand(*input.shape[:-1], -1))
    return (ids, ids) if name == "lstm_cell" else ids


def _batch(given: Value) -> Value:
    return given if isinstance(given, Const) else Ids(given.tensor[None]) if isinstance(given, Ids) else given
