"""``graphsparse sparsify`` on files as people have them: other columns, no header, ids from 1, another kind of file."""

from __future__ import annotations

import json
import sys

import networkx as nx
import pandas as pd
import pytest
import scipy.io
from typer.testing import CliRunner

from graphsparse.cli.entry import app
from graphsparse.errors import DataError

RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2)]


def run(*words):
    return CliRunner().invoke(app, ["sparsify", *map(str, words)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "w,from,to\n" + "".join(f"1,{u},{v}\n" for u, v in RING), ["--src", "from", "--dst", "to"]),
        ("a.csv", "".join(f"{u},{v}\n" for u, v in RING), []),
        ("a.csv", "".join(f"{u},{v}\n" for u, v in RING), ["--no-header"]),
        ("a.txt", "# SNAP\n" + "".join(f"{u + 1}\t{v + 1}\n" for u, v in RING), ["--one-based"]),
        ("a.tsv", "w\tsource\ttarget\n" + "".join(f"1\t{u}\t{v}\n" for u, v in RING), ["--weight", "w"]),
        ("a.dat", "".join(f"{u} {v}\n" for u, v in RING), ["--format", "txt"]),
    ],
)
def test_the_same_edges_whatever_the_table_is_like(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    out = tmp_path / ("out.dat" if "--format" in words else "out.mtx")
    done = run(tmp_path / name, out, "--keep", 0.5, "--undirected", *words)
    assert done.exit_code == 0
    assert "kept 3 of 6 undirected edges (given so) (50.00 %)" in done.output
    if out.suffix == ".mtx":
        small = nx.Graph(scipy.io.mmread(out))
        expected = tmp_path / "expected.mtx"
        (tmp_path / "plain.txt").write_text("".join(f"{u} {v}\n" for u, v in RING))
        run(tmp_path / "plain.txt", expected, "--keep", 0.5, "--undirected")
        assert set(small.edges()) == set(nx.Graph(scipy.io.mmread(expected)).edges())
    else:
        assert set(out.read_text().splitlines()) < set(text.splitlines())


def test_options_that_a_kind_does_not_have_and_headers_that_are_not_there(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\nb,c\n")
    with pytest.raises(DataError, match="no column 'src'"):
        run(tmp_path / "a.csv", tmp_path / "b.csv", "--keep", 0.5)
    done = run(tmp_path / "a.csv", tmp_path / "b.csv", "--keep", 0.5, "--no-header")
    assert "kept 1 of 2" in done.output
    nx.write_graphml(nx.path_graph(3), tmp_path / "a.graphml")
    with pytest.raises(ValueError, match="one_based is no option of a file in the format graphml"):
        run(tmp_path / "a.graphml", tmp_path / "b.graphml", "--keep", 0.5, "--one-based")


def parts_of(folder, rows=40):
    folder.mkdir()
    for number in range(2):
        tails = range(number * rows, (number + 1) * rows)
        frame = pd.DataFrame({"src": tails, "dst": [7 * tail % 31 + 100 for tail in tails]})
        frame.to_parquet(folder / f"{number}.parquet", index=False)
    return folder


def test_a_folder_in_the_place_of_the_file_is_told_with_a_name(tmp_path):
    (tmp_path / "a.csv").write_text("src,dst\n0,1\n1,0\n")
    for folder in ("fewer", "fewer.csv"):
        (tmp_path / folder).mkdir()
        with pytest.raises(
            ValueError, match=rf"{folder} is a folder or a device.*: name one in it, such as .*{folder}.a\.csv"
        ):
            run(tmp_path / "a.csv", tmp_path / folder, "--keep", 0.5)


def test_a_folder_of_parts_is_read_part_by_part(tmp_path):
    parts = parts_of(tmp_path / "in")
    done = run(parts, "--out", tmp_path / "fewer", "--keep", 0.5, "--undirected", "--memory", "1GB", "--json")
    assert json.loads(done.stdout)["kept"] == len(pd.read_parquet(tmp_path / "fewer")) == 40
    assert "is a folder: out of core, part by part" in done.output
    again = run(parts, "--out", tmp_path / "fewer", "--keep", 0.5, "--undirected")
    assert "kept 40 of 80" in again.output
    with pytest.raises(ValueError, match="not empty: it holds parts of another job"):
        run(parts, tmp_path / "fewer", "--keep", 0.4, "--undirected")


def test_a_file_larger_than_the_memory_takes_the_same_path_and_says_so(tmp_path):
    whole = parts_of(tmp_path / "in") / "0.parquet"
    for memory, said in (("1KB", "more than 1e-06 GB (--memory): out of core"), ("1GB", "")):
        done = run(whole, tmp_path / f"{memory}.parquet", "--keep", 0.5, "--memory", memory)
        assert said in done.output
        assert ("out of core" in done.output) == bool(said)
    assert pd.read_parquet(tmp_path / "1KB.parquet").equals(pd.read_parquet(tmp_path / "1GB.parquet"))
    with pytest.raises(ValueError, match="jaccard does not work out of core"):
        run(whole, tmp_path / "b.parquet", "--keep", 0.5, "--memory", "1KB", "--method", "jaccard")
    with pytest.raises(ValueError, match="--report does not work out of core"):
        run(whole, tmp_path / "b.parquet", "--keep", 0.5, "--memory", "1KB", "--report", tmp_path / "a.html")
    with pytest.raises(ValueError, match="name both columns"):
        run(whole, tmp_path / "b.parquet", "--keep", 0.5, "--memory", "1KB", "--src", "src")
    with pytest.raises(ValueError, match="memory must be a number of bytes"):
        run(whole, tmp_path / "b.parquet", "--keep", 0.5, "--memory", "a lot")


def test_a_missing_extra_is_one_sentence_that_names_it(tmp_path, monkeypatch):
    parts = parts_of(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(DataError, match=r'need dask: pip install "graphsparse\[scale\]"'):
        run(parts, tmp_path / "fewer", "--keep", 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
