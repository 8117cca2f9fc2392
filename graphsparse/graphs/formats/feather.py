"""Feather (Arrow IPC) tables of edges, read and cut by pyarrow: types, metadata, batches and compression stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphsparse.graphs.formats.arrow_file import ArrowFile, check_rows, rows_kept
from graphsparse.graphs.formats.graph_content import GraphContent
from graphsparse.graphs.formats.graph_file import FORMATS, Mask
from graphsparse.untrusted import read_bytes

_MAGIC = b"ARROW1"
_FRAMES = {b"\x04\x22\x4d\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}  # what compressed columns begin with


@FORMATS.register("feather")
@FORMATS.register("arrow")
class FeatherTable(ArrowFile):
    """A Feather file of version 2, which is an Arrow IPC file, of edges."""

    def _reader(self) -> Any:
        import pyarrow

        content = read_bytes(self.source)
        if not content.startswith(_MAGIC):
            old = content.startswith(b"FEA1")
            raise ValueError("it is Feather of version 1, which is not read" if old else "it is no Arrow IPC file")
        reader = pyarrow.ipc.open_file(pyarrow.BufferReader(content))
        check_rows(sum(reader.get_batch(at).num_rows for at in range(reader.num_record_batches)), self.source)
        return reader

    def names(self) -> list[str]:
        return list(self._reader().schema.names)

    def table(self, columns: list[str] | None) -> Any:
        table = self._reader().read_all()
        return table if columns is None else table.select(columns)

    def write(self, keep: Mask, path: Path) -> None:
        """Each batch filtered, with the schema and the compression of the source."""
        import pyarrow

        reader = self._reader()
        content = read_bytes(self.source)
        used = next((name for frame, name in _FRAMES.items() if frame in content), None)
        options = pyarrow.ipc.IpcWriteOptions(compression=used)
        with pyarrow.ipc.new_file(path, reader.schema, options=options) as writer:
            start = 0
            for at in range(reader.num_record_batches):
                batch = reader.get_batch(at)
                writer.write_table(rows_kept(batch, keep[start : start + batch.num_rows]))
                start += batch.num_rows

    @classmethod
    def build(cls, content: GraphContent, path: Path) -> list[str]:
        """Columns ``src`` and ``dst``, and what edges carry."""
        import pyarrow

        table, lost = cls.made_of(content)
        with pyarrow.ipc.new_file(path, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(table)
        return lost
