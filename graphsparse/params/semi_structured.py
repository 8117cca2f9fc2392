"""2:4 weights for the sparse tensor cores of a GPU."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphsparse.params.mask_files import check_masks
from graphsparse.params.masked import homes

_TYPES = (torch.float16, torch.bfloat16, torch.int8, torch.float32)


def to_semi_structured(net: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a network whose 2:4 linear layers multiply by torch's semi-structured sparse tensors.

    It is for inference on a CUDA device. This function has been tested for what it refuses only: the machine that it
    was written on has no GPU.

    Args:
        net: the network on a CUDA device, in a type that the kernel takes (float16, bfloat16 ...); not changed.
        masks: bool, by the names of the weights to be converted, each of which a ``Linear`` layer holds; 2 of every 4
            along the inputs are kept, or fewer.

    Returns:
        the copy; ``torch.sparse.SparseSemiStructuredTensor`` in the place of these weights.

    Raises:
        ValueError: for a tensor that is no weight of a ``Linear``, is not 2:4, or lies on a CPU; and naming each whose
            shape or type the kernel refuses.

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021.
    """
    parameters = check_masks(net, masks)
    for name, mask in masks.items():
        layers = [module for module, _ in homes(net, parameters[name])]
        if not all(isinstance(layer, nn.Linear) for layer in layers) or not name.endswith("weight"):
            raise ValueError(f"{name!r} is no weight of a torch.nn.Linear, and only these have a 2:4 kernel")
        side = mask.shape[1]
        if side % 4 or bool((mask.reshape(-1, side // 4, 4).sum(-1) > 2).any()):
            raise ValueError(f"{name!r} is not 2:4: more than 2 of 4 along its {side} inputs are kept")
        if parameters[name].device.type != "cuda":
            raise ValueError(
                f"{name!r} is on {parameters[name].device}; 2:4 kernels need a CUDA device: net.to('cuda')"
            )
    for name, parameter in parameters.items():
        if parameter.dtype not in _TYPES:
            raise ValueError(f"{name!r} is {parameter.dtype}; 2:4 kernels take float16, bfloat16, int8, float32")
    fast = copy.deepcopy(net).eval()
    refused = []
    for name, mask in masks.items():
        lead, _, own = name.rpartition(".")
        layer = fast.get_submodule(lead)
        weight = layer.get_parameter(own).detach().masked_fill(~mask.to(parameters[name].device), 0)
        try:
            sparse = torch.sparse.to_sparse_semi_structured(weight)
        except RuntimeError as error:
            refused.append(f"{name!r} of shape {[*weight.shape]} and type {weight.dtype} ({error})")
            continue
        setattr(layer, own, nn.Parameter(sparse, requires_grad=False))
    if refused:
        raise ValueError(f"the 2:4 kernel refuses {'; '.join(refused)}")
    return fast
