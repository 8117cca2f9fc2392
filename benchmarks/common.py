"""What every benchmark records beside its figures."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphsparse.report import append_row, commit, read_rows, unchanged, write_json

__all__ = ["RESULTS", "append_row", "provenance", "read_rows", "write_json"]

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("graphsparse", "torch", "torch-geometric", "numpy", "scipy", "numba", "networkit")


def provenance(name: str) -> dict[str, Any]:
    """Command, commit, versions and machine of this run."""
    return {
        "benchmark": name,
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "clean": unchanged(),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "system": platform.system()},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:  # importlib's PackageNotFoundError is one
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
