"""A ticket in mini-batches on stand-ins of ogbn-arxiv and ogbn-products: seconds an epoch, peak memory, draws a second.

    python benchmarks/batches.py                      # the size of ogbn-arxiv, beside full batch
    python benchmarks/batches.py --size wordnet       # a real graph with a seeded split
    python benchmarks/batches.py --size products      # 2.4 M nodes, 62 M edges, 100 features; full batch on request

A stand-in is generated, written in OGB's raw layout, and read by OGB's own class: its sizes are the data set's, its
figures of accuracy mean nothing. Every contender runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.table import Table

import graphsparse as gs


@dataclass(frozen=True)
class Size:
    """How large a stand-in is, and where OGB looks for its split; without edges, a real graph that is loaded."""

    name: str
    nodes: int
    edges: int
    features: int
    classes: int
    split: str = ""
    parts: tuple[int, int] = (0, 0)  # nodes of the training and of the validation part
    year: bool = False


SIZES = {
    "tiny": Size("ogbn-arxiv", 5_000, 40_000, 128, 40, "time", (2_700, 900), year=True),
    "arxiv": Size("ogbn-arxiv", 169_343, 1_166_243, 128, 40, "time", (90_941, 29_799), year=True),
    "wordnet": Size("wordnet", 117_659, 0, 1_000, 45),
    "debian": Size("debian", 63_436, 0, 512, 58),
    "products": Size("ogbn-products", 2_449_029, 61_859_140, 100, 47, "sales_ranking", (196_615, 39_323)),
}
_PIECE = 1 << 22


def generate(size: Size, root: Path) -> None:
    """Write a graph of communities with a heavy tail of degrees, features near the centre of their class."""
    folder = root / "ogb" / size.name.replace("-", "_")
    if not size.edges or (folder / "raw/num-edge-list.csv.gz").exists():
        return
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(size.classes, size=size.nodes))
    first = np.searchsorted(y, np.arange(size.classes + 1))

    def edges() -> Any:
        for begin in range(0, size.edges, _PIECE):
            count = min(_PIECE, size.edges - begin)
            heads = (rng.random(count) ** 3 * size.nodes).astype(np.int64) * 7919 % size.nodes
            near = first[y[heads]] + (rng.random(count) * (first[y[heads] + 1] - first[y[heads]])).astype(np.int64)
            yield np.stack([np.where(rng.random(count) < 0.7, near, rng.integers(size.nodes, size=count)), heads], 1)

    def features() -> Any:
        centres = rng.normal(size=(size.classes, size.features)).astype(np.float32)
        for begin in range(0, size.nodes, _PIECE // 64):
            rows = y[begin : begin + _PIECE // 64]
            yield np.round(centres[rows] + 2 * rng.standard_normal((len(rows), size.features), np.float32), 2)

    _write(folder / "raw/edge.csv.gz", edges())
    _write(folder / "raw/node-feat.csv.gz", features())
    _write(folder / "raw/node-label.csv.gz", [y[:, None]])
    if size.year:
        _write(folder / "raw/node_year.csv.gz", [np.full((size.nodes, 1), 2015)])
    order, cuts = rng.permutation(size.nodes), np.cumsum(size.parts)
    for part, ids in zip(("train", "valid", "test"), np.split(order, cuts), strict=True):
        _write(folder / f"split/{size.split}/{part}.csv.gz", [ids[:, None]])
    _write(folder / "raw/num-node-list.csv.gz", [np.array([[size.nodes]])])
    _write(folder / "raw/num-edge-list.csv.gz", [np.array([[size.edges]])])  # last: it says that all is there


def _write(path: Path, pieces: Any) -> None:
    import pyarrow as pa
    from pyarrow import csv

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = csv.WriteOptions(include_header=False)
    with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "gzip") as file:
        for piece in pieces:
            columns = [pa.array(np.ascontiguousarray(column)) for column in piece.T]
            csv.write_csv(pa.table(columns, names=list(map(str, range(len(columns))))), file, plain)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    begin = time.perf_counter()
    found = call()
    return found, time.perf_counter() - begin


def peak_gb() -> float:
    """The most memory that this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def load(size: Size, options: argparse.Namespace) -> Any:
    """The graph: a stand-in by OGB's class, a real one from ``GRAPHSPARSE_DATA``."""
    return gs.data.load(size.name, root=options.folder / "data" if size.edges else None)


