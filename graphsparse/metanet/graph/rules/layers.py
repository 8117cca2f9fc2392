"""Rules of layers, norms, pooling, reductions and scattered messages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphsparse.metanet.graph.id_algebra import (
    activation,
    biased,
    channels,
    computed,
    contract,
    current,
    filled,
    meet,
    mixed,
    pointwise,
    reduced,
    relate_groups,
    settle,
)
from graphsparse.metanet.graph.record import (
    Const,
    Elements,
    Ids,
    Mixed,
    Record,
    UncoveredError,
    Value,
    along,
    broadcast,
    nothing,
)
from graphsparse.metanet.graph.rules import rule


@rule("linear")
def linear(record: Record, input: Value, weight: Value, bias: Value | None = None) -> Ids:
    """y = x W^T + b."""
    ids = activation(record, input)
    rows = ids.unsqueeze(0) if ids.dim() == 1 else ids
    out = contract(record, rows, weight, (1, 0))
    return biased(record, out.squeeze(0) if ids.dim() == 1 else out, bias, -1)


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(
    record: Record, name: str, input: Value, weight: Value, bias: Value | None = None, groups: int = 1, **options: Any
) -> Ids:
    """Each (input channel, output channel) of a group is an edge with the flattened kernel as its feature."""
    if isinstance(weight, Ids):
        raise UncoveredError("its weight is computed from activations")
    transposed = "transpose" in name
    ids = activation(record, input)
    axis = ids.dim() - len(weight.shape) + 1
    source = channels(record, ids, axis)
    width = weight.shape[1] * groups if transposed else weight.shape[0]
    target = record.new((width,))
    grouped_in, grouped_out = source.view(groups, -1, 1), target.view(groups, 1, -1)
    shape = broadcast(grouped_in.shape, grouped_out.shape)
    src, dst = grouped_in.expand(shape), grouped_out.expand(shape)  # [group, input, output]
    if not transposed:  # its weight counts outputs first
        src, dst = src.transpose(1, 2), dst.transpose(1, 2)
    if isinstance(weight, Elements):
        record.edges(tuple(weight.shape[2:]), weight, src, dst)
    if 1 < groups == len(source):  # one input channel of an ordinary convolution feeds all, and is tied to none
        record.relate("depthwise", src, dst)
    else:
        relate_groups(record, source.view(groups, -1))
        relate_groups(record, target.view(groups, -1))
        if isinstance(weight, Const):
            record.relate("reduce", src, dst)
    if isinstance(weight, Const):
        for ends in (src, dst):
            record.stand(weight.stored, ends.reshape(*weight.shape[:2], *[1] * (len(weight.shape) - 2)))
    elif isinstance(weight, Mixed):
        raise UncoveredError("its weight is a mean of parameters")
    shapes = [torch.empty(value.shape, device="meta") for value in (input, weight)]
    shape = getattr(torch.ops.aten, name)(*shapes, None, groups=groups, **options).shape
    return biased(record, along(target, axis, shape), bias, axis)


@rule("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
def batch_norm(
    record: Record,
    name: str,
    input: Value,
    weight: Value | None = None,
    bias: Value | None = None,
    running_mean: Value | None = None,
    running_var: Value | None = None,
    **options: Any,
) -> Any:
    """Scale, shift and running statistics of each channel are features of its node."""
    if isinstance(input, Elements):  # a weight that is standardised before it is used
        return _standardised(record, input, weight, bias)
    ids = activation(record, input)
    owners = channels(record, ids, 1)
    _lay_norm(record, owners, gamma=weight, beta=bias, running_mean=running_mean, running_var=running_var)
    out = Ids(along(owners, 1, ids.shape))
    return (out, out, out) if name.startswith("_native") else out


def _standardised(record: Record, weight: Elements, *gains: Value | None) -> Elements:
    index = weight.indices().flatten(2)[..., 0]  # [1, channels]
    for gain in gains:
        if isinstance(gain, Elements):
            record.meet(index, gain.indices())
    return weight


@rule("layer_norm", "rms_norm", "native_layer_norm")
def layer_norm(
    record: Record,
    name: str,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    **options: Any,
) -> Any:
    """Scale and shift of each element of the normalised axes lie on the node behind it."""
    ids = activation(record, input)
    kept = filled(record, settle(record, ids, range(ids.dim() - len(normalized_shape))))
    owners = kept.reshape(tuple(normalized_shape))
    _lay_norm(record, record.pin(owners), gamma=weight, beta=bias)
    out = Ids(kept.expand(ids.shape))
    return (out, out, out) if name.startswith("native") else out


@rule("group_norm")
def group_norm(
    record: Record,
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    **options: Any,
) -> Ids:
    """As a batch norm; its groups keep equal sizes."""
    ids = activation(record, input)
    owners = channels(record, ids, 1)
    _lay_norm(record, owners, gamma=weight, beta=bias)
    if 1 < num_groups < len(owners):
        relate_groups(record, owners.view(num_groups, -1))
    return Ids(along(owners, 1, ids.shape))


def _lay_norm(record: Record, owners: Tensor, **features: Value | None) -> None:
    parts = []
    for kind, value in features.items():
        if isinstance(value, Ids | Mixed):
            raise UncoveredError(f"its {kind} is computed from activations")
        if isinstance(value, Const) and value.buffer is None:
            record.stand(value.stored, owners)
        elif value is not None and (elements := value.stored[0] if isinstance(value, Const) else value) is not None:
            parts.append((kind, elements, owners))
    record.lay("norm", *parts)


@rule("prelu")
def prelu(record: Record, weight: Value, **arguments: Any) -> Ids:
    """The slopes lie on their channels; a single one lies on all."""
    ids = activation(record, arguments["self"])
    if not isinstance(weight, Elements):
        raise UncoveredError("its slope is not a parameter")
    owners = channels(record, ids, 1) if ids.dim() > 1 else channels(record, ids, 0)
    record.lay("slope", ("slope", weight, owners))
    return Ids(along(owners, min(1, ids.dim() - 1), ids.shape))


@rule("embedding")
def embedding(record: Record, weight: Value, indices: Value, **options: Any) -> Ids:
    """A linear layer on one-hot tokens: a node for each row of the table and one for each column."""
    if not isinstance(indices, Const):
        raise UncoveredError("its indices are computed from activations")
    if not isinstance(weight, Elements):
        raise UncoveredError("its table is not a parameter")
    rows, width = weight.shape
    if weight.start not in record.vocabularies:
        record.vocabularies[weight.start] = record.new((rows,), label=f"{record.path} (tokens)".strip())
    target = record.new((width,))
    tokens = record.vocabularies[weight.start]
    if indices.origin is not None:
        record.tokens[indices.origin] = tokens
    record.edges((), weight, tokens[:, None].expand(rows, width), target.expand(rows, width))
    return Ids(target.expand((*indices.shape, width)))


@rule(
    "sum",
    "mean",
    "nanmean",
    "nansum",
    "amax",
    "amin",
    "var",
    "std",
    "logsumexp",
    "linalg_vector_norm",
    "norm",
    "prod",
    "any",
    "all",
)
def reduction(record: Record, **arguments: Any) -> Ids | Mixed:
    """Equal ids go on, the reduced axes drop."""
    value = arguments.get("self", arguments.get("input"))
    dim, keepdim = arguments.get("dim"), bool(arguments.get("keepdim", False))
    if isinstance(value, Elements | Mixed):
        return mixed(value, dim, keepdim)
    if not isinstance(value, Ids):
        raise UncoveredError("it reduces what is no tensor of the network")
    axes = [dim] if isinstance(dim, int) else list(dim or range(len(value.shape)))
    return Ids(reduced(record, value.tensor, axes, keepdim))


@rule("var_mean", "std_mean")
def two_reductions(record: Record, **arguments: Any) -> tuple[Ids | Mixed, Ids | Mixed]:
    """A deviation and a mean at once."""
    return reduction(record, **arguments), reduction(record, **arguments)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(record: Record, name: str, v: Elements, g: Value, dim: int = 0) -> Any:
    """A direction and a gain for each output channel: the direction holds the kernels, the gain goes with them."""
    record.normed.add(v.start)
    found = computed(record, "mul", [v, g], v.shape)
    return (found, Mixed(v.indices().flatten(1))) if name.endswith("interface") else found


@rule("max", "min", "sort", "topk", "kthvalue", "median", "cummax", "cummin")
def choice(record: Record, name: str, **arguments: Any) -> Any:
    """Values chosen along an axis of one channel; the places chosen depend on the data and name no node."""
    value, dim = arguments["self"], arguments.get("dim")
    if "other" in arguments:  # the larger of two, place by place
        return pointwise(record, name, [value, arguments["other"]], to_bool=False)
    if not isinstance(value, Ids):
        raise UncoveredError("a parameter is computed from parameters")
    ids = value.tensor
    if dim is None:
        return Ids(reduced(record, ids, range(ids.dim()), False))
    if name in ("max", "min", "kthvalue", "median"):
        out = reduced(record, ids, [dim], bool(arguments.get("keepdim", False)))
    else:
        kept = settle(record, ids, [dim])
        sizes = list(ids.shape)
        sizes[dim] = arguments["k"] if name == "topk" else sizes[dim]
        out = kept.expand(sizes)
    return Ids(out), Ids(torch.full((), -1).expand(out.shape))


@rule("argmax", "argmin", "argsort", "count_nonzero")
def position(record: Record, overload: Any, **arguments: Any) -> Ids:
    """A place that depends on the data: it names no node, and nothing can be looked up by it."""
    value = arguments.pop("self")
    return nothing(overload(torch.empty(value.shape, device="meta"), **arguments).shape)


@rule("scatter_add", "scatter_reduce", "scatter", "index_add", "index_reduce", "index_copy")
def scatter(record: Record, dim: int, index: Value, **arguments: Any) -> Ids:
    """Messages that reach a place: the ids of the source go on."""
    base, source = arguments["self"], arguments.get("src", arguments.get("source"))
    if not isinstance(index, Const):
        raise UncoveredError("its indices are computed from activations")
    into = activation(record, base)
    if not isinstance(source, Ids | Elements):
        return Ids(into)
    sent = settle(record, activation(record, source), [dim])
    return Ids(meet(record, into, sent.expand(into.shape), "add"))


@rule("index_put")
def index_put(record: Record, indices: Sequence[Value | None], values: Value, **arguments: Any) -> Ids:
    """Written at fixed places: the ids of what is written stand there."""
    if any(isinstance(index, Ids) for index in indices):
        raise UncoveredError("its indices are computed from activations")
    into = current(record, activation(record, arguments["self"])).clone()
    places = tuple(slice(None) if index is None else index.tensor for index in indices)  # type: ignore[union-attr]
    written = activation(record, values)
    into[places] = torch.where(current(record, written) < 0, into[places], written)
    return Ids(into)


@rule(
    *(f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "lp") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    "_adaptive_avg_pool2d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)
def resample(record: Record, name: str, overload: Any, **arguments: Any) -> Any:
    """Pooling and interpolation: places change, channels stay, and so do those of the indices that a pooling gives."""
    first = "self" if "self" in arguments else "input"
    ids = activation(record, arguments.pop(first))
    shapes = overload(torch.empty(ids.shape, device="meta"), **arguments)
    spatial = _spatial(name)
    kept = settle(record, ids, range(ids.dim() - spatial, ids.dim()))
    if isinstance(shapes, tuple):
        return tuple(Ids(kept.expand(part.shape)) for part in shapes)
    return Ids(kept.expand(shapes.shape))


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def sample(record: Record, input: Value, grid: Value, **options: Any) -> Ids:
    """Places are looked up where a grid says; channels stay, and so do the grid's axes."""
    record.hold("a grid of places has an axis for each of them", activation(record, grid))
    source = channels(record, activation(record, input), 1)
    return Ids(along(source, 1, torch.Size((*input.shape[:2], *grid.shape[1:-1]))))


