"""Time of sparsify(method="teddy") beside the same recipe in plain torch and numpy, NetworKit, and a copy of the edges.

    python benchmarks/edges.py                           # 20 million edges in both orders, and the sizes
    python benchmarks/edges.py --sizes 1e5 1e6 1e7 1e8   # growth up to 100 million edges (24 GB, tens of minutes)

It writes results/edges.json.

A graph is drawn from seeded, skewed end points (ids ``N * random() ** power``), without loops or duplicates, and listed
with both arcs of each pair: sorted by tail with the power 2, and shuffled with the steeper power 3. Growth is the time
an edge takes, beside that of the smallest size of a million edges or more. The contenders take turns on the same graph
in the same run; figures are medians
of wall time. ``torch`` is the recipe that a user of torch writes: bincount, index_add, gather, torch.topk, mask (in
float32, torch's default and half the traffic of ours); ``partition`` the same with numpy's partition as the threshold.
``copy`` is ``edge_index.clone()``: the physical limit, what a graph of this size costs to be handed back at all.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.edges import sparsify
from graphsparse.keep_rule import kept_count

NODES_PER_EDGE = 0.1
SMALL = 2_000_000  # pairs that NetworKit gets: it needs some 285 bytes for each


POWERS = {"sorted": 2, "shuffled": 3}


def draw(pairs: int, order: str, seed: int) -> Data:
    """A graph of exactly ``pairs`` distinct pairs, both arcs listed."""
    generator = np.random.default_rng(seed)
    num_nodes = max(16, int(pairs * NODES_PER_EDGE))
    found = np.empty(0, np.int64)
    while len(found) < pairs:
        ends = (num_nodes * generator.random((2, pairs + pairs // 8)) ** POWERS[order]).astype(np.int64)
        ends = ends[:, ends[0] != ends[1]]
        found = np.unique(np.concatenate([found, ends.min(0) * num_nodes + ends.max(0)]))
    kept = np.sort(generator.permutation(len(found))[:pairs])
    low, high = np.divmod(found[kept], num_nodes)
    arcs = np.concatenate([low * num_nodes + high, high * num_nodes + low])
    arcs = np.sort(arcs) if order == "sorted" else generator.permutation(arcs)
    return Data(edge_index=torch.from_numpy(np.stack(np.divmod(arcs, num_nodes))), num_nodes=num_nodes)


def ours(data: Data, keep: float) -> Tensor:
    """The library, from a Data to a Data."""
    return sparsify(data, "teddy", keep=keep).edge_index


def torch_recipe(data: Data, keep: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a user of torch writes; ranks arcs one by one, so that rounding may split a pair."""
    tails, heads = data.edge_index
    degree = torch.bincount(tails, minlength=data.num_nodes).to(dtype)
    mean = torch.zeros_like(degree).index_add_(0, tails, degree.rsqrt()[heads]) / degree
    factor = mean / degree
    scores = factor[tails] * factor[heads]
    best = torch.topk(scores, 2 * kept_count(keep, len(scores) // 2), sorted=False).indices
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[best] = True
    return data.edge_index[:, mask]


def partition_recipe(data: Data, keep: float) -> Tensor:
    """The same with numpy's partition as the threshold."""
    tails, heads = data.edge_index
    degree = torch.bincount(tails, minlength=data.num_nodes).to(torch.float32)
    factor = torch.zeros_like(degree).index_add_(0, tails, degree.rsqrt()[heads]) / degree / degree
    scores = factor[tails] * factor[heads]
    rank = len(scores) - 2 * kept_count(keep, len(scores) // 2)
    return data.edge_index[:, scores >= float(np.partition(scores.numpy(), rank)[rank])]


def copied(data: Data, keep: float) -> Tensor:
    """A plain copy of the edge list."""
    return data.edge_index.clone()


CONTENDERS: dict[str, Callable[[Data, float], Tensor]] = {
    "sparsify": ours,
    "torch": torch_recipe,
    "partition": partition_recipe,
    "copy": copied,
}


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of wall time and of processor time of one call, and what it returned."""
    gc.collect()
    wall, processor = time.perf_counter(), time.process_time()
    result = action()
    return time.perf_counter() - wall, time.process_time() - processor, result


def compare(pairs: int, order: str, names: list[str], given: argparse.Namespace, repeats: int) -> dict[str, Any]:
    """Let the contenders take turns on one graph."""
    data = draw(pairs, order, given.seed)
    walls: dict[str, list[float]] = {name: [] for name in names}
    processors: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, int] = {}
    for _ in range(repeats):
        for name in names:
            wall, processor, result = timed(lambda name=name: CONTENDERS[name](data, given.keep))
            walls[name].append(wall)
            processors[name].append(processor)
            kept[name] = result.size(1)
            del result
    wanted = 2 * kept_count(given.keep, pairs)
    for name in ("sparsify", "torch"):
        if kept.get(name, wanted) != wanted:
            raise SystemExit(f"{name} kept {kept[name]} arcs instead of {wanted}")
    return {
        "pairs": pairs,
        "nodes": data.num_nodes,
        "order": order,
        "repeats": repeats,
        "seconds": {name: median(values) for name, values in walls.items()},
        "seconds_range": {name: [min(values), max(values)] for name, values in walls.items()},
        "processor_seconds": {name: median(values) for name, values in processors.items()},
        "kept_arcs": kept,
        "million_pairs_per_second": {name: pairs / median(values) / 1e6 for name, values in walls.items()},
    }


def networkit_local_degree(pairs: int, given: argparse.Namespace) -> dict[str, Any]:
    """NetworKit's LocalDegree from an edge list to a sparsified graph, by its steps, beside ours on the same graph."""
    import networkit

    networkit.setNumberOfThreads(given.threads)
    data = draw(pairs, "sorted", given.seed)
    tails, heads = data.edge_index[:, data.edge_index[0] < data.edge_index[1]].numpy()
    steps: dict[str, list[float]] = {
        "import": [],
        "score": [],
        "filter": [],
        "sparsify": [],
        "sparsify local_degree": [],
    }
    for _ in range(min(3, given.repeats)):
        matrix = (np.ones(len(tails)), (tails, heads))
        wall, _, graph = timed(lambda matrix=matrix: networkit.GraphFromCoo(matrix, n=data.num_nodes, directed=False))
        steps["import"].append(wall)
        wall, _, _ = timed(graph.indexEdges)
        steps["import"][-1] += wall
        scorer = networkit.sparsification.LocalDegreeScore(graph)
        wall, _, _ = timed(scorer.run)
        steps["score"].append(wall)
        sparsifier = networkit.sparsification.LocalDegreeSparsifier()
        wall, _, small = timed(
            lambda graph=graph, sparsifier=sparsifier: sparsifier.getSparsifiedGraphOfSize(graph, given.keep)
        )
        steps["filter"].append(wall)  # it scores once more, then cuts by bisection
        steps["sparsify"].append(timed(lambda: ours(data, given.keep))[0])
        steps["sparsify local_degree"].append(timed(lambda: sparsify(data, "local_degree", keep=given.keep))[0])
    seconds = {name: median(values) for name, values in steps.items()}
    whole = seconds["import"] + seconds["filter"]
    return {
        "pairs": pairs,
        "seconds": seconds,
        "kept_pairs": small.numberOfEdges(),
        "wanted_pairs": kept_count(given.keep, pairs),
        "million_pairs_per_second": {
            "networkit, score only": pairs / seconds["score"] / 1e6,
            "networkit, import to result": pairs / whole / 1e6,
            "sparsify": pairs / seconds["sparsify"] / 1e6,
            "sparsify local_degree": pairs / seconds["sparsify local_degree"] / 1e6,
        },
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """What is printed."""
    shown = []
    for main in results["main"].values():
        first = Table("contender", "s", "CPU s", "million edges/s", "x torch", "x copy", "arcs kept")
        first.title = (
            f"{main['pairs']:,} undirected edges, {main['nodes']:,} nodes, keep {results['keep']}, {main['order']}"
        )
        for name, seconds in main["seconds"].items():
            first.add_row(
                name,
                f"{seconds:.3f}",
                f"{main['processor_seconds'][name]:.3f}",
                f"{main['million_pairs_per_second'][name]:.1f}",
                f"{main['seconds']['torch'] / seconds:.2f}",
                f"{seconds / main['seconds']['copy']:.2f}",
                f"{main['kept_arcs'][name]:,}" if name != "copy" else "",
            )
        shown.append(first)
    if results["networkit"]:
        peer = Table(
            "contender", "million edges/s", title=f"NetworKit LocalDegree, {results['networkit']['pairs']:,} edges"
        )
        for name, speed in results["networkit"]["million_pairs_per_second"].items():
            peer.add_row(name, f"{speed:.2f}")
        shown.append(peer)
    growth = Table("edges", "sparsify s", "million edges/s", "torch s", "x torch", "copy s", "time an edge")
    growth.title = "time against size, sorted"
    whole = next((row for row in results["sizes"] if row["pairs"] >= 10**6), None)
    for row in results["sizes"]:
        seconds = row["seconds"]
        growth.add_row(
            f"{row['pairs']:,}",
            f"{seconds['sparsify']:.4f}",
            f"{row['million_pairs_per_second']['sparsify']:.1f}",
            f"{seconds['torch']:.4f}",
            f"{seconds['torch'] / seconds['sparsify']:.2f}",
            f"{seconds['copy']:.4f}",
            f"{whole['million_pairs_per_second']['sparsify'] / row['million_pairs_per_second']['sparsify']:.2f}"
            if whole
            else "",
        )
    return [*shown, growth]


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=float, default=2e7, help="undirected edges of the main comparison")
    parser.add_argument("--sizes", type=float, nargs="*", default=[1e5, 3e5, 1e6, 3e6, 1e7])
    parser.add_argument("--order", choices=list(POWERS), nargs="*", default=list(POWERS), help="of the arcs")
    parser.add_argument("--keep", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networkit", type=float, default=SMALL, help="edges that NetworKit gets, 0 for none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "edges.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ours(draw(100_000, "sorted", given.seed), given.keep)  # compiles
    results: dict[str, Any] = provenance("edges")
    results |= {name: getattr(given, name) for name in ("seed", "threads", "keep")}
    results["main"] = {
        order: compare(int(given.edges), order, list(CONTENDERS), given, given.repeats) for order in given.order
    }
    results["networkit"] = networkit_local_degree(int(given.networkit), given) if given.networkit else None
    results["sizes"] = []
    for size in map(int, given.sizes):
        repeats = given.repeats if size <= 10**6 else min(given.repeats, 3)
        results["sizes"].append(compare(size, "sorted", ["sparsify", "torch", "copy"], given, repeats))
    for shown in tables(results):
        Console().print(shown)
    write_json(given.out, results)


if __name__ == "__main__":
    main()
