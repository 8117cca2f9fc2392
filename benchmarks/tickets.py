"""TEDDY's tickets at levels 5, 10, 15 and 20, beside random edges, no edges, a dense student and the dense model.

    python benchmarks/tickets.py run --jobs 2     # resumes where it stopped; one line per run in results/tickets.jsonl
    python benchmarks/tickets.py table            # results/tickets.json and docs/tickets.md from what has run

The distillation weight of every row is chosen by the mean validation accuracy over its seeds; test data choose nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import append_row, provenance, read_rows, write_json

HERE = Path(__file__).parent
ROWS = HERE / "results" / "tickets.jsonl"
LEVELS = (5, 10, 15, 20)
KEY = ("dataset", "model", "protocol", "features", "seed", "method", "guard", "level", "distill")
PROBLEM = ("dataset", "model", "protocol", "features")
NAMES = (*PROBLEM, "method", "guard", "level")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that share a data set, a model and a protocol."""

    dataset: str
    model: str
    protocol: str
    seeds: int
    methods: tuple[str, ...]
    distills: tuple[float, ...]
    levels: tuple[int, ...] = LEVELS
    guards: tuple[str | None, ...] = (None,)
    features: str = "raw"

    def runs(self) -> Iterator[dict[str, Any]]:
        """Every run of one seed, cheapest to compare first."""
        for level in self.levels:
            for method in self.methods:
                guards = self.guards if method in ("teddy", "random") else (None,)
                for guard in guards:
                    for distill in self.distills:
                        yield {"method": method, "guard": guard, "level": level, "distill": distill}


PAIR, CONTROLS = ("teddy", "random"), ("no edges", "dense student")
FINDER = {"no edges": "no-edges", "dense student": "all-edges"}  # what the rows call them: the dense student is pruned
PLAN = (
    Group("cora", "gcn", "transductive", 5, PAIR, (0.0, 0.1, 1.0, 10.0)),
    Group("cora", "gcn", "transductive", 5, CONTROLS, (1.0, 10.0)),
    Group("cora", "gcn", "transductive", 5, ("teddy",), (0.1,), features="row-normalised"),
    Group("citeseer", "gcn", "transductive", 5, PAIR, (1.0, 10.0)),
    Group("citeseer", "gcn", "transductive", 5, CONTROLS, (1.0, 10.0)),
    Group("cora", "gcn", "inductive", 5, PAIR, (1.0,), levels=(10, 20), guards=(None, "cover")),
    Group("cora", "gcn", "inductive", 5, CONTROLS, (1.0,), levels=(10, 20)),
    *(
        Group("cora", m, "transductive", 3, PAIR, (w,))
        for w in (1.0, 10.0)
        for m in ("sage", "gin", "gat", "transformer")
    ),
    Group("pubmed", "gcn", "transductive", 5, PAIR, (1.0,)),
    Group("pubmed", "gcn", "transductive", 5, CONTROLS, (1.0,), levels=(20,)),
    Group("pubmed", "gcn", "transductive", 5, PAIR, (10.0,), levels=(10, 20)),
)


def run_seed(
    groups: tuple[Group, ...], seed: int, done: set[tuple[Any, ...]], hidden: int, epochs: int, out: Path
) -> str:
    """Train the dense model of one seed and every sparse run that is not done; append a line for each.

    The groups share a data set, a model, a protocol and features, and so the dense model.
    """
    import torch

    import graphsparse as gs
    from graphsparse.fit import NodeTask
    from graphsparse.tickets import Problem, Training, train_dense

    torch.set_num_threads(1)  # two processes of one thread each finish more runs than one of two
    group = groups[0]
    shared = {name: getattr(group, name) for name in PROBLEM} | {"seed": seed}
    runs = (run for part in groups if seed < part.seeds for run in part.runs())
    todo = [run for run in runs if tuple((shared | run)[k] for k in KEY) not in done]
    if not todo:
        return f"{group.dataset}-{group.model} {group.protocol} seed {seed}: nothing left to do"
    data = gs.data.load(group.dataset, normalize_features=group.features != "raw")
    net = gs.nn.make(group.model, data.num_features, data.num_classes, hidden, seed=seed)
    task = NodeTask(data, protocol=group.protocol)  # type: ignore[arg-type]
    problem = Problem(net, data, task, Training(epochs=epochs), seed=seed)
    start = time.perf_counter()
    dense = train_dense(problem)
    shared["commit"] = provenance("tickets")["commit"]
    row = shared | {"method": "dense", "guard": None, "level": 0, "distill": 0.0, "val": dense.val, "test": dense.test}
    append_row(out, row | {"seconds": time.perf_counter() - start})
    for run in todo:
        start = time.perf_counter()
        figures = sparse_run(problem, dense, run)
        figures |= {"dense_val": dense.val, "dense_test": dense.test, "seconds": time.perf_counter() - start}
        append_row(out, shared | run | figures)
    return f"{group.dataset}-{group.model} {group.protocol} seed {seed}: {len(todo)} runs"


