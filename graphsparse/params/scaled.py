"""Sparse initial weights of the size that keeps signals."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from graphsparse.params.masked import homes


def scale_(model: nn.Module, parameter: nn.Parameter, mask: Tensor) -> None:
    r"""Multiply each output's kept weights by :math:`\sqrt{\text{fan-in} / \text{kept fan-in}}`, in place.

    An output without kept weights stays. Outputs come first, ``[out, in, ...]``; those of a transposed convolution,
    ``[in, out / groups, ...]``, are found.

    Source: Evci et al., "Gradient flow in sparse neural networks and how lottery tickets win", AAAI 2022.
    """
    groups = next((layer.groups for layer, _ in homes(model, parameter) if isinstance(layer, _ConvTransposeNd)), None)
    if groups is None:
        kept, fan_in = mask.reshape(len(mask), -1).sum(1), mask[0].numel()
        sides = (-1, *[1] * (parameter.dim() - 1))
    else:
        each = len(mask) // groups
        parts = mask.reshape(groups, each, mask.shape[1], -1)
        kept, fan_in = parts.sum((1, 3)).repeat_interleave(each, 0), each * parts.shape[3]
        sides = (*mask.shape[:2], *[1] * (parameter.dim() - 2))
    parameter.mul_((fan_in / kept.clamp(min=1).to(parameter.dtype)).sqrt().view(sides))
