"""The table of data sets: what is known by a name, and how a data set of one's own joins it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch_geometric.data import Data

from graphsparse.data.raw import RawGraph
from graphsparse.data.splits import PerClass, Stratified
from graphsparse.registry import Registry

Root = str | os.PathLike[str] | None
_SIXTY_TWENTY_TWENTY = Stratified(0.6, 0.2)
Read = Callable[[Root], RawGraph | Data]


@dataclass(frozen=True)
class DataSet:
    """How one data set is read, judged, and split when no published split is wanted.

    Attributes:
        read: called with the data folder (or None); returns a graph.
        metric: of its node task; None takes what the graph says in ``data.metric``, else accuracy, or ``"rocauc"`` for
            several labels.
        random: how random splits of its nodes are drawn.
        task: ``"link"`` and ``"graph"`` data come with the one split that they have; None asks the graph itself.
        about: what it is, in a line.
    """

    read: Read
    metric: str | None = None
    random: PerClass | Stratified = _SIXTY_TWENTY_TWENTY
    task: Literal["node", "link", "graph"] | None = None
    about: str = ""


def takes_a_folder(read: Callable[..., Any]) -> bool:
    """Whether a function of the user's is called with the data folder or without arguments."""
    try:
        inspect.signature(read).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True


def _as_data_set(name: str, entry: Any) -> DataSet:
    if isinstance(entry, DataSet):
        return entry
    if not callable(entry):
        raise TypeError(f"{name!r} is no data set: it is a {type(entry).__name__}, not a function that returns a Data")
    return DataSet(entry if takes_a_folder(entry) else lambda root: entry())


DATASETS: Registry[DataSet] = Registry("data set", folder="graphsparse.data", check=_as_data_set)


def register(name: str, read: Any = None) -> Any:
    """Make a data set known as ``gs.data.load(name)`` and ``--dataset name``; without ``read`` this is a decorator.

    A function in a file of one's own needs no registration: ``"module:function"`` is a name, too.

    Args:
        name: a free name.
        read: called with the data folder, or without arguments; returns a PyG ``Data`` with ``x`` ``[N, F]``,
            ``edge_index`` ``[2, E]`` and ``y`` ``[N]`` (or ``[N, C]`` of 0, 1 and NaN for several labels), and perhaps
            ``edge_weight``, ``edge_attr``, ``edge_type``, ``metric``, and bool masks ``train_mask``, ``val_mask``,
            ``test_mask`` ``[N]`` or ``[N, S]`` for S splits. Without masks a split is drawn. Data of links
            (``data.task = "link"``) and a :class:`graphsparse.data.GraphSet` are taken as they are.

    Raises:
        ValueError: the name is taken, or holds a colon.
        TypeError: ``read`` cannot be called.

    Example:
        >>> import torch
        >>> @register("triangle")
        ... def triangle() -> Data:
        ...     edge_index = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
        ...     return Data(x=torch.eye(3), edge_index=edge_index, y=torch.tensor([0, 1, 1]))
        >>> from graphsparse.data import load
        >>> load("triangle").split
        'random 60/20/20, seed 0'
        >>> del DATASETS["triangle"]
    """
    return DATASETS.register(name, read)
