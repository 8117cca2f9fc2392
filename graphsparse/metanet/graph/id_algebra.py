"""The algebra of id tensors: which node stands behind an activation when ids meet, are reduced, or must agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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

FAR = torch.iinfo(torch.int64).max


def current(record: Record, ids: Tensor) -> Tensor:
    """The ids that speak now, expanded where they were."""
    return record.root(collapse(ids)).expand(ids.shape)


def uniform(record: Record, ids: Tensor, axis: int) -> bool:
    """Whether the same id stands along the axis everywhere (-1 agrees with any)."""
    columns = record.root(collapse(ids)).movedim(axis, 0)
    if not columns.numel():
        return True
    low = torch.where(columns < 0, FAR, columns).amin(0)
    top = columns.amax(0)
    return bool(((low == top) | (top < 0)).all())


def settle(record: Record, ids: Tensor, axes: Sequence[int]) -> Tensor:
    """The ids with one left along the given axes (kept at length 1).

    Soft ids that stand along them are one channel from now on. Where several real ids do (tokens of two sources joined
    into one sequence), a new node follows them, tied by ``align`` relations.
    """
    axes = sorted(axis % ids.dim() for axis in axes) if ids.dim() else []
    small = record.root(collapse(ids))
    moved = small.movedim(axes, tuple(range(len(axes)))) if axes else small
    rest = moved.shape[len(axes) :]
    if 0 in moved.shape[: len(axes)]:
        raise UncoveredError(
            "the example gives it no rows, so nothing is known of its channels; give an example that reaches it (a "
            "graph with nodes of every degree and kind that the network tells apart)"
        )
    columns = moved.reshape(-1, rest.numel())
    top = columns.amax(0)
    clash = (torch.where(columns < 0, FAR, columns).amin(0) != top) & (top >= 0)
    if bool(clash.any()):
        joined = _join(record, columns[:, clash])
        top = record.root(top)  # the join may have merged ids of other columns too
        top[clash] = joined
    kept = top.view([1 if axis in axes else size for axis, size in enumerate(small.shape)])
    return kept.expand([1 if axis in axes else size for axis, size in enumerate(ids.shape)])


def _join(record: Record, columns: Tensor) -> Tensor:
    """One id for each column of ids that should agree and do not."""
    distinct, which = torch.unique(columns, dim=1, return_inverse=True)
    real = torch.where(record.soft(distinct), -1, distinct)
    several = real.amax(0) != torch.where(real < 0, FAR, real).amin(0)
    given = (record.soft(distinct) & ~record.token(distinct)).any(0)
    many = (real.amax(0) >= 0) & (several | given)
    anchor = torch.where(real.amax(0) >= 0, real.amax(0), distinct.amax(0))
    present = (distinct >= 0) & ~many
    if not record.union(distinct[present], anchor.expand_as(distinct)[present]):
        many = torch.ones_like(many)  # soft ids of several columns would tie real ones together
    out = record.root(anchor)
    if bool(many.any()):
        fresh = record.new((int(many.sum()),))
        record.relate("align", distinct[:, many], fresh.expand(len(distinct), -1))
        out[many] = fresh
    return out[which]


def channels(record: Record, ids: Tensor, axis: int) -> Tensor:
    """The ids along one axis, [length], with every other axis settled; constants get nodes of their own."""
    others = [other for other in range(ids.dim()) if other != axis % ids.dim()]
    return record.pin(filled(record, settle(record, ids, others)).reshape(-1))


def biased(record: Record, ids: Tensor, bias: Value | None, axis: int) -> Ids:
    """Lay a bias on the channels along an axis."""
    if isinstance(bias, Elements):
        record.lay("bias", ("bias", bias, channels(record, ids, axis)))
    elif isinstance(bias, Ids):
        raise UncoveredError("its bias is computed from activations")
    return Ids(ids)


def filled(record: Record, ids: Tensor) -> Tensor:
    """The ids with a fresh soft one for each element that had none."""
    small = record.root(collapse(ids))
    empty = small < 0
    if bool(empty.any()):
        small = small.clone()
        small[empty] = record.new((int(empty.sum()),), soft=True, label=f"{record.path} (constant)".strip())
    return small.expand(ids.shape)


def absorbed(record: Record, ids: Tensor, axes: Sequence[int]) -> Tensor:
    """Tokens beside one known channel along the axes (a class token before its sequence) are that channel."""
    axes = sorted({axis % ids.dim() for axis in axes}) if ids.dim() else []
    small = record.root(collapse(ids))
    columns = small.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1) if axes else small.unsqueeze(0)
    known = torch.where(record.token(columns), -1, columns)
    top, low = known.amax(0), torch.where(known < 0, FAR, known).amin(0)
    if bool(record.token(columns).any()) and bool((top == low).all()):
        return settle(record, ids, axes).expand(ids.shape)
    return ids


def reduced(record: Record, ids: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """Ids after a sum, mean, maximum ... over axes: equal ids go on, different ones make a node (``reduce``)."""
    axes = sorted({axis % ids.dim() for axis in axes}) if ids.dim() else []
    ids = absorbed(record, ids, axes)
    if all(uniform(record, ids, axis) for axis in axes):
        kept = settle(record, ids, axes)
    else:
        small = record.root(collapse(ids))
        moved = small.movedim(axes, tuple(range(len(axes))))
        columns = moved.reshape(-1, moved.shape[len(axes) :].numel())
        distinct, which = torch.unique(columns, dim=1, return_inverse=True)
        fresh = record.new((distinct.shape[1],), soft=bool((record.soft(distinct) | (distinct < 0)).all()))
        fresh = torch.where((distinct >= 0).any(0), fresh, -1)
        record.relate("reduce", distinct, fresh.expand_as(distinct))
        kept = fresh[which].view([1 if axis in axes else size for axis, size in enumerate(small.shape)])
        kept = kept.expand([1 if axis in axes else size for axis, size in enumerate(ids.shape)])
    return kept if keepdim else kept.squeeze(axes)


def meet(record: Record, left: Tensor, right: Tensor, kind: str) -> Tensor:
    """Ids after an elementwise operation of two activations.

    Ids that meet one to one are tied by a relation of the given kind from the older to the newer, and the newer goes
    on. Where one id meets several (a gate of one channel, a score of one head), the several go on (``broadcast``).
    Where both meet several, each pair makes a node.
    """
    shape = broadcast(left.shape, right.shape)
    lengths = [[1] * (len(shape) - t.dim()) + list(t.shape) for t in (left, right)]
    left, right = (collapse(t.expand(shape)) for t in (left, right))
    left = _settled_against(record, left, right, lengths[1])
    right = _settled_against(record, right, left, lengths[0])
    left, right = record.root(left), record.root(right)
    a, b = (t.expand(broadcast(left.shape, right.shape)) for t in (left, right))
    both = (a >= 0) & (b >= 0) & (a != b)
    if not bool(both.any()):
        return torch.where(a >= 0, a, b).expand(shape)
    pairs, which = torch.unique(torch.stack([a[both], b[both]]), dim=1, return_inverse=True)
    several_right = bool((torch.unique(pairs[0], return_counts=True)[1] > 1).any())
    several_left = bool((torch.unique(pairs[1], return_counts=True)[1] > 1).any())
    older, newer = pairs
    if several_left and several_right:
        fresh = record.new((pairs.shape[1],), soft=bool(record.soft(pairs).all()))
        record.relate("broadcast", older, fresh)
        record.relate("broadcast", newer, fresh)
        newer = fresh
    elif several_left or several_right:
        older, newer = (newer, older) if several_left else (older, newer)
        record.relate("broadcast", older, newer)
    else:
        age = pairs + torch.where(record.soft(pairs), 0, record.count)  # an input is older than any layer
        older, newer = torch.where(age[0] < age[1], pairs, pairs.flip(0))
        record.relate(kind, older, newer)
    out = torch.where(a >= 0, a, b)
    out[both] = newer[which]
    return out.expand(shape)


def _settled_against(record: Record, ids: Tensor, other: Tensor, lengths: Sequence[int]) -> Tensor:
    """Loose ids become one channel along the axes where the other side has a length and yet one id."""
    ids = record.root(ids)
    valid = ids >= 0
    if not bool(valid.any()) or not bool((record.loose(ids) | ~valid).all()):
        return ids
    other = record.root(other)
    if not bool((other >= 0).any()) or bool(record.loose(other).any()):
        return ids
    axes = [
        axis for axis, length in enumerate(lengths) if length > 1 < ids.shape[axis] and uniform(record, other, axis)
    ]
    return settle(record, ids, axes) if axes else ids


def activation(record: Record, value: Value) -> Tensor:
    """The ids of a value that is used as an activation."""
    if isinstance(value, Ids):
        return value.tensor
    if isinstance(value, Elements):
        return own_ids(record, value)
    if isinstance(value, Mixed):
        raise UncoveredError("an activation is computed from a whole parameter")
    return torch.full((), -1).expand(value.shape)


def own_ids(record: Record, elements: Elements) -> Tensor:
    """A parameter as an activation (a class token): a soft id for each element, which lies on it."""
    distinct, which = torch.unique(elements.indices(), return_inverse=True)
    ids = record.new((len(distinct),), soft=True)
    record.lay("token", ("token", Elements(0, distinct.shape, distinct), ids))
    return ids[which]


def lay_on(record: Record, ids: Tensor, elements: Elements, kind: str) -> Ids:
    """A parameter meets an activation elementwise: its elements are slots on the ids that they meet."""
    shape = broadcast(ids.shape, elements.shape)
    owners = filled(record, ids)
    missing = len(shape) - owners.dim()
    small = collapse(owners.view([1] * missing + list(owners.shape)).expand(shape) if missing else owners.expand(shape))
    record.lay(kind, (kind, elements, small))
    return Ids(owners.expand(shape))


def contract(record: Record, ids: Tensor, weight: Value, weight_axes: tuple[int, int]) -> Tensor:
    """Ids [..., i, c] times a weight with axes (c, o) at the given places and batch axes before: new ids [..., i, o].

    A weight with batch axes (one matrix per head) makes its own outputs for each of them.
    """
    if isinstance(weight, Ids):
        raise UncoveredError("its weight is computed from activations")
    into, out = (axis % len(weight.shape) for axis in weight_axes)
    batch = [size for axis, size in enumerate(weight.shape) if axis not in (into, out)]
    shape = broadcast(ids.shape[:-2], torch.Size(batch)) + ids.shape[-2:]
    own = [1] * (len(shape) - 2 - len(batch)) + batch
    ids = ids.expand(shape)
    source = settle(record, ids, [axis for axis in range(len(shape) - 1) if axis == len(shape) - 2 or own[axis] == 1])
    source = record.pin(filled(record, source)).reshape([*batch, shape[-1]])
    target = record.new((*batch, weight.shape[out]))
    if batch:  # a box of weights: all matrices lose the same rows and columns
        for ends in (source, target):
            rows = ends.flatten(0, -2)
            record.tie(rows[:1], rows)
    src = source.unsqueeze(out).expand(weight.shape) if out >= len(batch) else source
    dst = target.unsqueeze(into).expand(weight.shape)
    if isinstance(weight, Elements):
        record.edges((), weight, src, dst)
    elif isinstance(weight, Const):  # a fixed projection has nothing to prune, yet ties its outputs to its inputs
        record.relate("reduce", src, dst)
        record.stand(weight.stored, src)
        record.stand(weight.stored, dst)
    else:
        raise UncoveredError("its weight is a mean of parameters")
    return target.view([*own, 1, weight.shape[out]]).expand([*shape[:-1], weight.shape[out]])


def relate_groups(record: Record, ids: Tensor) -> None:
    """Channels [group, place] that can only be cut at the same places of every group."""
    if min(ids.shape) > 0:
        record.relate("grouped", ids[:1].expand_as(ids), ids)


def pointwise(record: Record, name: str, values: Sequence[Value], to_bool: bool) -> Value:
    """Any elementwise operation: ids pass, ids that meet are tied, parameters lie on the ids that they meet."""
    shape = broadcast(*(value.shape for value in values))
    if to_bool:
        return Ids(torch.full((), -1).expand(shape))
    factor = name in ("mul", "div", "true_divide")
    parameters = [value for value in values if isinstance(value, Elements)]
    active = [value for value in values if isinstance(value, Ids)]
    if not active and (len(parameters) == 1 or name not in ("add", "sub") or len(parameters) < len(values)):
        return computed(record, name, values, shape)
    if not active:
        active, parameters = [Ids(own_ids(record, parameters[0]))], parameters[1:]
    out = active[0].tensor
    for other in active[1:]:
        out = meet(record, out, other.tensor, "multiply" if factor else "add")
    for elements in parameters:
        kind = "scale" if factor else "shift"
        out = lay_on(record, out, elements, kind).tensor
    for value in values:
        if isinstance(value, Mixed):
            raise UncoveredError("an activation meets what is computed from a whole parameter")
        if isinstance(value, Const):
            record.stand([_spread(stored, shape) for stored in value.stored], out.expand(shape))
    return Ids(out.expand(shape))


def computed(record: Record, name: str, values: Sequence[Value], shape: torch.Size) -> Value:
    """Parameters computed with each other, place by place: a weight times its gain, over its norm, less its mean.

    The largest of them stands for the result, and the others go with it.
    """
    parts = [value for value in values if isinstance(value, Elements | Mixed)]
    whole = [value for value in parts if isinstance(value, Elements)]
    first = max(whole or parts, key=lambda value: value.shape.numel())
    own = _spread(first, shape) if isinstance(first, Elements) else None
    index = own.indices().unsqueeze(-1) if own is not None else first.index.expand(*shape, -1)  # type: ignore[union-attr]
    stored = [elements for value in values if isinstance(value, Const) for elements in value.stored]
    for other in (*parts, *stored):
        if other is not first:
            deep = other.index if isinstance(other, Mixed) else other.indices().unsqueeze(-1)
            if not (isinstance(other, Mixed) and isinstance(first, Elements)):  # a norm or mean of the weight itself
                record.meet(index.expand(*shape, -1)[..., :1], deep.expand(*shape, -1)[..., :1])
    if own is None:
        return Mixed(index)
    if name in ("div", "true_divide") and any(isinstance(p, Mixed) and p.shape.numel() > 1 for p in parts):
        record.normed.add(int(own.indices().reshape(-1)[0]))
    return own


def mixed(value: Elements | Mixed, dim: int | Sequence[int] | None, keepdim: bool) -> Mixed:
    """A sum, mean, norm ... of a parameter over axes."""
    index = value.index if isinstance(value, Mixed) else value.indices().unsqueeze(-1)
    count = index.dim() - 1
    axes = [dim % count] if isinstance(dim, int) else [axis % count for axis in dim or range(count)]
    gone = index.movedim(axes, tuple(range(-len(axes) - 1, -1))).flatten(-len(axes) - 1)
    if keepdim:
        for axis in sorted(axes):
            gone = gone.unsqueeze(axis)
    return Mixed(gone)


def _spread(elements: Elements, shape: torch.Size) -> Elements:
    if elements.shape == shape:
        return elements
    return Elements(elements.start, shape, elements.indices().expand(shape))
