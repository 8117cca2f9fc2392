"""Operations that move elements without computing: they run as they are, on ids, parameter elements and constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphsparse.metanet.graph.id_algebra import current, own_ids
from graphsparse.metanet.graph.record import (
    VALUES,
    Const,
    Elements,
    Ids,
    Mixed,
    Record,
    UncoveredError,
    Value,
    collapse,
)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What moves elements about and is run on the tensor of ids as it is.
MOVES = _names(
    """
    view reshape _unsafe_view flatten unflatten permute transpose t numpy_T mT adjoint movedim moveaxis swapaxes
    squeeze unsqueeze expand expand_as view_as reshape_as broadcast_to repeat repeat_interleave tile slice narrow
    select split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk hsplit vsplit unbind cat concat
    concatenate stack hstack vstack dstack column_stack index index_select gather take_along_dim flip fliplr flipud
    roll rot90 diagonal unfold pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle select_scatter
    slice_scatter masked_select where im2col
    """
)
# What keeps every id (or parameter element) where it is.
KEEPS = _names(
    """
    real imag conj _conj resolve_conj resolve_neg
    clone contiguous detach alias lift lift_fresh lift_fresh_copy to _to_copy type_as float half double bfloat16
    dropout feature_dropout alpha_dropout native_dropout
    """
)
# Pointwise in what they mean for a channel, though torch does not tag them so: normalisations over an axis, and others.
PASSES = _names(
    """
    softmax _softmax log_softmax _log_softmax softmin cumsum cumprod logcumsumexp relu6 selu celu rrelu silu mish
    leaky_relu hardswish hardsigmoid hardtanh softplus softshrink hardshrink tanhshrink gelu logsigmoid log_sigmoid
    __and__ __or__ __xor__ prelu_kernel tril triu masked_fill fill nan_to_num clip clamp feature_alpha_dropout
    local_response_norm
    """
)
_MOST_STORED = 2**22  # elements of a constant that are followed
SHAPED_LIKE = frozenset(("expand_as", "view_as", "reshape_as"))
# Fresh tensors whose shape alone comes from an activation.
FRESH = _names(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty
    """
)


