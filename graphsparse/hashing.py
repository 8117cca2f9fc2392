"""Hashes of tensors and texts. Files, checkpoints and tickets hold them: the bytes that each one reads never change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def text_hash(text: str) -> str:
    """SHA-256 of a text.

    Example:
        >>> text_hash("")[:16]
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(text.encode()).hexdigest()


def json_hash(value: Any) -> str:
    """SHA-256 of plain values as JSON, the keys of objects in order.

    Example:
        >>> json_hash({"a": 1, "b": 2}) == json_hash({"b": 2, "a": 1})
        True
    """
    return text_hash(json.dumps(value, sort_keys=True))


def bytes_hash(*contents: bytes) -> str:
    """SHA-256 of some bytes, one after the other.

    Example:
        >>> bytes_hash(b"ab", b"c") == text_hash("abc")
        True
    """
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    return found.hexdigest()


def tensor_hash(*tensors: Tensor | None) -> str:
    """SHA-256 over types, shapes and bytes of tensors in the order given.

    Example:
        >>> tensor_hash(torch.zeros(2)) == tensor_hash(torch.zeros(2)), tensor_hash(None) == tensor_hash()
        (True, False)
    """
    found = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            found.update(b"none")
            continue
        found.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def named_hash(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a text and named tensors, in the order of their names: what checkpoints and networks are held to.

    Example:
        >>> named_hash("a", {}) == text_hash("a")
        True
    """
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def framed_hash(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """SHA-256 over texts and named tensors, each with its length before it: what tickets and graphs are known by.

    Example:
        >>> framed_hash({}, "ab", "c") == framed_hash({}, "a", "bc")
        False
    """
    found = hashlib.sha256()

    def add(content: Any, length: int) -> None:
        found.update(length.to_bytes(8, "little"))  # lengths keep neighbouring fields from running together
        found.update(content)

    heads = [text.encode() for text in texts]
    for head in heads:
        add(head, len(head))
    for name in sorted(tensors):
        tensor = tensors[name]
        head = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        add(head, len(head))
        content = _bytes(tensor)
        add(content, len(content))
    return found.hexdigest()


def quick_hash(tensor: Tensor) -> str:
    """BLAKE2b of a tensor's type, shape and bytes, 16 bytes long: for keys that no file holds.

    Example:
        >>> quick_hash(torch.zeros(2)) == quick_hash(torch.zeros(2, 1))
        False
    """
    found = hashlib.blake2b(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=16)
    found.update(_bytes(tensor))
    return found.hexdigest()


def masks_hash(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 over named masks, eight elements a byte.

    Example:
        >>> masks_hash({"a": torch.tensor([True])}) == masks_hash({"a": torch.tensor([False])})
        False
    """
    found = hashlib.sha256()
    for name, mask in sorted(masks.items()):
        found.update(f"{name} {[*mask.shape]} ".encode())
        found.update(np.packbits(mask.cpu().numpy()).tobytes())
    return found.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's content, wherever it lies."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if tensor.is_conj() or tensor.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    found: memoryview = flat.view(torch.uint8).numpy().data
    return found
