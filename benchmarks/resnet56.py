"""The paper's procedure on CIFAR-10 beside DepGraph and least squares, at equal total epochs; resumes.

    python benchmarks/resnet56.py run --scale resnet20     # goes on where it stopped; results/resnet56.jsonl
    python benchmarks/resnet56.py run --scale resnet56 --budget-minutes 24      # a sitting on a GPU; again to go on
    python benchmarks/resnet56.py run --scale quick        # the same path with tiny networks on the digits: a minute
    python benchmarks/resnet56.py table                    # results/resnet56.json, docs/metanet.md, and the screen

``resnet56`` is the paper's size and schedule and made for a GPU: images and augmentation are there. ``resnet20`` has
the full resolution of 32x32, 8,000 of the images, and a tenth of the epochs or less: hours of a CPU. Data models (to
learn from, and one or two to be judged on) and three test networks are trained; a metanetwork of each objective is
trained on the data models; every test network is pruned to 2.3 and 2.9 times fewer FLOPs by each method. Where a method
trains before it cuts, those epochs are missing after it. Figures are those of the last epoch: nothing is chosen. Every
network of the way is a file in ``--work``, and training writes checkpoints, so that any sitting can be cut short.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import threading
import time
from _thread import interrupt_main
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from common import PAGES, append_row, into_page, provenance, read_rows, write_json
from watch import Watch

HERE = Path(__file__).parent
ROWS = HERE / "results" / "resnet56.jsonl"
KEY = ("scale", "net", "method", "speedup")
SPEEDUPS = (2.3, 2.9)


class Method(NamedTuple):
    """How a network is pruned."""

    objective: str | None = None  # of the metanetwork that changes or repairs it
    prepared: str | None = None  # what it is trained with before the cut: "plain", or a penalty
    criterion: str = "group-l2"
    distribution: str = "uniform"
    squares: bool = False
    recipe: bool = False  # the fine-tuning of `graphsparse.metanet.prune`, distillation from the unpruned network


METHODS = {
    "metanetwork (paper)": Method("group-norm", "plain", distribution="global"),
    "DepGraph": Method(criterion="torch-pruning"),
    "DepGraph + sparse learning": Method(prepared="torch-pruning", criterion="torch-pruning"),
    "least squares": Method(squares=True),
    "ours": Method(squares=True, recipe=True),
    "group-l2": Method(),
    "DepGraph + recipe": Method(criterion="torch-pruning", recipe=True),
    "ours + obs-fisher": Method(criterion="obs-fisher", squares=True, recipe=True),
    "metanetwork (group lasso)": Method("group-lasso", "plain", distribution="global"),
    "metanetwork (repair)": Method("repair", squares=True),
}
PUBLISHED = (  # speed-up, base, pruned
    ("metanetwork, 3 runs", "2.30-2.32x", "93.51", "94.08, 93.56, 93.81"),
    ("metanetwork, 3 runs", "2.91-2.99x", "93.51", "93.69, 93.42, 93.31"),
    ("DepGraph, sparse training", "2.11 / 2.57x", "93.53", "93.77 / 93.64"),
    ("GReg-2", "2.55x", "93.36", "93.36"),
    ("ATO", "2.88x", "93.50", "93.48"),
)
LEADER = "least squares"  # what differences are taken to: the strongest plain method with the same fine-tuning


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is."""

    name: str
    dataset: str
    images: tuple[int | None, int]  # for training and validation
    arch: str
    width: int
    epochs: tuple[int, int]  # from scratch: of a test network, of a data model
    before: int  # epochs of fine-tuning before the cut
    after: int  # and after it
    mild: int  # epochs after the mild pruning of a data model
    lr: float  # of fine-tuning
    models: int
    judged: int
    tests: int
    hidden: int
    layers: int
    meta_epochs: int
    steps: int
    batches: int


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "resnet56",
            "cifar10",
            (None, 5000),
            "resnet56",
            16,
            (200, 200),
            100,
            140,
            100,
            0.01,
            8,
            2,
            3,
            64,
            8,
            15,
            8,
            100,
        ),
        Scale("resnet20", "cifar10", (8000, 2000), "resnet20", 16, (15, 10), 4, 6, 2, 0.05, 4, 1, 3, 32, 4, 4, 4, 25),
        Scale("quick", "digits", (None, 5000), "resnet8", 6, (3, 3), 1, 2, 1, 0.05, 2, 1, 2, 8, 2, 2, 3, 2),
    )
}


