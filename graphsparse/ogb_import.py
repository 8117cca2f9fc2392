"""The ogb package, imported when used and without its look at the network."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType


def import_ogb(module: str) -> ModuleType:
    """Import ``ogb.<module>``; the first import of ogb would otherwise start a thread that asks for newer versions.

    Example:
        >>> import_ogb("utils.features").get_atom_feature_dims()[:2]
        [119, 5]
    """
    with _without_version_check():
        return importlib.import_module(f"ogb.{module}")


@contextlib.contextmanager
def _without_version_check() -> Iterator[None]:
    """Keep the first import of ogb from starting its thread, which would ask the network for a newer version."""
    if "ogb" in sys.modules:
        yield
        return
    before, ignore = sys.modules.get("outdated"), os.environ.get("OUTDATED_IGNORE")
    sys.modules["outdated"] = None  # type: ignore[assignment]  # makes `import outdated` an ImportError, which ogb expects
    try:
        yield
    finally:
        del sys.modules["outdated"]
        if before is not None:
            sys.modules["outdated"] = before
        if ignore is None:
            os.environ.pop("OUTDATED_IGNORE", None)
