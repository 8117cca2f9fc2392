"""Networks of other packages: which are converted, and cut to a half and a quarter of their FLOPs.

    python benchmarks/networks.py run              # appends a row a network to results/networks/rows.jsonl, resumable
    python benchmarks/networks.py run timm:dla34   # these networks, again
    python benchmarks/networks.py page             # writes the table of docs/networks.md

It needs timm, pytorchcv, transformers, monai and segmentation-models-pytorch, which the project does not. Install them
into a virtual environment of their own (``--system-site-packages``; ``pip install --no-deps`` where one asks for
another torch). Every network runs in a process of its own with at most 120 s of computing and 8 GB, group l2 norm and
uniform distribution, no training: ``2x`` and ``4x`` are FLOPs before over FLOPs after, and count as reached within 2 %.
Beside it one step of Torch-Pruning's ``BasePruner`` (ratio 0.3, the last layer ignored) runs on a copy.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from common import RESULTS, append_row, provenance, read_rows
from network_zoo import catalogue, make, prepare
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.hashing import text_hash
from graphsparse.metanet.channels import (
    Budget,
    Channels,
    Evidence,
    count_flops,
    count_parameters,
    flop_cost,
    held_layers,
    importance,
    least_pruned,
    removal_order,
)
from graphsparse.metanet.graph import RULES, NetworkGraph

ROWS = RESULTS / "networks" / "rows.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
MARK = "<!-- made by: python benchmarks/networks.py page -->"
SECONDS, MEMORY = 120, 8 << 30
TARGETS = (2, 4)


def leaves(found: Any) -> list[Tensor]:
    """All tensors of an output."""
    return [part for part in pytree.tree_leaves(found) if isinstance(part, Tensor)]


def trains(net: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Empty if a training step runs; else why not."""
    two = tuple(torch.cat([part, part]) for part in inputs)
    try:
        outputs = [part for part in leaves(net.train()(*two)) if part.requires_grad]
        sum(part.float().square().mean() for part in outputs).backward()  # type: ignore[union-attr]
        return ""
    except Exception as error:
        return first_line(error)
    finally:
        net.eval()


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    return f"{type(error).__name__}: {str(error).strip()}".split("\n", maxsplit=1)[0][:300]


def exports(net: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Empty if torch.export gives a program of the same outputs; else why not."""
    try:
        program = torch.export.export(net, inputs, strict=False).module()
        for expected, found in zip(leaves(net(*inputs)), leaves(program(*inputs)), strict=True):
            if not torch.allclose(expected, found, rtol=1e-3, atol=1e-4 * float(expected.abs().max() + 1)):
                return "the exported program computes something else"
        return ""
    except Exception as error:
        return first_line(error)


def milliseconds(net: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Time of one pass: the least of nine after a first one."""
    times = []
    with torch.no_grad():
        for _ in range(10):
            started = time.perf_counter()
            net(*inputs)
            times.append(1e3 * (time.perf_counter() - started))
    return min(times[1:])


def peer(net: nn.Module, inputs: tuple[Any, ...], classes: nn.Module | None) -> str:
    """Empty if one step of Torch-Pruning leaves a smaller network that runs; else why not."""
    import torch_pruning as tp

    before = count_parameters(net)
    try:
        net.requires_grad_(True)
        ignored = [] if classes is None else [classes]
        score = tp.importance.GroupMagnitudeImportance(p=2)
        example = inputs if len(inputs) > 1 else inputs[0]
        tp.pruner.BasePruner(net, example, score, pruning_ratio=0.3, ignored_layers=ignored).step()
        with torch.no_grad():
            net.eval()(*inputs)
    except BaseException as error:
        return first_line(error)
    return "" if count_parameters(net) < before else "nothing was pruned"


def last_layer(net: nn.Module) -> nn.Module | None:
    """The last linear layer or convolution."""
    found = [part for part in net.modules() if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)]
    return found[-1] if found else None


