"""The state of every random generator that training may draw from: seeded for a run, restored after it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def capture(device: torch.device, generators: Sequence[torch.Generator] = ()) -> State:
    """The states of torch's, numpy's and Python's global generators and of the given ones."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "own": [generator.get_state() for generator in generators],
        "numpy": {
            "bit_generator": numpy_state["bit_generator"],
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "python": {"version": version, "internal": torch.tensor(internal, dtype=torch.int64), "gauss": gauss},
    }


def restore(state: State, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
    """Put back what `capture` took."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    for generator, own in zip(generators, state["own"], strict=True):
        generator.set_state(own)
    kept = state["numpy"]
    np.random.set_state(
        {
            "bit_generator": kept["bit_generator"],
            "state": {"key": kept["key"].numpy().astype(np.uint32), "pos": kept["pos"]},
            "has_gauss": kept["has_gauss"],
            "gauss": kept["gauss"],
        }
    )
    python = state["python"]
    random.setstate((python["version"], tuple(python["internal"].tolist()), python["gauss"]))


def seed_all(seed: int, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
    """Seed what `capture` looks at, and no other device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    for generator in generators:
        generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def generator_for(purpose: str, seed: int) -> torch.Generator:
    """A generator on the CPU for one purpose: the same seed gives others, as initial weights, other numbers."""
    word = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(word[:8], "little"))


@contextmanager
def preserved(device: torch.device, generators: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Whatever is drawn inside, the generators are afterwards as they were before."""
    state = capture(device, generators)
    try:
        yield
    finally:
        restore(state, device, generators)
