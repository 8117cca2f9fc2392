"""One tuned recipe of fine-tuning for everybody: pruning methods at equal trials and equal images, and what wins.

    python benchmarks/recipe.py run --study cifar        # resumes where it stopped
    python benchmarks/recipe.py table                    # results/recipe.json and docs/metanet.md

The networks are those of benchmarks/metanet.py: held-out ones, on whose validation data every method's recipe (batch
size, rate, distillation from the unpruned network) is chosen from the same trials, and test networks that play no part
in any choice. The metanetwork of "repair" is the one that comes with the package. One line per trial, and one per
pruned network, goes to results/recipe.jsonl; the dense networks lie in ``--work``.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import PAGES, append_row, into_page, provenance, read_rows, write_json
from metanet import STUDIES, Nets, Study, metanet_path, networks_of, train_network

HERE = Path(__file__).parent
ROWS = HERE / "results" / "recipe.jsonl"
TUNED_AT = 4.0  # times fewer FLOPs, where recipes are tried
BUDGETS = {"none": 0, "short": 1, "long": 4}  # epochs
KEY = ("kind", "study", "net", "method", "seed", "speedup", "budget")
LEAST_SQUARES: dict[str, Any] = {"criterion": "group-l2", "reconstruct": True}
METHODS: dict[str, dict[str, Any]] = {
    "least squares": LEAST_SQUARES,
    "group-l2": {"criterion": "group-l2"},
    "repair": {"criterion": "group-l2"},
    "obs-fisher": {"criterion": "obs-fisher", "reconstruct": True},
    "obs": {"criterion": "obs", "reconstruct": True},
    "rescale": {"criterion": "group-l2", "reconstruct": {"rescale": True}},
    "residual": {"criterion": "group-l2", "reconstruct": {"residual": True}},
    "all parts": {"criterion": "obs-fisher", "reconstruct": {"residual": True, "rescale": True}},
    "group-l2 global": {"criterion": "group-l2", "distribution": "global"},
    "taylor": {"criterion": "taylor"},
    "sparse learning": {"criterion": "sparse-learning"},
}
BASE = "least squares"  # what differences are taken to
DIGITS = dataclasses.replace(
    STUDIES["cifar"], name="digits", dataset="digits", size=8, groups={"unseen": Nets("resnet8", 8, 6, 12, 1000)}
)
CIFAR_VGG = dataclasses.replace(
    STUDIES["cifar"], name="cifar-vgg", archs=("vgg8",), groups={"unseen": Nets("vgg8", 6, 6, 12, 1000)}
)
# Name -> study and the group of its networks that is pruned.
OURS: dict[str, tuple[Study, str]] = {
    **{study.name: (study, "unseen") for study in (STUDIES["cifar"], CIFAR_VGG, DIGITS)},
    **{f"cnn {group}": (STUDIES["cnn"], group) for group in STUDIES["cnn"].groups},
}


def run(arguments: argparse.Namespace) -> None:
    """Dense networks, trials, and test networks, as many as asked for; what is there is not made again."""
    import torch

    torch.set_num_threads(1)
    study, group = OURS[arguments.study]
    work = arguments.work / study.name
    held_out = [recipe for recipe in study.recipes()["held-out"] if recipe.arch == study.groups[group].arch]
    parts = {"held-out": held_out[: arguments.held_out], group: study.recipes()[group][: arguments.networks]}
    for part, recipes in parts.items():
        for recipe in recipes:
            if not (work / part / recipe.name / "network.json").exists():
                print(train_network(study, work / part, recipe), flush=True)
    nets = [networks_of(study, work, part, recipes) for part, recipes in parts.items()]
    Sitting(study, work, arguments, *nets).run()


class Sitting:
    """A study's trials and rows, as far as they are missing."""

    def __init__(
        self, study: Study, work: Path, arguments: argparse.Namespace, held_out: list[Any], nets: list[Any]
    ) -> None:
        self.name, self.arguments, self.task = arguments.study, arguments, study.images.task()
        self.methods = [m for m in METHODS if arguments.methods is None or m in arguments.methods.split(",")]
        self.held_out, self.nets, self.own = held_out, nets, metanet_path(study, work, "repair", 0)
        self.done = {tuple(row[k] for k in KEY): row for row in read_rows(arguments.out, KEY)}
        self.commit = provenance("recipe")["commit"]

    def run(self) -> None:
        """Trials first; then networks one by one, so that a sitting that is cut short leaves whole pairs."""
        for method, budget in itertools.product(self.methods, filter(None, self.arguments.trials.split(","))):
            self.choose(method, budget)
        for seed, net in itertools.product(range(self.arguments.seeds), range(len(self.nets))):
            for speedup, method in itertools.product(self.arguments.speedups, self.methods):
                self.prune(net, method, seed, speedup)

    def choose(self, method: str, budget: str) -> None:
        """Try every recipe on the held-out networks."""
        from graphsparse.metanet import TRIALS, tune

        for number, trial in enumerate(TRIALS):
            recipe = dataclasses.replace(trial, epochs=BUDGETS[budget])
            base = {"kind": "trial", "study": self.name, "net": number, "method": method}
            base |= {"seed": 0, "speedup": TUNED_AT, "budget": budget}
            if tuple(base[k] for k in KEY) not in self.done:
                cuts = [lambda r, net=net: self.cut(net, method, TUNED_AT, r)[0] for net in self.held_out]
                found = tune(cuts, self.task, [recipe], teachers=self.held_out).trials[0]
                figures = {"val": found.val, "each": list(found.each), "cpu_seconds": found.cpu_seconds}
                self.write(base | {"recipe": dataclasses.asdict(recipe)} | figures)

    def best(self, method: str, budget: str) -> Any:
        """The recipe with the best validation accuracy, for a budget of epochs; what `prune` takes without trials."""
        from graphsparse.metanet import FineTune
        from graphsparse.metanet.fine_tuning import standard

        if not self.arguments.trials:
            return dataclasses.replace(standard(self.task), epochs=BUDGETS[budget])
        kind = {"kind": "trial", "study": self.name, "method": method, "budget": "short"}
        trials = [row for row in self.done.values() if all(row[k] == v for k, v in kind.items())]
        chosen = max(sorted(trials, key=lambda row: row["net"]), key=lambda row: row["val"])["recipe"]
        return FineTune(**{**chosen, "milestones": (), "epochs": BUDGETS[budget]})

    def prune(self, number: int, method: str, seed: int, speedup: float) -> None:
        """A line for each budget of one pruned network; without fine-tuning there is nothing to seed."""
        from graphsparse.metanet.channels.budget import count_flops
        from graphsparse.metanet.fine_tuning import blind
        from graphsparse.metanet.pruning import example_of

        base = {"kind": "test", "study": self.name, "net": number, "method": method, "seed": seed}
        base |= {"speedup": speedup}
        budgets = [b for b in self.arguments.budgets.split(",") if b != "none" or seed == 0]
        todo = [b for b in budgets if tuple((base | {"budget": b})[k] for k in KEY) not in self.done]
        net, unseen, inputs = self.nets[number], blind(self.task), example_of(self.task)
        shared = None
        for budget in todo:
            recipe = self.best(method, budget)
            if shared is None or method == "sparse learning":
                shared = self.cut(net, method, speedup, dataclasses.replace(recipe, epochs=max(1, recipe.epochs // 2)))
            module, spent = copy.deepcopy(shared[0]), shared[1]
            start = time.process_time()
            half = method == "sparse learning" and recipe.epochs > 1
            tuned = dataclasses.replace(recipe, epochs=recipe.epochs // 2) if half else recipe
            tuned.run(module, unseen, teacher=net, seed=seed)
            row = base | {"budget": budget, "recipe": dataclasses.asdict(tuned)}
            row |= {"cpu_seconds": time.process_time() - start, "cpu_seconds_cut": spent}
            row |= {part: self.task.score(module, part) for part in ("val", "test")}
            row |= {"flops": count_flops(net, inputs) / count_flops(module, inputs)}
            self.write(row)

    def cut(self, net: Any, method: str, speedup: float, recipe: Any) -> tuple[Any, float]:
        """The pruned network before fine-tuning, and the processor time that it took."""
        from graphsparse.metanet import MetaNetwork
        from graphsparse.metanet.channels import Budget
        from graphsparse.metanet.fine_tuning import blind
        from graphsparse.metanet.pruning import Selection, carve, example_of

        start, task = time.process_time(), blind(self.task)
        metanet = None
        if method == "repair":
            pretrained = not self.name.startswith("cnn")
            metanet = MetaNetwork.from_pretrained("resnet-tiny") if pretrained else MetaNetwork.load(self.own)
            metanet.eval()
        selection = Selection(**METHODS[method])
        module, _ = carve(net, metanet, task, Budget(speedup=speedup), selection, example_of(task), recipe)
        return module, time.process_time() - start

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        append_row(self.arguments.out, row | {"commit": self.commit})
        self.done[tuple(row[k] for k in KEY)] = row
        print(*(row[k] for k in KEY), f"{row.get('test', row['val']):.4f}", flush=True)


def tabulate(arguments: argparse.Namespace) -> None:
    """Write the JSON and the Markdown tables of all rows so far, and print them."""
    rows = read_rows(arguments.out, KEY)
    text = "\n\n".join(pages(rows, study) for study in dict.fromkeys(row["study"] for row in rows))
    figures = [s for study in dict.fromkeys(row["study"] for row in rows) for s in summarise(rows, study)]
    write_json(HERE / "results" / "recipe.json", {**provenance("recipe"), "summaries": figures})
    into_page(PAGES / "metanet.md", "recipe", text)


def summarise(rows: list[dict[str, Any]], study: str) -> list[dict[str, Any]]:
    """Each method's mean over networks of its mean over seeds, and paired differences from least squares."""
    from graphsparse.fit import finite_or_none, mean_ci, paired_difference

    cells: dict[tuple[Any, ...], dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["kind"] == "test" and row["study"] == study:
            cells[row["speedup"], row["budget"], row["method"]][row["net"]].append(row)
    found = []
    for (speedup, budget, method), by_net in sorted(cells.items()):
        ours = {net: _mean(rows, "test") for net, rows in by_net.items()}
        mean, half = mean_ci(list(ours.values()))
        entry = {"study": study, "speedup": speedup, "budget": budget, "method": method, "networks": len(ours)}
        entry |= {"seeds": min(map(len, by_net.values())), "test": mean, "test_ci95": finite_or_none(half)}
        every = list(itertools.chain(*by_net.values()))
        entry |= {name: _mean(every, name) for name in ("cpu_seconds", "cpu_seconds_cut")}
        theirs = cells[speedup, budget, BASE]
        nets = [net for net in ours if net in theirs]
        if method != BASE and nets:
            pairs = [_same_seeds(by_net[net], theirs[net]) for net in nets]
            paired = paired_difference(*([pair[side] for pair in pairs] for side in (0, 1)))
            entry["minus"] = {"mean": paired.mean, "ci95": finite_or_none(paired.half_width), "wins": paired.wins}
            entry["minus"]["networks"] = paired.pairs
        found.append(entry)
    return found


def _same_seeds(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean test accuracies over the seeds that both have."""
    shared = {row["seed"] for row in ours} & {row["seed"] for row in theirs}
    return tuple(_mean([r for r in rows if r["seed"] in shared], "test") for rows in (ours, theirs))  # type: ignore[return-value]


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(sum(row[name] for row in rows) / len(rows))


def pages(rows: list[dict[str, Any]], study: str) -> str:
    """The recipes that were chosen, accuracies, and differences from least squares."""
    from graphsparse.report import interval, markdown

    cells = {(s["method"], s["speedup"], s["budget"]): s for s in summarise(rows, study)}
    columns = sorted({(b, s) for _, s, b in cells}, key=lambda column: (list(BUDGETS).index(column[0]), column[1]))
    names = [name for name in METHODS if any(name == m for m, _, _ in cells)]
    header = [f"{budget} {speed:g}x" for budget, speed in columns]

    def row(name: str, value: Callable[[dict[str, Any]], str]) -> list[str]:
        found = [cells.get((name, speed, budget)) for budget, speed in columns]
        return [name, *["-" if s is None else value(s) for s in found]]

    def minus(s: dict[str, Any]) -> str:
        d = s["minus"]
        sign = "+" if d["mean"] >= 0 else ""
        return sign + interval(d["mean"], d["ci95"], scale=100, digits=1)

    nets = max((s["networks"] for s in cells.values()), default=0)
    seeds = max((s["seeds"] for s in cells.values()), default=0)
    parts = [f"### {study} ({nets} networks, {seeds} seeds of fine-tuning)", *_trials(rows, study)]
    if names:
        accuracy = [row(n, lambda s: interval(s["test"], s["test_ci95"], scale=100, digits=1)) for n in names]
        parts.append(markdown(["test accuracy, %", *header], accuracy))
        parts.append(markdown(["minus least squares, points", *header], [row(n, minus) for n in names if n != BASE]))
        spent = [row(n, lambda s: f"{s['cpu_seconds_cut']:.1f} + {s['cpu_seconds']:.1f}") for n in names]
        parts.append(markdown(["processor time: cut + fine-tuning, s", *header], spent))
    return "\n\n".join(parts)


def _trials(rows: list[dict[str, Any]], study: str) -> Iterator[str]:
    """Validation accuracy of every recipe for every method; the best of a method stands out."""
    for budget, epochs in BUDGETS.items():
        yield from _trials_of(rows, study, budget, f"{epochs} epoch{'s' * (epochs > 1)}")


def _trials_of(rows: list[dict[str, Any]], study: str, budget: str, said: str) -> Iterator[str]:
    from graphsparse.report import markdown

    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == "trial" and row["study"] == study and row["budget"] == budget:
            recipe = row["recipe"]
            taught = f" + distillation (T = {recipe['temperature']:g})" if recipe["distill"] else ""
            found[row["method"]][f"{recipe['batch_size']} at {recipe['lr']:g}{taught}"] = row["val"]
    if found:
        recipes = list(dict.fromkeys(itertools.chain(*found.values())))
        table = []
        for method in (m for m in METHODS if len(found.get(m, ())) == len(recipes)):  # the others are on their way
            best = max(found[method].values())
            cells = [found[method].get(recipe) for recipe in recipes]
            shown = ["-" if v is None else f"**{100 * v:.1f}**" if v == best else f"{100 * v:.1f}" for v in cells]
            table.append([method, *shown])
        yield markdown([f"validation accuracy, %, {TUNED_AT:g}x, {said}", *recipes], table)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--study", choices=tuple(OURS), default="cifar")
    parser.add_argument("--methods", help="run only these in this sitting, comma separated")
    parser.add_argument("--budgets", default="none,short", help="of none, short, long; comma separated")
    parser.add_argument("--trials", default="short", help="budgets of which recipes are tried; '' takes that of prune")
    parser.add_argument("--speedups", type=float, nargs="+", default=[2.0, 4.0])
    parser.add_argument("--networks", type=int, default=3, help="test networks, up to 6")
    parser.add_argument("--held-out", type=int, default=2, help="networks for the choice of recipes, up to 3")
    parser.add_argument("--seeds", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--work", type=Path, default=Path("metanet-study"), help="where dense networks lie")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"run": run, "table": tabulate}[arguments.action](arguments)


if __name__ == "__main__":
    main()
