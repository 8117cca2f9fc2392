"""Tables of edges: pandas, polars and pyarrow, one edge a row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.inner_form import coded_edges
from graphsparse.graphs.interop import KINDS, OpenGraph, of_library
from graphsparse.graphs.labels import as_number, label_codes

Mask = npt.NDArray[np.bool_]


class Table(OpenGraph):
    """A table with columns ``src`` and ``dst`` (or ``source`` and ``target``, or those that are named), one edge a row.

    Nodes are those that appear, named by their values; ids are whole numbers, text or other plain values. Columns,
    their types and order stay, and so does the index of a pandas table.
    """

    options = ("weight", "src", "dst")

    def __init__(
        self,
        table: Any,
        undirected: bool | None,
        weight: str | None = None,
        src: str | None = None,
        dst: str | None = None,
    ) -> None:
        self.table = table
        names = self.names()
        ends = [names[at] for at in end_columns(names, src, dst)]
        self.weight = weight_name(names, weight, "column")
        tails, heads = (_ends(self.column(end), end) for end in ends)
        values = None if self.weight is None else _weights(self.column(self.weight))
        if isinstance(tails, np.ndarray) and isinstance(heads, np.ndarray):
            labels, codes = np.unique(np.concatenate([tails, heads]), return_inverse=True)
            codes, found = codes.reshape(2, -1), labels
        else:
            codes, found = label_codes(list(tails), list(heads))  # type: ignore[assignment]
        self.edges = coded_edges(codes, found, undirected, values)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        keep = mask.cpu().numpy()
        small = self.filtered(keep)
        if edge_weight is None:
            return small
        return self.with_column(small, self.weight or "weight", edge_weight.cpu().numpy()[keep])

    @abstractmethod
    def names(self) -> list[Any]:
        """The names of the columns."""

    @abstractmethod
    def column(self, name: str) -> npt.NDArray[Any] | list[Any]:
        """A column: an integer or float array if it is one without gaps, else a list with None for gaps."""

    @abstractmethod
    def filtered(self, keep: Mask) -> Any:
        """The table with the rows where ``keep`` is true."""

    @abstractmethod
    def with_column(self, table: Any, name: str, values: npt.NDArray[Any]) -> Any:
        """The table with a column of new values, in the place of the old one."""


@KINDS.register("pandas")
class PandasTable(Table):
    """A pandas ``DataFrame``."""

    says = "a pandas table of edges"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "pandas", "DataFrame")

    def names(self) -> list[Any]:
        columns = list(self.table.columns)
        if len(columns) > 1 and columns == list(self.table.index):
            raise ValueError(
                "the table has the same rows as columns, as an adjacency matrix has: table.to_numpy() is the matrix, "
                "and networkx.from_pandas_adjacency(table) the graph with its labels"
            )
        return columns

    def column(self, name: str) -> npt.NDArray[Any] | list[Any]:
        series = self.table[name]
        gaps = series.isna()
        if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iufb" and not gaps.any():
            values: npt.NDArray[Any] = series.to_numpy()
            return values
        return [None if gap else value for value, gap in zip(series.tolist(), gaps.tolist(), strict=True)]

    def filtered(self, keep: Mask) -> Any:
        return self.table[keep]

    def with_column(self, table: Any, name: str, values: npt.NDArray[Any]) -> Any:
        return table.assign(**{name: values})


@KINDS.register("polars")
class PolarsTable(Table):
    """A polars ``DataFrame``."""

    says = "a polars table of edges"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "polars", "DataFrame")

    def names(self) -> list[Any]:
        return list(self.table.columns)

    def column(self, name: str) -> npt.NDArray[Any] | list[Any]:
        series = self.table.get_column(name)
        plain = series.dtype.is_numeric() and not series.dtype.is_decimal() and not series.null_count()
        found: npt.NDArray[Any] | list[Any] = series.to_numpy() if plain else series.to_list()
        return found

    def filtered(self, keep: Mask) -> Any:
        import polars

        return self.table.filter(polars.Series(keep))

    def with_column(self, table: Any, name: str, values: npt.NDArray[Any]) -> Any:
        import polars

        return table.with_columns(polars.Series(name, values))


@KINDS.register("pyarrow")
class ArrowTable(Table):
    """A pyarrow ``Table``."""

    says = "a pyarrow table of edges"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return of_library(graph, "pyarrow", "Table")

    def names(self) -> list[Any]:
        return list(self.table.column_names)

    def column(self, name: str) -> npt.NDArray[Any] | list[Any]:
        from pyarrow import types

        values = self.table.column(name)
        plain = (types.is_integer(values.type) or types.is_floating(values.type)) and not values.null_count
        found: npt.NDArray[Any] | list[Any] = values.to_numpy() if plain else values.to_pylist()
        return found

    def filtered(self, keep: Mask) -> Any:
        import pyarrow

        return self.table.filter(pyarrow.array(keep))

    def with_column(self, table: Any, name: str, values: npt.NDArray[Any]) -> Any:
        import pyarrow

        if name in table.column_names:
            return table.set_column(table.column_names.index(name), name, pyarrow.array(values))
        return table.append_column(name, pyarrow.array(values))


def _ends(values: npt.NDArray[Any] | list[Any], name: str) -> npt.NDArray[np.int64] | list[Any]:
    """Whole numbers as int64, other labels as a list.

    Raises:
        ValueError: an end is missing.
        TypeError: ends are fractions, truth values or no plain values.
    """
    if not len(values):
        return np.empty(0, np.int64)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iu":
            hint = f": table.astype({{{name!r}: int}}) makes ids of them where all are whole"
            raise TypeError(f"the column {name!r} holds {values.dtype}; nodes are named by whole numbers or text{hint}")
        if values.dtype.kind == "u" and values.size and int(values.max()) >= 1 << 63:
            return [int(value) for value in values]
        return values.astype(np.int64)
    if None in values:
        row = values.index(None)
        raise ValueError(f"row {row} lacks an end: {name!r} is empty there, and both ends must be given")
    for row, value in enumerate(values):
        if isinstance(value, (bool, float)):
            raise TypeError(f"row {row} of {name!r} holds {value!r}: nodes are named by whole numbers or text")
        try:
            hash(value)
        except TypeError:
            kind = type(value).__name__
            raise TypeError(f"row {row} of {name!r} holds a {kind}: nodes are named by plain values") from None
    if values and all(type(value) is int and -(1 << 63) <= value < 1 << 63 for value in values):
        return np.array(values, np.int64)
    return values


def _weights(values: npt.NDArray[Any] | Sequence[Any]) -> Tensor:
    """float64 ``[E]``; a gap, and what is no number, is NaN: an error where weights are used and nowhere else."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values.astype(np.float64))
    return torch.tensor([as_number(value) for value in values], dtype=torch.float64)