@rule("col2im")
def fold(record: Record, output_size: Sequence[int], kernel_size: Sequence[int], **arguments: Any) -> Ids:
    """Patches are added up into images: a channel of these is made of its places in a patch, which go together."""
    ids = activation(record, arguments["self"])
    patches = settle(record, ids.view(*ids.shape[:-2], -1, math.prod(kernel_size), ids.shape[-1]), [-1])
    record.tie(patches.narrow(-2, 0, 1), patches)
    kept = reduced(record, patches, [-2], keepdim=True)
    return Ids(kept.expand(*kept.shape[:-2], *output_size))


@rule("max_unpool2d", "max_unpool3d")
def unpool(record: Record, name: str, indices: Value, output_size: Sequence[int], **arguments: Any) -> Ids:
    """Values go back to where a pooling took its own: as many channels as that had."""
    ids = activation(record, arguments["self"])
    axis = ids.dim() - _spatial(name) - 1
    source = channels(record, ids, axis)
    record.tie(source, channels(record, activation(record, indices), axis))
    return Ids(along(source, axis, torch.Size((*ids.shape[: axis + 1], *output_size))))


def _spatial(name: str) -> int:
    """How many axes of places an operation has, by its name."""
    return int(re.findall("[123](?=d)", name)[0])


@rule("cosine_similarity", "pairwise_distance")
def comparison(record: Record, dim: int = -1, keepdim: bool = False, **arguments: Any) -> Ids:
    """Two vectors meet channel by channel, and are summed up."""
    met = pointwise(record, "mul", [arguments["x1"], arguments["x2"]], to_bool=False)
    return Ids(reduced(record, activation(record, met), [dim], keepdim))


@rule("glu")
def glu(record: Record, dim: int = -1, **arguments: Any) -> Ids:
    """Half of the channels gate the other half."""
    left, right = activation(record, arguments["self"]).chunk(2, dim)
    return Ids(meet(record, left, right, "multiply"))
