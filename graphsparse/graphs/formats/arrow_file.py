"""Tables of edges that pyarrow reads: what Parquet and Feather files do alike."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.formats.graph_content import GraphContent, lost_in_a_list, typed
from graphsparse.graphs.formats.graph_file import Array, GraphFile, Mask
from graphsparse.graphs.labels import label_codes

MANY_ROWS = 1 << 26  # a table may always have so many, and beyond them 64 for each byte


class ArrowFile(GraphFile):
    """An edge list with columns ``src`` and ``dst`` (or ``source`` and ``target``), one edge a row.

    Ids are numbers, text, bytes or any other plain values; they compare exactly, whatever the types of the columns.
    """

    needs = "pyarrow"
    options = ("src", "dst", "one_based")

    def __init__(
        self,
        path: Path,
        undirected: bool | None,
        weight: str | None,
        src: str | None = None,
        dst: str | None = None,
        one_based: bool = False,
    ) -> None:
        import pyarrow.compute
        from pyarrow import types

        self.source = path
        names = self.names()
        self.ends = [names[at] for at in end_columns(names, src, dst)]
        self.weight = name = weight_name(names, weight, "column")
        table = self.table([*self.ends, *([] if name is None or name in self.ends else [name])])
        columns = [_plain(table.column(end), end) for end in self.ends]
        for end, column in zip(self.ends, columns, strict=True):
            gaps = column.is_null(nan_is_null=True)
            if column.null_count or (types.is_floating(column.type) and pyarrow.compute.any(gaps).as_py()):
                row = gaps.to_pylist().index(True)
                raise ValueError(f"row {row} lacks an end: {end} is null, and both ends of an edge must be given")
        values = None if name is None else _weights(table.column(name))
        self.weights = "" if name is None else f"the column {name!r}"
        self.codes, self.labels = _codes(*columns)
        if one_based:
            if not isinstance(self.labels, np.ndarray) or self.labels.dtype.kind not in "iu":
                raise ValueError("ids that count from 1 are whole numbers, and there are other labels")
            if len(self.labels) and int(self.labels.min()) < 1:
                raise ValueError(f"it names node {int(self.labels.min())}, and ids that count from 1 begin there")
            self.labels = self.labels - 1
        self.list_edges(self.codes, self.labels, undirected, values)
        kinds = [column.type for column in columns]
        if len({_is_text(kind) for kind in kinds}) > 1:
            mixed = " and ".join(f"{end} holds {kind}" for end, kind in zip(self.ends, kinds, strict=True))
            self.note = "; ".join(filter(None, [f"{mixed}, so that no node stands in both columns", self.note]))

    @abstractmethod
    def names(self) -> list[str]:
        """The names of the columns of ``self.source``."""

    @abstractmethod
    def table(self, columns: list[str] | None) -> Any:
        """Some of its columns, or all, as a pyarrow table."""

    def place(self, edge: int) -> str:
        """The row, from 0."""
        return f"row {edge if self.both_ways is None else self.both_ways.first[edge]}"

    def content(self) -> GraphContent:
        """All columns of plain values."""
        table = self.table(None)
        others = [name for name in table.column_names if name not in self.ends]
        columns = {name: table.column(name).to_pylist() for name in others}
        nested = {name for name, values in columns.items() if any(isinstance(value, (list, dict)) for value in values)}
        lost = tuple(f"the column {name!r}" for name in sorted(nested))
        columns = {name: values for name, values in columns.items() if name not in nested}
        edges = self.edges
        parts = self.codes, edges.num_nodes, self.labels, edges.undirected, edges.mirrored
        return GraphContent(*parts, columns, self.weight, lost)

    @staticmethod
    def made_of(content: GraphContent) -> tuple[Any, list[str]]:
        """A new table, and what it cannot hold."""
        import pyarrow

        names = content.names()
        labels = names if isinstance(names, np.ndarray) else typed(names)
        labels = np.asarray(labels, None if isinstance(labels, np.ndarray) else object)
        taken = {"src", "dst"} & set(content.columns)
        columns = {"src": pyarrow.array(labels[content.ends[0]]), "dst": pyarrow.array(labels[content.ends[1]])}
        for name, values in content.columns.items():
            if name not in taken:
                columns[name] = pyarrow.array(typed(values))
        return pyarrow.table(columns), [*lost_in_a_list(content), *(f"the column {name!r}" for name in sorted(taken))]


def rows_kept(part: Any, keep: Mask) -> Any:
    """The rows of a table or a batch that stay, as a table; of kinds that pyarrow cannot filter run by run."""
    import pyarrow

    table = part if isinstance(part, pyarrow.Table) else pyarrow.Table.from_batches([part])
    try:
        return table.filter(pyarrow.array(keep))
    except pyarrow.ArrowNotImplementedError:  # text views, as polars writes them
        bounds = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        runs = [table.slice(start, stop - start) for start, stop in bounds.tolist()]
        return pyarrow.concat_tables([table.slice(0, 0), *runs]).combine_chunks()


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def check_rows(rows: int, path: Path) -> None:
    """A table packs well, but not that well: pyarrow asks for the memory that the metadata names."""
    size = path.stat().st_size
    if rows > max(MANY_ROWS, 64 * size):
        raise ValueError(f"it claims {rows:,} rows in {size:,} bytes")


def _plain(column: Any, name: str) -> Any:
    """One array of plain values: dictionaries are looked up, and what cannot name a node is refused."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_nested(column.type):
        raise ValueError(f"the column {name!r} holds {column.type}: ids of nodes are plain numbers or text")
    return pyarrow.chunked_array(column.chunks, column.type)


def _codes(tails: Any, heads: Any) -> tuple[Array, Any]:
    """Ends ``[2, E]`` as positions among the labels, and the labels."""
    import pyarrow
    from pyarrow import types

    kind = tails.type
    same_text = kind == heads.type and (types.is_string(kind) or types.is_large_string(kind))
    if same_text or (kind == heads.type and types.is_integer(kind)):
        both = pyarrow.chunked_array([*tails.chunks, *heads.chunks], kind)
        codes = both.cast(pyarrow.large_string()) if same_text else both  # 2 GB of text overflow the small kind
        packed = codes.combine_chunks().dictionary_encode()
        packed = packed.combine_chunks() if isinstance(packed, pyarrow.ChunkedArray) else packed
        ends = packed.indices.to_numpy(zero_copy_only=False).astype(np.int64).reshape(2, -1)
        labels = packed.dictionary.to_pylist() if same_text else packed.dictionary.to_numpy()
        return ends, labels
    return label_codes(tails.to_pylist(), heads.to_pylist())  # equal as Python's values are


def _weights(column: Any) -> torch.Tensor:
    """float64 ``[E]``; null, and what is no number, is NaN: an error where weights are used and nowhere else."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)):
        return torch.full((len(column),), torch.nan, dtype=torch.float64)
    values = [float("nan") if value is None else float(value) for value in column.to_pylist()]
    return torch.tensor(values, dtype=torch.float64)
