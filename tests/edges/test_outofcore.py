"""Out of core: the edges that stay are those of the whole list in memory, whatever the parts and who works."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import graphsparse as gs
from graphsparse.edges.outofcore import copies, cut
from graphsparse.edges.outofcore.scratch import Scratch
from graphsparse.edges.transform import edge_mask
from graphsparse.errors import DataError
from graphsparse.graphs.interop import open_graph

METHODS = [("teddy", {}), ("teddy", {"normalization": "sqrt"}), ("dspar", {}), ("random", {})]
RULES = {"per_node": None, "guard": None, "forest": False}


def in_memory(ends: Any, method: str, keep: Any, undirected: bool | None, seed: int = 0, **options: Any) -> list[int]:
    """The positions of the edges that stay of a list in memory."""
    graph = open_graph(torch.from_numpy(np.asarray(ends, np.int64)), undirected).edges
    mask = edge_mask(graph, method, seed, {"keep": keep, **RULES}, options)
    return mask.nonzero().view(-1).tolist()


def write_parts(folder: Path, ends: Any, cuts: list[int] = [], group: int = 7, dtype: Any = np.int64) -> Path:  # noqa: B006
    """A list ``[2, E]`` as parts, each row with its position."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.asarray(ends, dtype).reshape(2, -1)
    bounds = [0, *sorted(cuts), ends.shape[1]]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        columns = {"src": ends[0, start:stop], "row": np.arange(start, stop), "dst": ends[1, start:stop]}
        parquet.write_table(pa.table(columns), folder / f"part-{number:03}.parquet", row_group_size=group)
    return folder


def rows_of(folder: Path) -> list[int]:
    """The positions of the edges in all parts of a folder, by the parts' names."""
    parts = sorted(folder.rglob("*.parquet"))
    return [row for part in parts for row in parquet.read_table(part).column("row").to_pylist()]


def random_ends(count: int, nodes: int, seed: int = 0, mirrored: bool = False) -> Any:
    """Skewed pairs, the smaller end first, or their arcs in any order; with copies and loops."""
    rng = np.random.default_rng(seed)
    pairs = np.sort((rng.random((2, count)) ** 3 * nodes).astype(np.int64), axis=0)
    if not mirrored:
        return pairs
    arcs = np.concatenate([pairs, pairs[::-1][:, pairs[0] != pairs[1]]], axis=1)
    return arcs[:, rng.permutation(arcs.shape[1])]


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[Any, bool | None]:
    """Few nodes, so that there are copies, loops, ties and isolated nodes; and how the list is read."""
    nodes = draw(st.integers(1, 12))
    node = st.integers(0, nodes - 1).map(lambda node: 2 * node)  # odd ones are isolated
    pairs = draw(st.lists(st.tuples(node, node), max_size=40))
    shape = draw(st.sampled_from(["arcs", "both arcs", "pairs once"]))
    if shape == "pairs once":
        swap = draw(st.randoms(use_true_random=False))
        turned = {pair: swap.random() < 0.5 for pair in {(min(p), max(p)) for p in pairs}}
        pairs = [(min(p), max(p))[:: -1 if turned[min(p), max(p)] else 1] for p in pairs]
        undirected = True
    elif shape == "both arcs":
        pairs = draw(st.permutations(pairs + [(v, u) for u, v in pairs if u != v]))
        undirected = draw(st.sampled_from([None, True, False]))
    else:
        undirected = draw(st.sampled_from([None, False]))
    return np.array(pairs, np.int64).reshape(-1, 2).T, undirected


