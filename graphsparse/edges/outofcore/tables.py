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
            texts = [pyarrow.string() if at in fixed else kind for at, kind in enumerate(types)]
            try:
                with atomic_write(target) as partial, parquet.ParquetWriter(partial, schema) as writer:
                    first = 0
                    for batch in _batches(source, pyarrow.schema(zip(schema.names, texts, strict=True))):
                        columns = [_ids(x, first) if at in fixed else x for at, x in enumerate(batch.columns)]
                        writer.write_batch(pyarrow.record_batch(columns, schema=schema))
                        first += len(batch)
                return
            except pyarrow.ArrowInvalid as error:
                at = _misfit(error)
                if at is None or at in fixed or types[at] == pyarrow.string():
                    raise
                types[at] = pyarrow.float64() if types[at] == pyarrow.int64() else pyarrow.string()


_WHOLE = re.compile(r"0|-?[1-9][0-9]*")


def _ids(texts: Any, first: int) -> Any:
    """Ends as int64; null where none is given.

    In memory labels are equal where their text is. So an id that is spelled in another way than its number, such as
    ``01``, would be another node there, and is refused.

    Raises:
        ValueError: it is, or it is no whole number of 64 bits; the sentence says where.
    """
    import pyarrow
    from pyarrow import compute

    texts = compute.if_else(compute.equal(texts, ""), pyarrow.scalar(None, pyarrow.string()), texts)
    try:
        ids = texts.cast(pyarrow.int64())
        if compute.all(compute.equal(ids.cast(pyarrow.string()), texts), min_count=0).as_py():
            return ids
    except pyarrow.ArrowInvalid:
        pass
    odd = ((row, text) for row, text in enumerate(texts.to_pylist()) if text and not _fits(text))
    row, text = next(odd)
    raise ValueError(f"row {first + row} holds {text!r:.60}: ids are whole numbers 0, 1, 2 ..., spelled as these")


def _fits(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and -(1 << 63) <= int(text) < 1 << 63


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
