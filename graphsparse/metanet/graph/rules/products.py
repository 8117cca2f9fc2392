"""Rules of products of two activations: attention written out or built in, einsum, and products with weights."""

from __future__ import annotations

import string
from typing import Any

import torch
from torch import Tensor

from graphsparse.metanet.graph.id_algebra import (
    absorbed,
    activation,
    contract,
    current,
    lay_on,
    meet,
    pointwise,
    reduced,
    relate_groups,
    settle,
    uniform,
)
from graphsparse.metanet.graph.record import (
    Const,
    Elements,
    Ids,
    Mixed,
    Record,
    UncoveredError,
    Value,
    broadcast,
    collapse,
)
from graphsparse.metanet.graph.rules import rule


def product(record: Record, left: Value, right: Value) -> Tensor:
    """Ids of left [..., i, c] @ right [..., c, j]."""
    if isinstance(left, Elements) and isinstance(right, Elements):
        raise UncoveredError("a parameter is computed from parameters")
    if isinstance(right, Elements):
        return contract(record, activation(record, left), right, (-2, -1))
    if isinstance(left, Elements):
        return contract(record, activation(record, right).mT, left, (-1, -2)).mT
    if isinstance(left, Const) and isinstance(right, Ids):
        return _fixed(record, right.tensor.mT, left, (-1, -2), features_last=False).mT
    if isinstance(right, Const) and isinstance(left, Ids):
        return _fixed(record, left.tensor, right, (-2, -1), features_last=True)
    return _of_activations(record, activation(record, left), activation(record, right))


def _fixed(record: Record, ids: Tensor, matrix: Const, axes: tuple[int, int], *, features_last: bool) -> Tensor:
    """A known matrix: an adjacency mixes places of one channel, a fixed projection mixes channels."""
    small = record.root(collapse(ids))
    inputs = bool((record.loose(small) | (small < 0)).all())
    if uniform(record, ids, -1) or (inputs and not features_last):
        kept = settle(record, ids, [-1])
        lead = broadcast(kept.shape[:-2], matrix.shape[:-2])
        return kept.expand((*lead, kept.shape[-2], matrix.shape[axes[1]]))
    return contract(record, ids, Const(matrix.tensor, matrix.stored), axes)


def _of_activations(record: Record, left: Tensor, right: Tensor) -> Tensor:
    lead = broadcast(left.shape[:-2], right.shape[:-2])
    left, right = left.expand(lead + left.shape[-2:]), right.expand(lead + right.shape[-2:])
    left, right = _one_if_loose(record, left, right, -2), _one_if_loose(record, right, left, -1)
    if uniform(record, left, -1) and uniform(record, right, -2):  # places are mixed: scores times values
        weights, mixed = settle(record, left, [-1]), settle(record, right, [-2])
        out = meet(record, weights, mixed, "multiply")
        _relate_keys(record, weights, mixed)
        return out
    return _scores(record, left, right)


def _one_if_loose(record: Record, ids: Tensor, other: Tensor, contracted: int) -> Tensor:
    """An input that mixes places of known channels (a dense adjacency) is one node."""
    small = record.root(collapse(ids))
    known = not bool(record.loose(record.root(collapse(other))).any())
    if known and bool(record.loose(small).all()) and uniform(record, other, contracted):
        return settle(record, ids, range(ids.dim())).expand(ids.shape)
    return ids


def _scores(record: Record, left: Tensor, right: Tensor) -> Tensor:
    """Channels are contracted: each channel of a query meets that of a key (``q-k``); a node stands for each score."""
    shape = (*left.shape[:-1], right.shape[-1])
    left, right = absorbed(record, left, [-2]), absorbed(record, right, [-1])
    a = record.root(collapse(left)).unsqueeze(-1)  # [..., i, c, 1]
    b = record.root(collapse(right)).unsqueeze(-3)  # [..., 1, c, j]
    common = broadcast(a.shape, b.shape)
    both = torch.stack([a.expand(common), b.expand(common)]).movedim(-2, 1)  # [2, c, ..., i, j]
    small = both.shape[2:]
    columns = both.flatten(2).flatten(0, 1)  # [2c, outputs]
    distinct, which = torch.unique(columns, dim=1, return_inverse=True)
    query, key = distinct.view(2, -1, distinct.shape[1])
    record.pin(query)
    record.pin(key)
    fresh = record.new((distinct.shape[1],))
    record.relate("q-k", query, key)
    record.relate("score", query, fresh.expand_as(query))
    record.relate("score", key, fresh.expand_as(key))
    if distinct.shape[1] > 1 and len(distinct.unique()) == distinct.numel():  # heads of equal size
        relate_groups(record, query.T)
    record.keys.update(zip(fresh.tolist(), key.T, strict=True))
    record.hold("they are the scores of attention", fresh)
    record.queries.append(query.T)
    if len(query) not in record.numbers:
        record.heads += [query, key]
    return fresh[which].view(small).expand(shape)


