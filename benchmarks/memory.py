"""What `sparsify` takes by score and rule: memory for each arc by the type of the ids, time, and how both grow.

    python benchmarks/memory.py                            # prints a table, writes results/memory.json
    python benchmarks/memory.py --sizes 2e5 2e6 2e7 --types int64

Each case runs in a process of its own: the edge list of 2 million undirected pairs between 200,000 nodes (4 million
arcs, shuffled) is read from a file, then sparsified at keep 0.5 by one thread, after a small list, which compiles what
is compiled. The figure of memory is how far the process rises above what it holds when the call begins, divided by the
number of arcs; the result is in it. Time is the processor's. It needs Linux, where the peak can be set back.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, provenance, write_json

from graphsparse.edges import sample, sparsify
from graphsparse.report import markdown

SMALL = 100_000  # pairs of the list that compiles
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("teddy", "dspar", "local_degree", "rank_degree", "jaccard", "scan", "random")},
    "effective_resistance, 16 projections": ("effective_resistance", {"num_projections": 16}),
    "teddy, guard cover": ("teddy", {"guard": "cover"}),
    "teddy, guard isolated": ("teddy", {"guard": "isolated"}),
    "teddy, forest": ("teddy", {"forest": True, "keep": 0.9}),
    "teddy, 2 per node": ("teddy", {"per_node": 2, "keep": None}),
    "sample by dspar": ("dspar", {}),
}
TYPES = ("int64", "int32")


def held(which: str) -> int:
    """Bytes of this process's memory: ``VmRSS`` now, ``VmHWM`` at the peak since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])


def shuffled(pairs: int) -> np.ndarray[Any, Any]:
    """Both arcs of random pairs, ten a node, in random order."""
    rng = np.random.default_rng(0)
    ends = rng.integers(pairs // 10, size=(2, pairs))
    return np.ascontiguousarray(np.concatenate([ends, ends[::-1]], axis=1)[:, rng.permutation(2 * pairs)])


def work(edge_index: torch.Tensor, case: str) -> None:
    """The call that is measured."""
    method, rules = CASES[case]
    if case.startswith("sample"):
        sample(edge_index, method, keep=0.5)
    else:
        sparsify(edge_index, method, **({"keep": 0.5} | rules))


def one(path: str, case: str) -> None:
    """Print the figures of one case as JSON."""
    torch.set_num_threads(1)
    edge_index = torch.from_numpy(np.load(path))
    work(torch.from_numpy(shuffled(SMALL)).to(edge_index.dtype), case)  # compiles what is compiled
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the first call has freed is given back
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before, start = held("VmRSS"), time.process_time()
    work(edge_index, case)
    seconds, arcs = time.process_time() - start, edge_index.size(1)
    extra = (held("VmHWM") - before) / arcs
    print(json.dumps({"pairs": arcs // 2, "extra": extra, "list": 2 * edge_index.element_size(), "seconds": seconds}))


def main() -> None:
    """Run all cases, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=float, default=[2e6], help="pairs")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json")
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for pairs, kind in itertools.product(map(int, sorted(given.sizes)), given.types):
            path = Path(folder) / "edges.npy"
            np.save(path, shuffled(pairs).astype(kind))  # rows stay contiguous
            for case in given.cases:
                call = [sys.executable, __file__, str(path), case]
                done = subprocess.run(call, check=True, capture_output=True, text=True)
                found.setdefault(f"{case}, {kind}", []).append(json.loads(done.stdout))
                print(pairs, kind, case, done.stdout.strip(), file=sys.stderr)
    write_json(given.out, {**provenance("memory"), "cases": found})
    rows = [
        [
            *(name, f"{c['pairs']:,}", f"{c['list']}", f"{c['extra']:.0f}", f"{c['extra'] / c['list']:.1f}"),
            *(f"{c['seconds']:.2f}", f"{c['seconds'] / c['pairs'] * 1e6:.2f}"),
        ]
        for name, sizes in found.items()
        for c in sizes
    ]
    columns = [
        "score, ids",
        "pairs",
        "edge list, bytes an arc",
        "beside it",
        "times the list",
        "s",
        "s a million pairs",
    ]
    print(markdown(columns, rows))


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 3 and sys.argv[1].endswith(".npy") else main()
