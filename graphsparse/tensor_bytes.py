"""Safetensors whose bytes follow from what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_LENGTH = 8  # bytes that say how long the header is


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of tensors and words; the same content gives the same bytes.

    The library writes the words in an order that changes from call to call, so that equal files have unequal hashes.
    Here they are sorted.

    Example:
        >>> import torch
        >>> words = {name: name for name in "abcdefgh"}
        >>> len({to_bytes({"a": torch.ones(3)}, words) for _ in range(20)})
        1
    """
    content = memoryview(save(dict(tensors), dict(metadata)))
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(bytes(content[_LENGTH:end]))
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, content[end:]])
