"""The classes and tables of the ogb package, imported when used and without its look at the network."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Meta = dict[str, str]


@dataclass(frozen=True)
class OgbClasses:
    """What OGB offers for one kind of task.

    Attributes:
        kind: ``"node"``, ``"link"`` or ``"graph"``.
        dataset: its PyG data set class.
        evaluator: its evaluator class.
        master: its table of tasks, name to properties.
    """

    kind: str
    dataset: Any
    evaluator: Any
    master: dict[str, Meta]


def classes_of(kind: str) -> OgbClasses:
    """Import the part of OGB that deals with one kind of task."""
    import importlib

    import pandas as pd

    with _without_version_check():
        module = importlib.import_module(f"ogb.{kind}proppred")
    table = pd.read_csv(Path(module.__path__[0]) / "master.csv", index_col=0, keep_default_na=False)
    master = {str(name): {str(k): str(v) for k, v in column.items()} for name, column in table.items()}
    dataset = getattr(module, f"Pyg{kind.capitalize()}PropPredDataset")
    return OgbClasses(kind, dataset, module.Evaluator, master)


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