class LastEpoch(Watch):
    """A callback of training: of all epochs the last one counts.

    Args:
        steps: of the whole training.
    """

    def __init__(self, steps: int) -> None:
        super().__init__(lambda step: None)
        self.steps = steps

    @property
    def ready(self) -> bool:
        """Whether the weights are those to end with."""
        return self.step >= self.steps


class Study:
    """The stages; what lies in the work folder is not made again."""

    def __init__(self, scale: Scale, work: Path, device: str, out: Path) -> None:
        from graphsparse.fit import Task
        from graphsparse.metanet import Images
        from graphsparse.metanet.fine_tuning import blind, example_of

        self.scale, self.work, self.device, self.out = scale, work / scale.name, device, out
        task = Images(scale.dataset, None, *scale.images, augment=True).task()
        parts = {part: tuple(tensor.to(device) for tensor in pair) for part, pair in task.parts.items()}
        self.task = Task(**parts, batch_size=task.batch_size, augment=task.augment)
        self.blind = blind(self.task)
        self.inputs = example_of(self.task, device)

    def make(self, seed: int) -> Any:
        """A network with its initial weights."""
        from graphsparse.nn import make_cnn

        x, y = self.task.parts["train"]
        options = {"width": self.scale.width, "in_channels": x.shape[1], "num_classes": int(y.max()) + 1}
        return make_cnn(self.scale.arch, seed=seed, **options)

    def trained(self, net: Any, name: str, tune: Any, callbacks: Iterable[Any] = (), **options: Any) -> Any:
        """The network after a training that ends with its last epoch, from a file if there is one."""
        import torch
        from safetensors.torch import load_file, save_file

        path = self.work / f"{name}.safetensors"
        net.to(self.device, memory_format=torch.channels_last)
        if path.exists():
            net.load_state_dict(load_file(path, device=self.device))
            return net.eval()
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {tune.epochs} epochs", flush=True)
        steps = tune.epochs * sum(1 for _ in tune.batched(self.blind).batches("train"))
        checkpoint = path.with_suffix(".checkpoint")
        callbacks = (*callbacks, LastEpoch(steps))
        tune.run(net, self.blind, callbacks=callbacks, checkpoint=checkpoint, progress=True, **options)
        save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
        return net.eval()

    def network(self, seed: int, *, test: bool) -> Any:
        """A trained test network or data model; data models are mildly pruned and trained again."""
        import torch

        from graphsparse.metanet import FineTune, prune, restore, save_pruned

        epochs = self.scale.epochs[0 if test else 1]
        net = self.trained(self.make(seed), f"networks/{seed}", FineTune(epochs, lr=0.1), seed=seed)
        if test:
            return net
        folder = self.work / "networks" / f"{seed}-pruned"
        if not (folder / "network.json").exists():
            print(f"networks/{seed}: mild pruning", flush=True)
            tune = FineTune(self.scale.mild, lr=self.scale.lr)
            save_pruned(folder, prune(net, None, self.blind, speedup=1.3, fine_tune=tune, seed=seed, progress=True))
        with torch.device("cpu"):
            whole = self.make(seed)
        return restore(folder, whole).to(self.device).eval()

    def metanet(self, objective: str) -> Any:
        """The metanetwork of an objective: the paper's sizes and steps."""
        import torch

        from graphsparse.metanet import OBJECTIVES, FineTune, MetaNetwork, NetworkGraph, Validation, meta_train

        scale, path = self.scale, self.work / "metanets" / f"{objective}.safetensors"
        if path.exists():
            return MetaNetwork.load(path).to(self.device)
        path.parent.mkdir(parents=True, exist_ok=True)
        nets = [self.network(seed, test=False) for seed in range(scale.models + scale.judged)]
        graph = NetworkGraph.from_module(nets[0], self.inputs)
        learns = OBJECTIVES[objective]()
        torch.manual_seed(0)
        metanet = MetaNetwork.for_graph(graph, mode=learns.mode, hidden=scale.hidden, layers=scale.layers)
        repair = objective == "repair"  # one batch a step, and so more steps
        if not repair:
            learns = dataclasses.replace(learns, batches=scale.batches)
        print(f"metanets/{objective}: {scale.meta_epochs} epochs", flush=True)
        meta_train(
            metanet.to(self.device),
            nets[: scale.models],
            self.blind,
            objective=learns,
            val_networks=nets[scale.models :],
            validation=Validation((2.0, 3.0), FineTune(epochs=1, lr=scale.lr), examples=None),
            epochs=scale.meta_epochs,
            steps=scale.steps * (scale.batches if repair else 1),
            lr=1e-3,
            checkpoint=path.with_suffix(".checkpoint"),
            progress=True,
        )
        metanet.save(path, objective=objective)
        return metanet

    def fine_tune(self, epochs: int, *milestones: float, recipe: bool = False) -> Any:
        """The schedule of every method: a tenth of the rate from parts of the epochs on, if they are that many."""
        from graphsparse.metanet import FineTune
        from graphsparse.metanet.fine_tuning import standard

        if recipe:
            return dataclasses.replace(standard(self.task), epochs=epochs)
        at = tuple(round(epochs * part) for part in milestones) if epochs > 10 else ()
        return FineTune(epochs, lr=self.scale.lr, milestones=at)

    def prepared(self, net: Any, number: int, name: str) -> Any:
        """The network as it is before the cut: a copy that a metanetwork changed and that was trained, or itself."""
        import torch
        from torch_pruning_peer import SparseLearning

        from graphsparse.metanet import NetworkGraph

        method = METHODS[name]
        if method.prepared is None:
            return net
        if method.objective is not None:
            metanet = self.metanet(method.objective)
            with torch.no_grad():
                net = metanet(NetworkGraph.from_module(net, self.inputs)).to_module()
        else:
            net = copy.deepcopy(net)
        callbacks = [SparseLearning(net, self.inputs)] if method.prepared == "torch-pruning" else []
        tune = self.fine_tune(self.scale.before, 0.6, 0.9)
        return self.trained(net, f"prepared/{number}-{name}", tune, callbacks, seed=number)

    def cut(self, net: Any, name: str, speedup: float) -> Any:
        """The network with fewer channels."""
        from torch_pruning_peer import depgraph

        from graphsparse.metanet import FineTune
        from graphsparse.metanet.channels import Budget
        from graphsparse.metanet.pruning import Selection, carve

        method = METHODS[name]
        if method.criterion == "torch-pruning":
            return depgraph(net, self.inputs, speedup)
        metanet = self.metanet("repair") if method.objective == "repair" else None
        selection = Selection(method.criterion, method.distribution, reconstruct=method.squares or None)
        return carve(net, metanet, self.blind, Budget(speedup=speedup), selection, self.inputs, FineTune(0))[0]

    def prune(self, number: int, name: str, speedup: float) -> dict[str, Any]:
        """Prune a test network by a method; its figures."""
        from graphsparse.metanet.channels.budget import count_flops, count_parameters

        scale, method = self.scale, METHODS[name]
        net = self.network(1000 + number, test=True)
        module = self.cut(self.prepared(net, number, name), name, speedup)
        start, spent = time.perf_counter(), time.process_time()
        tune = self.fine_tune(
            scale.after if method.prepared else scale.before + scale.after, 4 / 7, 6 / 7, recipe=method.recipe
        )
        teacher = net if method.recipe else None
        self.trained(module, f"runs/{number}-{name}-{speedup:g}", tune, teacher=teacher, seed=number)
        return {
            "base": self.task.score(net, "test", self.device),
            "val": self.task.score(module, "val", self.device),
            "test": self.task.score(module, "test", self.device),
            "flops": count_flops(net, self.inputs) / count_flops(module, self.inputs),
            "params": count_parameters(net) / count_parameters(module),
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - spent,
        }

    def run(self, methods: list[str], networks: list[int]) -> None:
        """Everything that is not done, network by network, so that a sitting that is cut short leaves whole pairs."""
        for number in networks:
            for method in methods:
                for speedup in SPEEDUPS:
                    row: dict[str, Any] = {"scale": self.scale.name, "net": number, "method": method}
                    row |= {"speedup": speedup}
                    done = {tuple(each[k] for k in KEY) for each in read_rows(self.out, KEY)}
                    if tuple(row[k] for k in KEY) in done:
                        continue
                    row |= self.prune(number, method, speedup) | provenance("resnet56")
                    append_row(self.out, row)
                    print(f"network {number}, {method}, {row['flops']:.2f}x: {row['base']:.4f} -> {row['test']:.4f}")


