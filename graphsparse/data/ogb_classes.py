"""The classes and tables of the ogb package, imported when used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsparse.ogb_import import import_ogb

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
    import pandas as pd

    module = import_ogb(f"{kind}proppred")
    table = pd.read_csv(Path(module.__path__[0]) / "master.csv", index_col=0, keep_default_na=False)
    master = {str(name): {str(k): str(v) for k, v in column.items()} for name, column in table.items()}
    dataset = getattr(module, f"Pyg{kind.capitalize()}PropPredDataset")
    return OgbClasses(kind, dataset, module.Evaluator, master)
