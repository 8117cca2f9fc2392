"""Canonical order, bits and hashes: what makes two equal tickets equal byte for byte."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.fit import NodeTask


def canonical_order(edge_index: Tensor) -> Tensor:
    """Positions ``[E]`` that sort ``edge_index`` ``[2, E]`` by (tail, head, copy), copies by position.

    Example:
        >>> canonical_order(torch.tensor([[1, 0, 0], [0, 2, 1]]))
        tensor([2, 1, 0])
    """
    tails, heads = edge_index.cpu().numpy()
    return torch.from_numpy(np.lexsort((heads, tails)))


def graph_hash(data: Data, split: int = 0, names: Sequence[str] = NodeTask.hashed) -> str:
    """SHA-256 of a graph: sorted (u, v, copy), number of nodes and what a task reads; not of the edge order.

    Args:
        data: the graph.
        split: the column of two-dimensional masks that counts.
        names: the attributes that the task reads; those that are present are covered, ``edge_attr`` in canonical order.
    """
    edge_index = data.edge_index.cpu().long()
    order = canonical_order(edge_index)
    tensors = {"edge_index": edge_index[:, order]}
    for name in names:
        value = data.get(name)
        if isinstance(value, Tensor):
            value = value.to_dense() if value.layout != torch.strided else value
            value = value.cpu()[order] if name == "edge_attr" else value
            tensors[name] = value[:, split] if name.endswith("_mask") and value.dim() == 2 else value
    return digest(tensors, str(data.num_nodes))


def digest(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """SHA-256 over texts and named tensors (dtype, shape and bytes, in the order of their names)."""
    sha = hashlib.sha256()
    for text in texts:
        _add(sha, text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        _add(sha, f"{name} {value.dtype} {tuple(value.shape)}".encode())
        _add(sha, value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _add(sha: hashlib._Hash, content: bytes) -> None:
    sha.update(len(content).to_bytes(8, "little"))  # lengths keep neighbouring fields from running together
    sha.update(content)


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a bool tensor of any shape into bytes, eight elements each.

    Example:
        >>> pack_bits(torch.tensor([True, False, True]))
        tensor([160], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pack_bits`.

    Example:
        >>> unpack_bits(torch.tensor([160], dtype=torch.uint8), (3,))
        tensor([ True, False,  True])
    """
    count = math.prod(shape)
    if packed.numel() != -(-count // 8):  # numpy would fill up what is missing, at any size
        raise ValueError(f"{packed.numel()} bytes where {count} bits need {-(-count // 8)}")
    bits = np.unpackbits(packed.numpy(), count=count)
    return torch.from_numpy(bits.astype(bool)).reshape(tuple(shape))