def move(record: Record, name: str, overload: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a move on whatever its tensors stand for; in a mixture, everything becomes ids."""
    values = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, VALUES)]
    if any(isinstance(value, Mixed) for value in values):
        return _move_mixed(values, overload, args, kwargs)
    indices = _indices(name, args, kwargs)
    if any(isinstance(value, Ids) for value in indices):
        raise UncoveredError("its indices are computed from activations")
    moved = [value for value in values if not any(value is index for index in indices)]
    only_elements = all(isinstance(value, Elements) for value in moved)

    def tensor_of(leaf: Any) -> Any:
        if not isinstance(leaf, Ids | Elements | Const):
            return leaf
        if any(leaf is index for index in indices):
            assert isinstance(leaf, Const)
            return leaf.tensor
        if only_elements:
            assert isinstance(leaf, Elements)
            return leaf.indices()
        return _ids_of(record, leaf)

    args, kwargs = pytree.tree_map(
        tensor_of, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Ids | Elements | Const)
    )
    result: Any
    if name in ("cat", "concat", "concatenate") and not only_elements:
        result = _cat(*args, **kwargs)
    elif name == "where":
        result = torch.where(args[0], *(_tensor_or_none(part) for part in args[1:]))
    else:
        result = _run({"view": torch.reshape, "_unsafe_view": torch.reshape}.get(name, overload), args, kwargs)
    return pytree.tree_map(lambda t: Elements(-1, t.shape, t) if only_elements else Ids(t), result)


def _move_mixed(values: list[Value], overload: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if len(values) != 1:
        raise UncoveredError("a parameter is computed from parameters")

    def moved(index: Tensor) -> Any:
        found = pytree.tree_map(lambda leaf: index if isinstance(leaf, Mixed) else leaf, (args, kwargs))
        return overload(*found[0], **found[1])

    (value,) = values
    assert isinstance(value, Mixed)
    return pytree.tree_map(Mixed, torch.vmap(moved, -1, -1)(value.index))


def stored_of(
    name: str, overload: Callable[..., Any], args: Any, kwargs: Any, results: Any
) -> list[tuple[Elements, ...]]:
    """The elements of buffers behind each of the results of an operation on constants, as far as they can be told."""
    values = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Const)]
    tensors = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]
    depth = max((len(value.stored) for value in values), default=0)
    if not depth or not all(value.shape.numel() <= _MOST_STORED for value in values):
        return [() for _ in tensors]
    if name in KEEPS:
        return [values[0].stored for _ in tensors]
    if name in MOVES:
        return _stored_moved(name, overload, args, kwargs, depth, len(tensors))
    if len(tensors) == 1 and torch.Tag.pointwise in overload.tags:  # type: ignore[attr-defined]
        shape = tensors[0].shape
        return [tuple(Elements(-1, shape, e.indices().expand(shape)) for v in values for e in v.stored)]
    return [() for _ in tensors]


def _stored_moved(
    name: str, overload: Callable[..., Any], args: Any, kwargs: Any, depth: int, count: int
) -> list[tuple[Elements, ...]]:
    indices = _indices(name, args, kwargs)
    found: list[list[Elements]] = [[] for _ in range(count)]
    for layer in range(depth):

        def index_of(leaf: Any, layer: int = layer) -> Any:
            if not isinstance(leaf, Const) or any(leaf is index for index in indices):
                return leaf.tensor if isinstance(leaf, Const) else leaf
            if layer < len(leaf.stored):
                return leaf.stored[layer].indices()
            return torch.full(leaf.shape, -1)

        moved = pytree.tree_map(index_of, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Const))
        result = _run({"view": torch.reshape, "_unsafe_view": torch.reshape}.get(name, overload), *moved)
        for own, tensor in zip(found, pytree.tree_leaves(result), strict=True):
            own.append(Elements(-1, tensor.shape, tensor))
    return [tuple(own) for own in found]


def _indices(name: str, args: Any, kwargs: Any) -> list[Value]:
    """The arguments that say where, not what."""
    if name == "where":
        return [args[0]]
    if name in SHAPED_LIKE:
        return [args[1]]
    if name == "index":
        return [index for index in args[1] if index is not None]
    if name in ("index_select", "gather", "take_along_dim", "masked_select", "repeat_interleave"):
        return [leaf for leaf in pytree.tree_leaves((args[1:], kwargs)) if isinstance(leaf, Ids | Elements | Const)]
    return []


def _ids_of(record: Record, value: Value) -> Tensor:
    if isinstance(value, Ids):
        return current(record, value.tensor)
    if isinstance(value, Elements):
        return own_ids(record, value)
    return torch.full((), -1).expand(value.shape)


def _tensor_or_none(part: Any) -> Tensor:
    return part if isinstance(part, Tensor) else torch.tensor(-1)  # a number has no node


def _run(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Some kernels exist for floating point only; doubles hold every id."""
    try:
        return function(*args, **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" not in str(error):
            raise
        doubles = pytree.tree_map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        return pytree.tree_map(lambda t: t.long(), function(*doubles[0], **doubles[1]))


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """As torch.cat, expanded wherever all parts are: a wide concatenation of feature maps stays small."""
    tensors = [t for t in tensors if t.dim() > 1 or t.numel() > 0 or len(tensors) == 1]
    axis = dim % tensors[0].dim()
    shape = list(tensors[0].shape)
    shape[axis] = sum(t.shape[axis] for t in tensors)
    small = [collapse(t) for t in tensors]
    common = [max(t.shape[other] for t in small) for other in range(len(shape))]
    parts = [
        t.expand([full.shape[axis] if other == axis else size for other, size in enumerate(common)])
        for t, full in zip(small, tensors, strict=True)
    ]
    return torch.cat(parts, axis).expand(shape)


def pad(value: Tensor, pad: Sequence[int], mode: str = "constant", **options: Any) -> Tensor:
    """Padding by a constant has no node; any other kind repeats ids."""
    if mode == "constant":
        return torch.nn.functional.pad(value, list(pad), value=-1)
    return torch.nn.functional.pad(value.double(), list(pad), mode=mode).long()