def run_one(contender: str, size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Load, train the dense model, find the ticket; in this process."""
    from torch_geometric.nn import GraphSAGE

    from graphsparse.fit import Batches, NodeTask
    from graphsparse.keep_rule import keep_fraction
    from graphsparse.tickets import Problem, Training
    from graphsparse.tickets.make import make_ticket
    from graphsparse.tickets.problem import train_dense

    data, loading = timed(lambda: load(size, options))
    torch.manual_seed(0)
    net = GraphSAGE(size.features, options.hidden, num_layers=2, out_channels=size.classes)
    task = NodeTask(data)
    if contender == "batches":
        task = task.in_batches(Batches(options.batch_size, tuple(options.neighbors), steps=options.steps))
    training = Training(epochs=options.epochs, lr=0.003, weight_decay=0.0)
    problem = Problem(net.to(options.device), data, task, training, progress=False)
    loaded = peak_gb()
    dense = train_dense(problem)
    figures = {"load_s": loading, "load_gb": loaded, "dense_epoch_s": dense.seconds / options.epochs}
    figures["dense_gb"] = peak_gb()
    _, figures["evaluation_s"] = timed(lambda: task.predict(problem.trained_model(dense)))
    if options.ticket:
        keeps = keep_fraction("0.6"), keep_fraction("0.2")
        ticket, figures["ticket_s"] = timed(lambda: make_ticket(problem, dense, "teddy", *keeps))
        figures |= {"edges_kept": ticket.metrics["edges_kept"], "test": ticket.metrics["test"]}
        figures["ticket_hash"] = ticket.hash
    return figures | {"dense_test": dense.test, "peak_gb": peak_gb()}


def run_sampler(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Arcs that are drawn a second, by us and, where its libraries are installed, by PyG."""
    from torch_geometric.sampler import NeighborSampler, NodeSamplerInput

    from graphsparse.fit import NeighborhoodSampler

    data = load(size, options)
    sampler, arranging = timed(lambda: NeighborhoodSampler(data.edge_index, size.nodes, options.neighbors))
    contenders: dict[str, Any] = {"graphsparse": sampler}
    if importlib.util.find_spec("pyg_lib") or importlib.util.find_spec("torch_sparse"):
        contenders["PyG"] = NeighborSampler(data, list(options.neighbors))
    found: dict[str, Any] = {"arrange_s": arranging}
    for replace in (False, True):
        contenders["graphsparse"].replace = replace
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for repeat in range(options.repeats + 1):
            seeds = torch.randperm(size.nodes, generator=torch.Generator().manual_seed(repeat))[: options.batch_size]
            for name, each in contenders.items():
                batch, seconds = timed(partial(each.sample_from_nodes, NodeSamplerInput(None, seeds)))
                if repeat:  # the first compiles
                    rates[name].append(len(batch.row) / seconds / 1e6)
        for name, values in rates.items():
            spread = statistics.quantiles(values, n=4)
            key = f"{name}, {'with' if replace else 'without'} replacement"
            found[key] = {"million_arcs_per_s": spread[1], "quartiles": [spread[0], spread[2]]}
    return found


def in_a_process(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one contender, from a process of its own."""
    words = [sys.executable, __file__, *sys.argv[1:], "--part", part]
    env = os.environ | {"GRAPHSPARSE_CACHE": str(options.folder / "cache")}
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        return {"failed": f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the tables."""
    table = Table(title=f"{options.size}, GraphSAGE-{options.hidden}, {options.epochs} epochs")
    names = [name for name in ("batches", "full") if name in found]
    for heading in ("", *names):
        table.add_column(heading, justify="right" if heading else "left")
    for key, words in {
        "load_s": "load, s",
        "dense_epoch_s": "an epoch of the dense model with its evaluation, s",
        "evaluation_s": "of that an evaluation, s",
        "ticket_s": "the ticket from the dense model, s",
        "load_gb": "memory once loaded, GB",
        "dense_gb": "peak memory, dense, GB",
        "peak_gb": "peak memory in all, GB",
    }.items():
        cells = [found[name].get(key, found[name].get("failed", "-")) for name in names]
        table.add_row(words, *(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console().print(table)
    for name, value in found["sampler"].items():
        if isinstance(value, dict):
            low, high = value["quartiles"]
            print(f"{name}: {value['million_arcs_per_s']:.2f} million arcs/s (quartiles {low:.2f} to {high:.2f})")
    if not any(name.startswith("PyG") for name in found["sampler"]):
        print("PyG's own sampler: neither pyg-lib nor torch-sparse is installed")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="arxiv")
    parser.add_argument("--folder", type=Path, default=Path("batches-standin"), help="for the stand-in and its cache")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--neighbors", type=int, nargs="+", default=[15, 10])
    parser.add_argument("--steps", type=int, help="steps of an epoch; by default all nodes once")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where the networks are trained")
    parser.add_argument("--repeats", type=int, default=15, help="batches that the sampler is timed on")
    parser.add_argument("--full-batch", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--ticket", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = SIZES[options.size]
    options.folder = options.folder.resolve() / options.size
    if options.part == "sampler":
        print(json.dumps(run_sampler(size, options)))
    elif options.part:
        print(json.dumps(run_one(options.part, size, options)))
    else:
        _, generating = timed(lambda: generate(size, options.folder / "data"))
        whole = options.size != "products" if options.full_batch is None else options.full_batch
        parts = ["batches", *(["full"] if whole else []), "sampler"]
        found = {part: in_a_process(part, options) for part in parts}
        asked = {name: value for name, value in vars(options).items() if name not in ("folder", "out", "part")}
        record = {**provenance("batches"), "threads": torch.get_num_threads(), "options": asked, "seeds": [0]}
        show(found, options)
        out = options.out or RESULTS / f"batches-{options.size}.json"
        write_json(out, {**record, "generate_s": generating, "contenders": found})


if __name__ == "__main__":
    main()
