"""Time beside FLOPs: pruned ResNet-20 and VGG-11 on one thread, and the roofline of this machine.

    python benchmarks/latency.py run     # results/latency.json; some minutes
    python benchmarks/latency.py page    # the tables of docs/networks.md

Networks have random weights, on which time does not depend, and are cut by group-l2 without training. The whole network
and all that was cut of it take turns in one process; the least of many times counts, in processor time, which other
programs on the machine disturb little. The roofline of a pass is the
sum over its operations of the longer of two times: its FLOPs at the best rate that a convolution reached here, and its
bytes (read and written once each) as fast as a copy of so many bytes goes, the cost of a call among it. A convolution
computes whole vectors of 16 outputs, so that 17 channels cost as much as 32.
"""

from __future__ import annotations

import argparse
import bisect
import json
import warnings
from typing import Any

import torch
from common import PAGES, RESULTS, into_page, provenance, write_json
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from graphsparse.fit.measure import least_ms

OUT = RESULTS / "latency.json"
NETWORKS = {"resnet20": 16, "vgg11": 64}  # with their published widths
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
WAYS: dict[str, dict[str, Any]] = {
    "flops": {},
    "flops, round_to=8": {"round_to": 8},
    "flops, round_to=16": {"round_to": 16},
    "latency, round_to=8": {"measure": "latency", "round_to": 8},
}
LARGE = (16, 256, 32, 32)  # the input of a convolution that shows the best rate
VECTOR = 16  # floats of AVX-512
ROUNDS = 8


class Roofline:
    """What this machine reaches on one thread.

    Attributes:
        flops_per_ms: the best rate of a large convolution.
        copies: bytes read and written by a copy, and its time in ms, ascending.
    """

    def __init__(self) -> None:
        x, weight = torch.randn(LARGE), torch.randn(LARGE[1], LARGE[1], 3, 3)
        flops = 2 * x.numel() * weight[0].numel()
        inputs = [x.contiguous(memory_format=form) for form in FORMATS.values()]
        times = least_ms([lambda x=x: functional.conv2d(x, weight, padding=1) for x in inputs], seconds=2)  # type: ignore[misc]
        self.flops_per_ms = flops / min(times)
        sizes = [1 << power for power in range(6, 25)]
        made = [(torch.randn(size), torch.empty(size)) for size in sizes]
        spent = [least_ms([lambda a=a, b=b: b.copy_(a)], 20)[0] for a, b in made]  # type: ignore[misc]
        self.copies = [(8 * size, ms) for size, ms in zip(sizes, spent, strict=True)]

    def ms(self, module: nn.Module, x: Tensor) -> float:
        """The least time of a pass."""
        with _Operations() as seen:
            module(x)
        return sum(max(flops / self.flops_per_ms, self.copying(moved)) for flops, moved in seen.found)

    def copying(self, moved: int) -> float:
        """Time in which a copy reads and writes so many bytes, linear between those that were timed."""
        at = min(max(bisect.bisect_left(self.copies, (moved, 0.0)), 1), len(self.copies) - 1)
        (low, fast), (high, slow) = self.copies[at - 1 : at + 1]
        return fast + max(0, moved - low) * (slow - fast) / (high - low)


