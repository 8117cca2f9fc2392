"""The two files of a ticket: how they are named and written, and what is checked before they are believed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphsparse.atomic_write import atomic_write
from graphsparse.errors import TicketError
from graphsparse.keep_rule import keep_fraction
from graphsparse.report import plain
from graphsparse.tickets.problem import KINDS
from graphsparse.untrusted import LARGEST_JSON, read_bytes, read_json_object

FORMAT = 2
WITH_CUTS = 3  # the format of tickets of units: what stays of each tensor is there, too
_WORDS = ("hash", "sha256", "method", "graph_hash")
_TABLES = ("shapes", "tensors", "config", "metrics", "versions")


def write_files(folder: str | os.PathLike[str], about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write ``ticket.json`` and a safetensors file; an earlier ticket there is replaced at once.

    The tensors are written first under a name of their own, then ``ticket.json`` is renamed into place: a killed run
    leaves the old ticket or the new one.

    Raises:
        TicketError: for a setting or figure that JSON cannot say.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    blob = to_bytes(dict(tensors))
    name = f"tensors-{about['hash'][:16]}.safetensors"
    file = {"file": name, "sha256": hashlib.sha256(blob).hexdigest()}
    try:
        form = WITH_CUTS if any(name.startswith("cut/") for name in tensors) else FORMAT
        said = json.loads(json.dumps({"format": form, **plain({**about, "tensors": file})}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TicketError(f"the ticket's settings or figures cannot be written as JSON: {error}") from error
    said["sha256"] = checksum(said)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / name, blob)
    _replace(folder / "ticket.json", (json.dumps(said, indent=2) + "\n").encode())
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)
    return folder


def read_files(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``ticket.json`` says and the tensors beside it, both checked: no size is believed that no bytes fill.

    Raises:
        TicketError: a file is damaged, altered or of an unknown format.
        Exception: whatever else a file that lies can cause; the caller says it with the file's name.
    """
    from safetensors.torch import load as from_bytes

    about = read_json_object(read_bytes(path, largest=LARGEST_JSON))
    if about["format"] not in (FORMAT, WITH_CUTS):
        raise TicketError(
            f"{path} has ticket format {about['format']!r:.50}, this version reads {FORMAT} and {WITH_CUTS}"
        )
    _check_about(about)
    if checksum(about) != about["sha256"]:
        raise TicketError(f"{path} is damaged or altered: its checksum is not that of what it says")
    name = about["tensors"]["file"]
    if name != Path(name).name:
        raise ValueError(f"its tensors lie in its own folder, not in {name!r:.50}")
    file = path.parent / name
    blob = read_bytes(file, folder=path.parent)
    if hashlib.sha256(blob).hexdigest() != about["tensors"]["sha256"]:
        raise TicketError(f"{file} is damaged or altered: its checksum is not the one in {path.name}")
    tensors = from_bytes(blob)
    _check_tensors(about, tensors)
    return about, tensors


def checksum(about: Mapping[str, Any]) -> str:
    """SHA-256 of what a ticket's JSON says, whatever its layout, without the checksum itself."""
    said = {name: value for name, value in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def grouped(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def read_cuts(tensors: Mapping[str, Tensor]) -> dict[str, dict[tuple[int, ...], Tensor]]:
    """What stays of each tensor along its axes, by names such as ``"1,2/conv.att"``.

    Raises:
        ValueError: for a name without axes, or what is no bool tensor with as many dimensions.
    """
    found: dict[str, dict[tuple[int, ...], Tensor]] = {}
    for key, kept in tensors.items():
        words, slash, name = key.partition("/")
        axes = tuple(int(word) for word in words.split(",")) if re.fullmatch(r"\d{1,2}(,\d{1,2})*", words) else ()
        bools = kept.dtype == torch.bool and kept.dim() == len(axes)
        if not slash or not axes or list(axes) != sorted({*axes}) or not bools:
            raise ValueError(f"cut/{key:.80} must be a bool along ascending axes, named as in 'cut/0,1/name'")
        found.setdefault(name, {})[axes] = kept
    return found


def _check_about(about: Mapping[str, Any]) -> None:
    for name in _WORDS:
        if not isinstance(about[name], str):
            raise ValueError(f"{name!r} must be a string")
    for name in _TABLES:
        if not isinstance(about[name], dict):
            raise ValueError(f"{name!r} must be an object")
    if not isinstance(about["tensors"]["file"], str):
        raise ValueError("the file of its tensors must be a string")
    _check_size(about["num_edges"], "num_edges")
    for name, shape in about["shapes"].items():
        if not isinstance(shape, list):
            raise ValueError(f"the shape of {name!r:.50} must be a list")
        for size in shape:
            _check_size(size, f"the shape of {name!r:.50}")
    config = about["config"]
    for name in ("edge_keep", "weight_keep"):
        if name in config and not isinstance(config[name], str):
            raise ValueError(f"{name} must be a string, exact as it was written")
        keep_fraction(config.get(name, "1"))
    _check_size(config.get("split", 0), "split")
    _check_units(config.get("units", {}))
    if config.get("kind", "node") not in tuple(KINDS):
        raise ValueError(f"there are tickets for {', '.join(KINDS)}, not for {config.get('kind')!r:.50}")


def _check_units(layers: Any) -> None:
    """What is said of the layers of a ticket of units: how many are kept, and of how many."""
    if not isinstance(layers, dict) or not all(isinstance(pair, list) and len(pair) == 2 for pair in layers.values()):
        raise ValueError("units must hold two numbers for each layer, those kept and all")
    for pair in layers.values():
        for count in pair:
            _check_size(count, "units")


def _check_size(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must hold whole numbers, at least 0, got {value!r:.50}")


def _check_tensors(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    masks = grouped(tensors, "mask/")
    for prefix in ("theta0/", "weight/"):
        if grouped(tensors, prefix).keys() != masks.keys():
            raise ValueError(f"{prefix}... must have the names of mask/...")
    if about["shapes"].keys() != masks.keys():
        raise ValueError("the shapes must have the names of mask/...")
    if not tensors.keys() >= {"edge_mask", "logits"}:
        raise ValueError("its tensors lack edge_mask or logits")
    _check_bits(tensors["edge_mask"], about["num_edges"], "edge_mask")
    for name, bits in masks.items():
        _check_bits(bits, math.prod(about["shapes"][name]), f"mask/{name}")
    for name, value in tensors.items():
        numbers = value.is_floating_point() and bool(value.isfinite().all())
        if name.startswith(("theta0/", "weight/", "logits")) and not numbers:
            raise ValueError(f"{name} must hold finite floating-point numbers")


def _check_bits(packed: Tensor, count: int, name: str) -> None:
    if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.numel() != -(-count // 8):
        held = f"{packed.dtype} {list(packed.shape)}"
        raise ValueError(f"{name} must hold {count} bits in {-(-count // 8)} bytes, the file has {held}")


def _replace(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)
