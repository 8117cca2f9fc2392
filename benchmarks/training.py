"""Training time of a full-batch GCN: plain PyG in a plain loop beside graphsparse, same weights, same run.

    GRAPHSPARSE_DATA=... python benchmarks/training.py     # prints a table, writes results/training.json

Every contender trains the same two-layer GCN with the same settings from the same initial weights and is evaluated
after each epoch; per seed they take turns. Accuracy is that of the test nodes at the best validation epoch.
"""

from __future__ import annotations

import argparse
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
from torch_geometric.nn import GCNConv

from graphsparse.data import load
from graphsparse.fit import NodeTask, finite_or_none, fit, mean_ci, paired_difference
from graphsparse.nn import GCN

BASE = "plain PyG"


class PlainGCN(nn.Module):
    """The model as a PyG user writes it."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, *, cached: bool = False) -> None:
        super().__init__()
        widths = ((in_channels, hidden_channels), (hidden_channels, out_channels))
        self.convs = nn.ModuleList(GCNConv(*width, cached=cached) for width in widths)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        hidden = self.convs[0](x, edge_index).relu()
        return self.convs[1](functional.dropout(hidden, 0.5, self.training), edge_index)


def plain_loop(model: nn.Module, data: Data, epochs: int, seed: int) -> tuple[float, float]:
    """The loop as a PyG user writes it; returns validation and test accuracy of the best validation epoch."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    best = (0.0, 0.0)
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        outputs = model(data.x, data.edge_index)
        functional.cross_entropy(outputs[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            right = model(data.x, data.edge_index).argmax(dim=1) == data.y
        val, test = (float(right[mask].float().mean()) for mask in (data.val_mask, data.test_mask))
        if val >= best[0]:
            best = (val, test)
    return best


def contenders(data: Data, hidden: int, epochs: int) -> dict[str, Callable[[int], tuple[float, float]]]:
    """Each takes a seed, trains, and returns validation and test accuracy."""
    sizes = (data.num_features, hidden, data.num_classes)

    def start(model: nn.Module, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model.load_state_dict(GCN(*sizes).state_dict())
        return model

    def ours(model: nn.Module, seed: int) -> tuple[float, float]:
        result = fit(start(model, seed), NodeTask(data), epochs=epochs, seed=seed)
        return result.val, result.test

    return {
        BASE: lambda seed: plain_loop(start(PlainGCN(*sizes), seed), data, epochs, seed),
        "plain PyG, cached=True": lambda seed: plain_loop(
            start(PlainGCN(*sizes, cached=True), seed), data, epochs, seed
        ),
        "graphsparse.fit, the same PyG model": lambda seed: ours(PlainGCN(*sizes), seed),
        "graphsparse.fit, graphsparse.nn.GCN": lambda seed: ours(GCN(*sizes), seed),
    }


def measure(data: Data, hidden: int, epochs: int, seeds: int) -> dict[str, Any]:
    """Seconds and accuracies of every contender, in turn for each seed."""
    runs = contenders(data, hidden, epochs)
    for run in contenders(data, hidden, 3).values():
        run(0)  # warm up
    figures: dict[str, Any] = {name: {"seconds": [], "val": [], "test": []} for name in runs}
    for seed in range(seeds):
        for name, run in runs.items():
            begin = time.perf_counter()
            val, test = run(seed)
            figures[name]["seconds"].append(time.perf_counter() - begin)
            figures[name]["val"].append(val)
            figures[name]["test"].append(test)
    for name, found in figures.items():
        mean, half_width = mean_ci(found["test"])
        difference = paired_difference(found["test"], figures[BASE]["test"])
        ratios = [base / own for base, own in zip(figures[BASE]["seconds"], found["seconds"], strict=True)]
        figures[name] |= {
            "test_mean": mean,
            "test_ci95": finite_or_none(half_width),
            "test_minus_plain": difference.mean,
            "test_minus_plain_ci95": finite_or_none(difference.half_width),
            "speedup": mean_ci(ratios)[0],
        }
    return figures


def show(figures: dict[str, Any], title: str) -> None:
    """Print the table."""
    table = Table(title=title)
    for heading in ("", "seconds a run", "times as fast", "test accuracy", "minus plain, paired"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, found in figures.items():
        seconds = mean_ci(found["seconds"])[0]
        table.add_row(
            name,
            f"{seconds:.2f}",
            f"{found['speedup']:.2f}",
            f"{100 * found['test_mean']:.2f} ± {100 * (found['test_ci95'] or 0):.2f}",
            f"{100 * found['test_minus_plain']:+.2f} ± {100 * (found['test_minus_plain_ci95'] or 0):.2f}",
        )
    Console().print(table)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", nargs="+", default=["cora", "citeseer", "pubmed"])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json")
    options = parser.parse_args()
    record = {**provenance("training"), "threads": torch.get_num_threads(), "seeds": list(range(options.seeds))}
    record |= {"hidden": options.hidden, "epochs": options.epochs}
    found = {}
    for name in options.dataset:
        found[name] = measure(load(name), options.hidden, options.epochs, options.seeds)
        show(found[name], f"{name}, GCN-{options.hidden}, {options.epochs} epochs, {options.seeds} seeds")
    write_json(options.out, {**record, "contenders": found})


if __name__ == "__main__":
    main()
