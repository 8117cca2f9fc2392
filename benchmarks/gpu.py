"""What a GPU does: the marked tests, edges and weights beside torch, training beside the CPU, a CNN pruned.

    python benchmarks/gpu.py                 # about 25 minutes on one card; results/gpu.json
    python benchmarks/gpu.py --device cpu --small    # the same path in minutes, where there is no GPU

Each stage is a line of ``results/gpu.jsonl``: the same command goes on where it stopped, and a stage that failed is
written down with its error and made again. No stage starts that the minutes left do not allow.
"""

from __future__ import annotations

import argparse
import copy
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import RESULTS, append_row, provenance, read_rows, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor

import graphsparse as gs
from graphsparse.keep_rule import kept_count

HERE = Path(__file__).parent
ROWS = RESULTS / "gpu.jsonl"
KEY = ("stage", "device", "small")
Figures = dict[str, Any]


def seconds(action: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of a call after one that does not count, with the device at rest before and after."""
    found = []
    for _ in range(repeats + 1):
        rest(device)
        start = time.perf_counter()
        action()
        rest(device)
        found.append(time.perf_counter() - start)
    return median(found[1:])


def rest(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(action: Callable[[], Any], device: torch.device) -> float | None:
    """Most gigabytes of the device's memory during a call; None for a CPU."""
    if device.type != "cuda":
        action()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    action()
    return torch.cuda.max_memory_allocated(device) / 1e9


def tests(device: torch.device, small: bool) -> Figures:
    """The tests that are marked ``cuda``; on a CPU they only say that they were skipped."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-n", "0", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    counts = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", done.stdout)
    return {"exit_code": done.returncode, "counts": counts, "failed": failed}


def edge_list(pairs: int, device: torch.device) -> Tensor:
    """About so many pairs with both arcs, sorted by tail, degrees falling as the root of the id."""
    generator = torch.Generator(device).manual_seed(0)
    nodes = pairs // 10
    ends = (nodes * torch.rand(2, pairs, generator=generator, device=device, dtype=torch.float64) ** 2).long()
    low, high = ends.amin(0), ends.amax(0)
    keys = torch.unique((low * nodes + high)[low != high])
    low, high = keys // nodes, keys % nodes
    arcs = torch.cat([low * nodes + high, high * nodes + low]).sort().values
    return torch.stack([arcs // nodes, arcs % nodes])


def torch_recipe(edge_index: Tensor, keep: float) -> Tensor:
    """TEDDY's score as a user of torch writes it, on the device of the edges."""
    tails, heads = edge_index
    degree = torch.bincount(tails).to(torch.float32)
    factor = torch.zeros_like(degree).index_add_(0, tails, degree.rsqrt()[heads]) / degree / degree
    scores = factor[tails] * factor[heads]
    best = torch.topk(scores, 2 * kept_count(keep, len(scores) // 2), sorted=False).indices
    mask = torch.zeros(len(scores), dtype=torch.bool, device=edge_index.device)
    mask[best] = True
    return edge_index[:, mask]


def edges(device: torch.device, small: bool) -> Figures:
    """`sparsify` of a graph that lies on the device, with the way to the CPU and back, beside torch's recipe there."""
    edge_index = edge_list(200_000 if small else 100_000_000, device)
    here = edge_index.cpu()
    ours = gs.sparsify(edge_index, "teddy", keep=0.7)
    if ours.device != edge_index.device or not torch.equal(ours.cpu(), gs.sparsify(here, "teddy", keep=0.7)):
        raise RuntimeError("edges that lie on the device are chosen otherwise than the same edges on the CPU")
    kept = ours.size(1)
    del ours
    return {
        "arcs": edge_index.size(1),
        "kept": kept,
        "sparsify": seconds(lambda: gs.sparsify(edge_index, "teddy", keep=0.7), device, 3),
        "sparsify, edges on the CPU": seconds(lambda: gs.sparsify(here, "teddy", keep=0.7), device, 3),
        "torch on the device": seconds(lambda: torch_recipe(edge_index, 0.7), device, 3),
        "copy on the device": seconds(edge_index.clone, device, 3),
    }


def projection(device: torch.device, small: bool) -> Figures:
    """The l0 projection of weights on the device beside topk of their magnitudes there."""
    count = 1_000_000 if small else 100_000_000
    weights = [torch.randn(count // 4, device=device) for _ in range(4)]

    def recipe() -> None:
        every = torch.cat([weight.abs() for weight in weights])
        mask = torch.zeros_like(every, dtype=torch.bool)
        mask[torch.topk(every, count // 10, sorted=False).indices] = True
        start = 0
        for weight in weights:
            weight * mask[start : start + len(weight)]
            start += len(weight)

    def ours() -> None:
        gs.params.project_l0_([weight.clone() for weight in weights], keep=0.1)

    return {
        "weights": count,
        "project_l0_": seconds(ours, device),
        "topk recipe": seconds(recipe, device),
        "project_l0_ GB": peak(ours, device),
        "topk recipe GB": peak(recipe, device),
    }


def training(device: torch.device, small: bool) -> Figures:
    """A ticket of Cora (the digits where there is no Cora) on the device and on the CPU; it verifies on both."""
    try:
        name, data = "cora", gs.data.load("cora")
    except gs.DataError:
        name, data = "digits-knn", gs.data.load("digits-knn")
    hidden, epochs = (16, 5) if small else (512, 200)
    net = gs.nn.make("gcn", data.num_features, data.num_classes, hidden, seed=0)
    found: Figures = {"dataset": name, "hidden": hidden, "epochs": epochs}
    for place in dict.fromkeys([device, torch.device("cpu")]):
        moved = copy.deepcopy(net).to(place)
        start = time.perf_counter()
        ticket = gs.find_ticket(moved, data, edge_keep=0.6, weight_keep=0.2, epochs=epochs, device=place)
        rest(device)
        found[f"ticket, {place.type}"] = time.perf_counter() - start
        found[f"test, {place.type}"] = ticket.metrics["test_accuracy"]
        ticket.verify(data, model=net)
        ticket.verify(data, model=moved)
        result = gs.fit.fit(moved, gs.fit.NodeTask(data), epochs=epochs, device=place)
        found[f"epoch, {place.type}"] = result.seconds / epochs
    return found


def batches(device: torch.device, small: bool) -> Figures:
    """A stand-in of ogbn-products in mini-batches; `benchmarks/batches.py` says what it is."""
    size = "tiny" if small else "products"
    out = RESULTS / f"batches-{size}-{device.type}.json"
    return script("batches.py", "--size", size, "--device", device.type, "--out", str(out))


def cnn(device: torch.device, small: bool) -> Figures:
    """`benchmarks/resnet56.py run --quick`: every stage of the large study with tiny networks."""
    return script(
        "resnet56.py", "run", "--quick", "--device", device.type, "--out", str(RESULTS / "gpu-resnet56.jsonl")
    )


def script(*arguments: str) -> Figures:
    """Run a benchmark of this folder in a process of its own."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(HERE / arguments[0]), *arguments[1:]], cwd=HERE.parent, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}")
    return {"command": " ".join(arguments), "seconds": time.perf_counter() - start}


STAGES: dict[str, tuple[Callable[[torch.device, bool], Figures], float]] = {  # and the minutes it may need
    "tests": (tests, 6),
    "projection": (projection, 1),
    "training": (training, 2),
    "edges": (edges, 4),
    "cnn": (cnn, 4),
    "batches": (batches, 8),
}


def main() -> None:
    """Make the stages that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes: tries the path")
    parser.add_argument("--only", help="stages, separated by commas")
    parser.add_argument("--minutes", type=float, default=25.0, help="no stage starts that these do not allow")
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    device, console = torch.device(given.device), Console()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; --device cpu --small tries the same path on the CPU")
    wanted = given.only.split(",") if given.only else list(STAGES)
    if unknown := [name for name in wanted if name not in STAGES]:
        raise SystemExit(f"there is no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    end = time.monotonic() + 60 * given.minutes
    made = {row["stage"] for row in read_rows(given.out, KEY) if matches(row, card, given.small) and "error" not in row}
    for name in wanted:
        stage, minutes = STAGES[name]
        if name in made:
            console.print(f"{name}: made before")
            continue
        if time.monotonic() + 60 * minutes > end and not given.small:
            console.print(f"{name}: needs up to {minutes:g} minutes, which are not left; the same command makes it")
            continue
        start = time.perf_counter()
        try:
            row = stage(device, given.small)
        except Exception as error:  # the next stage is worth its time
            row = {"error": f"{type(error).__name__}: {error}"[:500]}
        row |= {"stage": name, "device": card, "small": given.small, "took": time.perf_counter() - start}
        append_row(given.out, row)
        console.print(f"{name}: {row.get('error') or 'done'} ({row['took']:.0f} s)")
    rows = [row for row in read_rows(given.out, KEY) if matches(row, card, given.small)]
    write_json(
        given.out.with_suffix(".json"),
        {**provenance("gpu"), "device": card, "torch_cuda": torch.version.cuda, "rows": rows},
    )
    show(rows, console)


def matches(row: Figures, card: str, small: bool) -> bool:
    """Whether a row is of this device and size."""
    return bool(row["device"] == card and row["small"] == small)


def show(rows: list[Figures], console: Console) -> None:
    """Print every figure of every stage."""
    table = Table("stage", "figure", "value")
    for row in rows:
        for name, value in row.items():
            if name not in (*KEY, "took"):
                table.add_row(row["stage"], name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(table)


if __name__ == "__main__":
    main()
