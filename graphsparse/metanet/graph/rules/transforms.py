"""Rules of Fourier transforms, complex numbers and bilinear layers, and of what is refused in words."""

from __future__ import annotations

from typing import Any

import torch

from graphsparse.metanet.graph.id_algebra import activation, biased, channels, settle, uniform
from graphsparse.metanet.graph.record import Elements, Ids, Record, UncoveredError, Value
from graphsparse.metanet.graph.rules import rule

_KINDS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


@rule(*(f"fft_{kind}{many}" for kind in _KINDS for many in ("", "2", "n")))
def fourier(record: Record, name: str, overload: Any, dim: Any = None, **arguments: Any) -> Ids:
    """A transform over places keeps channels; one over channels makes each of all, and holds them."""
    ids = activation(record, arguments.pop("self"))
    dim = ((-2, -1) if name.endswith("2") else None if name.endswith("n") else -1) if dim is None else dim
    kind = torch.complex64 if name.startswith(("fft_ifft", "fft_irfft", "fft_hfft")) else torch.float32
    shape = overload(torch.empty(ids.shape, device="meta", dtype=kind), dim=dim, **arguments).shape
    axes = [dim % ids.dim()] if isinstance(dim, int) else [axis % ids.dim() for axis in dim or range(ids.dim())]
    mixed = [axis for axis in axes if not uniform(record, ids, axis)]
    kept = settle(record, ids, [axis for axis in axes if axis not in mixed])
    for axis in mixed:
        reason = "a Fourier transform mixes them"
        record.hold(reason, ids)
        made = record.new((shape[axis],))
        record.hold(reason, made)
        view = [1] * len(shape)
        view[axis] = -1
        kept = made.view(view)
    return Ids(kept.expand(shape))


@rule("view_as_real")
def as_real(record: Record, **arguments: Any) -> Ids:
    """Both parts of a complex channel are that channel."""
    ids = activation(record, arguments["self"])
    return Ids(ids.unsqueeze(-1).expand(*ids.shape, 2))


@rule("view_as_complex")
def as_complex(record: Record, **arguments: Any) -> Value:
    """The two parts of a complex number go together."""
    value = arguments["self"]
    if isinstance(value, Elements):
        index = value.indices()
        record.meet(index[..., 0], index[..., 1])
        return Elements(-1, index.shape[:-1], index[..., 0])
    return Ids(settle(record, activation(record, value), [-1]).squeeze(-1))


@rule("bilinear")
def bilinear(record: Record, input1: Value, input2: Value, weight: Value, bias: Value | None = None) -> Ids:
    """y_o = sum_ij x_i W_oij z_j: an edge from each i to each o, whose element goes with j, too."""
    if not isinstance(weight, Elements):
        raise UncoveredError("its weight is no parameter")
    first, second = (channels(record, activation(record, part), -1) for part in (input1, input2))
    out = record.new((weight.shape[0],))
    record.edges((), weight, first[:, None].expand(weight.shape), out[:, None, None].expand(weight.shape))
    record.stand([weight], second)
    return biased(record, out.expand(*input1.shape[:-1], -1), bias, -1)


@rule(
    "fake_quantize_per_tensor_affine",
    "fake_quantize_per_channel_affine",
    "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_channel_affine_cachemask",
    "fused_moving_avg_obs_fake_quant",
    "_fused_moving_avg_obs_fq_helper",
    "quantize_per_tensor",
    "quantize_per_channel",
)
def quantized(record: Record, **arguments: Any) -> Ids:
    """The scales of a quantization belong to the widths of which they were found."""
    raise UncoveredError("the network is prepared for quantization: prune it before that")
