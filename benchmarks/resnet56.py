"""ResNet-56 on CIFAR-10 with the paper's schedule, beside the published figures: made for a GPU, resumes.

    python benchmarks/resnet56.py run               # goes on where it stopped; results/resnet56.jsonl
    python benchmarks/resnet56.py table             # results/resnet56.json, and the table on the screen
    python benchmarks/resnet56.py run --quick       # the same path with tiny networks on the digits, minutes on a CPU

Ten data models (eight to learn from, two to be judged on) and three test networks are trained; a metanetwork of each
objective is trained on the data models; every test network is pruned to 2.3 and 2.9 times fewer FLOPs by each method
with the same total budget: 100 epochs before the cut and 140 after it where a method trains before it cuts, 240 after
it otherwise. Every network of the way is a file in ``--work``, and training writes checkpoints.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import append_row, provenance, read_rows, write_json

HERE = Path(__file__).parent
ROWS = HERE / "results" / "resnet56.jsonl"
KEY = ("scale", "net", "method", "speedup")
SPEEDUPS = (2.3, 2.9)
METHODS = {  # name -> objective of its metanetwork, criterion, whether it trains before it cuts
    "group-norm metanetwork": ("group-norm", "group-l2", True),
    "group-lasso metanetwork": ("group-lasso", "group-l2", True),
    "repair metanetwork": ("repair", "group-l2", False),
    "sparse learning": (None, "sparse-learning", True),
    "group-l2": (None, "group-l2", False),
    "least squares": (None, "group-l2", False),
}
PUBLISHED = (  # speed-up, base, pruned
    ("metanetwork, 3 runs", "2.30-2.32x", "93.51", "94.08, 93.56, 93.81"),
    ("metanetwork, 3 runs", "2.91-2.99x", "93.51", "93.69, 93.42, 93.31"),
    ("DepGraph, sparse training", "2.11 / 2.57x", "93.53", "93.77 / 93.64"),
    ("GReg-2", "2.55x", "93.36", "93.36"),
    ("ATO", "2.88x", "93.50", "93.48"),
)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is."""

    name: str
    dataset: str
    arch: str
    width: int
    epochs: int  # of a network from scratch
    before: int  # epochs of fine-tuning before the cut
    after: int  # and after it
    models: int
    judged: int
    tests: int
    hidden: int
    layers: int
    meta_epochs: int
    steps: int
    batches: int


FULL = Scale("full", "cifar10", "resnet56", 16, 200, 100, 140, 8, 2, 3, 64, 8, 15, 8, 100)
QUICK = Scale("quick", "digits", "resnet8", 6, 3, 1, 2, 2, 1, 2, 8, 2, 2, 3, 2)


