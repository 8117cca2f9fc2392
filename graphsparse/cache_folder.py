"""Where downloads and processed files are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "GRAPHSPARSE_CACHE"


def cache_root() -> Path:
    """Return the folder for downloads and processed files: ``$GRAPHSPARSE_CACHE``, else the platform's usual one.

    Example:
        >>> cache_root().is_absolute()
        True
    """
    chosen = os.environ.get(CACHE_VARIABLE, "")
    if chosen:
        return Path(chosen).expanduser().resolve()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (base / "graphsparse").resolve()
