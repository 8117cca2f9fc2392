"""Foreseeing fine-tuning: jumps of weights after a few steps, beside what needs no metanetwork.

    python benchmarks/nowcast.py run --study cifar     # CIFAR-10 (JPEG copy) at 16x16; or: digits (scikit-learn's)
    python benchmarks/nowcast_page.py                  # results/nowcast.json, and the tables of docs/metanet.md

A study trains a zoo, collects trajectories (pruned networks of the zoo in fine-tuning), trains metanetworks of mode
"nowcast" on them, chooses every method's options on validation data of held-out networks at equal numbers of trials,
and then prunes test networks, which played no part in any choice, to a quarter of their FLOPs: least squares, k steps,
jump, the rest of one epoch. All methods see the same images. One line per test network, method and seed goes to
results/nowcast.jsonl; what is there is not made again. One process, one thread. What a study makes lies in ``--work``.
What there is to foresee, and to choose, is measured by ceilings.py.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import append_row, provenance, read_rows, write_json

from graphsparse.metanet import (
    Extrapolation,
    FineTune,
    Images,
    Jump,
    Landing,
    MetaNetwork,
    MovingAverage,
    NetworkGraph,
    NotTakenWarning,
    Recipe,
    Stay,
    StepSizes,
    Validation,
    meta_train,
)
from graphsparse.metanet.channels import Budget, count_flops
from graphsparse.metanet.fine_tuning import blind, example_of
from graphsparse.metanet.foresight import learned_step_sizes
from graphsparse.metanet.learn import Nowcast, Trajectories, load_network, train_zoo
from graphsparse.metanet.learn.objectives import unexplained
from graphsparse.metanet.pruning import Selection, carve

HERE = Path(__file__).parent
ROWS = HERE / "results" / "nowcast.jsonl"
KEY = ("study", "net", "method", "seed")
SPEEDUP = 4.0
AFTER = (0, 8, 32)
STEPS = {"epochs": 5, "steps": 500}  # of meta-training


@dataclasses.dataclass(frozen=True)
class Study:
    """Images, networks and trajectories."""

    images: Images
    epochs: tuple[int, ...]  # of the zoo's networks
    full: int  # epochs of held-out and test networks
    zoo: int
    trajectories: int
    held_out: int = 2
    unseen: int = 6
    seeds: int = 3

    def recipes(self) -> dict[str, list[Recipe]]:
        """Networks to learn from, to choose by, and to test on."""
        widths = (6, 8, 10)
        varied = [
            Recipe("resnet8", widths[i % 3], 100 + i, self.epochs[(i // 2) % len(self.epochs)]) for i in range(self.zoo)
        ]
        return {
            "zoo": varied,
            "held-out": [Recipe("resnet8", 8, 500 + i, self.full) for i in range(self.held_out)],
            "unseen": [Recipe("resnet8", 8, 1000 + i, self.full) for i in range(self.unseen)],
        }


STUDIES = {
    "cifar": Study(Images("cifar10", 16, 8000, 2000), (4, 6, 8), full=8, zoo=4, trajectories=80, held_out=1),
    "digits": Study(Images("digits", val=300, batch_size=32), (4, 6, 8, 12), full=8, zoo=8, trajectories=64),
}

# Each method has four trials on held-out networks: options of its jump, and a rate.
Trial = tuple[dict[str, Any], float]
RATES = (0.05, 0.1)
TRIALS: dict[str, list[Trial]] = {
    "no jump": [({}, rate) for rate in (0.02, 0.05, 0.1, 0.2)],
    "extrapolation": [({"after": (8,), "factor": factor}, rate) for factor in (0.5, 1.0) for rate in RATES],
    "moving average": [({"after": after}, rate) for after in ((8,), (8, 32)) for rate in RATES],
    "step sizes": [({"after": (8,), "epochs": epochs}, rate) for epochs in (1, 4) for rate in RATES],
    "nowcast": [({"after": after, "epochs": 4}, rate) for after in ((8,), (0, 8)) for rate in RATES],
}
TRIALS["nowcast, weights alone"] = TRIALS["nowcast"]
LEARNED = {"nowcast": 3.0, "nowcast, weights alone": 0.0}  # the weight of cross-entropy in the objective


@dataclasses.dataclass(frozen=True)
class Known(Nowcast):
    """The objective on trajectories that are at hand already."""

    collected: tuple[Any, ...] = dataclasses.field(default=(), repr=False)

    def members(self, *args: Any, **named: Any) -> Any:
        """The trajectories."""
        return self.collected


class Work:
    """A study's folder, and what lies there."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.study, self.folder = name, STUDIES[name], folder / name
        self.task = self.study.images.task()
        self.blind = blind(self.task)  # nothing but the last evaluation of a test network looks at the test part
        self.inputs = example_of(self.task)

    def networks(self, part: str, count: int | None = None) -> list[Any]:
        """The (first) modules of a part, trained now where they are missing."""
        recipes = self.study.recipes()[part][:count]
        for recipe in recipes:
            if not (self.folder / part / recipe.name / "network.json").exists():
                train_zoo(self.folder / part, [recipe], self.study.images)
                say(f"{part} {recipe.name}")
        return [load_network(self.folder / part / recipe.name).module for recipe in recipes]

    def trajectories(self, part: str, count: int) -> Trajectories:
        """How trajectories of a part are collected, and where they lie."""
        folder = self.folder / f"trajectories-{part}"
        return Trajectories(count, AFTER, folder=folder, report=lambda n, of: say(f"trajectory {n}/{of}"))

    @functools.cached_property
    def collected(self) -> list[Any]:
        """The trajectories that methods learn from."""
        source = self.trajectories("zoo", self.study.trajectories)
        return source.collect(self.networks("zoo"), self.blind, self.inputs)

    @functools.cached_property
    def step_sizes(self) -> StepSizes:
        """Learned step sizes."""
        return learned_step_sizes(c for each in self.collected for c in each.cases((8, 32), (1, 2, 4)))

    def metanet(self, method: str, seed: int) -> MetaNetwork:
        """A metanetwork, trained now if it is missing; its epoch is chosen on held-out networks."""
        path = self.folder / "metanets" / f"{method}-{seed}.safetensors"
        if not path.exists():
            start = time.process_time()
            torch.manual_seed(seed)
            graph = NetworkGraph.from_module(self.networks("zoo")[0], self.inputs)
            metanet = MetaNetwork.for_graph(graph, mode="nowcast")
            path.parent.mkdir(parents=True, exist_ok=True)
            result = meta_train(
                metanet,
                self.networks("zoo"),
                self.blind,
                objective=Known(data=LEARNED[method], collected=tuple(self.collected)),
                val_networks=self.networks("held-out"),
                validation=Validation((2.0, SPEEDUP), FineTune(1), examples=None),
                seed=seed,
                checkpoint=path.with_suffix(".checkpoint"),
                **STEPS,
            )
            figures = {"area": result.val, "history": result.history, "seconds": time.process_time() - start}
            metanet.save(path, method=method, seed=seed, **figures)
            say(f"{method} {seed}: {figures}")
        return MetaNetwork.load(path).eval()

    def jump(self, method: str, seed: int, options: dict[str, Any]) -> Jump:
        """A method's jump."""
        when = {key: options[key] for key in ("after", "epochs") if key in options}
        when["after"] = tuple(when.get("after", (8,)))
        rules = {"no jump": Stay, "moving average": MovingAverage, "extrapolation": Extrapolation}
        if method == "step sizes":
            return Jump(self.step_sizes, **when)
        if method in LEARNED:
            return Jump(self.metanet(method, seed), **when)
        return Jump(rules[method](**{k: v for k, v in options.items() if k == "factor"}), **when)

    def cut(self, net: Any, seed: int) -> Any:
        """A network after uniform group-l2 and least squares."""
        selection = Selection(reconstruct=True, seed=seed)
        return carve(net, None, self.blind, Budget(speedup=SPEEDUP), selection, self.inputs, FineTune(epochs=0))[0]

    def tuned(self, module: Any, method: str, seed: int, options: dict[str, Any], rate: float) -> dict[str, Any]:
        """Fine-tune a cut network in place for one epoch; its figures on validation data."""
        jump = self.jump(method, seed, options)
        landings: list[Landing] = []
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotTakenWarning)
            result = FineTune(1, rate, jump=jump).run(module, self.blind, seed=seed, landings=landings)
        assert result is not None
        return {"val": result.val, "jumps": [list(each) for each in landings], "cpu": time.process_time() - start}

    def options(self, method: str) -> Trial:
        """A method's options and rate: the best of its trials by mean validation accuracy on held-out networks."""
        path = self.folder / "options" / f"{method}.json"
        if not path.exists():
            cut = [self.cut(net, 0) for net in self.networks("held-out")]
            trials = []
            for options, rate in TRIALS[method]:
                found = [self.tuned(copy.deepcopy(module), method, 0, options, rate)["val"] for module in cut]
                trials.append({"options": options, "rate": rate, "val": sum(found) / len(found)})
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"trials": trials})
            say(f"options of {method}: {max(trials, key=lambda each: each['val'])}")
        best = max(json.loads(path.read_text())["trials"], key=lambda each: each["val"])
        return best["options"], best["rate"]


