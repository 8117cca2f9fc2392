"""Every edge score beside the others: time, what is left of the graph, and what a GCN loses, on real graphs.

    python benchmarks/scores.py            # prints tables, writes results/scores.json and docs/methods/edges.md

Structure and time: keep 0.5 on Cora and Facebook; the median of three calls of `sparsify`, or one call where it
takes more than ten seconds. Accuracy: Cora, inductive, a GCN with 64 hidden units, trained for 200 epochs on labels
alone with all its weights; keep 0.36; random splits, each with its own initial weights, the same for all scores.
Figures are those of the best validation epoch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, provenance, write_json

from graphsparse.data import load
from graphsparse.edges import SCORES, keep_mask, score, sparsify
from graphsparse.fit import NodeTask, fit, mean_ci, paired_difference
from graphsparse.graphs.anatomy import anatomy
from graphsparse.nn import make
from graphsparse.report import interval, markdown

PAGE = Path(__file__).parents[1] / "docs" / "methods" / "edges.md"
MARK = "<!-- tables: python benchmarks/scores.py -->"
HALF, FEW = 0.5, 0.36
SLOW = 10.0  # seconds; what takes longer is measured once
COVERED = "teddy, guard cover"


def rules_of(name: str) -> tuple[str, dict[str, Any]]:
    """A row's score and its rule."""
    return ("teddy", {"guard": "cover"}) if name == COVERED else (name, {})


def structure(data_set: str) -> dict[str, Any]:
    """Time and figures of the graph under each score, and of the whole graph."""
    data = load(data_set)
    found: dict[str, Any] = {"all edges": {**anatomy(data.edge_index, data.num_nodes, data.y), "seconds": None}}
    for name in [*SCORES, COVERED]:
        method, rules = rules_of(name)
        seconds = []
        while not seconds or (len(seconds) < 3 and seconds[0] < SLOW):
            start = time.perf_counter()
            small = sparsify(data, method, keep=HALF, **rules)
            seconds.append(time.perf_counter() - start)
        found[name] = {**anatomy(small.edge_index, data.num_nodes, data.y), "seconds": statistics.median(seconds)}
    return found


def accuracies(splits: int) -> dict[str, list[float]]:
    """Test accuracy of a GCN on each score's graph, a figure for each random split of Cora."""
    found: dict[str, list[float]] = {}
    for seed in range(splits):
        data = load("cora", split="random", seed=seed)
        whole = NodeTask(data, protocol="inductive")
        for name in ["all edges", *SCORES, COVERED]:
            task = whole
            if name != "all edges":
                method, rules = rules_of(name)
                mask = keep_mask(score(data, method), data.edge_index, keep=FEW, num_nodes=data.num_nodes, **rules)
                task = whole.with_mask(mask)
            net = make("gcn", data.num_features, data.num_classes, 64, seed=seed)
            found.setdefault(name, []).append(fit(net, task, seed=seed, progress=False).test)
    return found


def tables(results: dict[str, Any]) -> str:
    """The tables of the page, in Markdown."""
    lines = [f"Time and structure at keep {HALF:g}, one thread (`{results['command']}`):", ""]
    for data_set, rows in results["structure"].items():
        shown = [
            [
                f"`{name}`" if name in SCORES else name,
                "-" if row["seconds"] is None else f"{1000 * row['seconds']:.0f}",
                f"{row['isolated_nodes']:,}",
                f"{row['components']:,}",
                f"{row['clustering']:.3f}",
                f"{row['homophily']:.3f}",
            ]
            for name, row in rows.items()
        ]
        head = [data_set.capitalize(), "time, ms", "nodes without edges", "components", "clustering", "homophily"]
        lines += [markdown(head, shown), ""]
    runs = results["accuracy"]
    shown = []
    for name, test in runs.items():
        change = paired_difference(test, runs["random"])
        beside = (
            ""
            if name == "random"
            else f"{100 * change.mean:+.1f} ± {100 * change.half_width:.1f} ({change.wins}/{change.pairs})"
        )
        label = f"`{name}`" if name in SCORES else name
        shown.append([label, interval(*mean_ci(test), scale=100, digits=1), beside])
    shown.sort(key=lambda cells: -float(cells[1].split()[0]))
    lines += [
        f"Cora, inductive, GCN 64, keep {FEW:g}, no distillation, {len(runs['random'])} random splits, 95 % intervals:",
        "",
        markdown(["edges by", "test accuracy, %", "minus random"], shown),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        **provenance("scores"),
        "command": f"python benchmarks/scores.py --splits {arguments.splits}",
        "structure": {name: structure(name) for name in ("cora", "facebook")},
        "accuracy": accuracies(arguments.splits),
    }
    write_json(RESULTS / "scores.json", results)
    text = tables(results)
    print(text)
    if PAGE.exists():
        PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + "\n\n" + text + "\n")


if __name__ == "__main__":
    main()
