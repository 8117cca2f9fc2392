"""Layers of which a projection leaves hardly anything: no signal passes, no gradient comes back, so it is said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from torch import Tensor

HARDLY_ANY = Fraction(1, 100)


class Starved:
    """Remembers what it has warned of, so that each tensor and layer is named once.

    A tensor is starved when nothing of it is kept; a layer (the tensors of one module) when it keeps less than 1 %, and
    less than half of what all layers keep on average: a model that is to keep 1 % is not warned of each layer. A bias
    and a single number are passed over: without them a layer still works, and they still learn.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()

    def warn(self, masks: Mapping[str, Tensor]) -> None:
        """Warn of what is starved under these masks and was not before."""
        kept = {name: count_kept(mask) for name, mask in masks.items()}
        sizes = {name: mask.numel() for name, mask in masks.items()}
        found = starved(kept, sizes)
        new = {name: text for name, text in found.items() if name not in self._said}
        if not new:
            return
        self._said |= new.keys()
        shown = list(new.values())
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        warnings.warn(
            f"hardly anything is left of {'; '.join(shown[:4])}{more}. No signal passes there, and no gradient comes "
            "back: a lower sparsity leaves more, distribution='erk' or 'uniform' gives every tensor its share",
            stacklevel=2,
        )


def warn_starved(masks: Mapping[str, Tensor]) -> None:
    """Warn of what is starved under these masks."""
    Starved().warn(masks)


def starved(kept: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, str]:
    """Starved tensors and layers by name, each with a phrase that says how much is left.

    Args:
        kept: how many elements of each tensor are kept.
        sizes: how many there are.

    Example:
        >>> kept = {"0.weight": 2000, "0.bias": 0, "2.weight": 3, "2.bias": 1, "4.weight": 0}
        >>> starved(kept, {"0.weight": 4000, "0.bias": 20, "2.weight": 4000, "2.bias": 20, "4.weight": 200})
        {'2': "layer '2' (4 of 4020 weights)", '4.weight': "'4.weight' (0 of 200 weights)"}
    """
    names = [name for name, size in sizes.items() if size > 1 and not _is_bias(name)]
    empty = {name: f"{name!r} (0 of {sizes[name]} weights)" for name in names if kept[name] == 0}
    layers: dict[str, list[str]] = {}
    for name in sizes:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    floor = min(HARDLY_ANY, Fraction(sum(kept.values()), 2 * max(sum(sizes.values()), 1)))
    found: dict[str, str] = {}
    for layer, members in layers.items():
        left, size = (sum(counts[name] for name in members) for counts in (kept, sizes))
        weighty = any(name in names for name in members)  # a module that holds a bias alone passes signals without it
        if layer and weighty and left < floor * size and not any(name in empty for name in members):
            found[layer] = f"layer {layer!r} ({left} of {size} weights)"
        found |= {name: empty[name] for name in members if name in empty}
    return found


def count_kept(mask: Tensor) -> int:
    """True elements of a bool mask; many times faster on the CPU than torch's sum."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.count_nonzero())


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]