def run(arguments: argparse.Namespace) -> None:
    """All stages of a study; what is there is not made again."""
    work = Work(arguments.study, arguments.work)
    done = {tuple(row[k] for k in KEY) for row in read_rows(arguments.out, KEY)}
    methods = arguments.methods.split(";") if arguments.methods else list(TRIALS)
    work.networks("held-out")
    _ = work.collected
    chosen = {method: work.options(method) for method in methods}
    foreseen(work, methods, chosen, arguments.out, done)
    about = provenance("nowcast")
    for seed in range(arguments.seeds):
        for net, module in enumerate(work.networks("unseen", arguments.nets)):
            todo = [m for m in methods if (arguments.study, net, m, seed) not in done]
            cut = work.cut(module, seed) if todo else None
            for method in todo:
                small, (options, rate) = copy.deepcopy(cut), chosen[method]
                row = {"study": arguments.study, "net": net, "method": method, "seed": seed}
                row |= {"options": options, "rate": rate, **work.tuned(small, method, seed, options, rate)}
                row |= {"test": work.task.score(small, "test"), "dense": work.task.score(module, "test")}
                row |= {"flops": count_flops(module, work.inputs) / count_flops(small, work.inputs)}
                append_row(arguments.out, row | {"commit": about["commit"], "command": about["command"]})
                say(f"{net} {method} {seed}: {row['test']:.4f}")