def measure(name: str) -> dict[str, Any]:
    """The row of one network."""
    net, inputs = make(name)
    net.eval()
    row: dict[str, Any] = {"params": count_parameters(net), "flops": count_flops(net, inputs)}
    whole = copy.deepcopy(net)
    row["trains"] = trains(copy.deepcopy(net), inputs)
    started = time.process_time()
    try:
        graph = NetworkGraph.from_module(net, inputs)
    except Exception as error:
        return {**row, "converts": first_line(error), "peer": peer(whole, inputs, last_layer(whole))}
    row["trace_s"], row["nodes"] = round(time.process_time() - started, 2), graph.num_nodes
    state, back = net.state_dict(), graph.to_state_dict()
    same = all(torch.equal(state[key], back[key]) for key in state)
    row["converts"] = "" if same else "the weights come back changed"
    score = importance(Evidence(graph), "group-l2")
    cost, units = flop_cost(graph, net, inputs), None
    for target in TARGETS:
        started = time.process_time()
        budget = Budget(speedup=target)
        try:
            _, (small, _), units = least_pruned(
                graph,
                lambda channels: removal_order(channels, score, min_keep=0.1),
                cost,
                lambda found: count_flops(found, inputs),
                budget.limit(net, inputs),
                inputs,
                units,
            )
        except Exception as error:
            row[f"{target}x"] = first_line(error)
            continue
        row[f"{target}x"] = round(row["flops"] / count_flops(small, inputs), 4)
        row[f"cut_{target}x_s"] = round(time.process_time() - started, 2)
        with torch.no_grad():
            small.eval()(*inputs)
        row[f"trains_{target}x"] = trains(copy.deepcopy(small), inputs)
        if target == 2:
            row["exports"] = exports(small, inputs)
            row["latency_ms"] = [round(milliseconds(part, inputs), 3) for part in (net, small)]
    row["held"] = held_layers(graph, units or Channels.of(graph))
    row["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    row["peer"] = peer(whole, inputs, last_layer(whole))
    return row


def child(name: str, queue: Any) -> None:
    """Measure a network within limits and put its row into a queue."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    warnings.simplefilter("ignore")
    try:
        queue.put(measure(name))
    except BaseException as error:
        queue.put({"error": first_line(error)})


def run(names: list[str]) -> None:
    """Append a row for each network that has none yet; for all that are named."""
    prepare()
    RULES.names()  # and all else that is imported when it is first needed
    importlib.import_module("torch_pruning")
    known = {row["network"] for row in read_rows(ROWS, ["network"])}
    context = multiprocessing.get_context("fork")
    for name, family in sorted(catalogue().items(), key=lambda pair: text_hash(pair[0])):  # all packages by turns
        if (names and name not in names) or (not names and name in known):
            continue
        queue = context.Queue()
        process = context.Process(target=child, args=(name, queue))
        process.start()
        found: dict[str, Any] | None = None
        until = time.monotonic() + 10 * SECONDS
        while found is None and (process.is_alive() or not queue.empty()) and time.monotonic() < until:
            with suppress(Empty):
                found = queue.get(timeout=1)
            if _memory(process.pid) > MEMORY:
                found = {"error": f"more than {MEMORY >> 30} GB"}
        process.kill()
        process.join()
        row = {"network": name, "family": family, **(found or {"error": f"more than {SECONDS} s of computing"})}
        append_row(ROWS, {**row, **provenance("networks")})
        print(name, {key: row.get(key) for key in ("converts", "2x", "4x", "exports", "peer", "error")}, flush=True)


def _memory(process: int | None) -> int:
    try:
        with open(f"/proc/{process}/statm") as lines:
            return int(lines.read().split()[1]) * 4096
    except OSError:
        return 0


def page() -> None:
    """Write the tables between the marks of the page."""
    rows = {row["network"]: row for row in read_rows(ROWS, ["network"])}
    columns = ["network", "parameters", "converts", "2x", "4x", "trains", "exports", "trace, s", "ms", "Torch-Pruning"]
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join([name, *_cells(rows[name])]) + " |" for name in catalogue() if name in rows]
    counts = _counts(list(rows.values()))
    said = ", ".join(f"{key}: {count}" for key, count in counts.items())
    reasons = [f"- `{name}`: {_reason(rows[name])}" for name in catalogue() if name in rows and _reason(rows[name])]
    found = [f"Of {counts['networks']} networks of {counts['families']} families: {said}.", "", *lines, ""]
    found += ["## What fell short", "", *(reasons or ["Nothing."])]
    before, _, rest = PAGE.read_text().partition(MARK + "\n")
    _, end, after = rest.partition("<!-- end -->")
    PAGE.write_text(before + MARK + "\n\n" + "\n".join(found) + "\n\n" + end + after)


def _reason(row: dict[str, Any]) -> str:
    """Why a network falls short, empty if it does not."""
    parts = [str(row[key]) for key in ("error", "converts") if row.get(key)]
    parts += [
        f"{target}x: {row[f'{target}x']}" for target in TARGETS if f"{target}x" in row and not _reached(row, target)
    ]
    parts += [f"{key}: {row[key]}" for key in ("trains_2x", "exports") if row.get(key) and not row.get("trains")]
    return "; ".join(parts).replace("|", "/")


def _reached(row: dict[str, Any], target: int) -> bool:
    found = row.get(f"{target}x")
    return isinstance(found, float | int) and target <= found <= 1.02 * target


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return ["", row["error"], *[""] * 7]

    def said(key: str) -> str:
        return "" if key not in row else "yes" if row[key] == "" else "no"

    reached = [f"{row[key]:.2f}" if isinstance(row.get(key), float | int) else "no" for key in ("2x", "4x")]
    times = row.get("latency_ms")
    shown = "" if times is None else f"{times[0]:.1f}, {times[1]:.1f}"
    trained = "as before" if row.get("trains") else said("trains_2x")
    return [
        f"{row['params']:,}", said("converts"), *reached, trained, said("exports"), str(row.get("trace_s", "")), shown,
        said("peer"),
    ]  # fmt: skip


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    checks: dict[str, Callable[[dict[str, Any]], bool]] = {
        "networks": lambda row: True,
        "convert": lambda row: row.get("converts") == "",
        "reach 2x": lambda row: _reached(row, 2),
        "reach 4x": lambda row: _reached(row, 4),
        "train": lambda row: row.get("trains_2x") == "",
        "export": lambda row: row.get("exports") == "",
        "Torch-Pruning": lambda row: row.get("peer") == "",
    }
    return {"families": len({row["family"] for row in rows}), **{k: sum(map(c, rows)) for k, c in checks.items()}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "page"])
    parser.add_argument("networks", nargs="*")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run(chosen.networks) if chosen.what == "run" else page()


if __name__ == "__main__":
    main()
