"""Tickets on a clock: time, memory and accuracy of tickets beside the dense PyG model, in the same process.

    GRAPHSPARSE_DATA=... python benchmarks/clock.py             # results/clock.json from results/clock/rows.jsonl
    python benchmarks/clock.py --quick --dataset cora           # a minute, to see that it works

For each data set, seed, level of the paper (edges 0.95^i, weights 0.9^i) and pattern of the weights a ticket is found
(TEDDY, inductive where the task knows it) and compiled, and passes over the whole graph take turns:

- *dense PyG*: the model as a PyG user writes it, with the dense run's weights, on all edges, from dense features;
- *ticket, plain*: the same model with the ticket's weights on the ticket's edges;
- *dense, compiled*: the dense model as `compile` makes it, so that it can be told what pruning adds to it;
- *ticket, compiled*: ``fast()``, and *from dense features*, ``fast(x)``, which looks through x first.

Runs that are in the rows are not made again. Memory is the most that a pass holds at once in tensors of its own. The
roofline has the machine's own bandwidth and multiplications, measured in the same run on one thread. ``--processor``
takes the processor's time instead of the wall's, for a machine that others use.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, append_row, provenance, read_rows, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv

from graphsparse.data import load
from graphsparse.fit import FitResult, finite_or_none, paired_difference
from graphsparse.nn import GCN, Backbone
from graphsparse.parallel import one_thread
from graphsparse.tickets import CompiledTicket, Problem, Ticket, Training, level_keeps, make_ticket, train_dense
from graphsparse.tickets.compare.setup import problem_of

# data set: backbone, hidden units, epochs
SETS = {
    "cora": ("gcn", 512, 200),
    "citeseer": ("gcn", 512, 200),
    "pubmed": ("gcn", 512, 100),
    "facebook": ("gcn", 128, 100),
    "tolokers": ("gcn", 128, 100),
    "wordnet": ("gcn", 128, 40),
    "ogbl-ddi": ("sage", 128, 30),
}
PATTERNS = ("weights", "units")
KEY = ("dataset", "seed", "level", "pattern", "hidden", "epochs")
FAST, PEER = "ticket, compiled", "dense PyG"


class PlainStack(nn.Module):
    """PyG's own layers, as a user of PyG stacks them."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        kind = GCNConv if isinstance(backbone, GCN) else SAGEConv
        self.convs = nn.ModuleList(kind(conv.in_channels, conv.out_channels) for conv in backbone.convs)
        self.load_state_dict(backbone.state_dict())

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            x = conv(x if number == 0 else x.relu(), edge_index)
        return x


def plain(model: nn.Module) -> nn.Module:
    """A copy whose backbone is made of PyG's layers."""
    if isinstance(model, Backbone):
        return PlainStack(model).eval()
    model = copy.deepcopy(model).eval()
    for name, part in list(model.named_modules()):
        if isinstance(part, Backbone):
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], PlainStack(part))
    return model


def timed(
    runs: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Milliseconds of each run: first quartile, median, third; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if repeat:
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.quantiles(own, n=4, method="inclusive") for name, own in times.items()}


def peak_mb(run: Callable[[], object]) -> float:
    """The most that a run holds at once in tensors that it makes, in MB."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = [0, *accumulate(size for _, size in sorted(changes, key=lambda change: change[0]))]
    return max(held) / 1e6


def machine_limits() -> dict[str, float]:
    """Bytes a second of a copy (read and written), multiplications a second of a dense product; one thread."""
    long, square = torch.zeros(1 << 26), torch.rand(1024, 1024)
    copied = torch.empty_like(long)
    with one_thread():
        times = timed({"copy": lambda: copied.copy_(long), "product": lambda: square @ square}, 7)
    return {
        "bytes_s": 2e3 * long.numel() * 4 / times["copy"][1],
        "multiplications_s": 1e3 * 1024**3 / times["product"][1],
    }


def measure(
    problem: Problem, dense: FitResult, ticket: Ticket, repeats: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Times and memory of a ticket beside the dense model."""
    data, model = problem.data, problem.model
    whole = problem.trained_model(dense)
    fast = ticket.compile(model, data)
    compiled = CompiledTicket(whole, problem.task.arguments(whole))
    sparse = plain_ticket(ticket, model)
    graphs = {PEER: problem.task.arguments(whole), "ticket, plain": fast.arguments}
    models = {PEER: plain(whole), "ticket, plain": sparse}
    runs: dict[str, Callable[[], object]] = {
        name: partial(models[name], *graph.places, **graph.named) for name, graph in graphs.items()
    }
    runs |= {"dense, compiled": compiled, FAST: fast}
    if fast.arguments.x is not None:
        runs["ticket, compiled, from dense features"] = partial(fast, fast.arguments.x)
    with torch.no_grad():
        return {
            "ms": timed(runs, repeats, clock),
            "peak_mb": {name: peak_mb(run) for name, run in runs.items()},
            "plan": list(fast.plan),
            "work": dict(fast.work),
            "error": fast.error,
            "threads": torch.get_num_threads(),
            "compiled_threads": fast.threads,
        }


def plain_ticket(ticket: Ticket, model: nn.Module) -> nn.Module:
    """PyG's layers with the ticket's weights: smaller layers where units were cut out."""
    return plain(ticket.apply_to(model))


