"""Time and memory of networks -> graphs and back.

    python benchmarks/conversion.py        # prints a table, writes results/conversion.json

``trace`` is the first conversion of an architecture (export and interpretation included), ``to graph`` a later one,
``state dict`` and ``module`` the ways back. Medians in milliseconds; the round trip is checked bit for bit. Every
network runs in a process of its own, whose largest memory is given.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from graphsparse.metanet import NetworkGraph


def conv_bn(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its norm."""
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after))


class Basic(nn.Module):
    """Two 3x3 convolutions; the shortcut has no parameters (option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv_bn(before, after, 3, stride), conv_bn(after, after, 3)
        self.stride, self.grow = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x)))
        return F.relu(out + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grow, self.grow)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; the shortcut is a convolution where the shape changes."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            conv_bn(before, width, 1),
            conv_bn(width, width, 3, stride),
            conv_bn(width, 4 * width, 1),
        )
        self.shortcut = conv_bn(before, 4 * width, 1, stride) if before != 4 * width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))) + self.shortcut(x))


def resnet56() -> tuple[nn.Module, Tensor]:
    """ResNet-56 for CIFAR."""
    blocks, before = [], 16
    for stage, width in enumerate((16, 32, 64)):
        for position in range(9):
            blocks.append(Basic(before, width, 2 if stage and not position else 1))
            before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(conv_bn(3, 16, 3), nn.ReLU(), *blocks, *head), torch.zeros(1, 3, 32, 32)


def resnet50() -> tuple[nn.Module, Tensor]:
    """ResNet-50 for ImageNet."""
    blocks, before = [], 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for position in range(count):
            blocks.append(Bottleneck(before, width, 2 if stage and not position else 1))
            before = 4 * width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    stem = [conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, *head), torch.zeros(1, 3, 224, 224)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {"resnet56": resnet56, "resnet50": resnet50}


def timed(action: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def measure(name: str, repeats: int) -> dict[str, Any]:
    """All figures of one network, in this process."""
    torch.manual_seed(0)
    network, inputs = NETWORKS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trace = timed(lambda: NetworkGraph.from_module(network, inputs), 1)
    graph = NetworkGraph.from_module(network, inputs)
    state = graph.to_state_dict()
    exact = all(torch.equal(state[key], tensor) for key, tensor in network.state_dict().items())
    figures = {
        "trace_ms": trace,
        "to_graph_ms": timed(lambda: NetworkGraph.from_module(network, inputs), repeats),
        "state_dict_ms": timed(graph.to_state_dict, repeats),
        "module_ms": timed(graph.to_module, repeats),
    }
    return {
        "network": name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "nodes": graph.num_nodes,
        "kernel_edges": sum(len(edges.src) for edges in graph.edges.values()),
        "relations": {kind: pairs.shape[1] for kind, pairs in graph.relations.items()},
        "bit_for_bit": exact,
        **figures,
        "there_and_back_ms": figures["to_graph_ms"] + figures["module_ms"],
        "peak_before_mib": before / 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Each network in its own process, one table, one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / "conversion.json")
    parser.add_argument("--only", choices=NETWORKS, help="measure one network and print its figures as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.repeats)))
        return
    rows = []
    table = Table("network", "edges", "trace ms", "to graph ms", "state dict ms", "module ms", "peak MiB", "exact")
    for name in NETWORKS:
        command = [sys.executable, __file__, "--only", name, "--repeats", str(options.repeats)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(run.stdout.splitlines()[-1])
        rows.append(row)
        figures = [f"{row[key]:.1f}" for key in ("trace_ms", "to_graph_ms", "state_dict_ms", "module_ms", "peak_mib")]
        table.add_row(name, f"{row['kernel_edges']:,}", *figures, str(row["bit_for_bit"]))
    Console().print(table)
    write_json(options.output, {**provenance("conversion"), "repeats": options.repeats, "networks": rows})


if __name__ == "__main__":
    main()