@settings(max_examples=40)
@given(
    edge_lists(),
    st.sampled_from(METHODS),
    st.sampled_from(["0.1", "1/3", "0.5", "0.9", "1"]),
    st.lists(st.integers(0, 80), max_size=3),
    st.integers(1, 9),
    st.sampled_from([np.int32, np.int64]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)
def test_the_kept_edges_are_those_in_memory_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    listed: tuple[Any, bool | None],
    how: tuple[str, dict[str, Any]],
    keep: str,
    cuts: list[int],
    group: int,
    dtype: Any,
    tight: bool,
    guessed: bool,
    seed: int,
) -> None:
    ends, undirected = listed
    method, options = how
    folder = tmp_path_factory.mktemp("parts")
    cuts = [min(at, ends.shape[1]) for at in cuts]
    write_parts(folder / "in", ends, cuts, group, dtype)
    with pytest.MonkeyPatch.context() as patch:
        if guessed:  # where the cut is, from a part of the edges
            patch.setattr(cut, "SAMPLED_FROM", 1)
            patch.setattr(cut, "SAMPLED_PIECE", 2)
            patch.setattr(cut, "SAMPLED_EDGE", 1)
            patch.setattr(cut, "WIDEST", 0.3)
        if tight:  # no room: ties are settled by hashes, pairs take turns, bins are wide
            patch.setattr(cut, "FEWEST", 1)
            patch.setattr(cut, "EDGE_BYTES", 1 << 50)
            patch.setattr(cut, "BINS", 4)
            patch.setattr(copies, "SPARSE", 1)
            patch.setattr(copies, "FEWEST_BITS", 64)
            patch.setattr(copies, "FEWEST", 50)
            patch.setattr(copies, "SUSPECT_BYTES", 1 << 50)
        said = gs.sparsify_files(
            folder / "in", folder / "out", method, keep=keep, seed=seed, undirected=undirected, **options
        )
    assert rows_of(folder / "out") == in_memory(ends, method, keep, undirected, seed, **options)
    names = [sorted(path.name for path in (folder / side).glob("*.parquet")) for side in ("in", "out")]
    assert names[0] == names[1]
    assert said.figures["kept"] <= said.figures["total"]
    shutil.rmtree(folder)


def test_a_regular_graph_is_all_ties_and_they_break_as_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cut, "FEWEST", 1)  # ties do not fit
    monkeypatch.setattr(cut, "EDGE_BYTES", 1 << 50)
    nodes = np.arange(3000)
    ring = np.stack([nodes, (nodes + 1) % 3000])
    copied = np.concatenate([ring, ring, ring], axis=1)
    for name, ends in (("ring", ring), ("copied", copied)):
        folder = write_parts(tmp_path / name, ends, [700, 2500], group=1 << 20)
        gs.sparsify_files(folder, tmp_path / f"{name}-out", "dspar", keep=0.37, undirected=True)
        assert rows_of(tmp_path / f"{name}-out") == in_memory(ends, "dspar", 0.37, True)


def test_groups_of_rows_further_columns_and_metadata_stay(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    ends = random_ends(50, 20)
    columns = {"source": ends[0], "when": pa.array([None, *map(str, range(49))]), "target": ends[1].astype(np.int16)}
    columns["both"] = pa.array([[k, k] for k in range(50)])
    table = pa.table(columns).replace_schema_metadata({"made": "here"})
    parquet.write_table(table, folder / "a.parquet", row_group_size=20, compression="zstd")
    parquet.write_table(table.slice(0, 0), folder / "b.parquet")
    (folder / "below").mkdir()
    parquet.write_table(table.slice(7, 20), folder / "below" / "c.parquet")
    (folder / "_SUCCESS").write_text("")
    said = gs.sparsify_files(folder, tmp_path / "out", keep=0.5, undirected=True)
    kept = parquet.ParquetFile(tmp_path / "out" / "a.parquet")
    assert kept.schema_arrow.equals(parquet.read_schema(folder / "a.parquet"), check_metadata=True)
    assert kept.metadata.num_row_groups == 3
    assert kept.metadata.row_group(0).column(0).compression == "ZSTD"
    assert set(kept.read().to_pylist()[0]) == {"source", "when", "target", "both"}
    assert parquet.read_metadata(tmp_path / "out" / "b.parquet").num_rows == 0
    assert parquet.read_metadata(tmp_path / "out" / "below" / "c.parquet").num_rows
    assert "out of core, in 3 parts" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".graphsparse",
        "a.parquet",
        "b.parquet",
        "below",
    ]


