"""CSV files become Parquet on the way, one after the other and block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphsparse.atomic_write import atomic_write
from graphsparse.errors import DataError
from graphsparse.graphs.columns import end_columns
from graphsparse.untrusted import reading

CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".tsv.zst")
BLOCK = 1 << 22  # bytes of text at a time


def as_parquet(source: Path, target: Path, ends: tuple[str | None, str | None]) -> None:
    """Write the table in a CSV or TSV file with a header as a Parquet file.

    Ends are whole numbers. Another column has the first of these types that all its values have: that of its first
    block, numbers, text.

    Raises:
        DataError: it is no such table, or an end is no whole number.
    """
    import pyarrow
    from pyarrow import parquet

    target.parent.mkdir(parents=True, exist_ok=True)
    with reading(source, DataError, "a CSV table of edges with a header"):
        schema = next(_batches(source)).schema
        fixed = end_columns(schema.names, *ends)
        types = [pyarrow.int64() if at in fixed else kind for at, kind in enumerate(schema.types)]
        while True:
            schema = pyarrow.schema(zip(schema.names, types, strict=True))
            try:
                with atomic_write(target) as partial, parquet.ParquetWriter(partial, schema) as writer:
                    for batch in _batches(source, schema):
                        writer.write_batch(batch)
                return
            except pyarrow.ArrowInvalid as error:
                at = _misfit(error)
                if at is None or at in fixed or types[at] == pyarrow.string():
                    raise
                types[at] = pyarrow.float64() if types[at] == pyarrow.int64() else pyarrow.string()


def _batches(source: Path, schema: Any = None) -> Iterator[Any]:
    import pyarrow
    from pyarrow import csv

    delimiter = "\t" if ".tsv" in source.name.lower() else ","
    types = None if schema is None else dict(zip(schema.names, schema.types, strict=True))
    with pyarrow.input_stream(source, compression="detect") as stream:
        yield from csv.open_csv(
            stream,
            read_options=csv.ReadOptions(block_size=BLOCK, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(column_types=types),
        )


def _misfit(error: Exception) -> int | None:
    """The number of the column that an error of pyarrow's is about."""
    found = re.search(r"CSV column #(\d+)", str(error))
    return int(found[1]) if found else None
