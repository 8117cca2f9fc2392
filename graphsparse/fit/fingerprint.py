"""Hashes that tell whether two runs are the same run."""

from __future__ import annotations

import functools
import json
from typing import Any

from torch import Tensor, nn

from graphsparse.fit.tree import encode
from graphsparse.hashing import named_hash, tensor_hash, text_hash


def name_of(function: object) -> str:
    """What a function or class is called, the same in every process; of a partial, its keywords too."""
    if isinstance(function, functools.partial):
        options = ", ".join(f"{name}={value!r}" for name, value in sorted(function.keywords.items()))
        return f"{name_of(function.func)}({options})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def model_hash(model: nn.Module) -> str:
    """SHA-256 over the names and values of the state, i.e. over theta0 and the architecture's shape."""
    state = model.state_dict().items()
    return text_hash("".join(f"{name} {tensor_hash(t) if isinstance(t, Tensor) else ''}" for name, t in state))


def tree_hash(value: Any) -> str:
    """SHA-256 over nested plain values and tensors."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(encode(value, tensors), allow_nan=False)
    return named_hash(tree, tensors)