def test_one_file_gives_one_file_and_leaves_nothing_beside_it(tmp_path):
    ends = random_ends(300, 40, mirrored=True)
    source = write_parts(tmp_path / "in", ends) / "part-000.parquet"
    said = gs.sparsify_files(source, tmp_path / "fewer.parquet", keep="30%")
    assert parquet.read_table(tmp_path / "fewer.parquet").column("row").to_pylist() == in_memory(
        ends, "teddy", 0.3, None
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fewer.parquet", "in"]
    assert said.figures["undirected"]
    assert said.figures["read_as"] == "found"


def test_a_given_cluster_keeps_the_same_edges(tmp_path):
    from distributed import Client, LocalCluster

    ends = random_ends(2000, 200)
    folder = write_parts(tmp_path / "in", ends, [500, 1200], group=300)
    with (
        LocalCluster(2, processes=False, threads_per_worker=1, dashboard_address=None, protocol="tcp") as cluster,
        Client(cluster) as client,
    ):
        for name, given in (("address", cluster.scheduler_address), ("client", client)):
            gs.sparsify_files(folder, tmp_path / name, "random", keep=0.4, undirected=True, client=given)
            assert rows_of(tmp_path / name) == in_memory(ends, "random", 0.4, True)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"method": "jaccard"}, ValueError, "jaccard does not work out of core.* dspar, random, teddy do"),
        ({"method": "tedy"}, ValueError, "did you mean 'teddy'"),
        ({"method": np.ones(3)}, ValueError, "a ndarray does not work out of core"),
        ({"guard": "cover"}, ValueError, "guard does not work out of core"),
        ({"per_node": 2}, ValueError, "per_node does not work out of core"),
        ({"forest": True}, ValueError, "forest does not work out of core"),
        ({"keep": None}, TypeError, "say how much to keep"),
        ({"keep": 0}, ValueError, "keep must lie in"),
        ({"seed": 1.5}, ValueError, "seed must be a whole number"),
        ({"normalization": "none"}, ValueError, "normalization must be"),
        ({"sparsity": 0.5}, TypeError, "say keep instead of sparsity"),
        ({"undirected": "yes"}, TypeError, "undirected must be True, False or None"),
        ({"memory": "much"}, ValueError, "memory must be a number of bytes"),
        ({"workers": 0}, ValueError, "workers must be at least 1"),
        ({"client": "tcp://127.0.0.1:1", "workers": 1}, ValueError, "either workers"),
        ({"client": 3}, TypeError, "client must be a distributed.Client"),
        ({"ends": ("a", "b")}, DataError, "no column 'a'"),
        ({"ends": "src"}, ValueError, "names of two columns"),
    ],
)
def test_what_does_not_work_is_said_in_a_sentence_and_nothing_is_written(tmp_path, how, error, words):
    folder = write_parts(tmp_path / "in", random_ends(20, 9))
    with pytest.raises(error, match=words):
        gs.sparsify_files(folder, tmp_path / "out", **{"keep": 0.5, **how})
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def broken(folder: Path, how: str) -> None:
    """Damage the second of two parts."""
    second = folder / "part-001.parquet"
    table = parquet.read_table(second)
    if how == "truncated":
        second.write_bytes(second.read_bytes()[:-40])
    elif how == "no parquet":
        second.write_bytes(b"src,dst\n1,2\n")
    elif how == "damaged inside":
        content = bytearray(second.read_bytes())
        content[4:60] = bytes(56)
        second.write_bytes(content)
    elif how == "other schema":
        parquet.write_table(
            table.cast(pa.schema([("src", pa.int32()), ("row", pa.int64()), ("dst", pa.int64())])), second
        )
    elif how == "other columns":
        parquet.write_table(table.drop_columns(["row"]), second)
    else:
        bad = {"negative": -3, "missing": None, "beyond int32": 1 << 31, "huge": 1 << 62}[how]
        heads = table.column("dst").to_pylist()
        heads[4] = bad
        table = table.set_column(2, "dst", pa.array(heads, pa.int64()))
        parquet.write_table(table, second, write_statistics=how != "negative")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "part-001.parquet is not a Parquet file of edges"),
        ("no parquet", "part-001.parquet is not a Parquet file of edges"),
        ("damaged inside", "part-001.parquet is not a Parquet file of edges|cannot read .*part-001.parquet"),
        ("other schema", r"part-001.parquet .*src \(int32\).* and those of part-000.parquet are src \(int64\)"),
        ("other columns", "part-001.parquet .*all parts must have the same"),
        ("negative", "part-001.parquet: row 4 names node -3; ids are 0, 1, 2"),
        ("missing", "part-001.parquet: row 4 lacks an end: dst is null"),
        ("beyond int32", "the largest id is 2,147,483,648, and ids are positions"),
        ("huge", "the largest id is 4,611,686,018,427,387,904, and ids are positions"),
    ],
)
def test_damage_is_said_in_a_sentence_and_nothing_is_left(tmp_path, how, words):
    folder = write_parts(tmp_path / "in", random_ends(40, 30), [20], group=1 << 20)
    broken(folder, how)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match=words):
        gs.sparsify_files(folder, tmp_path / "out", keep=0.5)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_pairs_named_from_both_ends_are_refused_as_in_memory(tmp_path, monkeypatch):
    ends = np.array([[1, 2, 3, 5], [2, 1, 4, 3]])
    folder = write_parts(tmp_path / "in", ends, [2])
    words = r"undirected=True, but .* \(1, 2\) and \(2, 1\) while other arcs have no mirror"
    with pytest.raises(ValueError, match=words):
        in_memory(ends, "teddy", 0.5, True)
    with pytest.raises(ValueError, match=words):
        gs.sparsify_files(folder, tmp_path / "out", keep=0.5, undirected=True)