def _relate_keys(record: Record, weights: Tensor, mixed: Tensor) -> None:
    """The channels of the keys behind each score are tied to those of its values, where they are as many (``k-v``)."""
    shape = broadcast(weights.shape, mixed.shape)
    scores, values = (current(record, t).expand(shape) for t in (weights, mixed))
    pairs = torch.stack([collapse(t).expand(broadcast(collapse(scores).shape, collapse(values).shape))
                         for t in (scores, values)]).flatten(1)  # fmt: skip
    for score in torch.unique(pairs[0]).tolist():
        key = record.keys.get(score)
        found = torch.unique(pairs[1, pairs[0] == score])
        if key is not None and len(key) == len(found):
            record.relate("k-v", record.root(key), found)


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def matmul(record: Record, **arguments: Any) -> Ids | Mixed:
    """Any matrix product; vectors are matrices with one row or column."""
    left, right = list(arguments.values())[:2]
    if not isinstance(left, Ids) and not isinstance(right, Ids):
        return _of_parameters(record, left, right)
    row, column = len(left.shape) == 1, len(right.shape) == 1
    out = product(record, _reshaped(left, (1, -1)) if row else left, _reshaped(right, (-1, 1)) if column else right)
    out = out.squeeze(-2) if row else out
    return Ids(out.squeeze(-1) if column else out)


def _of_parameters(record: Record, left: Value, right: Value) -> Mixed:
    """A weight times a vector, as in a spectral norm: each element of the vector goes with its row or column."""
    if min(len(left.shape), len(right.shape)) != 1 or max(len(left.shape), len(right.shape)) > 2:
        raise UncoveredError("a parameter is computed from parameters")
    parts = [_deep(left), _deep(right)]
    if len(right.shape) == 2:
        parts[1] = [part.transpose(0, 1) for part in parts[1]]
    first, second = parts  # each [..., contracted axis, depth]
    for one in first:
        for other in second:
            shape = broadcast(one.shape[:-1], other.shape[:-1])
            a, b = one.expand(*shape, -1), other.expand(*shape, -1)
            record.meet(a.unsqueeze(-1), b.unsqueeze(-2))
    whole = max((*first, *second), key=lambda part: part[..., 0].numel())
    return Mixed(whole.flatten(-2))


def _deep(value: Value) -> list[Tensor]:
    if isinstance(value, Mixed):
        return [value.index]
    parts = value.stored if isinstance(value, Const) else (value,) if isinstance(value, Elements) else ()
    return [part.indices().unsqueeze(-1) for part in parts]


def _reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    if isinstance(value, Ids):
        return Ids(value.tensor.reshape(shape))
    if isinstance(value, Const):
        return Const(value.tensor.reshape(shape))
    if isinstance(value, Mixed):
        raise UncoveredError("an activation meets what is computed from a whole parameter")
    index = value.indices().reshape(shape)
    return Elements(value.start, index.shape, index)


@rule("addmm", "addmv", "baddbmm", "addbmm")
def added_product(record: Record, name: str, **arguments: Any) -> Ids:
    """A product and what is added to it: a bias, a mask, or another activation."""
    if name == "addbmm":
        raise UncoveredError("it sums over a batch")
    added, left, right = list(arguments.values())[:3]
    out = matmul(record, left=left, right=right).tensor
    if isinstance(added, Elements):
        record.lay("bias", ("bias", added, settle(record, out, range(out.dim() - len(added.shape)))))
        return Ids(out)
    return Ids(meet(record, out, activation(record, added), "add").expand(out.shape))


