"""The numbers that modules hold of their own widths, after a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear as GraphLinear

Axes = Sequence[Tensor]  # for each axis of a tensor which places stay


class Number(NamedTuple):
    """An attribute of a module, and what it may be after the cut, the likeliest first."""

    path: str
    name: str
    values: tuple[Any, ...]


def numbers_after(
    module: nn.Module, cuts: Mapping[str, Axes], sizes: Mapping[str, set[tuple[int, int]]]
) -> list[Number]:
    """The numbers of all modules after a cut.

    Layers of torch know theirs by their tensors. Of any other module each whole number that was the length of an axis
    in its tensors or in what its own operations made (``heads``, ``head_dim``, the sizes of a ``split``) becomes what
    that axis became. Where axes of one length became different, all these are candidates.

    Args:
        module: with its full widths.
        cuts: for each tensor that loses something, by any of its names, which places of each axis stay.
        sizes: path of a module -> lengths (before, after) of the axes of what its operations made.
    """
    found: list[Number] = []
    for path, part in module.named_modules():
        kind = next((make for kinds, make in _KINDS if isinstance(part, kinds)), None)
        if kind is not None:
            own = {name: cuts[full] for name, full in _own_names(part, path) if full in cuts}
            after = kind(part, own, sizes.get(path, set()))
            found += [Number(path, name, (value,)) for name, value in after.items() if getattr(part, name) != value]
        elif not type(part).__module__.startswith("torch.nn.modules.container"):
            found += _generic(part, path, cuts, sizes.get(path, set()))
    return found


def _own_names(part: nn.Module, path: str) -> Iterator[tuple[str, str]]:
    lead = f"{path}." if path else ""
    for name in (*part._parameters, *part._buffers):
        yield name, lead + name
    weights = getattr(part, "parametrizations", None)
    if weights is not None:  # a parametrised tensor is cut as its first original is
        for name, chain in weights.items():
            for original in ("original1", "original0", "original"):
                if hasattr(chain, original) and getattr(chain, original).dim() > 1:
                    yield name, f"{lead}parametrizations.{name}.{original}"


def _generic(part: nn.Module, path: str, cuts: Mapping[str, Axes], sizes: set[tuple[int, int]]) -> list[Number]:
    became: dict[int, set[int]] = {}
    for before, after in sizes:
        became.setdefault(before, set()).add(after)
    for _, full in _own_names(part, path):
        for kept in cuts.get(full, ()):
            became.setdefault(len(kept), set()).add(int(kept.sum()))
    found = []
    for name, value in vars(part).items():
        if name.startswith("_") or name == "training":
            continue
        if type(value) is int:
            choices = _choices(value, became)
            if choices != (value,):
                found.append(Number(path, name, choices))
        elif type(value) in (tuple, list, torch.Size) and value and all(type(size) is int for size in value):
            changed = type(value)(_choices(size, became)[0] for size in value)
            if changed != value:
                found.append(Number(path, name, (changed, value)))
    return found


def _choices(value: int, became: Mapping[int, set[int]]) -> tuple[int, ...]:
    """What a number may have become: a change first, for most axes of equal length are the same channels."""
    after = became.get(value, {value})
    return tuple(sorted(after, key=lambda size: (size == value, size)))


Sizes = set[tuple[int, int]]


def _left(kept: Tensor) -> int:
    return int(kept.sum())


def _linear(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    weight = _weight(own)
    return {} if weight is None else {"out_features": _left(weight[0]), "in_features": _left(weight[1])}


def _graph_linear(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    weight = _weight(own)
    return {} if weight is None else {"out_channels": _left(weight[0]), "in_channels": _left(weight[1])}


def _convolution(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    weight = _weight(own)
    if weight is None:
        return {}
    groups = int(weight[0].view(part.groups, -1).any(1).sum())
    first, second = _left(weight[0]), _left(weight[1]) * groups
    names = ("in_channels", "out_channels") if part.transposed else ("out_channels", "in_channels")
    return {names[0]: first, names[1]: second, "groups": groups}


def _weight(own: Mapping[str, Axes]) -> Axes | None:
    """The cut of the weight, or of what a norm of weights has in its place."""
    held = [own[name] for name in ("weight", "weight_v", "weight_orig") if name in own]
    return max(held, key=len, default=None)  # the vector of a spectral norm is called weight_v, too


def _norm(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    name = "num_channels" if isinstance(part, nn.GroupNorm) else "num_features"
    width = _width(own, getattr(part, name), sizes)
    whole = isinstance(part, nn.GroupNorm) and part.num_groups == part.num_channels
    return {name: width, **({"num_groups": width} if whole else {})}


def _width(own: Mapping[str, Axes], before: int, sizes: Sizes) -> int:
    if own:
        return _left(next(iter(own.values()))[0])
    return min((after for size, after in sizes if size == before), default=before)


def _layer_norm(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    if own:
        return {"normalized_shape": tuple(_left(kept) for kept in next(iter(own.values())))}
    return {"normalized_shape": tuple(_width({}, size, sizes) for size in part.normalized_shape)}


def _embedding(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    weight = _weight(own)
    return {} if weight is None else {"num_embeddings": _left(weight[0]), "embedding_dim": _left(weight[1])}


def _slope(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    weight = _weight(own)
    return {} if weight is None else {"num_parameters": _left(weight[0])}


def _bilinear(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    weight = _weight(own)
    names = ("out_features", "in1_features", "in2_features")
    return {} if weight is None else {name: _left(kept) for name, kept in zip(names, weight, strict=True)}


def _recurrent(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    names = ("weight_ih_l0", "weight_hh_l0") if isinstance(part, nn.RNNBase) else ("weight_ih", "weight_hh")
    read, again = (own.get(name) for name in names)
    found: dict[str, Any] = {}
    if read is not None:
        gates = len(read[0]) // part.hidden_size
        found = {"input_size": _left(read[1]), "hidden_size": _left(read[0]) // gates}
    if again is not None and isinstance(part, nn.RNNBase) and part.proj_size:
        found["proj_size"] = _left(again[1])
    return found


def _attention(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    joint, query = own.get("in_proj_weight"), own.get("q_proj_weight")
    if joint is None and query is None:
        return {}
    width = _left(joint[0]) // 3 if joint is not None else _left(query[0])  # type: ignore[index]
    found: dict[str, Any] = {"embed_dim": width, "head_dim": width // part.num_heads, "kdim": width, "vdim": width}
    if joint is None:
        for name, whole in (("k", part.kdim), ("v", part.vdim)):
            weight = own.get(f"{name}_proj_weight")
            found[f"{name}dim"] = whole if weight is None else _left(weight[1])
    return found


def _shape(part: Any, own: Mapping[str, Axes], sizes: Sizes) -> dict[str, Any]:
    became = dict(sorted(sizes, reverse=True))
    return {"unflattened_size": tuple(became.get(size, size) for size in part.unflattened_size)}


_KINDS: tuple[tuple[Any, Any], ...] = (
    (nn.MultiheadAttention, _attention),
    (nn.Linear, _linear),
    (GraphLinear, _graph_linear),
    (nn.modules.conv._ConvNd, _convolution),
    ((nn.modules.batchnorm._NormBase, nn.GroupNorm), _norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.Embedding, _embedding),
    (nn.PReLU, _slope),
    (nn.Bilinear, _bilinear),
    ((nn.RNNBase, nn.RNNCellBase), _recurrent),
    (nn.Unflatten, _shape),
)