def test_a_target_in_use_is_refused(tmp_path):
    folder = write_parts(tmp_path / "in", random_ends(20, 9))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for target, words in (
        (tmp_path / "out", "is not empty"),
        (folder, "which is read"),
        (folder / "fewer", "which is read"),
        (tmp_path / "out" / "mine.txt", "is a file"),
    ):
        with pytest.raises(ValueError, match=words):
            gs.sparsify_files(folder, target, keep=0.5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="does not exist"):
        gs.sparsify_files(tmp_path / "nowhere", tmp_path / "new", keep=0.5)
    with pytest.raises(DataError, match="holds no part"):
        gs.sparsify_files(tmp_path / "out", tmp_path / "new", keep=0.5)


def test_numbers_of_nodes_that_do_not_fit_are_refused_with_what_would(tmp_path):
    folder = write_parts(tmp_path / "in", [[0, 5], [1, 30_000_000]])
    with pytest.raises(ValueError, match=r"30,000,001 nodes .* does not fit in memory=100 MB .* give at least"):
        gs.sparsify_files(folder, tmp_path / "out", keep=0.5, memory="100MB")


@pytest.mark.parametrize("shape", ["wide", "tall", "mapped", "turned", "stored", "packed"])
def test_arrays_on_the_disk_are_read_and_written_as_such(tmp_path, shape):
    ends = random_ends(300, 40, mirrored=True)
    source: Any = tmp_path / ("data.npz" if shape in ("stored", "packed") else "edges.npy")
    if shape == "stored":
        np.savez(source, edge_index=ends, num_nodes_list=[40])
    elif shape == "packed":
        np.savez_compressed(source, node_feat=np.ones((40, 2)), edge_index=ends)
    else:
        np.save(source, {"tall": ends.T.astype(">i4"), "turned": np.asfortranarray(ends)}.get(shape, ends))
    if shape == "mapped":
        source = np.load(source, mmap_mode="r")
    said = gs.sparsify_files(source, tmp_path / "fewer.npy", "dspar", keep=0.3)
    fewer = np.load(tmp_path / "fewer.npy", allow_pickle=False)
    kept = ends[:, in_memory(ends, "dspar", 0.3, None)]
    assert np.array_equal(fewer, kept.T if shape == "tall" else kept)
    assert fewer.dtype == (np.int32 if shape == "tall" else np.int64)
    assert said.figures["undirected"]
    assert len(list(tmp_path.iterdir())) == 2