class Study:
    """The stages; what lies in the work folder is not made again."""

    def __init__(self, scale: Scale, work: Path, device: str, out: Path) -> None:
        from graphsparse.fit import Task
        from graphsparse.metanet import Images

        self.scale, self.work, self.device, self.out = scale, work / scale.name, device, out
        task = Images(scale.dataset, augment=True).task()
        parts = {part: tuple(tensor.to(device) for tensor in pair) for part, pair in task.parts.items()}
        self.task = Task(**parts, batch_size=task.batch_size, augment=task.augment)
        self.blind = Task(parts["train"], parts["val"], parts["val"], batch_size=task.batch_size, augment=task.augment)

    def network(self, seed: int, speedup: float | None = None) -> Any:
        """A trained network, mildly pruned and trained again where a speed-up is given."""
        import torch
        from safetensors.torch import load_file, save_file

        from graphsparse.metanet import FineTune, prune, restore, save_pruned
        from graphsparse.nn import make_cnn

        scale, path = self.scale, self.work / "networks" / f"{seed}.safetensors"
        x, y = self.task.parts["train"]
        classes = int(y.max()) + 1
        net = make_cnn(scale.arch, width=scale.width, in_channels=x.shape[1], num_classes=classes, seed=seed)
        net.to(self.device)
        if path.exists():
            net.load_state_dict(load_file(path, device=self.device))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            tune = FineTune(scale.epochs, lr=0.1)
            tune.run(net, self.blind, seed=seed, checkpoint=path.with_suffix(".checkpoint"), progress=True)
            save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
        if speedup is None:
            return net.eval()
        folder = self.work / "networks" / f"{seed}-x{speedup:g}"
        if not (folder / "network.json").exists():
            tune = FineTune(scale.after, lr=0.01)
            save_pruned(folder, prune(net, None, self.blind, speedup=speedup, fine_tune=tune, seed=seed))
        with torch.device("cpu"):
            whole = make_cnn(scale.arch, width=scale.width, in_channels=x.shape[1], num_classes=classes, seed=seed)
        return restore(folder, whole).to(self.device).eval()

    def metanet(self, objective: str) -> Any:
        """The metanetwork of an objective: the paper's sizes and steps."""
        import torch

        from graphsparse.metanet import (
            OBJECTIVES,
            FineTune,
            MetaNetwork,
            NetworkGraph,
            Validation,
            meta_train,
        )
        from graphsparse.metanet.fine_tuning import example_of

        scale, path = self.scale, self.work / "metanets" / f"{objective}.safetensors"
        if path.exists():
            return MetaNetwork.load(path).to(self.device)
        path.parent.mkdir(parents=True, exist_ok=True)
        nets = [self.network(seed, 1.3) for seed in range(scale.models + scale.judged)]
        graph = NetworkGraph.from_module(nets[0], example_of(self.task, self.device))
        learns = OBJECTIVES[objective]()
        torch.manual_seed(0)
        metanet = MetaNetwork.for_graph(graph, mode=learns.mode, hidden=scale.hidden, layers=scale.layers)
        repair = objective == "repair"  # one batch a step, and so more steps
        if not repair:
            learns = dataclasses.replace(learns, batches=scale.batches)
        meta_train(
            metanet.to(self.device),
            nets[: scale.models],
            self.blind,
            objective=learns,
            val_networks=nets[scale.models :],
            validation=Validation((2.0, 3.0), FineTune(epochs=1, lr=0.01), examples=None),
            epochs=scale.meta_epochs,
            steps=scale.steps * (scale.batches if repair else 1),
            lr=1e-3,
            checkpoint=path.with_suffix(".checkpoint"),
            progress=True,
        )
        metanet.save(path, objective=objective)
        return metanet

    def prune(self, net: Any, method: str, speedup: float, name: str) -> dict[str, Any]:
        """Prune a network by a method; its figures."""
        from graphsparse.metanet import FineTune
        from graphsparse.metanet.channels import Budget
        from graphsparse.metanet.channels.budget import count_flops, count_parameters
        from graphsparse.metanet.fine_tuning import example_of
        from graphsparse.metanet.pruning import Selection, carve

        scale, start = self.scale, time.perf_counter()
        objective, criterion, trains_before = METHODS[method]
        metanet = None if objective is None else self.metanet(objective)
        before, after = (scale.before, scale.after) if trains_before else (0, scale.before + scale.after)
        inputs = example_of(self.blind, self.device)
        squares = True if method == "least squares" else None
        selection = Selection(criterion, "global" if trains_before else "uniform", reconstruct=squares)
        at = [round(before * part) for part in (0.6, 0.9)] if before > 2 else []
        prepare = FineTune(before, lr=0.01, milestones=tuple(at))
        module, _ = carve(net, metanet, self.blind, Budget(speedup=speedup), selection, inputs, prepare, True)
        at = [round(after * part) for part in (4 / 7, 6 / 7)] if after > 2 else []
        tune = FineTune(after, lr=0.01, milestones=tuple(at))
        checkpoint = self.work / "runs" / f"{name}.checkpoint"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        tune.run(module, self.blind, checkpoint=checkpoint, progress=True)
        return {
            "base": self.task.score(net, "test", self.device),
            "val": self.task.score(module, "val", self.device),
            "test": self.task.score(module, "test", self.device),
            "flops": count_flops(net, inputs) / count_flops(module, inputs),
            "params": count_parameters(net) / count_parameters(module),
            "seconds": time.perf_counter() - start,
        }

    def run(self) -> None:
        """Everything that is not done."""
        done = {tuple(row[k] for k in KEY) for row in read_rows(self.out, KEY)}
        commit = provenance("resnet56")["commit"]
        for number in range(self.scale.tests):
            for method in METHODS:
                for speedup in SPEEDUPS:
                    row = {"scale": self.scale.name, "net": number, "method": method, "speedup": speedup}
                    if tuple(row[k] for k in KEY) in done:
                        continue
                    net = copy.deepcopy(self.network(1000 + number))
                    row |= self.prune(net, method, speedup, f"{number}-{method}-{speedup:g}") | {"commit": commit}
                    append_row(self.out, row)
                    print(f"network {number}, {method}, {row['flops']:.2f}x: {row['base']:.4f} -> {row['test']:.4f}")


def tabulate(scale: Scale, out: Path) -> None:
    """Print the means beside the published figures, and write them."""
    from rich.console import Console
    from rich.markdown import Markdown

    from graphsparse.fit import finite_or_none, mean_ci
    from graphsparse.report import interval, markdown

    cells: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows(out, KEY):
        if row["scale"] == scale.name:
            cells[row["method"], row["speedup"]].append(row)
    lines, summaries = [], []
    for (method, _), rows in sorted(cells.items()):
        speed = sum(row["flops"] for row in rows) / len(rows)
        (base, base_ci), (test, test_ci) = (mean_ci([row[key] for row in rows]) for key in ("base", "test"))
        lines.append(
            [method, f"{speed:.2f}x"] + [interval(m, h, scale=100) for m, h in ((base, base_ci), (test, test_ci))]
        )
        summaries.append(
            {"method": method, "speedup": speed, "networks": len(rows), "base": base, "test": test}
            | {"base_ci95": finite_or_none(base_ci), "test_ci95": finite_or_none(test_ci)}
        )
    if scale is FULL:
        write_json(out.with_suffix(".json"), {**provenance("resnet56"), "summaries": summaries})
        lines += [[f"published: {method}", speed, base, test] for method, speed, base, test in PUBLISHED]
    Console().print(Markdown(markdown(["method", "speed-up", "base, %", "pruned, %"], lines)))


def main() -> None:
    """Read the command line."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--quick", action="store_true", help="tiny networks on the digits: tries the whole path")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=Path("resnet56-study"), help="networks and checkpoints")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    if arguments.action == "run":
        Study(scale, arguments.work, arguments.device, arguments.out).run()
    tabulate(scale, arguments.out)


if __name__ == "__main__":
    main()
