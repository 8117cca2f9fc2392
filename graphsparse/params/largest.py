"""The exact global selection under every projection: mark the k largest magnitudes of many tensors together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from graphsparse.keep_rule import RADIX_FROM, top_mask
from graphsparse.parallel import over_slices

Pieces = list[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]]

PIECE = 1 << 20  # elements; the unit that threads share
PARALLEL_FROM = 1 << 25  # the passes wait for memory: below this many elements threads were measured to save nothing


class Guess:
    """The bits of the last threshold, near which the next is looked for; a wrong one costs time, no more."""

    reach = 1 << 16  # steps of a float32 on both sides: a hundredth of the magnitude

    def __init__(self) -> None:
        self.key: int | None = None


def mark_largest(
    tensors: Mapping[str, Tensor], masks: Sequence[Tensor], k: int, *, zero: bool, guess: Guess | None = None
) -> None:
    """Write to ``masks`` which elements are the ``k`` largest in magnitude, over all tensors together.

    Ties go to the earlier tensor and position. A large float32 model on the CPU takes the numba kernels, which never
    join the tensors; anything else goes through torch, widened exactly.

    Args:
        tensors: distinct floating-point tensors by name.
        masks: contiguous bool tensors of the same shapes and devices, overwritten.
        k: how many to mark, from 0 to the number of elements.
        zero: whether to set the other elements to zero, in place.
        guess: where the threshold was last time, if that was after the step before; it is kept up to date.

    Raises:
        ValueError: for a NaN, with its tensor and position; nothing is written then.
    """
    weights = [tensor.detach() for tensor in tensors.values()]
    total = sum(weight.numel() for weight in weights)
    if total == 0:
        return
    fast = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    if fast and total >= RADIX_FROM:
        _mark_numba(tensors, weights, masks, k, total, zero, guess)
    else:
        _mark_torch(tensors, weights, masks, k, zero)


def check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Raise a ``ValueError`` that names the tensor and the position of the first NaN."""
    for name, tensor in tensors.items():
        bad = tensor.detach().isnan()
        if bool(bad.any()):
            position = tuple(bad.nonzero()[0].tolist())
            raise ValueError(f"{name} is NaN at position {position}; weights must be numbers to be ranked")


def _mark_torch(
    tensors: Mapping[str, Tensor], weights: list[Tensor], masks: Sequence[Tensor], k: int, zero: bool
) -> None:
    check_numbers(tensors)
    wide = torch.float64 if any(weight.dtype == torch.float64 for weight in weights) else torch.float32
    device = weights[0].device
    kept = top_mask(torch.cat([weight.abs().to(device, wide).reshape(-1) for weight in weights]), k)
    for weight, mask, part in zip(weights, masks, torch.split(kept, [w.numel() for w in weights]), strict=True):
        mask.copy_(part.view(mask.shape))
        if zero:
            weight.masked_fill_(~mask, 0)


def _mark_numba(
    tensors: Mapping[str, Tensor],
    weights: list[Tensor],
    masks: Sequence[Tensor],
    k: int,
    total: int,
    zero: bool,
    guess: Guess | None,
) -> None:
    from graphsparse.params import kernels

    pieces: Pieces = []
    for weight, mask in zip(weights, masks, strict=True):
        bits = weight.contiguous().view(-1).numpy().view(np.int32)
        flags = mask.view(-1).numpy()
        pieces += [(bits[i : i + PIECE], flags[i : i + PIECE]) for i in range(0, len(bits), PIECE)]
    parts = min(torch.get_num_threads(), len(pieces)) if total >= PARALLEL_FROM else 1
    cut = _near([piece for piece, _ in pieces], k, guess) or _threshold(pieces, k, parts, tensors)
    if guess is not None:
        guess.key = cut[0]
    write = kernels.mark_and_zero if zero else kernels.mark
    pieces_and_cuts = _least_kept(pieces, *cut)
    over_slices(
        lambda a, b: [write(bits, least, flags) for bits, flags, least in pieces_and_cuts[a:b]],
        len(pieces_and_cuts),
        parts,
    )
    for weight, mask in zip(weights, masks, strict=True):
        if zero and not weight.is_contiguous():  # the kernels worked on a copy
            weight.masked_fill_(~mask, 0)
        elif zero and not weight.is_inference():
            increment_version(weight)  # autograd does not see what numba writes


def _threshold(pieces: Pieces, k: int, parts: int, tensors: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """Bits of the k-th largest magnitude, and how many of its equals are kept (None: all)."""
    from graphsparse.float_bits import kth_largest
    from graphsparse.params import kernels

    if k == 0:
        check_numbers(tensors)
        return kernels.INFINITY + 1, None
    bits = [piece for piece, _ in pieces]
    key, above, equal = kth_largest(bits, k, parts, lambda: check_numbers(tensors), magnitude=True)
    return key, None if k - above == equal else k - above


def _near(bits: list[npt.NDArray[np.int32]], k: int, guess: Guess | None) -> tuple[int, int | None] | None:
    """As `_threshold`, if it lies near where it was; None if it does not, or there is a NaN."""
    from graphsparse.params import kernels

    if guess is None or guess.key is None or k == 0:
        return None
    low, high = np.int32(max(guess.key - guess.reach, 0)), np.int32(min(guess.key + guess.reach, kernels.INFINITY))
    above, from_low, nan = map(sum, zip(*(kernels.count_around(piece, low, high) for piece in bits), strict=True))
    if nan or not above < k <= from_low:
        return None
    keys, count = np.empty(from_low - above + 1, np.int32), 0
    for piece in bits:
        count = kernels.gather_around(piece, low, high, keys, count)
    keys = np.partition(keys[:-1], count - (k - above))
    key = keys[count - (k - above)]
    wanted, equal = k - above - int((keys > key).sum()), int((keys == key).sum())
    return int(key), None if wanted == equal else wanted


def _least_kept(
    pieces: Pieces, key: int, wanted: int | None
) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], np.int32]]:
    """Each piece with the least magnitude that it keeps: ``key`` up to the last tie that is wanted, then more."""
    from graphsparse.params import kernels

    at_least, above = np.int32(key), np.int32(key + 1)
    if wanted is None:
        return [(bits, flags, at_least) for bits, flags in pieces]
    number = 0
    while True:
        bits, flags = pieces[number]
        cut, seen = kernels.find_equal(bits, at_least, wanted)
        if cut >= 0:
            break
        number, wanted = number + 1, wanted - seen
    return [
        *((b, f, at_least) for b, f in pieces[:number]),
        (bits[:cut], flags[:cut], at_least),
        (bits[cut:], flags[cut:], above),
        *((b, f, above) for b, f in pieces[number + 1 :]),
    ]
