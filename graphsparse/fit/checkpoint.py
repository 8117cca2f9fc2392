"""Checkpoints that are written whole or not at all, hold no code, and know which run they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from graphsparse import ranks
from graphsparse.atomic_write import atomic_write
from graphsparse.errors import DataError
from graphsparse.fit.tree import decode, encode
from graphsparse.hashing import named_hash
from graphsparse.tensor_bytes import to_bytes
from graphsparse.untrusted import read_bytes, reading

FORMAT = "graphsparse.fit.checkpoint/2"


def save_checkpoint(path: str | Path, state: Mapping[str, Any], run: Mapping[str, str]) -> None:
    """Write a state to one safetensors file, under a temporary name that is then renamed.

    Of several processes that train together the first one writes.

    Args:
        path: the file; missing folders are made.
        state: nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.
        run: hashes of what the run depends on, by name.

    Raises:
        TypeError: if the state holds anything else; the file that was there is kept.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/a", {"epoch": 3, "weight": torch.ones(2)}, {"seed": "0"})
        ...     load_checkpoint(f"{folder}/a", {"seed": "0"})
        {'epoch': 3, 'weight': tensor([1., 1.])}
    """
    if not ranks.is_first():
        return
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    tree = json.dumps({"state": encode(state, tensors), "run": dict(run)}, allow_nan=False)
    metadata = {"format": FORMAT, "tree": tree, "sha256": named_hash(tree, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(to_bytes(tensors, metadata))


def load_checkpoint(path: str | Path, run: Mapping[str, str]) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote for the same run.

    Raises:
        DataError: if the file is damaged, is no checkpoint, or belongs to another run; it then says
            which settings differ.
    """
    with checkpoint_file(path):
        return _state(path, read_bytes(path), run)


def checkpoint_file(path: str | Path) -> AbstractContextManager[None]:
    """Whatever goes wrong inside, while a checkpoint is read and taken over, is a DataError that names it."""
    return reading(path, DataError, "a whole checkpoint; it is damaged, delete it to start anew")


def _state(path: str | Path, content: bytes, run: Mapping[str, str]) -> dict[str, Any]:
    tensors = load(content)  # checks the header, too, before it is read once more for what it says beside
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {})
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} is no training checkpoint of this version; delete it or give another path")
    if metadata.get("sha256") != named_hash(metadata.get("tree", ""), tensors):
        raise DataError(f"the checkpoint {path} is damaged (its hash differs); delete it to start anew")
    tree = json.loads(metadata["tree"])
    theirs: dict[str, Any] = tree["run"]
    different = sorted(name for name in {*theirs, *run} if theirs.get(name) != run.get(name))
    if different:
        raise DataError(
            f"the checkpoint {path} belongs to another run: {', '.join(different)} differ; "
            f"give another path, or delete it to start anew"
        )
    state = decode(tree["state"], tensors)
    if not isinstance(state, dict):
        raise ValueError("it holds no table of states")
    return state
