"""Parquet tables of edges, read and cut by pyarrow: types, metadata, row groups and compression stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphsparse.graphs.formats.arrow_file import ArrowFile, check_rows, rows_kept
from graphsparse.graphs.formats.graph_content import GraphContent
from graphsparse.graphs.formats.graph_file import FORMATS, Mask


@FORMATS.register("parquet")
class ParquetTable(ArrowFile):
    """A Parquet file of edges."""

    def names(self) -> list[str]:
        from pyarrow import parquet

        with parquet.ParquetFile(self.source) as file:
            check_rows(file.metadata.num_rows, self.source)
            return list(file.schema_arrow.names)

    def table(self, columns: list[str] | None) -> Any:
        from pyarrow import parquet

        with parquet.ParquetFile(self.source) as file:
            return file.read(columns=columns)

    def write(self, keep: Mask, path: Path) -> None:
        """Each row group filtered, with the schema and the compression of the source."""
        from pyarrow import parquet

        with parquet.ParquetFile(self.source) as file:
            options = {"compression": compression_of(file.metadata)}
            with parquet.ParquetWriter(path, file.schema_arrow, **options) as writer:
                start = 0
                for at in range(file.num_row_groups):
                    group = file.read_row_group(at)
                    stay = keep[start : start + group.num_rows]
                    writer.write_table(rows_kept(group, stay), row_group_size=max(1, group.num_rows))
                    start += group.num_rows

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """Columns ``src`` and ``dst``, and what edges carry."""
        from pyarrow import parquet

        table, lost = cls.made_of(content)
        parquet.write_table(table, path)
        return lost


def compression_of(metadata: Any) -> dict[str, str] | str:
    """The codec of each column of a Parquet file, by the first group of rows in its metadata."""
    if not metadata.num_row_groups:
        return "snappy"
    group = metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    names = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}
    return {column.path_in_schema: names.get(column.compression, column.compression) for column in columns}
