"""The l0 ball: the largest weights, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from graphsparse.keep_rule import Keep, keep_fraction, kept_count
from graphsparse.params.distribution import Distribution, allot, check_distribution, plain_distribution
from graphsparse.params.largest import Guess, check_numbers, mark_largest
from graphsparse.params.patterns.pattern import Pattern, zero_outside
from graphsparse.params.tensors import Named, count_kept, empty_mask


@dataclass(frozen=True)
class L0(Pattern):
    r"""The :math:`\max(1, \lceil keep \cdot m \rceil)` largest magnitudes of m weights; ties go to the earlier one.

    Args:
        keep: the kept fraction, in (0, 1], of all tensors together.
        distribution: how many of them each tensor keeps, see :func:`graphsparse.params.allot`; ``"global"``: as many
            as are among the largest of all.

    Raises:
        ValueError, TypeError: for a ``keep`` outside (0, 1] or an unknown distribution.

    Source: Blumensath & Davies, "Iterative hard thresholding for compressed sensing", 2009.

    Example:
        >>> import torch
        >>> weights = {"a": torch.tensor([9.0, 8.0, 7.0, 6.0]), "b": torch.tensor([[1.0, 2.0], [4.0, 3.0]])}
        >>> {name: int(mask.sum()) for name, mask in L0(0.5).mask(weights).items()}
        {'a': 4, 'b': 0}
        >>> {name: int(mask.sum()) for name, mask in L0(0.5, "uniform").mask(weights).items()}
        {'a': 2, 'b': 2}
    """

    keep: Keep
    distribution: Distribution = "global"

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", keep_fraction(self.keep))
        check_distribution(self.distribution)

    @property
    def kept(self) -> Fraction:
        """The kept fraction of all weights."""
        return keep_fraction(self.keep)

    def at(self, keep: Fraction) -> L0:
        """The largest ``keep`` of all weights."""
        return replace(self, keep=keep)

    def check(self, tensors: Named) -> None:
        """Raise a ValueError if the distribution has not exactly the tensors' names."""
        allot(self.distribution, {name: tensor.shape for name, tensor in tensors.items()}, 0)

    def settings(self) -> dict[str, Any]:
        """The sparsity, and the distribution if there is one."""
        own = {} if self.distribution == "global" else {"distribution": plain_distribution(self.distribution)}
        return {"sparsity": str(1 - self.kept), **own}

    def write(self, tensors: Named, masks: Named, within: Named | None, *, zero: bool) -> None:
        """Write the masks, see :meth:`Pattern.write`."""
        k = kept_count(self.keep, sum(tensor.numel() for tensor in tensors.values()))
        limits = None if within is None else count_kept({name: within[name] for name in tensors})
        if limits is not None:
            k = min(k, sum(limits.values()))
        counts = None
        if self.distribution != "global":  # which needs no shapes
            counts = allot(self.distribution, {name: tensor.shape for name, tensor in tensors.items()}, k, limits)
        if counts is None:
            mark_top(tensors, masks, within, k, zero, whole=limits is not None and k == sum(limits.values()))
            return
        check_numbers(tensors)
        for name, tensor in tensors.items():
            whole = limits is not None and counts[name] == limits[name]
            mark_top({name: tensor}, masks, within, counts[name], zero, whole=whole)


def mark_top(
    tensors: Named,
    masks: Named,
    within: Named | None,
    k: int,
    zero: bool,
    *,
    whole: bool,
    guess: Guess | None = None,
) -> None:
    """Mark the ``k`` largest of tensors together; ``whole``: they are all that ``within`` holds."""
    if within is None:
        mark_largest(tensors, [masks[name] for name in tensors], k, zero=zero, guess=guess)
        return
    for name in tensors:
        if masks[name] is not within[name]:
            masks[name].copy_(within[name])
    if not whole:
        left = {name: tensor[masks[name]] for name, tensor in tensors.items()}
        kept = {name: empty_mask(weights) for name, weights in left.items()}
        try:
            mark_largest(left, list(kept.values()), k, zero=False)
        except ValueError:
            check_numbers({name: tensor.masked_fill(~masks[name], 0) for name, tensor in tensors.items()})
            raise  # not reached for a NaN: it was just named by its position in the whole tensor
        for name, part in kept.items():
            masks[name][masks[name].clone()] = part
    if zero:
        zero_outside(tensors, masks)