class _Operations(TorchDispatchMode):
    """FLOPs and bytes of each operation that computes something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[float, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = ([t for t in pytree.tree_leaves(part) if isinstance(t, Tensor)] for part in (args, out))
        if not func.is_view:
            count = flop_registry.get(func._overloadpacket)
            flops = 0 if count is None else count(*args, **(kwargs or {}), out_val=out)
            if flops and out.dim() == 4:
                flops *= -(-out.shape[1] // VECTOR) * VECTOR / out.shape[1]
            self.found.append((flops, sum(t.numel() * t.element_size() for t in (*given, *made))))
        return out


def cut(net: nn.Module, x: Tensor, speedup: float, way: dict[str, Any]) -> tuple[nn.Module, float | None]:
    """The pruned network, and for a budget of time the speed-up that the table of layer times foretells."""
    from graphsparse import Task
    from graphsparse.metanet.channels import Budget, LatencyBudget
    from graphsparse.metanet.fine_tuning import FineTune
    from graphsparse.metanet.pruning import Selection, carve

    timed = way.get("measure") == "latency"
    budget = (LatencyBudget if timed else Budget)(speedup=speedup)
    data = (x, torch.zeros(len(x), dtype=torch.int64))
    selection = Selection(round_to=way.get("round_to", 1), min_keep=0.1)
    module, _ = carve(net, None, Task(data, data, data), budget, selection, (x,), FineTune(epochs=0))
    return module.eval(), budget.exact(net, (x,)) / budget.exact(module, (x,)) if timed else None


def rows_of(name: str, form: str, batch: int, roofline: Roofline, seconds: float) -> list[dict[str, Any]]:
    """All ways of cutting one network, on one kind of input."""
    import graphsparse as gs
    from graphsparse.metanet.channels import count_flops

    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=FORMATS[form])
    whole = gs.nn.make_cnn(name, seed=0).eval().to(memory_format=FORMATS[form])
    nets, rows = [whole], [{"way": "whole", "speedup": 1.0}]
    for speedup in (2.0, 4.0):
        for way, options in WAYS.items():
            row: dict[str, Any] = {"way": way, "speedup": speedup}
            try:
                module, row["foretold"] = cut(whole, x, speedup, options)
            except ValueError as error:
                print(name, form, batch, way, speedup, error, flush=True)
                continue
            nets.append(module.to(memory_format=FORMATS[form]))
            rows.append(row)
    with torch.no_grad():
        times = least_ms([lambda net=net: net(x) for net in nets], ROUNDS, seconds)  # type: ignore[misc]
        for row, net, ms in zip(rows, nets, times, strict=True):
            row |= {"network": name, "format": form, "batch": batch, "ms": ms}
            row |= {"flops": count_flops(net, x), "roofline_ms": roofline.ms(net, x)}
    first = rows[0]
    for row in rows[1:]:
        row |= {f"{what}_ratio": first[what] / row[what] for what in ("flops", "ms", "roofline_ms")}
        row["share"] = row["ms_ratio"] / row["flops_ratio"]
        print(row, flush=True)
    return rows


def run(arguments: argparse.Namespace) -> None:
    """Measure everything."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        roofline = Roofline()
    print(f"{roofline.flops_per_ms / 1e6:.1f} GFLOP/s", roofline.copies, flush=True)
    rows = [
        row
        for name in NETWORKS
        for batch in (1, 64)
        for form in FORMATS
        for row in rows_of(name, form, batch, roofline, arguments.seconds)
    ]
    machine = {"gflops": roofline.flops_per_ms / 1e6, "copies": roofline.copies}
    write_json(OUT, {**provenance("latency"), "roofline": machine, "rows": rows})


def page(arguments: argparse.Namespace) -> None:
    """Write the table between the marks of the page."""
    from graphsparse.report import markdown

    found = json.loads(OUT.read_text())
    columns = ["network", "way", "asked", "FLOPs", *(f"{form}, {n}" for n in (1, 64) for form in FORMATS)]
    cells = {(r["network"], r["speedup"], r["way"], f"{r['format']}, {r['batch']}"): r for r in found["rows"]}
    lines = []
    for name in NETWORKS:
        for speedup, way in ((s, w) for s in (2.0, 4.0) for w in WAYS):
            seen = [cells.get((name, speedup, way, column)) for column in columns[4:]]
            ratios = [row["flops_ratio"] for row in seen if row]
            if ratios:
                wide = max(ratios) - min(ratios) > 0.01
                flops = f"{min(ratios):.2f} to {max(ratios):.2f}" if wide else f"{ratios[0]:.2f}"
                lines.append([name, way, f"{speedup:g}x", flops, *("-" if row is None else _said(row) for row in seen)])
    into_page(PAGES / "networks.md", "latency", markdown(columns, lines))


def _said(row: dict[str, Any]) -> str:
    return f"{row['ms_ratio']:.2f} ({row['share']:.2f}; {row['roofline_ms_ratio'] / row['flops_ratio']:.2f})"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "page"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each network, batch and format")
    arguments = parser.parse_args()
    {"run": run, "page": page}[arguments.action](arguments)


if __name__ == "__main__":
    main()
