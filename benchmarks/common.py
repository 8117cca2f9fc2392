"""What every benchmark records beside its figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("graphsparse", "torch", "torch-geometric", "numpy", "scipy", "numba", "networkit")


def provenance(name: str) -> dict[str, Any]:
    """Command, commit, versions and machine of this run."""
    return {
        "benchmark": name,
        "command": " ".join(["python", *sys.argv]),
        "commit": _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain", "--untracked-files=no") == "",
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "system": platform.system()},
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write results whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line at once, so that a killed study loses at most the run that it was in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path, key: Sequence[str]) -> list[dict[str, Any]]:
    """All finished runs; of those with the same key the last."""
    if not path.exists():
        return []
    rows = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        rows[tuple(row[k] for k in key)] = row
    return list(rows.values())


def _git(*words: str) -> str | None:
    run = subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return run.stdout.strip() if run.returncode == 0 else None


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
