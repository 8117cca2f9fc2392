"""Canonical order, bits and hashes: what makes two equal tickets equal byte for byte."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.fit import NodeTask
from graphsparse.fit.edge_data import NAMES
from graphsparse.graphs.stores import plain
from graphsparse.hashing import framed_hash


def canonical_order(data: Data) -> Tensor:
    """Positions ``[E]`` that sort a graph's arcs by (tail, head, copy), copies by what they carry, then by position.

    Example:
        >>> canonical_order(Data(edge_index=torch.tensor([[1, 0, 0], [0, 2, 1]])))
        tensor([2, 1, 0])
        >>> canonical_order(Data(edge_index=torch.tensor([[0, 0], [1, 1]]), edge_type=torch.tensor([3, 2])))
        tensor([1, 0])
    """
    tails, heads = plain(data.edge_index).cpu().numpy()
    order = np.lexsort((heads, tails))
    copies = (np.diff(tails[order]) == 0) & (np.diff(heads[order]) == 0)
    if copies.any():
        order = np.lexsort((*reversed([_ranks(values) for values in _carried(data).values()]), heads, tails))
    return torch.from_numpy(order)


def with_ordered_copies(data: Data) -> Data:
    """The same graph, its edges in canonical order if parallel copies of one carry different things; else itself.

    The k-th copy of (u, v) and the k-th of (v, u) are one edge, which stays or goes: so they carry the same where both
    directions do, and nothing depends on the order that the copies came in.

    Example:
        >>> arcs = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])
        >>> with_ordered_copies(Data(edge_index=arcs, edge_type=torch.tensor([3, 2, 2, 3]))).edge_type.tolist()
        [2, 3, 2, 3]
    """
    carried = _carried(data)
    if not carried:
        return data
    order = canonical_order(data)
    tails, heads = plain(data.edge_index).cpu()[:, order]
    copies = (tails.diff() == 0) & (heads.diff() == 0)
    ranks = [torch.from_numpy(_ranks(values))[order] for values in carried.values()] if bool(copies.any()) else []
    if not any(bool((rank.diff()[copies] != 0).any()) for rank in ranks):
        return data
    other = copy.copy(data)
    other.edge_index = data.edge_index[:, order.to(data.edge_index.device)]
    for name in carried:
        other[name] = data[name][order.to(data[name].device)]
    return other


def _carried(data: Data) -> dict[str, Tensor]:
    """What the arcs of a graph carry, by name; what has another number of rows is none of it."""
    found = {name: data.get(name) for name in NAMES}
    number = data.edge_index.size(1)
    return {
        name: (value if value.layout == torch.strided else value.to_dense()).cpu()
        for name, value in found.items()
        if isinstance(value, Tensor) and value.dim() and value.size(0) == number
    }


def _ranks(values: Tensor) -> npt.NDArray[np.int64]:
    """A number for each row, equal for equal rows, that grows with them."""
    rows = values.detach().reshape(len(values), -1)
    rows = torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows
    rows = rows.float() if rows.dtype == torch.bfloat16 else rows
    ranks: npt.NDArray[np.int64] = np.unique(rows.numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    return ranks


def graph_hash(data: Data, split: int = 0, names: Sequence[str] = NodeTask.hashed) -> str:
    """SHA-256 of a graph: sorted (u, v, copy), number of nodes and what a task reads; not of the edge order.

    Args:
        data: the graph.
        split: the column of two-dimensional masks that counts.
        names: the attributes that the task reads; those that are present are covered, what edges carry in canonical
            order.
    """
    edge_index = plain(data.edge_index).cpu().long()
    order, carried = canonical_order(data), _carried(data)
    tensors = {"edge_index": edge_index[:, order]}
    for name in names:
        value = data.get(name)
        if isinstance(value, Tensor):
            value = value.to_dense() if value.layout != torch.strided else value
            value = carried[name][order] if name in carried else value
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