def tabulate(scale: Scale, out: Path) -> tuple[str, list[dict[str, Any]]]:
    """The means of a scale beside the published figures, as Markdown and as numbers."""
    from graphsparse.fit import finite_or_none, mean_ci, paired_difference
    from graphsparse.report import interval, markdown

    cells: dict[tuple[str, float], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in read_rows(out, KEY):
        if row["scale"] == scale.name:
            cells[row["method"], row["speedup"]][row["net"]] = row
    lines, summaries = [], []
    shown = functools.partial(interval, scale=100)
    for method, speedup in sorted(cells, key=lambda cell: (cell[1], list(METHODS).index(cell[0]))):
        rows, leader = cells[method, speedup], cells[LEADER, speedup]
        speed = sum(row["flops"] for row in rows.values()) / len(rows)
        (base, base_ci), (test, test_ci) = (mean_ci([row[key] for row in rows.values()]) for key in ("base", "test"))
        both, beside = sorted(rows.keys() & leader.keys()), ""
        if len(both) > 1 and method != LEADER:
            gap = paired_difference([rows[n]["test"] for n in both], [leader[n]["test"] for n in both])
            beside = shown(gap.mean, gap.half_width)
        cost = sum(row["cpu_seconds"] for row in rows.values()) / len(rows)
        lines.append(
            [method, f"{speed:.2f}x", str(len(rows)), shown(base, base_ci), shown(test, test_ci), beside, f"{cost:.0f}"]
        )
        summaries.append(
            {"scale": scale.name, "method": method, "speedup": speed, "networks": len(rows), "base": base}
            | {"test": test, "base_ci95": finite_or_none(base_ci), "test_ci95": finite_or_none(test_ci)}
        )
    if scale.name == "resnet56" and lines:
        lines += [[f"published: {method}", speed, "", base, test, "", ""] for method, speed, base, test in PUBLISHED]
    heads = ["method", "FLOPs", "networks", "base, %", "pruned, %", f"minus {LEADER}", "processor s after the cut"]
    return markdown(heads, lines) if lines else "", summaries


def publish(out: Path) -> None:
    """Write all scales but the quick one: JSON, and the page."""
    found = {name: tabulate(scale, out) for name, scale in SCALES.items() if name != "quick"}
    rows = [each for _, summaries in found.values() for each in summaries]
    write_json(out.with_suffix(".json"), {**provenance("resnet56"), "summaries": rows})
    into_page(PAGES / "metanet.md", "paper", "\n\n".join(table for table, _ in found.values() if table))


def main() -> None:
    """Read the command line."""
    import torch
    from rich.console import Console
    from rich.markdown import Markdown

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--scale", choices=tuple(SCALES), default="resnet56")
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, separated by commas")
    parser.add_argument("--networks", help="numbers of test networks, separated by commas; all by default")
    parser.add_argument("--budget-minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=Path("resnet56-study"), help="networks and checkpoints")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    if arguments.action == "run":
        networks = arguments.networks or ",".join(map(str, range(scale.tests)))
        methods = arguments.methods.split(",")
        if arguments.budget_minutes is not None:
            clock = threading.Timer(60 * arguments.budget_minutes, interrupt_main)
            clock.daemon = True
            clock.start()
        try:
            study = Study(scale, arguments.work, arguments.device, arguments.out)
            study.run(methods, list(map(int, networks.split(","))))
        except KeyboardInterrupt:
            print(f"stopped; what is done lies in {arguments.work} and {arguments.out}: the same command goes on")
    elif scale.name != "quick":
        publish(arguments.out)
    Console().print(Markdown(tabulate(scale, arguments.out)[0]))


if __name__ == "__main__":
    main()
