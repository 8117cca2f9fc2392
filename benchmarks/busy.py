"""The default job beside other work on the same cores, as a multiple of the time that it takes alone.

    python benchmarks/busy.py --repeats 3     # prints a table, writes results/busy.json

Two kinds of busy process, each with a thread for every core: one trains a GNN in plain PyG, whose threads spin while
they wait, the other multiplies matrices. The job is ``graphsparse ticket`` with one seed, as the command line runs it,
and the same with what it settles about threads undone (``OMP_WAIT_POLICY``, ``OMP_NUM_THREADS`` given as OpenMP has
them by itself). The three places take turns. Ratios are of the shortest times, since any other work on the machine only
adds to a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.markdown import Markdown

from graphsparse.cores import usable_cores
from graphsparse.report import markdown

TRAINS = """
import sys, torch
from torch_geometric.nn import GCN
torch.set_num_threads(int(sys.argv[1]))
x, y = torch.randn(2708, 1433), torch.randint(0, 7, (2708,))
edge_index, net = torch.randint(0, 2708, (2, 10556)), GCN(1433, 64, 2, 7)
optimizer = torch.optim.Adam(net.parameters())
print("busy", flush=True)
while True:
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x, edge_index), y).backward()
    optimizer.step()
"""
MULTIPLIES = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
a = torch.randn(2000, 2000)
print("busy", flush=True)
while True:
    a @ a
"""
PLACES = {"alone": None, "beside one that trains a GNN": TRAINS, "beside one that multiplies matrices": MULTIPLIES}


@contextmanager
def busy(code: str | None, cores: int) -> Iterator[None]:
    """A process that keeps all cores busy meanwhile, with the settings that it has by itself."""
    if code is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", code, str(cores)], stdout=subprocess.PIPE, env=without_settings())
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def without_settings() -> dict[str, str]:
    """The environment, without settings of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    return {name: value for name, value in os.environ.items() if name not in names}


def seconds(job: list[str], settings: dict[str, str], limit: float) -> float | None:
    """How long the job takes; None where it has not ended by the limit."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", "from graphsparse.cli import main; main()", *job]
        environment = without_settings() | settings
        begin = time.perf_counter()
        try:
            subprocess.run([*command, "--out", out], check=True, capture_output=True, timeout=limit, env=environment)
        except subprocess.TimeoutExpired:
            return None
        return time.perf_counter() - begin


def measure(job: list[str], ways: dict[str, dict[str, str]], repeats: int, limit: float) -> dict[str, Any]:
    """Seconds of every way to run the job in every place, in turn."""
    found: dict[str, Any] = {way: {place: [] for place in PLACES} for way in ways}
    for _ in range(repeats):
        for place, code in PLACES.items():
            for way, settings in ways.items():
                with busy(code, usable_cores()):
                    found[way][place].append(seconds(job, settings, limit))
    return found


def ratio(times: dict[str, list[float | None]], place: str, limit: float) -> float:
    """Shortest time in the place over the shortest alone; one that did not end counts as the limit."""
    alone, there = (min(value or limit for value in times[name]) for name in ("alone", place))
    return there / alone


def cell(times: list[float | None], of_alone: float, limit: float) -> str:
    """The shortest time and its ratio; of runs that all were given up, that it is more than the limit."""
    ended = [value for value in times if value is not None]
    return f"{min(ended):.0f} s ({of_alone:.1f})" if ended else f"over {limit:.0f} s (over {of_alone:.1f})"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=200, help="Of each training run of the job.")
    parser.add_argument("--limit", type=float, default=300.0, help="Seconds after which a run is given up.")
    parser.add_argument("--out", type=Path, default=RESULTS / "busy.json")
    options = parser.parse_args()
    by_itself = {"OMP_NUM_THREADS": str(usable_cores()), "GOMP_SPINCOUNT": "300000"}  # GNU's own, for that many threads
    ways = {"graphsparse ticket": {}, "as OpenMP has it": by_itself}
    job = ["ticket", "--seeds", "1", "--epochs", str(options.epochs)]
    found = measure(job, ways, options.repeats, options.limit)
    ratios = {way: {place: ratio(times, place, options.limit) for place in PLACES} for way, times in found.items()}
    load = os.getloadavg()[2]
    write_json(
        options.out,
        {
            **provenance("busy"),
            "job": " ".join(["graphsparse", *job]),
            "load_15_minutes": load,
            "limit": options.limit,
            "seconds": found,
            "ratios": ratios,
        },
    )
    columns = ["", *PLACES]
    rows = [
        [way, *(cell(times[place], ratios[way][place], options.limit) for place in PLACES)]
        for way, times in found.items()
    ]
    Console().print(Markdown(markdown(columns, rows)))


if __name__ == "__main__":
    main()