@rule("scaled_dot_product_attention")
def attention(
    record: Record,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    enable_gqa: bool = False,
    **options: Any,
) -> Ids:
    """softmax(q k^T + mask) v, as if it were written out."""
    q, k, v = (activation(record, part) for part in (query, key, value))
    if enable_gqa:
        k, v = (part.repeat_interleave(q.shape[-3] // part.shape[-3], -3) for part in (k, v))
    scores = _of_activations(record, q, k.mT)
    if isinstance(attn_mask, Elements):
        scores = lay_on(record, scores, attn_mask, "shift").tensor
    elif isinstance(attn_mask, Ids):
        scores = meet(record, scores, attn_mask.tensor, "add")
    return Ids(_of_activations(record, scores, v))


@rule("einsum")
def einsum(record: Record, equation: str, tensors: list[Value], **options: Any) -> Ids:
    """Operands one after the other, each pair as a batched matrix product."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    if "->" not in equation:  # what is named once stays, in alphabetical order
        output = "".join(sorted(name for name in set(inputs) - {","} if inputs.count(name) == 1))
    if any(
        len(set(own)) != len(own) for own in (*(own.replace("...", "") for own in names), output.replace("...", ""))
    ):
        raise UncoveredError(f"'{equation}' repeats an axis")
    names, output = _spelled_out(names, output, tensors)
    operands = list(zip(names, tensors, strict=True))
    operands.sort(key=lambda pair: not isinstance(pair[1], Ids))  # a parameter meets an activation first
    (own, value), *rest = operands
    for place, (other, factor) in enumerate(rest):
        later = set(output).union(*(names for names, _ in rest[place + 1 :]))
        own, value = _pair(record, (own, value), (other, factor), later)
    own, value = _summed(record, own, value, set(output))
    return Ids(activation(record, value).permute([own.index(axis) for axis in output]))


def _spelled_out(names: list[str], output: str, tensors: list[Value]) -> tuple[list[str], str]:
    """Letters in the place of ``...``, counted from the last axis."""
    free = [letter for letter in string.ascii_letters if letter not in "".join(names)]
    many = [len(tensor.shape) - len(own.replace("...", "")) for own, tensor in zip(names, tensors, strict=True)]
    letters = "".join(free[: max(many)])
    spelled = [own.replace("...", letters[len(letters) - count :]) for own, count in zip(names, many, strict=True)]
    return spelled, output.replace("...", letters)


def _summed(record: Record, names: str, value: Value, needed: set[str]) -> tuple[str, Value]:
    """Without the axes that nothing needs."""
    gone = [place for place, axis in enumerate(names) if axis not in needed]
    if not gone:
        return names, value
    left = "".join(axis for axis in names if axis in needed)
    return left, Ids(reduced(record, activation(record, value), gone, keepdim=False))


def _pair(record: Record, left: tuple[str, Value], right: tuple[str, Value], later: set[str]) -> tuple[str, Value]:
    """The product of two operands, with the axes that are needed later."""
    first, a = _summed(record, *left, later | set(right[0]))
    second, b = _summed(record, *right, later | set(left[0]))
    batch = [axis for axis in first if axis in second and axis in later]
    summed = [axis for axis in first if axis in second and axis not in later]
    rows, columns = ([axis for axis in own if axis not in other] for own, other in ((first, second), (second, first)))
    sizes = dict.fromkeys(first + second, 1)
    for axis, size in zip(first + second, (*a.shape, *b.shape), strict=True):
        sizes[axis] = max(sizes[axis], size)  # an axis of one is repeated
    if not summed:
        parts = [_laid_out(a, first, (batch, rows, []), sizes), _laid_out(b, second, (batch, [], columns), sizes)]
        out = activation(record, pointwise(record, "mul", parts, to_bool=False))
        return "".join(batch + rows + columns), Ids(out.reshape([sizes[axis] for axis in batch + rows + columns]))
    out = product(
        record, _laid_out(a, first, (batch, rows, summed), sizes), _laid_out(b, second, (batch, summed, columns), sizes)
    )
    order = batch + rows + columns
    return "".join(order), Ids(out.reshape([sizes[axis] for axis in order]))


def _laid_out(value: Value, names: str, parts: tuple[list[str], ...], sizes: dict[str, int]) -> Value:
    """The operand with its axes in the order of the parts: batch axes apart, each other part joined into one axis."""
    lead, *joined = parts
    shape = [sizes[axis] for axis in lead] + [int(torch.Size(sizes[axis] for axis in part).numel()) for part in joined]
    axes = [axis for part in parts for axis in part]
    order, full = [names.index(axis) for axis in axes], [sizes[axis] for axis in axes]
    if isinstance(value, Elements):
        index = value.indices().permute(order).expand(full).reshape(shape)
        return Elements(value.start, index.shape, index)
    if isinstance(value, Mixed):
        raise UncoveredError("an activation meets what is computed from a whole parameter")
    tensor = value.tensor.permute(order).expand(full).reshape(shape)
    return Ids(tensor) if isinstance(value, Ids) else Const(tensor)