def sparse_run(problem: Any, dense: Any, run: dict[str, Any]) -> dict[str, Any]:
    """One sparse training run: its figures at the best validation epoch, what is kept, what is isolated."""
    from graphsparse.tickets import level_keeps
    from graphsparse.tickets.cost import isolated_nodes
    from graphsparse.tickets.registry import finder_of

    edge_keep, weight_keep = level_keeps(run["level"])
    options = {"guard": run["guard"]} if run["guard"] else {}
    training = dataclasses.replace(problem.training, distill=run["distill"])
    problem = dataclasses.replace(problem, training=training, edge_options=options)
    found = finder_of(FINDER.get(run["method"], run["method"]))(problem, dense, edge_keep, weight_keep)
    edge_index, mask = problem.data.edge_index, found.edge_mask
    loops = edge_index[0] == edge_index[1]
    kept = {name: int(m.sum()) for name, m in found.weight_masks.items()}
    return {
        "val": found.result.val,
        "test": found.result.test,
        "edges_kept": int((mask & ~loops).sum()) / int((~loops).sum()),
        "weights_kept": sum(kept.values()) / sum(m.numel() for m in found.weight_masks.values()),
        "isolated_nodes": isolated_nodes(edge_index[:, mask], int(problem.data.num_nodes)),
    }


