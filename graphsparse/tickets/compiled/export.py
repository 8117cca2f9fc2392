"""A module written for other programs: as torch's exported program, or as ONNX."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.errors import GraphsparseError, TraceError

_NEEDED = ("onnx", "onnxscript")


def write_export(module: nn.Module, inputs: tuple[Tensor, ...], path: str | os.PathLike[str], name: str) -> None:
    """Write a module to a file whose suffix says what it becomes: ``.pt2`` or ``.onnx``.

    Args:
        module: in evaluation mode.
        inputs: what it is called with.
        path: the file; an old one is replaced once the new one is whole.
        name: of the model, for errors.

    Raises:
        ValueError, TraceError, GraphsparseError: see :meth:`CompiledTicket.export`.
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".onnx"):
        raise ValueError(f"the suffix says what is written, .pt2 for torch.export or .onnx for ONNX, got {path.name!r}")
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if path.suffix == ".onnx" and missing:
        raise GraphsparseError(f"ONNX needs {' and '.join(missing)}: pip install 'graphsparse[onnx]'")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = Path(folder) / path.name
        try:
            exported = torch.export.export(module, inputs, strict=False)
            if path.suffix == ".pt2":
                torch.export.save(exported, part)
            else:
                _write_onnx(exported, inputs, part)
        except Exception as failure:  # torch has many kinds
            said = " ".join(str(failure).split())[:200]
            raise TraceError(f"{name} cannot be exported: {type(failure).__name__}: {said}") from failure
        os.replace(part, path)


def _write_onnx(exported: Any, inputs: tuple[Tensor, ...], path: Path) -> None:
    logger = logging.getLogger("torch.onnx")  # it tells of each package that is not there
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(exported, inputs, dynamo=True, verbose=False)
    finally:
        logger.setLevel(before)
    assert program is not None
    program.save(path, external_data=False)
