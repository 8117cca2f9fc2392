"""N:M: of every few consecutive weights a few."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphsparse.keep_rule import whole_number
from graphsparse.params.largest import check_numbers
from graphsparse.params.patterns.pattern import Pattern, check_dimension, zero_outside
from graphsparse.params.tensors import Named, fast, flat

_FEW = 16  # longer runs are sorted


@dataclass(frozen=True)
class NofM(Pattern):
    """The ``n`` largest magnitudes of every ``m`` consecutive weights along ``dim``; ties go to the earlier position.

    A shorter last run of r weights keeps min(n, r) of them.

    Args:
        n, m: how many of how many are kept; 2 and 4 is the pattern that sparse tensor cores take.
        dim: the dimension along which the runs lie; -1 is the input side of a linear layer, 1 that of a convolution.

    Raises:
        ValueError: unless 1 <= n <= m.

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021.

    Example:
        >>> NofM(2, 4).mask([torch.tensor([[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0]])])[0].int()
        tensor([[0, 1, 1, 0, 1, 1, 0, 0]], dtype=torch.int32)
    """

    n: int
    m: int
    dim: int = -1

    def __post_init__(self) -> None:
        for name in ("n", "m", "dim"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name))
        if not 1 <= self.n <= self.m:
            raise ValueError(f"N:M needs 1 <= n <= m, got n={self.n}, m={self.m}")

    @staticmethod
    def read(text: str, dim: int = -1) -> NofM:
        """The pattern that ``"2:4"`` names.

        Raises:
            ValueError: for anything else than N:M with 1 <= N <= M.

        Example:
            >>> NofM.read("2:4")
            NofM(n=2, m=4, dim=-1)
        """
        found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"a pattern is 'N:M' with 1 <= N <= M, such as '2:4', not {text!r:.50}")
        return NofM(int(found[1]), int(found[2]), dim)

    @property
    def kept(self) -> Fraction:
        """n of m."""
        return Fraction(self.n, self.m)

    def at(self, keep: Fraction) -> NofM:
        """As many of every ``m`` as ``keep`` leaves, rounded up: 4:4, 3:4, 2:4 on the way to 2:4."""
        return replace(self, n=math.ceil(keep * self.m))

    def check(self, tensors: Named) -> None:
        """Raise a ValueError for a tensor without the dimension."""
        check_dimension(tensors, self.dim)

    def settings(self) -> dict[str, Any]:
        """The three numbers."""
        return {"pattern": type(self).__name__, "n": self.n, "m": self.m, "dim": self.dim}

    def write(self, tensors: Named, masks: Named, within: Named | None, *, zero: bool) -> None:
        """Write the masks, see :meth:`Pattern.write`."""
        left = {
            name: tensor
            for name, tensor in tensors.items()
            if within is not None or not self._marked(tensor, masks[name])
        }
        check_numbers(left)
        for name, tensor in left.items():
            magnitudes = tensor.detach().abs()
            if within is not None:
                magnitudes = magnitudes.masked_fill(~within[name], -1.0)
            kept = self._kept(magnitudes.movedim(self.dim, -1)).movedim(-1, self.dim)
            masks[name].copy_(kept if within is None else kept & within[name])
        if zero:
            zero_outside(tensors, masks)

    def _marked(self, tensor: Tensor, mask: Tensor) -> bool:
        """Mark by a compiled loop where runs of four lie in order and all are numbers; whether that was so."""
        last = self.dim % tensor.dim() == tensor.dim() - 1
        if not (last and self.m == 4 and tensor.shape[-1] % 4 == 0 and fast(tensor, mask)):
            return False
        from graphsparse.params import kernels

        bits, flags = flat(tensor).view(np.int32), flat(mask).view(np.uint8)
        return bool(kernels.best_of_fours(bits, flags, np.int32(self.n)))

    def _kept(self, lines: Tensor) -> Tensor:
        """The mask of runs along the last dimension; what is not to be kept is -1, below any magnitude."""
        missing = -lines.shape[-1] % self.m
        padded = nn.functional.pad(lines, (0, missing), value=-1.0)
        runs = padded.reshape(*padded.shape[:-1], padded.shape[-1] // self.m, self.m)
        if self.m <= _FEW:
            return _ranks_below(runs, self.n).flatten(-2)[..., : lines.shape[-1]]
        best = runs.argsort(dim=-1, descending=True, stable=True)[..., : self.n]
        kept = torch.zeros_like(runs, dtype=torch.bool).scatter_(-1, best, True).flatten(-2)
        return kept[..., : lines.shape[-1]]


def _ranks_below(runs: Tensor, n: int) -> Tensor:
    """The mask of the ``n`` largest of each short run, by comparing its places in pairs: many times faster than a sort.

    Of equal ones the earlier is before the later.
    """
    places = [place.contiguous() for place in runs.unbind(-1)]
    before = [torch.zeros_like(places[0], dtype=torch.uint8) for _ in places]
    for late, later in enumerate(places):
        for early, earlier in enumerate(places[:late]):
            wins = earlier >= later
            before[late] += wins
            before[early] += ~wins
    return torch.stack([rank < n for rank in before], dim=-1)
