"""What a saved state must have in common with what it is loaded into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from graphsparse.params.tensors import Named


def check_state(
    state: Mapping[str, Any], settings: Mapping[str, Any], tensors: Mapping[str, Named], plain: Sequence[str]
) -> None:
    """Refuse a state of other settings or tensors.

    Args:
        state: what was saved.
        settings: one's own.
        tensors: one's own, by part and name.
        plain: the other parts that there must be.

    Raises:
        ValueError: naming what differs.
    """
    theirs = state.get("settings") if isinstance(state, Mapping) else None
    if not isinstance(theirs, Mapping):
        raise ValueError("the state of a sparsifier has 'settings', masks and counters")
    for key in dict.fromkeys([*settings, *theirs]):
        if theirs.get(key) != settings.get(key):
            raise ValueError(f"the state has {key} = {theirs.get(key)!r}, this sparsifier {settings.get(key)!r}")
    missing = [key for key in (*plain, *tensors) if key not in state]
    if missing:
        raise ValueError(f"the state of a sparsifier has {missing[0]!r}, too")
    for part, own in tensors.items():
        if not isinstance(state[part], Mapping) or own.keys() != state[part].keys():
            raise ValueError(f"the state's {part} belong to other parameters: {state[part]!r:.80}")
        for name, tensor in own.items():
            saved = state[part][name]
            if not isinstance(saved, Tensor) or saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                raise ValueError(f"the state's {part} of {name!r} is no {tensor.dtype} of shape {[*tensor.shape]}")
