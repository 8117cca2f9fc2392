"""Sparsifying files that do not fit in memory, beside pyarrow's reading and writing of them, and beside peers.

    pip install duckdb polars                             # the peers; what is not there is left out
    python benchmarks/outofcore.py --edges 10M,62M,100M   # a table, and results/outofcore.json
    python benchmarks/outofcore.py --edges 1G             # 25 GB of disk: the files, and what is made of them
    python benchmarks/outofcore.py --table                # the table of what was measured

Edges are pairs of ids ``nodes * random ** 3``, the smaller one first, int32, 25 a node, in Parquet parts of 10 million.
The job: TEDDY's scores, keep 0.4, the kept edges written as Parquet parts. Each run is a process of its own, which
reports its seconds, the peak of its memory (its workers' too), and the bytes that it read and wrote; runs of different
jobs alternate. What was measured already is not measured again, unless ``--again``. The files go into ``--folder``
and are deleted afterwards.

- *pyarrow*: every part read whole and written again, on all cores; *plain* without its attempts at dictionaries. The
  faster one is the limit.
- *duckdb*, *polars* (streaming), *pandas*: the same job as their users would write it. Ties at the threshold all stay.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.markdown import Markdown

from graphsparse.cores import usable_cores
from graphsparse.report import markdown

KEEP = 0.4
PART = 10_000_000
NODES = 25  # edges for each
TARGET = RESULTS / "outofcore.json"
SIZES = {"K": 10**3, "M": 10**6, "G": 10**9}
PEERS_UP_TO = 70_000_000
REPEATED_UP_TO = 70_000_000


def generate(folder: Path, edges: int, seed: int = 0) -> None:
    """Write the parts, on all cores; each part has a seed of its own."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    nodes = edges // NODES

    def write(number: int) -> None:
        path = folder / f"part-{number:04}.parquet"
        if path.exists():
            return
        rng = np.random.default_rng([seed, number])
        count = min(PART, edges - number * PART)
        ends = np.sort((rng.random((2, count)) ** 3 * nodes).astype(np.int32), axis=0)
        table = pa.table({"src": ends[0], "dst": ends[1]})
        parquet.write_table(table, path.with_suffix(".partial"), use_dictionary=False)
        path.with_suffix(".partial").rename(path)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(write, range(-(-edges // PART))))


def ours(source: Path, target: Path, memory: str, **how: Any) -> None:
    import graphsparse as gs

    gs.sparsify_files(source, target, "teddy", keep=KEEP, undirected=True, memory=memory, progress=False, **how)


def one_worker(source: Path, target: Path, memory: str) -> None:
    ours(source, target, memory, workers=1)


def two_workers(source: Path, target: Path, memory: str) -> None:
    ours(source, target, memory, workers=2)


def rewrite(source: Path, target: Path, memory: str, **how: Any) -> None:
    from pyarrow import parquet

    target.mkdir()

    def one(path: Path) -> None:
        table = parquet.read_table(path, use_threads=False)
        parquet.write_table(table, target / path.name, **how)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(one, sorted(source.iterdir())))


def rewrite_plain(source: Path, target: Path, memory: str) -> None:
    rewrite(source, target, memory, use_dictionary=False)


def duckdb_(source: Path, target: Path, memory: str) -> None:
    import duckdb

    base = duckdb.connect(str(target.with_suffix(".duckdb")))
    base.execute(f"set memory_limit='{memory}'; set threads={usable_cores()}; set preserve_insertion_order=false")
    base.execute(f"create view e as select src, dst from read_parquet('{source}/*.parquet')")
    base.execute(
        "create view arcs as select src u, dst v from e where src <> dst union all select dst, src from e "
        "where src <> dst"
    )
    base.execute("create table deg as select u, count(*) d from arcs group by u")
    base.execute(
        "create table stat as select a.u, sum(1 / sqrt(n.d)) / any_value(o.d) / any_value(o.d) g "
        "from arcs a join deg n on a.v = n.u join deg o on a.u = o.u group by a.u"
    )
    base.execute(
        "create table scored as select src, dst, s.g * t.g score from e join stat s on src = s.u "
        "join stat t on dst = t.u where src <> dst"
    )
    base.execute("create table cut as select quantile_disc(score, ?) t from scored", [1 - KEEP])
    base.execute(
        f"copy (select src, dst from scored, cut where score >= t) to '{target}' (format parquet, "
        "per_thread_output true)"
    )


def polars_(source: Path, target: Path, memory: str) -> None:
    import polars as pl

    edges = pl.scan_parquet(source / "*.parquet").filter(pl.col("src") != pl.col("dst"))
    turned = edges.select(src="dst", dst="src")
    arcs = pl.concat([edges, turned])
    degree = arcs.group_by("src").agg(d=pl.len()).collect(engine="streaming").lazy()
    sums = arcs.join(degree.rename({"src": "dst"}), on="dst").group_by("src").agg(s=(1 / pl.col("d").sqrt()).sum())
    stat = sums.join(degree, on="src").select("src", g=pl.col("s") / pl.col("d") / pl.col("d"))
    stat = stat.collect(engine="streaming").lazy()
    scored = edges.join(stat, on="src").join(stat.rename({"src": "dst", "g": "h"}), on="dst")
    scored = scored.select("src", "dst", score=pl.col("g") * pl.col("h"))
    cut = scored.select(pl.col("score").quantile(1 - KEEP)).collect(engine="streaming").item()
    target.mkdir()
    scored.filter(pl.col("score") >= cut).select("src", "dst").sink_parquet(target / "kept.parquet", engine="streaming")


def pandas_(source: Path, target: Path, memory: str) -> None:
    import pandas as pd

    edges = pd.read_parquet(source)
    edges = edges[edges.src != edges.dst]
    degree = edges.src.value_counts().add(edges.dst.value_counts(), fill_value=0)
    root = degree**-0.5
    sums = edges.dst.map(root).groupby(edges.src).sum()
    sums = sums.add(edges.src.map(root).groupby(edges.dst).sum(), fill_value=0)
    stat = sums / degree / degree
    score = edges.src.map(stat) * edges.dst.map(stat)
    target.mkdir()
    edges[score >= score.quantile(1 - KEEP)].to_parquet(target / "kept.parquet", index=False)


JOBS = {
    "pyarrow": rewrite,
    "pyarrow plain": rewrite_plain,
    "graphsparse": ours,
    "graphsparse 1 process": one_worker,
    "graphsparse 2 processes": two_workers,
    "duckdb": duckdb_,
    "polars": polars_,
    "pandas": pandas_,
}
PEERS = ("duckdb", "polars", "pandas")


def run_one(name: str, source: Path, target: Path, memory: str) -> None:
    """What a process of its own does: one job, and its figures on standard output."""
    begun, me = time.perf_counter(), psutil.Process()
    JOBS[name](source, target, memory)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = me.io_counters()
    kept = sum(path.stat().st_size for path in target.rglob("*.parquet")) if target.is_dir() else target.stat().st_size
    print(
        json.dumps(
            {"seconds": seconds, "peak": peak, "read": told.read_chars, "written": told.write_chars, "out": kept}
        )
    )


def measure(name: str, source: Path, memory: str, folder: Path) -> dict[str, Any] | str:
    """Run a job in a process, and watch what its workers hold besides; the end of its complaint if it fails."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        words = [sys.executable, __file__, "--one", name, "--source", str(source), "--memory", memory]
        process = subprocess.Popen(
            [*words, "--target", f"{scratch}/out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        workers = 0
        while True:
            try:
                out, err = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                workers = max(workers, _held_by_children(process.pid))
    if process.returncode:
        return (err.strip().splitlines() or ["killed, most likely for want of memory"])[-1][:300]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    found["peak"] += workers
    return found


def _held_by_children(process: int) -> int:
    """What is in no file and no other process's memory, of all children together."""
    total = 0
    for child in psutil.Process(process).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            total += child.memory_full_info().uss
    return total


def study(edges: int, arguments: argparse.Namespace, rows: list[dict[str, Any]], console: Console) -> None:
    names = [name for name in JOBS if name not in PEERS or (edges <= PEERS_UP_TO and find_spec(name))]
    if arguments.only:
        names = [name for name in names if name in arguments.only.split(",")]
    repeats = arguments.repeats or (3 if edges <= REPEATED_UP_TO else 1)
    have = {(row["job"], row["edges"]) for row in rows} if not arguments.again else set()
    wanted = [name for name in names if (name, edges) not in have]
    if not wanted:
        return
    folder = Path(arguments.folder)
    source = folder / f"edges-{edges}"
    generate(source, edges)
    size = sum(path.stat().st_size for path in source.iterdir())
    warm = folder / "edges-warm"
    generate(warm, 10_000)
    measure("graphsparse", warm, arguments.memory, folder)  # loops are compiled once, and kept
    shutil.rmtree(warm)
    runs: dict[str, list[Any]] = {name: [] for name in wanted}
    for _ in range(repeats):
        for name in wanted:
            if runs[name] and isinstance(runs[name][-1], str):
                continue
            found = measure(name, source, arguments.memory, folder)
            runs[name].append(found)
            console.print(edges, name, found, highlight=False)
    for name, found in runs.items():
        rows[:] = [row for row in rows if (row["job"], row["edges"]) != (name, edges)]
        rows.append({"job": name, "edges": edges, "bytes": size, "memory": arguments.memory, "runs": found})
        write_json(TARGET, {**provenance("outofcore"), "keep": KEEP, "load": os.getloadavg(), "rows": rows})
    if not arguments.keep_files:
        shutil.rmtree(source)


def table(rows: list[dict[str, Any]]) -> str:
    """One table for all sizes, each row beside the faster rewriting by pyarrow."""
    lines = []
    for edges in sorted({row["edges"] for row in rows}):
        here = {row["job"]: row for row in rows if row["edges"] == edges}
        seconds = {name: [run["seconds"] for run in row["runs"] if isinstance(run, dict)] for name, row in here.items()}
        medians = {name: statistics.median(found) for name, found in seconds.items() if found}
        limit = min((medians[name] for name in ("pyarrow", "pyarrow plain") if name in medians), default=float("nan"))
        for name in [name for name in JOBS if name in here]:
            row = here[name]
            if name not in medians:
                lines.append([f"{edges / 1e6:,.0f} M", name, row["runs"][-1], *[""] * 5])
                continue
            spread = f"{min(seconds[name]):.1f}-{max(seconds[name]):.1f}" if len(seconds[name]) > 1 else ""
            run = row["runs"][-1]
            lines.append(
                [
                    f"{edges / 1e6:,.0f} M",
                    name,
                    f"{medians[name]:.1f}",
                    spread,
                    f"{medians[name] / limit:.1f}",
                    f"{max(one['peak'] for one in row['runs'] if isinstance(one, dict)) / 1e9:.2f}",
                    f"{run['read'] / 1e9:.1f}",
                    f"{run['written'] / 1e9:.1f}",
                ]
            )
    return markdown(["edges", "job", "s", "runs", "times pyarrow", "peak GB", "GB read", "GB written"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", default="10M", help="sizes, such as 10M,62M,1G")
    parser.add_argument("--memory", default="4GB", help="for graphsparse and duckdb")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the files go")
    parser.add_argument("--only", help="jobs, separated by commas")
    parser.add_argument("--repeats", type=int, help="by default 3, of more than 70 million edges 1")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured")
    parser.add_argument("--keep-files", action="store_true", help="do not delete the generated edges")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    for hidden in ("--one", "--source", "--target"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, Path(arguments.source), Path(arguments.target), arguments.memory)
        return
    console = Console(width=200)
    rows = json.loads(TARGET.read_text())["rows"] if TARGET.exists() else []
    if not arguments.table:
        for word in arguments.edges.split(","):
            study(int(float(word[:-1]) * SIZES[word[-1].upper()]), arguments, rows, console)
    console.print(Markdown(table(rows)))


if __name__ == "__main__":
    main()
