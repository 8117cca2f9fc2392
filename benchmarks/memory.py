"""How much memory `sparsify` takes for each arc, by score and by the type of the ids.

    python benchmarks/memory.py            # prints a table, writes results/memory.json

Each case runs in a process of its own: the edge list of 2 million undirected pairs between 200,000 nodes (4 million
arcs, shuffled) is read from a file, then sparsified at keep 0.5 by one thread, twice: the first call compiles what is
compiled, which takes 100 MB for any graph. The figure is how far the process rises above what it holds when the second
call begins, divided by the number of arcs; the result is in it. It needs Linux, where the peak can be set back.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
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

from graphsparse.edges import sparsify
from graphsparse.report import markdown

PAIRS = 2_000_000  # ten a node
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("teddy", "dspar", "local_degree", "rank_degree", "jaccard", "scan", "random")},
    "effective_resistance, 16 projections": ("effective_resistance", {"num_projections": 16}),
    "teddy, guard cover": ("teddy", {"guard": "cover"}),
    "teddy, forest": ("teddy", {"forest": True, "keep": 0.9}),
}
TYPES = ("int64", "int32")


def held(which: str) -> int:
    """Bytes of this process's memory: ``VmRSS`` now, ``VmHWM`` at the peak since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])


def one(path: str, case: str) -> None:
    """Print the figures of one case as JSON."""
    torch.set_num_threads(1)
    method, rules = CASES[case]
    rules = {"keep": 0.5} | rules
    edge_index = torch.from_numpy(np.load(path))
    sparsify(edge_index, method, **rules)  # compiles what is compiled
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the first call has freed is given back
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before, start = held("VmRSS"), time.perf_counter()
    sparsify(edge_index, method, **rules)
    seconds, arcs = time.perf_counter() - start, edge_index.size(1)
    extra = (held("VmHWM") - before) / arcs
    print(json.dumps({"extra": extra, "list": 2 * edge_index.element_size(), "seconds": seconds}))


def main() -> None:
    """Run all cases, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=float, default=PAIRS)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    pairs, nodes = int(given.pairs), int(given.pairs) // 10
    ends = rng.integers(nodes, size=(2, pairs))
    edge_index = np.concatenate([ends, ends[::-1]], axis=1)[:, rng.permutation(2 * pairs)]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in TYPES:
            path = Path(folder) / f"{kind}.npy"
            np.save(path, np.ascontiguousarray(edge_index, kind))
            for case in given.cases:
                call = [sys.executable, __file__, str(path), case]
                done = subprocess.run(call, check=True, capture_output=True, text=True)
                found[f"{case}, {kind}"] = json.loads(done.stdout)
    write_json(given.out, {**provenance("memory"), "pairs": pairs, "nodes": nodes, "cases": found})
    rows = [
        [name, f"{c['list']}", f"{c['extra']:.0f}", f"{c['extra'] / c['list']:.1f}", f"{c['seconds']:.1f}"]
        for name, c in found.items()
    ]
    print(markdown(["score, ids", "edge list, bytes an arc", "beside it", "times the list", "s"], rows))


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 3 and sys.argv[1].endswith(".npy") else main()
