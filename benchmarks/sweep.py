"""A sweep over levels and seeds: `graphsparse bench tickets` beside plain PyG, one run at a time.

    GRAPHSPARSE_DATA=... python benchmarks/sweep.py            # prints a table, writes results/sweep.json

Both train, for each seed, one dense teacher and then a sparse student at each level of the paper (TEDDY's edges,
projection onto the l0 ball after every step, distillation, an evaluation each epoch) from the same initial weights.
Plain PyG is the loop as one writes it: GCNConv on dense features, torch.topk for the projection. Of it a sample of the
runs is made, with a part of the epochs, and its time taken times as many runs and epochs as the sweep has: every epoch
is the same work. The sweep of graphsparse is made whole, in the processes that `bench tickets` takes by itself. Some of
its tickets are made again by `find_ticket` alone, and must have the same hashes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data
from training import PlainGCN

from graphsparse.compare import ROWS, Bench
from graphsparse.cores import usable_cores
from graphsparse.data import load
from graphsparse.edges import sparsify
from graphsparse.nn import make
from graphsparse.parallel import one_thread
from graphsparse.params import project_l0_
from graphsparse.tickets import find_ticket, level_keeps
from graphsparse.tickets.compare.comparison import TICKETS
from graphsparse.tickets.compare.plan import Experiment
from graphsparse.tickets.compare.setup import problem_of
from graphsparse.tickets.problem import Training


def plain_run(data: Data, hidden: int, seed: int, epochs: int, teacher: Tensor | None, keep: float) -> Tensor:
    """One run in PyG, of a student if there is a teacher; returns the outputs of the best validation epoch."""
    model = PlainGCN(data.num_features, hidden, data.num_classes)
    model.load_state_dict(make("gcn", data.num_features, data.num_classes, hidden, seed=seed).state_dict())
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    best, found = -1.0, torch.empty(0)
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        outputs = model(data.x, data.edge_index)
        loss = functional.cross_entropy(outputs[data.train_mask], data.y[data.train_mask])
        if teacher is not None:
            loss = loss + functional.kl_div(
                outputs.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
            )
        loss.backward()
        optimizer.step()
        if teacher is not None:
            project(model, keep)
        model.eval()
        with torch.no_grad():
            outputs = model(data.x, data.edge_index)
        right = outputs.argmax(dim=1) == data.y
        val = float(right[data.val_mask].float().mean())
        if val >= best:
            best, found = val, outputs
    return found


@torch.no_grad()
def project(model: nn.Module, keep: float) -> None:
    """The largest weights of all stay."""
    flat = torch.cat([value.abs().flatten() for value in model.parameters()])
    least = flat.topk(max(1, int(keep * flat.numel()))).values[-1]
    for value in model.parameters():
        value.mul_(value.abs() >= least)


def plain_seconds(data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds an epoch of sampled plain runs, and of the sweep if all were made."""
    dense, sparse = [], []
    for seed in range(options.sample):
        start = time.perf_counter()
        teacher = plain_run(data, options.hidden, seed, options.sample_epochs, None, 1.0)
        dense.append(time.perf_counter() - start)
        for level in sorted({1, options.levels // 2 or 1, options.levels}):
            edges, weights = level_keeps(level)
            start = time.perf_counter()
            small = sparsify(data, method="teddy", keep=float(edges))
            plain_run(small, options.hidden, seed, options.sample_epochs, teacher, float(weights))
            sparse.append(time.perf_counter() - start)
    factor = options.epochs / options.sample_epochs
    runs = {"dense": statistics.fmean(dense) * factor, "sparse": statistics.fmean(sparse) * factor}
    total = options.seeds * (runs["dense"] + options.levels * runs["sparse"])
    return {"seconds_a_run": runs, "sampled": {"dense": dense, "sparse": sparse}, "seconds": total}


def ours(options: argparse.Namespace, out: Path) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of the whole sweep by `bench tickets`, and its rows."""
    experiment = Experiment(
        options.dataset,
        model="gcn",
        hidden=options.hidden,
        protocol="transductive",
        methods=("teddy",),
        levels=tuple(range(1, options.levels + 1)),
        seeds=options.seeds,
        epochs=options.epochs,
        trials=1,
    )
    start = time.perf_counter()
    Bench([experiment], options.jobs).run(out, Console(quiet=True))
    return time.perf_counter() - start, TICKETS.read_runs(out / ROWS)


def same_as_single_runs(data: Data, options: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    """How many tickets were made again by `find_ticket`, all with the hashes of the sweep."""
    with one_thread():
        for level in sorted({1, options.levels}):
            edges, weights = level_keeps(level)
            net = make("gcn", data.num_features, data.num_classes, options.hidden, seed=0)
            ticket = find_ticket(
                net, data, edge_keep=edges, weight_keep=weights, seed=0, epochs=options.epochs, progress=False
            )
            (row,) = (row for row in rows if (row["method"], row["level"], row["seed"]) == ("teddy", level, 0))
            if row["ticket"] != ticket.hash:
                raise SystemExit(f"level {level}: the sweep's ticket is {row['ticket']}, a single run's {ticket.hash}")
    return len({1, options.levels})


def where_time_goes(data: Data, options: argparse.Namespace, epochs: int = 20) -> dict[str, float]:
    """Milliseconds of the parts of an epoch at the sparsest level, one thread; medians."""
    edges, weights = level_keeps(options.levels)
    problem = problem_of(data, model="gcn", hidden=options.hidden, seed=0, training=Training(epochs=1))
    task = problem.task.with_mask(problem.edge_mask("teddy", edges))
    model = problem.fresh_model()
    session = task.start(
        model, torch.device("cpu"), task.teach(model, torch.zeros(data.num_nodes, data.num_classes), 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4, fused=True)
    times: dict[str, list[float]] = {}

    def timed(name: str, part: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        out = part()
        times.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
        return out

    with one_thread():
        for _ in range(epochs):
            optimizer.zero_grad(set_to_none=True)
            loss = timed("forward and losses", lambda: next(iter(session.losses())))
            timed("backward", loss.backward)
            timed("Adam", optimizer.step)
            timed("projection", lambda: project_l0_(model, weights))
            timed("evaluation", session.evaluate)
    return {name: statistics.median(own[2:]) for name, own in times.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cora")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--levels", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=usable_cores())
    parser.add_argument("--sample", type=int, default=2, help="seeds of plain runs")
    parser.add_argument("--sample-epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep.json")
    options = parser.parse_args()
    data = load(options.dataset)
    before = plain_seconds(data, options)
    with tempfile.TemporaryDirectory() as folder:
        seconds, rows = ours(options, Path(folder))
    after = plain_seconds(data, options)
    plain = (before["seconds"] + after["seconds"]) / 2
    parts = where_time_goes(data, options)
    found = {
        "plain": [before, after],
        "plain_seconds": plain,
        "ours_seconds": seconds,
        "times_as_fast": plain / seconds,
        "training_share": sum(row["seconds"] for row in rows) / (seconds * options.jobs),
        "parts_ms": parts,
        "same_as_single_runs": same_as_single_runs(data, options, rows),
    }
    title = f"{options.dataset}, GCN-{options.hidden}, {options.levels} levels, {options.seeds} seeds"
    table = Table("", "seconds", "times as fast", title=title)
    table.add_row("plain PyG, one run at a time", f"{plain:.0f}", "1.0")
    table.add_row(f"bench tickets, {options.jobs} processes", f"{seconds:.0f}", f"{plain / seconds:.1f}")
    Console().print(table)
    Console().print(", ".join(f"{name} {ms:.1f} ms" for name, ms in parts.items()))
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    write_json(options.out, {**provenance("sweep"), "options": settings, **found})


if __name__ == "__main__":
    main()
