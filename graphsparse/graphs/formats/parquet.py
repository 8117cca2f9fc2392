"""Parquet tables of edges, read and cut by pyarrow: types, metadata, row groups and compression stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.graphs.columns import end_columns, weight_name
from graphsparse.graphs.formats.graph_file import (
    FORMATS,
    GraphFile,
    Mask,
)
from graphsparse.graphs.inner_form import EdgeList, coded_edges
from graphsparse.graphs.labels import label_codes

MANY_ROWS = 1 << 26  # a table may always have so many, and beyond them 64 for each byte


@FORMATS.register("parquet")
class ParquetTable(GraphFile):
    """An edge list with columns ``src`` and ``dst`` (or ``source`` and ``target``), one edge a row.

    Ids are numbers, text, bytes or any other plain values; they compare exactly, whatever the types of the columns.
    """

    needs = "pyarrow"

    def __init__(self, path: Path, undirected: bool | None, weight: str | None) -> None:
        from pyarrow import parquet

        self.source = path
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            ends = [names[at] for at in end_columns(names)]
            name = weight_name(names, weight, "column")
            _check_rows(file.metadata.num_rows, path)
            table = file.read(columns=[*ends, *([] if name is None or name in ends else [name])])
        columns = [_plain(table.column(end), end) for end in ends]
        for end, column in zip(ends, columns, strict=True):
            if column.null_count:
                row = column.is_null().to_pylist().index(True)
                raise ValueError(f"row {row} lacks an end: {end} is null, and both ends of an edge must be given")
        values = None if name is None else _weights(table.column(name))
        self.weights = "" if name is None else f"the column {name!r}"
        self.edges = _edges(columns[0], columns[1], undirected, values)

    def write(self, keep: Mask, path: Path) -> None:
        """Each row group filtered, with the schema and the compression of the source."""
        import pyarrow
        from pyarrow import parquet

        with parquet.ParquetFile(self.source) as file:
            options = {"compression": _compression(file.metadata)}
            with parquet.ParquetWriter(path, file.schema_arrow, **options) as writer:
                start = 0
                for at in range(file.num_row_groups):
                    group = file.read_row_group(at)
                    stay = pyarrow.array(keep[start : start + group.num_rows])
                    writer.write_table(group.filter(stay), row_group_size=max(1, group.num_rows))
                    start += group.num_rows

    def place(self, edge: int) -> str:
        """The row, from 0."""
        return f"row {edge}"


def _check_rows(rows: int, path: Path) -> None:
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


def _edges(tails: Any, heads: Any, undirected: bool | None, weight: torch.Tensor | None) -> EdgeList:
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
        return coded_edges(ends, labels, undirected, weight)
    ends, labels = label_codes(tails.to_pylist(), heads.to_pylist())  # equal as Python's values are
    return coded_edges(ends, labels, undirected, weight)


def _weights(column: Any) -> torch.Tensor:
    """float64 ``[E]``; null, and what is no number, is NaN: an error where weights are used and nowhere else."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)):
        return torch.full((len(column),), torch.nan, dtype=torch.float64)
    values = [float("nan") if value is None else float(value) for value in column.to_pylist()]
    return torch.tensor(values, dtype=torch.float64)


def _compression(metadata: Any) -> dict[str, str] | str:
    """The codec of each column, by the first row group."""
    if not metadata.num_row_groups:
        return "snappy"
    group = metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    names = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}
    return {column.path_in_schema: names.get(column.compression, column.compression) for column in columns}