def foreseen(work: Work, methods: list[str], chosen: dict[str, Trial], out: Path, done: set[Any]) -> None:
    """How much of the change of weights is foreseen, on trajectories of held-out networks: rows of "net" -1."""
    todo = [m for m in methods if m != "no jump" and (work.name, -1, m, 0) not in done]
    if not todo:
        return
    source = work.trajectories("held-out", 4)
    collected = source.collect(work.networks("held-out"), work.blind, work.inputs)
    for method in todo:
        foresight = work.jump(method, 0, chosen[method][0]).foresight
        shares = {}
        for after in AFTER:
            for epochs in (1, 4):
                cases = [each.case(after, epochs) for each in collected]
                with torch.no_grad():
                    found = [float(unexplained(now, foresight(now, past=past), later)) for now, past, later in cases]
                shares[f"{after} -> {epochs}"] = sum(found) / len(found)
        row = {"study": work.name, "net": -1, "method": method, "seed": 0, "unexplained": shares}
        append_row(out, row | {"commit": provenance("nowcast")["commit"]})
        say(f"{method}: {shares}")


def say(text: str) -> None:
    """Print with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run",))
    parser.add_argument("--study", choices=tuple(STUDIES), default="cifar")
    parser.add_argument("--methods", help="run only these in this sitting, with ; between them")
    parser.add_argument("--nets", type=int, default=6, help="test networks in this sitting")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of metanetworks and fine-tuning in this sitting")
    parser.add_argument("--work", type=Path, default=Path("nowcast-study"), help="where networks and metanetworks lie")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(arguments)


if __name__ == "__main__":
    main()
