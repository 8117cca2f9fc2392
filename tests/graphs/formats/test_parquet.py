"""Parquet tables: exact ids, and everything but the dropped rows as it was."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from graphsparse.errors import DataError
from graphsparse.graphs.formats import open_file

BIG = 1 << 53


def read(folder, columns, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    parquet.write_table(table, folder / "in.parquet")
    return open_file(folder / "in.parquet", **options)


def after(file, keep, folder):
    file.write(np.array(keep, bool), folder / "out.parquet")
    return parquet.read_table(folder / "out.parquet")


@pytest.mark.parametrize(
    ("tails", "heads", "nodes"),
    [
        (pa.array([BIG, 1], pa.uint64()), pa.array([BIG + 1, 2], pa.int64()), 4),
        (pa.array([1, 2], pa.int32()), pa.array([2, 1], pa.uint64()), 2),
        (pa.array([1, 2], pa.int64()), pa.array([1.0, 2.5], pa.float64()), 3),
        (pa.array([1, 2], pa.int64()), pa.array(["1", "2"]), 4),
        (pa.array(["01", "1"]), pa.array(["1", "NA"]), 3),
        (pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]), 3),
        (pa.array(["a", "b"]), pa.array(["b", "c"], pa.large_string()), 3),
        (pa.array([b"a", b"b"]), pa.array([b"b", b"c"]), 3),
        (pa.array([2**64 - 1, 0], pa.uint64()), pa.array([2**64 - 2, 1], pa.uint64()), 4),
        (pa.array([Decimal("1.10"), Decimal("2")]), pa.array([Decimal("1.1"), Decimal("3")]), 3),
    ],
)
def test_ids_compare_exactly(tmp_path, tails, heads, nodes):
    assert read(tmp_path, {"src": tails, "dst": heads}).edges.num_nodes == nodes


def test_all_but_the_dropped_rows_stays(tmp_path):
    frame = pd.DataFrame({"src": [1, 2, 3, 4], "dst": [2, 3, 4, 1]}, index=pd.Index([7, 8, 9, 10], name="key"))
    table = pa.Table.from_pandas(frame)
    table = table.append_column("count", pa.array([1, None, 3, None], pa.int32()))
    table = table.append_column("kind", pa.array(["a", "b", "a", None]).dictionary_encode())
    table = table.append_column("tags", pa.array([[1], [], None, [2, 3]]))
    table = table.append_column("about", pa.array([{"a": 1}, {"a": 2}, None, {"a": 4}]))
    table = table.append_column("at", pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")))
    field = pa.field("note", pa.string(), metadata={b"unit": b"none"})
    table = table.append_column(field, pa.array(["NA", "", None, "x"]))
    table = table.replace_schema_metadata({**table.schema.metadata, b"source": b"by hand"})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=2, compression="zstd")
    file = open_file(tmp_path / "in.parquet")
    before = parquet.read_table(tmp_path / "in.parquet")
    assert after(file, [1, 1, 1, 1], tmp_path).equals(before, check_metadata=True)
    small = after(file, [0, 1, 1, 0], tmp_path)
    assert small.equals(before.take([1, 2]), check_metadata=True)
    assert small.schema.field("note").metadata[b"unit"] == b"none"
    held = parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert [held.row_group(i).num_rows for i in range(held.num_row_groups)] == [1, 1]
    assert held.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_text_as_polars_writes_it(tmp_path, suffix):
    """Text views cannot be filtered by pyarrow, nor lists of them."""
    text = pa.array(["a", "b", "c", "d"], pa.string_view())
    notes = pa.array([["x" * 40], [], None, ["y"]], pa.list_(pa.string_view()))
    table = pa.table({"src": text, "dst": pa.array(["b", "c", "d", "a"], pa.string_view()), "note": notes})
    path = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path, row_group_size=3)
    else:
        feather.write_feather(table, path, chunksize=3)
    file = open_file(path)
    assert file.edges.num_nodes == 4
    for keep in ([1, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]):
        file.write(np.array(keep, bool), out := tmp_path / f"out.{suffix}")
        small = parquet.read_table(out) if suffix == "parquet" else feather.read_table(out)
        assert small.schema.equals(table.schema)
        assert small.to_pylist() == [row for row, stays in zip(table.to_pylist(), keep, strict=True) if stays]


def test_text_beside_numbers_is_told(tmp_path):
    file = read(tmp_path, {"src": ["1", "2"], "dst": [2, 1]})
    assert file.note == "src holds string and dst holds int64, so that no node stands in both columns"
    assert not read(tmp_path, {"src": pa.array(["1"]), "dst": pa.array(["2"], pa.large_string())}).note


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"src": [1, None], "dst": [2, 3]}, "row 1 lacks an end: src is null"),
        ({"src": ["a", "b"], "dst": ["c", None]}, "row 1 lacks an end: dst is null"),
        ({"src": [1.0, float("nan")], "dst": [2.0, 3.0]}, "row 1 lacks an end: src is null"),
        ({"a": [1], "dst": [2]}, "no column 'src'"),
        ({"src": [[1]], "dst": [[2]]}, "plain numbers or text"),
        ({"src": [1], "dst": [2], "weight": [1], "edge_weight": [1]}, "say which"),
    ],
)
def test_what_is_no_table_of_edges_is_told(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, columns)


def test_damaged_files(tmp_path):
    read(tmp_path, {"src": list(range(999)), "dst": list(range(1, 1000))})
    whole = (tmp_path / "in.parquet").read_bytes()
    for content in (b"", b"PAR1 is not enough", whole[:-9], whole[: len(whole) // 2], b"PAR1" + bytes(99) + whole[-8:]):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.parquet"):
            open_file(tmp_path / "bad.parquet")


def test_a_table_that_claims_more_rows_than_its_bytes_can_hold(tmp_path, monkeypatch):
    from graphsparse.graphs.formats import arrow_file as module

    monkeypatch.setattr(module, "MANY_ROWS", 1000)
    with pytest.raises(DataError, match="claims 1,000,000 rows"):
        read(tmp_path, {"src": np.zeros(1_000_000, np.int64), "dst": np.ones(1_000_000, np.int64)})


def test_weights(tmp_path):
    file = read(tmp_path, {"src": [1, 2], "dst": [2, 3], "weight": pa.array([2, None], pa.int8()), "cost": ["a", "b"]})
    assert file.edges.weight[0] == 2.0
    assert file.edges.weight.isnan().tolist() == [False, True]
    assert read(tmp_path, {"src": [1], "dst": [2], "cost": [3.5]}, weight="cost").edges.weight.tolist() == [3.5]


def test_a_table_without_rows(tmp_path):
    file = read(tmp_path, {"src": pa.array([], pa.int64()), "dst": pa.array([], pa.int64())})
    assert file.edges.num_edges == 0
    assert after(file, [], tmp_path).num_rows == 0
