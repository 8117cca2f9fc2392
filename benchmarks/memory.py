"""How much memory `sparsify` takes for each arc, by score and by the type of the ids.

    python benchmarks/memory.py            # prints a table, writes results/memory.json

Each case runs in a process of its own: the edge list of 5 million undirected pairs between 500,000 nodes (10
million arcs) is read from a file, then sparsified at keep 0.5 by one thread. The figure is what the peak of the
process rises by, divided by the number of arcs; the result is in it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, provenance, write_json

from graphsparse.edges import sparsify
from graphsparse.report import markdown

PAIRS, NODES = 5_000_000, 500_000
SCORES = ("teddy", "dspar", "local_degree", "jaccard", "random")
TYPES = ("int64", "int32")


def peak() -> int:
    """The largest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def one(path: str, method: str) -> None:
    """Print the figures of one case as JSON."""
    torch.set_num_threads(1)
    sparsify(torch.randint(1000, (2, 200_000)), method, keep=0.5, undirected=False)  # compiles what is compiled
    edge_index = torch.from_numpy(np.load(path))
    before, start = peak(), time.perf_counter()
    sparsify(edge_index, method, keep=0.5)
    seconds, arcs = time.perf_counter() - start, edge_index.size(1)
    print(json.dumps({"extra": (peak() - before) / arcs, "list": 2 * edge_index.element_size(), "seconds": seconds}))


def main() -> None:
    """Run all cases, print and write."""
    rng = np.random.default_rng(0)
    ends = rng.integers(NODES, size=(2, PAIRS))
    edge_index = np.concatenate([ends, ends[::-1]], axis=1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in TYPES:
            path = Path(folder) / f"{kind}.npy"
            np.save(path, edge_index.astype(kind))
            for method in SCORES:
                call = [sys.executable, __file__, str(path), method]
                done = subprocess.run(call, check=True, capture_output=True, text=True)
                found[f"{method}, {kind}"] = json.loads(done.stdout)
    about = {**provenance("memory"), "command": "python benchmarks/memory.py", "pairs": PAIRS, "nodes": NODES}
    write_json(RESULTS / "memory.json", {**about, "cases": found})
    rows = [[name, f"{c['list']}", f"{c['extra']:.0f}", f"{c['seconds']:.1f}"] for name, c in found.items()]
    print(markdown(["score, ids", "edge list, bytes an arc", "beside it, bytes an arc", "s"], rows))


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 3 else main()
