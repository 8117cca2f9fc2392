"""Seconds of a training step under each rule beside a dense step, and the peak memory of a model of 25 million weights.

    python benchmarks/rules.py                  # appends a row a rule and network to results/rules.jsonl
    python benchmarks/rules.py --only hold drop-grow --nets mlp

A dense network and a sparse one of the same weights take turns, a few steps each; a ratio is that of two neighbours in
time. Exchanges of drop and grow are in the mean as often as in a training of 2,000 steps, one in a hundred.
"""

from __future__ import annotations

import argparse
import copy
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import RESULTS, append_row, provenance
from rich.console import Console
from rich.table import Table
from torch import nn

from graphsparse.nn import make_cnn
from graphsparse.params import Gates, Hold, L0Projection, Project, Proximal, Rows, Shrink, Sparsifier, StraightThrough

TOTAL = 2000  # steps of the training that is timed in parts
RULES: dict[str, dict[str, Any] | None] = {
    "none": None,  # a dense network beside itself: what the ratios tell apart
    "hold": {"keep": 0.1, "score": "random", "rule": Hold()},
    "drop-grow": {"method": "rigl", "keep": 0.1},
    "shrink": {"keep": 0.1, "distribution": "uniform", "rule": Shrink()},
    "project": {"keep": 0.1, "distribution": "uniform", "rule": Project()},
    "project-global": {"keep": 0.1, "distribution": "global", "rule": Project()},
    "straight-through": {"keep": "2:4", "rule": StraightThrough(decay=0.0)},
    "sr-ste": {"keep": "2:4", "rule": StraightThrough(decay=2e-4)},
    "proximal": {"keep": 0.3, "pattern": Rows(1), "distribution": "uniform", "rule": Proximal()},
    "gates": {"keep": 0.3, "pattern": Rows(1), "distribution": "uniform", "rule": Gates()},
}
AIMS = {"hold": 1.05, "drop-grow": 1.05, "shrink": 1.05, "straight-through": 1.25, "sr-ste": 1.25}


def mlp() -> tuple[nn.Module, torch.Tensor]:
    """784-512-512-10 at batch 128."""
    net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return net, torch.randn(128, 784)


def resnet8() -> tuple[nn.Module, torch.Tensor]:
    """ResNet-8 on 32 x 32 colour images at batch 64."""
    return make_cnn("resnet8", in_channels=3, num_classes=10, seed=0), torch.randn(64, 3, 32, 32)


NETS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {"mlp": mlp, "resnet8": resnet8}


class Trained:
    """One network in training, a few steps at a time."""

    def __init__(self, net: nn.Module, x: torch.Tensor, options: dict[str, Any] | None) -> None:
        self.net, self.x, self.y = net, x, torch.arange(len(x)) % 10
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        if options == {"l0": True}:
            L0Projection(net, 0.9, "matrices").attach(self.optimizer)
        elif options is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Sparsifier(net, steps=TOTAL, **options).attach(self.optimizer)

    def step(self) -> float:
        """Milliseconds of one step, of the processor: others on the machine do not count."""
        start = time.process_time()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.net(self.x), self.y).backward()
        self.optimizer.step()
        return 1e3 * (time.process_time() - start)


def compared(kind: str, rule: str, steps: int) -> dict[str, Any]:
    """A dense and a sparse network of the same weights, in turns."""
    torch.manual_seed(0)
    net, x = NETS[kind]()
    options = {"l0": True} if rule == "l0-projection" else RULES[rule]
    dense, sparse = Trained(copy.deepcopy(net), x, None), Trained(net, x, options)
    for _ in range(3):
        dense.step()
        sparse.step()
    pairs = [(dense.step(), sparse.step()) for _ in range(steps)]
    ratios = sorted(b / a for a, b in pairs)
    low, high = ratios[int(0.4 * steps)], ratios[int(0.6 * steps)]
    row = {
        "net": kind,
        "rule": rule,
        "steps": steps,
        "dense_ms": median(a for a, _ in pairs),
        "sparse_ms": median(b for _, b in pairs),
        "ratio": median(ratios),
        "ratio_40_60": [low, high],
        "aim": AIMS.get(rule),
    }
    if rule == "drop-grow":  # the median step has no exchange
        every = 100
        while sparse.optimizer.state and len(pairs) % every:
            pairs.append((dense.step(), sparse.step()))
        took = [sparse_once(sparse, every) for _ in range(3)]
        row["exchange_ms"] = median(took)
        row["ratio"] += (median(took) - row["sparse_ms"]) / every / row["dense_ms"]
    return row


def sparse_once(sparse: Trained, every: int) -> float:
    """The longest of so many steps, which holds the exchange."""
    return max(sparse.step() for _ in range(every))


def peak(rule: str) -> float:
    """MiB that a process of its own takes at most for a few steps of a model of 25 million weights."""
    own = subprocess.run(
        [sys.executable, __file__, "--peak", rule], check=True, capture_output=True, text=True, timeout=600
    )
    return float(own.stdout)


def measured(rule: str) -> float:
    """In the process of `peak`."""
    net = nn.Sequential(nn.Linear(2048, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.Linear(4096, 10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sparse = Trained(net, torch.randn(8, 2048), None if rule == "dense" else RULES[rule])
    for _ in range(3):
        sparse.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[*RULES, "l0-projection"])
    parser.add_argument("--nets", nargs="*", default=list(NETS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--out", default=str(RESULTS / "rules.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        print(measured(given.peak))
        return
    about, table = provenance("rules"), Table("net", "rule", "dense ms", "sparse ms", "ratio", "aim", "peak MiB more")
    dense = None if given.no_memory else peak("dense")
    memory: dict[str, float] = {}
    for kind in given.nets:
        for rule in given.only:
            row = compared(kind, rule, given.steps)
            if dense is not None and RULES.get(rule):
                memory[rule] = memory.get(rule) or peak(rule) - dense
                row |= {"peak_mib_more": memory[rule], "peak_mib_dense": dense}
            append_row(Path(given.out), {**about, **row})
            more = f"{memory[rule]:.0f}" if rule in memory else ""
            shown = (f"{row['dense_ms']:.2f}", f"{row['sparse_ms']:.2f}", f"{row['ratio']:.3f}")
            table.add_row(kind, rule, *shown, str(row["aim"] or ""), more)
    Console().print(table)


if __name__ == "__main__":
    main()
