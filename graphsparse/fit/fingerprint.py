"""Hashes that tell whether two runs are the same run."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit.tree import digest, encode


def tensor_hash(*tensors: Tensor | None) -> str:
    """SHA-256 over shapes, types and bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            found.update(b"none")
            continue
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{plain.dtype} {list(plain.shape)} ".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def name_of(function: object) -> str:
    """What a function or class is called, the same in every process; of a partial, its keywords too."""
    if isinstance(function, functools.partial):
        options = ", ".join(f"{name}={value!r}" for name, value in sorted(function.keywords.items()))
        return f"{name_of(function.func)}({options})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def model_hash(model: nn.Module) -> str:
    """SHA-256 over the names and values of the state, i.e. over theta0 and the architecture's shape."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(f"{name} ".encode())
        if isinstance(tensor, Tensor):
            found.update(tensor_hash(tensor).encode())
    return found.hexdigest()


def tree_hash(value: Any) -> str:
    """SHA-256 over nested plain values and tensors."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(encode(value, tensors), allow_nan=False)
    return digest(tree, tensors)