def test_arrays_that_are_no_edge_lists_are_refused(tmp_path):
    for name, values, words in (
        ("floats", np.ones((2, 5)), r"it holds float64 \[2, 5\]"),
        ("matrix", np.ones((3, 5), np.int64), r"it holds int64 \[3, 5\]"),
        ("negative", np.array([[0, 1], [2, -7]]), "negative.npy: row 1 names node -7"),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(DataError, match=words):
            gs.sparsify_files(tmp_path / f"{name}.npy", tmp_path / "fewer.npy", keep=0.5)
    np.save(tmp_path / "short.npy", np.ones((2, 500), np.int64))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-100])
    with pytest.raises(DataError, match="claims 8,000 bytes of ids and has 7,900"):
        gs.sparsify_files(tmp_path / "short.npy", tmp_path / "fewer.npy", keep=0.5)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(DataError, match=r"edge_index\.npy"):
        gs.sparsify_files(tmp_path / "other.npz", tmp_path / "fewer.npy", keep=0.5)
    part = np.load(tmp_path / "negative.npy", mmap_mode="r")[:, :1]
    with pytest.raises(ValueError, match="that of a whole array"):
        gs.sparsify_files(part, tmp_path / "fewer.npy", keep=0.5)
    with pytest.raises(ValueError, match=r"name ends in \.npy"):
        gs.sparsify_files(tmp_path / "negative.npy", tmp_path / "fewer.parquet", keep=0.5)
    assert not (tmp_path / "fewer.npy").exists()


