"""Layers of which a projection leaves hardly anything: no signal passes, no gradient comes back, so it is said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor

from graphsparse.params.tensors import count_kept

PER_CENT = 100


class Starved:
    """Remembers what it has warned of, so that each tensor and layer is named once.

    A tensor is starved when nothing of it is kept; a layer (the tensors of one module) when it keeps less than 1 %, and
    less than half of what all layers keep on average: a model that is to keep 1 % is not warned of each layer. A bias
    is passed over: without it a layer still works, and it still learns.

    Args:
        sizes: elements of each tensor, by name.

    Example:
        >>> layers = Starved({"0.weight": 4000, "0.bias": 20, "2.weight": 4000, "2.bias": 20, "4.weight": 200})
        >>> list(layers.found({"0.weight": 2000, "0.bias": 0, "2.weight": 3, "2.bias": 1, "4.weight": 0}).values())
        ["layer '2' (4 of 4020 weights)", "'4.weight' (0 of 200 weights)"]
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self._total = sum(sizes.values())
        self._names = {name for name, size in sizes.items() if size > 1 and not _is_bias(name)}
        self._layers: dict[str, list[str]] = {}
        for name in sizes:
            self._layers.setdefault(name.rpartition(".")[0], []).append(name)
        self._said: set[str] = set()

    def warn(self, masks: Mapping[str, Tensor]) -> None:
        """Warn of what is starved under these masks and was not before."""
        new = {name: text for name, text in self.found(count_kept(masks)).items() if name not in self._said}
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

    def found(self, kept: Mapping[str, int]) -> dict[str, str]:
        """Starved tensors and layers by name, each with a phrase that says how much is left."""
        sizes, all_kept = self._sizes, sum(kept.values())
        found: dict[str, str] = {}
        for layer, members in self._layers.items():
            empty = [name for name in members if not kept[name] and name in self._names]
            found |= {name: f"{name!r} (0 of {sizes[name]} weights)" for name in empty}
            if empty or not layer or not self._names.intersection(members):
                continue  # a module that holds a bias alone passes signals without it
            left, size = sum(kept[name] for name in members), sum(sizes[name] for name in members)
            if left * PER_CENT < size and 2 * left * self._total < all_kept * size:
                found[layer] = f"layer {layer!r} ({left} of {size} weights)"
        return found


def warn_starved(masks: Mapping[str, Tensor]) -> None:
    """Warn of what is starved under these masks."""
    Starved({name: mask.numel() for name, mask in masks.items()}).warn(masks)


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]