def run(arguments: argparse.Namespace) -> None:
    """Run what is left of the plan on ``--jobs`` processes of one thread each."""
    from rich.progress import Progress

    os.environ["OMP_NUM_THREADS"] = "1"
    done = {tuple(row[k] for k in KEY) for row in read_rows(arguments.out, KEY)}
    groups = [g for g in PLAN if arguments.only is None or arguments.only in f"{g.dataset}-{g.model}-{g.protocol}"]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool, Progress() as progress:
        problems: dict[tuple[Any, ...], list[Group]] = defaultdict(list)
        for group in groups:
            problems[tuple(getattr(group, name) for name in PROBLEM)].append(group)
        futures = [
            pool.submit(run_seed, tuple(parts), seed, done, arguments.hidden, arguments.epochs, arguments.out)
            for parts in problems.values()
            for seed in range(max(part.seeds for part in parts))
        ]
        bar = progress.add_task("tickets", total=len(futures))
        for future in as_completed(futures):
            progress.console.print(future.result(), highlight=False)
            progress.advance(bar)


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One summary for each data set, model, protocol, method and level, at the distillation weight best on validation.

    Also every single weight, as ``fixed``: mean and 95 % half width of the test accuracy, and the paired difference
    from the dense model of the same seeds.
    """
    from graphsparse.fit import finite_or_none, mean_ci, paired_difference

    table: dict[tuple[Any, ...], dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = tuple(row[k] for k in NAMES)
        table[key][row["distill"]].append(row)
    summaries = []
    for key, by_weight in table.items():
        options = []
        for weight, runs in sorted(by_weight.items()):
            runs.sort(key=lambda row: row["seed"])
            mean, half = mean_ci([row["test"] for row in runs])
            entry = {
                "distill": weight,
                "test": mean,
                "test_ci95": finite_or_none(half),
                "val": mean_ci([row["val"] for row in runs])[0],
                "seeds": [row["seed"] for row in runs],
            }
            if "dense_test" in runs[0]:
                paired = paired_difference([r["test"] for r in runs], [r["dense_test"] for r in runs])
                entry |= {"minus_dense": paired.mean, "minus_dense_ci95": paired.half_width}
                entry |= {k: mean_ci([r[k] for r in runs])[0] for k in ("edges_kept", "weights_kept", "isolated_nodes")}
            options.append(entry)
        complete = [o for o in options if len(o["seeds"]) == max(len(other["seeds"]) for other in options)]
        summaries.append(
            dict(zip(NAMES, key, strict=True)) | {"chosen": max(complete, key=lambda o: o["val"]), "fixed": options}
        )
    return summaries


def tabulate(arguments: argparse.Namespace) -> None:
    """Write the JSON and the Markdown tables of all runs so far, and print them."""
    from rich.console import Console
    from rich.markdown import Markdown

    rows = read_rows(arguments.out, KEY)
    summaries = chosen(rows)
    write_json(HERE / "results" / "tickets.json", {**provenance("tickets"), "runs": len(rows), "summaries": summaries})
    text = pages(summaries)
    target = HERE.parent / "docs" / "tickets.md"
    head = target.read_text().split("<!-- tables -->")[0] if target.exists() else "# Tickets\n\n"
    target.write_text(f"{head}<!-- tables -->\n\n{text}\n")
    Console().print(Markdown(text))


def pages(summaries: list[dict[str, Any]]) -> str:
    """A Markdown table for each data set, model and protocol; one row a method, one column a level."""
    from graphsparse.report import interval, markdown

    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for summary in summaries:
        groups[summary["dataset"], summary["model"], summary["protocol"], summary["features"]].append(summary)
    parts = []
    for (dataset, model, protocol, features), members in groups.items():
        by_cell = {(s["method"], s["guard"], s["level"]): s for s in members}
        dense = by_cell["dense", None, 0]["chosen"]
        levels = sorted({s["level"] for s in members} - {0})
        rows = [["dense", *[interval(dense["test"], dense["test_ci95"], scale=100, digits=1)] * len(levels)]]
        for method, guard in dict.fromkeys((m, g) for m, g, level in by_cell if level):
            label = method if guard is None else f"{method} + {guard}"
            weights = {
                o["distill"] for s in members if (s["method"], s["guard"]) == (method, guard) for o in s["fixed"]
            }
            choices = [("weight chosen on validation", None)] if len(weights) > 1 else []
            for name, weight in [*choices, *((f"weight {w:g}", w) for w in sorted(weights))]:
                rows.append([f"{label}, {name}", *[_cell(by_cell, method, guard, level, weight) for level in levels]])
        isolated = [
            f"{by_cell['teddy', None, lv]['chosen']['isolated_nodes']:.0f}"
            for lv in levels
            if ("teddy", None, lv) in by_cell
        ]
        rows.append(["isolated nodes (teddy)", *isolated])
        seeds = len(dense["seeds"])
        title = f"### {dataset}, {model}, {protocol}, {features} features ({seeds} seeds)"
        parts.append(f"{title}\n\n{markdown(['test accuracy, %', *[f'level {lv}' for lv in levels]], rows)}")
    return "\n\n".join(parts)


def _cell(by_cell: dict[Any, Any], method: str, guard: str | None, level: int, weight: float | None) -> str:
    from graphsparse.report import interval

    summary = by_cell.get((method, guard, level))
    if summary is None:
        return "-"
    if weight is None:
        option, suffix = summary["chosen"], f" ({summary['chosen']['distill']:g})"
    else:
        options = [o for o in summary["fixed"] if o["distill"] == weight]
        if not options:
            return "-"
        option, suffix = options[0], ""
    if len(option["seeds"]) < len(by_cell["dense", None, 0]["chosen"]["seeds"]):
        suffix += f", n={len(option['seeds'])}"
    return interval(option["test"], option["test_ci95"], scale=100, digits=1) + suffix


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="a part of dataset-model-protocol")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    run(arguments) if arguments.action == "run" else tabulate(arguments)


if __name__ == "__main__":
    main()
