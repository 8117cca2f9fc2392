"""Which tensors read the same memory: tied ones are one tensor, overlapping ones cannot be counted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter


def place(tensor: Tensor) -> object:
    """What two names of one tensor have in common: the memory that they read."""
    if _has_no_address(tensor):
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def check_apart(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors whose elements share memory with each other or with those of another tensor.

    Such an element would be counted, and kept or removed, under two names. Views of one memory that do not overlap
    (the even and the odd columns of a matrix) are fine.

    Args:
        tensors: distinct tensors by name, see :func:`place`.

    Raises:
        ValueError: naming the tensors.

    Example:
        >>> w = torch.zeros(4)
        >>> check_apart({"even": w[::2], "odd": w[1::2]})
        >>> check_apart({"all": w, "tail": w[1:]})
        Traceback (most recent call last):
        ...
        ValueError: 'all' and 'tail' overlap in memory, so a weight of both would count twice; pass one of them
    """
    ends: list[tuple[str, int, int, str]] = []
    for name, tensor in tensors.items():
        if _has_no_address(tensor):
            continue
        if _folds(tensor):
            raise ValueError(f"{name} is expanded: several of its elements share one place; pass tensor.clone()")
        start = tensor.data_ptr()
        ends.append((str(tensor.device), start, start + _extent(tensor), name))
    cluster: list[tuple[str, int, int, str]] = []
    for item in sorted(ends):
        if cluster and (item[0] != cluster[0][0] or item[1] >= max(end for _, _, end, _ in cluster)):
            cluster = []
        cluster.append(item)
        if len(cluster) > 1:
            _check_cluster(tensors, cluster)


def _check_cluster(tensors: Mapping[str, Tensor], cluster: list[tuple[str, int, int, str]]) -> None:
    """Tensors whose ranges of addresses meet: mark the bytes of the last and look whether others have them."""
    *others, (_, start, end, name) = cluster
    for _, first, last, other in others:
        if last <= start:
            continue
        seen = torch.zeros(max(last, end) - first, dtype=torch.bool)
        _mark(seen, tensors[other], 0)
        if not _mark(seen, tensors[name], start - first):
            one, two = (named for named in tensors if named in (other, name))
            raise ValueError(
                f"{one!r} and {two!r} overlap in memory, so a weight of both would count twice; pass one of them"
            )


def _mark(seen: Tensor, tensor: Tensor, offset: int) -> bool:
    """Mark the bytes of a tensor; whether none was marked before, and each of its elements has its own."""
    width = tensor.element_size()
    own = seen.as_strided((*tensor.shape, width), (*(step * width for step in tensor.stride()), 1), offset)
    if bool(own.any()):
        return False
    before = int(seen.sum())
    own.fill_(True)
    return int(seen.sum()) - before == tensor.numel() * width


def _extent(tensor: Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (reach + 1) * tensor.element_size()


def _folds(tensor: Tensor) -> bool:
    """Whether two positions of a tensor read one place."""
    reach, suspect = 0, False
    for step, size in sorted((step, size) for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1:
            if step == 0:
                return True
            suspect = suspect or step <= reach  # within the reach of the smaller strides: it may meet them
            reach += (size - 1) * step
    return suspect and not _mark(torch.zeros(_extent(tensor), dtype=torch.bool), tensor, 0)


def _has_no_address(tensor: Tensor) -> bool:
    if isinstance(tensor, UninitializedParameter) or tensor.is_meta or tensor.layout != torch.strided:
        return True
    return tensor.numel() == 0  # all of them lie at address 0
