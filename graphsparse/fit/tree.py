"""Nested plain values and tensors as JSON beside a flat table of tensors, and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A JSON value; tensors go to `tensors` and leave their key behind."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        return {"$tensor": key}
    if isinstance(value, Mapping):
        return {"$dict": [[_key(key), encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list):
        return [encode(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, tensors) for item in value]}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _key(key: Any) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise TypeError(f"a checkpoint cannot hold a dict with keys of type {type(key).__name__}")


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `encode` was given."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$float":
        return float(content)
    if kind == "$tuple":
        return tuple(decode(item, tensors) for item in content)
    return {key: decode(item, tensors) for key, item in content}
