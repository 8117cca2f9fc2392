"""Canonical order, bits and hashes: what makes two equal tickets equal byte for byte."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.fit import NodeTask
from graphsparse.hashing import framed_hash


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
    return framed_hash(tensors, str(data.num_nodes))


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