def test_tables_in_text_become_parquet_part_by_part(tmp_path, monkeypatch):
    from graphsparse.edges.outofcore import tables

    monkeypatch.setattr(tables, "BLOCK", 200)
    ends = random_ends(100, 15)
    (tmp_path / "in").mkdir()
    weights = [str(row) if row < 30 else f"{row}.5" if row < 60 else "heavy" if row < 70 else "1" for row in range(100)]
    lines = [f"{u},{row},{v},{row / 2},{weights[row]}\n" for row, (u, v) in enumerate(ends.T)]
    head = "src,row,dst,half,weight\n"
    (tmp_path / "in" / "a.csv").write_text(head + "".join(lines[:70]))
    with gzip.open(tmp_path / "in" / "b.csv.gz", "wt") as file:
        file.write(head + "".join(lines[70:]))
    with pytest.raises(DataError, match="all parts must have the same"):  # text in one part, numbers in none
        gs.sparsify_files(tmp_path / "in", tmp_path / "out", keep=0.4, undirected=True)
    (tmp_path / "in" / "a.csv").write_text(
        head.replace(",weight", "") + "".join(x.rsplit(",", 1)[0] + "\n" for x in lines[:70])
    )
    with gzip.open(tmp_path / "in" / "b.csv.gz", "wt") as file:
        file.write(head.replace(",weight", "") + "".join(x.rsplit(",", 1)[0] + "\n" for x in lines[70:]))
    gs.sparsify_files(tmp_path / "in", tmp_path / "out", keep=0.4, undirected=True)
    assert rows_of(tmp_path / "out") == in_memory(ends, "teddy", 0.4, True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["a.parquet", "b.parquet"]
    one = tmp_path / "one.tsv"
    one.write_text(
        "source\ttarget\tw\n" + "".join(f"{u}\t{v}\t{w}\n" for (u, v), w in zip(ends.T, weights, strict=True))
    )
    gs.sparsify_files(one, tmp_path / "one.parquet", keep=0.4, undirected=True)
    kept = in_memory(ends, "teddy", 0.4, True)
    assert parquet.read_table(tmp_path / "one.parquet").column("w").to_pylist() == [weights[row] for row in kept]
    for text, words in (
        ("src,dst\n1,2\n3,x\n", "bad.csv is not a CSV table of edges.*row 1 holds 'x': ids are whole numbers"),
        ("src,dst\n1,2\n2,01\n", "row 1 holds '01': ids are whole numbers 0, 1, 2 ..., spelled as these"),
        ("src,dst\n1,2\n2, 1\n", "row 1 holds ' 1'"),
        ("src,dst\n1,2\n+2,1\n", r"row 1 holds '\+2'"),
        ("src,dst\n1,2\nNA,1\n", "row 1 holds 'NA'"),
        (f"src,dst\n1,2\n2,{1 << 64}\n", "row 1 holds '18446744073709551616'"),
        ("src,dst\n1,2\nsrc,dst\n", "row 1 holds 'src'"),
        ("src,dst\n1,2\n3,\n", "bad.csv: row 1 lacks an end"),
        ("src,dst\n1,2\n3,-4\n", "bad.csv: row 1 names node -4|ids are 0, 1, 2"),
        ("1,2\n3,4\n", "no column 'src'"),
        ("", "bad.csv is not a CSV table"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=words):
            gs.sparsify_files(tmp_path / "bad.csv", tmp_path / "bad.parquet", keep=0.4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "in", "one.parquet", "one.tsv", "out"]


def test_parts_of_two_kinds_are_refused(tmp_path):
    folder = write_parts(tmp_path / "in", random_ends(20, 9))
    (folder / "more.csv").write_text("src,dst\n1,2\n")
    with pytest.raises(DataError, match=r"holds parts of two kinds, part-000.parquet and more.csv: take those of one"):
        gs.sparsify_files(folder, tmp_path / "out", keep=0.5)
    (folder / "more.csv").rename(folder / "_more.csv")  # hidden, so no part
    gs.sparsify_files(folder, tmp_path / "out", keep=0.5)


def test_text_views_beside_the_ends_stay(tmp_path):
    ends = random_ends(40, 12)
    notes = [["x" * 30], [], None, ["y", "z"]] * 10
    kind = pa.list_(pa.string_view())
    table = pa.table({"src": ends[0], "row": range(40), "dst": ends[1], "note": pa.array(notes, kind)})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    gs.sparsify_files(tmp_path / "in.parquet", tmp_path / "out.parquet", "random", keep=0.4, undirected=True)
    kept = in_memory(ends, "random", 0.4, True)
    small = parquet.read_table(tmp_path / "out.parquet")
    assert small.column("note").to_pylist() == [notes[row] for row in kept]
    assert small.schema.field("note").type == kind


class Crash(BaseException):
    """The process is gone: nothing is tidied up."""


@pytest.mark.parametrize("method", ["teddy", "random"])
def test_a_job_goes_on_where_it_was_killed(tmp_path, monkeypatch, method):
    ends = random_ends(400, 50)
    folder = write_parts(tmp_path / "in", ends, [100, 250], group=50)
    record, left = Scratch.record, 1

    def recorded(self, *words):
        nonlocal left
        if not left:
            raise Crash
        left -= 1
        record(self, *words)

    monkeypatch.setattr(Scratch, "record", recorded)
    runs = 0
    while runs < 20:  # each run gets one step further
        left, runs = 1, runs + 1
        with contextlib.suppress(Crash):
            gs.sparsify_files(folder, tmp_path / "out", method, keep=0.3, undirected=True)
            break
    manifest = (tmp_path / "out" / ".graphsparse" / "manifest.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in manifest[1:]]
    assert len(steps) == len(set(steps)) == runs
    assert rows_of(tmp_path / "out") == in_memory(ends, method, 0.3, True)


def test_damage_to_what_was_done_is_seen_and_mended(tmp_path):
    ends = random_ends(400, 50)
    folder = write_parts(tmp_path / "in", ends, [100, 250], group=50)
    first = gs.sparsify_files(folder, tmp_path / "out", keep=0.3, undirected=True)
    part, manifest = tmp_path / "out" / "part-001.parquet", tmp_path / "out" / ".graphsparse" / "manifest.jsonl"
    whole, written = part.read_bytes(), {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    part.write_bytes(whole[:-9] + bytes(9))
    manifest.write_bytes(manifest.read_bytes()[:-30])  # a line that was not written to its end
    assert gs.sparsify_files(folder, tmp_path / "out", keep=0.3, undirected=True).figures == first.figures
    assert part.read_bytes() == whole
    changed = [path.name for path, when in written.items() if path.stat().st_mtime_ns != when]
    assert changed == ["part-001.parquet"]
    write_parts(tmp_path / "in", ends[:, ::-1], [100, 250], group=50)  # other edges under the same names
    with pytest.raises(ValueError, match="not empty: it holds parts of another job"):
        gs.sparsify_files(folder, tmp_path / "out", keep=0.3, undirected=True)


def test_a_full_disk_is_one_error_and_the_job_goes_on_afterwards(tmp_path, monkeypatch):
    ends = random_ends(400, 50)
    folder = write_parts(tmp_path / "in", ends, [100, 250], group=50)
    write_table = parquet.ParquetWriter.write_table

    def full(self, table, *words, **more):
        if len(list((tmp_path / "out").glob("part-*.parquet"))) == 1:
            raise OSError(28, "No space left on device")
        write_table(self, table, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, "write_table", full)
        patch.setattr("graphsparse.edges.outofcore.engine.usable_cores", lambda: 1)
        with pytest.raises(OSError, match=r"No space left on device.*part-00\d\.parquet"):
            gs.sparsify_files(folder, tmp_path / "out", keep=0.3, undirected=True)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    gs.sparsify_files(folder, tmp_path / "out", keep=0.3, undirected=True)
    assert rows_of(tmp_path / "out") == in_memory(ends, "teddy", 0.3, True)


def test_a_worker_that_is_killed_changes_nothing(tmp_path):
    from distributed import Client, LocalCluster

    ends = random_ends(2000, 200)
    folder = write_parts(tmp_path / "in", ends, [500, 1200], group=300)
    manifest = tmp_path / "out" / ".graphsparse" / "manifest.jsonl"
    killed = []

    def kill(process):
        while not killed:
            if manifest.exists() and len(manifest.read_text().splitlines()) > 2:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            time.sleep(0.001)

    with (
        LocalCluster(1, threads_per_worker=2, dashboard_address=None, silence_logs=50, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        (process,) = client.run(os.getpid).values()
        thread = threading.Thread(target=kill, args=[process], daemon=True)
        thread.start()
        gs.sparsify_files(folder, tmp_path / "out", keep=0.4, undirected=True, client=client)
        thread.join()
        assert list(client.run(os.getpid).values()) != killed
    assert rows_of(tmp_path / "out") == in_memory(ends, "teddy", 0.4, True)


def test_arcs_that_all_point_one_way_are_told_what_they_may_be(tmp_path, capfd):
    ends = random_ends(40, 12)
    folder = write_parts(tmp_path / "in", ends)
    said = gs.sparsify_files(folder, tmp_path / "out", keep=0.5, progress=True)
    assert "add --undirected (undirected=True) if each line is an edge" in said
    assert not said.figures["undirected"]
    assert "write parts" in capfd.readouterr().err