def rows_of(name: str, seed: int, options: argparse.Namespace, out: Path, done: set[tuple[Any, ...]]) -> None:
    """Make the rows of a data set and a seed that are not there yet."""
    backbone, hidden, epochs = SETS[name]
    if options.quick:
        hidden, epochs = min(hidden, 64), 10
    left = [
        (level, pattern)
        for level, pattern in product(options.level, options.pattern)
        if (name, seed, level, pattern, hidden, epochs) not in done
    ]
    if not left:
        return
    data = load(name, None if name.startswith("ogbl-") else "random", seed=seed)
    dense: FitResult | None = None
    protocol = "inductive" if data.task == "node" else None
    for level, pattern in left:
        start = time.perf_counter()
        training = Training(epochs=epochs, **({} if pattern == "weights" else {"pattern": pattern}))
        problem = problem_of(data, model=backbone, hidden=hidden, seed=seed, training=training, protocol=protocol)
        dense = train_dense(problem) if dense is None else dense
        ticket = make_ticket(problem, dense, "teddy", *level_keeps(level))
        named = dict(zip(KEY, (name, seed, level, pattern, hidden, epochs), strict=True))
        kept = ("metric", "test", "dense_test", "macs", "dense_macs", "edges_kept", "weights_kept")
        figures = {key: ticket.metrics[key] for key in kept}
        clock = time.process_time if options.processor else time.perf_counter
        found = measure(problem, dense, ticket, 3 if options.quick else options.repeats, clock)
        row = {**named, **figures, **found, "seconds": time.perf_counter() - start}
        append_row(out, row)
        Console().print(f"{name}, seed {seed}, level {level}, {pattern}: {row['seconds']:.0f} s", highlight=False)


def summary(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """One line a data set, level and pattern: medians over seeds, and accuracy paired by seed."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["level"], row["pattern"]), []).append(row)
    return [_summed_up(key, own, limits) for key, own in groups.items()]


def _summed_up(key: tuple[Any, ...], own: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> dict[str, Any]:
    names = own[0]["ms"]
    ms = {name: statistics.median(row["ms"][name][1] for row in own) for name in names}
    spread = [min(row["ms"][FAST][0] for row in own), max(row["ms"][FAST][2] for row in own)]
    faster = [row["ms"][PEER][1] / row["ms"][FAST][1] for row in own]
    difference = paired_difference([row["test"] for row in own], [row["dense_test"] for row in own])
    macs = statistics.median(row["dense_macs"] / row["macs"] for row in own)
    work = own[0]["work"]
    bound = {
        "multiplications_ms": 1e3 * work.get("multiplications", 0) / limits["multiplications_s"],
        "bytes_ms": 1e3 * work.get("bytes", 0) / limits["bytes_s"],
    }
    return {
        **dict(zip(("dataset", "level", "pattern"), key, strict=True)),
        "seeds": len(own),
        "metric": own[0]["metric"],
        "dense_test": statistics.fmean(row["dense_test"] for row in own),
        "test": statistics.fmean(row["test"] for row in own),
        "minus_dense": difference.mean,
        "minus_dense_ci95": finite_or_none(difference.half_width),
        "ms": ms,
        "compiled_ms_quartiles": spread,
        "times_as_fast": statistics.median(faster),
        "times_as_fast_range": [min(faster), max(faster)],
        "times_fewer_macs": macs,
        "macs_ratio_over_time_ratio": statistics.median(faster) / macs,
        "peak_mb": {name: statistics.median(row["peak_mb"][name] for row in own) for name in names},
        "roofline": {**bound, "bound": max(bound, key=lambda name: bound[name]) if work else None},
    }


def show(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="tickets on the clock")
    heads = (
        "",
        "level",
        "pattern",
        "dense",
        "ticket",
        "- dense",
        "dense PyG, ms",
        "plain",
        "dense compiled",
        "compiled",
    )
    for heading in (*heads, "times as fast", "MACs / time", "MB, PyG", "MB", "roofline, ms"):
        table.add_column(heading, justify="left" if heading in ("", "pattern") else "right")
    for line in lines:
        ms, roof = line["ms"], line["roofline"]
        half = line["minus_dense_ci95"]
        table.add_row(
            line["dataset"],
            str(line["level"]),
            line["pattern"],
            f"{100 * line['dense_test']:.1f}",
            f"{100 * line['test']:.1f}",
            f"{100 * line['minus_dense']:+.1f}" + ("" if half is None else f" ± {100 * half:.1f}"),
            *(f"{ms[name]:.2f}" for name in (PEER, "ticket, plain", "dense, compiled", FAST)),
            f"{line['times_as_fast']:.1f}",
            f"{line['macs_ratio_over_time_ratio']:.2f}",
            *(f"{line['peak_mb'][name]:.1f}" for name in (PEER, FAST)),
            f"{roof['multiplications_ms']:.2f} / {roof['bytes_ms']:.2f}",
        )
    Console(width=180).print(table)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--level", nargs="+", type=int, default=[10, 20])
    parser.add_argument("--pattern", nargs="+", default=list(PATTERNS), choices=PATTERNS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="few epochs and units: figures mean nothing")
    parser.add_argument("--processor", action="store_true", help="time of the processor instead of the wall")
    parser.add_argument("--out", type=Path, default=RESULTS / "clock" / "rows.jsonl")
    options = parser.parse_args()
    limits = machine_limits()
    done = {tuple(row[name] for name in KEY) for row in read_rows(options.out, KEY)}
    for name, seed in product(options.dataset, range(options.seeds)):
        rows_of(name, seed, options, options.out, done)
    lines = summary(read_rows(options.out, KEY), limits)
    show(lines)
    write_json(options.out.parent.with_suffix(".json"), {**provenance("clock"), "limits": limits, "lines": lines})


if __name__ == "__main__":
    main()
