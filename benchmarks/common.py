"""What every benchmark records beside its figures."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphsparse.report import append_row, commit, read_rows, unchanged, write_json

__all__ = ["PAGES", "RESULTS", "append_row", "into_page", "provenance", "read_rows", "write_json"]

RESULTS = Path(__file__).parent / "results"
PAGES = Path(__file__).parents[1] / "docs"
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


def into_page(page: Path, place: str, text: str) -> None:
    """Put a text between the marks of a place in a page of the documentation, and print it."""
    from rich.console import Console
    from rich.markdown import Markdown

    before, rest = page.read_text().split(f"<!-- {place} -->", 1)
    after = rest.split(f"<!-- end of {place} -->")[1]
    page.write_text(f"{before}<!-- {place} -->\n\n{text}\n\n<!-- end of {place} -->{after}")
    Console().print(Markdown(text))


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
