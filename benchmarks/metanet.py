"""Metanetworks beside plain criteria: unseen networks, three speed-ups, three fine-tuning budgets.

    python benchmarks/metanet.py run --study fashion --jobs 2    # resumes where it stopped
    python benchmarks/metanet.py table                           # results/metanet.json and docs/metanet.md
    python benchmarks/metanet.py ship --study fashion            # the best repair metanetwork becomes "resnet-tiny"
    python benchmarks/metanet.py run --study cnn --stages zoo,metanetworks --seeds 1   # three kinds of networks at once

A study trains a zoo, metanetworks of each objective and seed (the choice of the epoch on held-out networks), chooses
every method's fine-tuning rate on held-out networks' validation data, and then prunes test networks that played no part
in any choice. One line per pruned network and budget goes to results/metanet.jsonl. Zoo and metanetworks lie in
``--work`` and are made again if they are missing.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from common import append_row, provenance, read_rows, write_json

from graphsparse.cores import usable_cores
from graphsparse.workers import in_processes

HERE = Path(__file__).parent
ROWS = HERE / "results" / "metanet.jsonl"
SPEEDUPS = (2.0, 4.0, 6.0)
RATES = (0.02, 0.05, 0.1)
BUDGETS = {"none": 0, "short": 1, "long": 4}  # epochs
SEEDS = {"repair": 3, "repair alone": 1, "group-lasso": 3, "group-norm": 3}  # metanetworks of each objective
TRANSFER = ("group-l2", "least squares", "taylor", "repair")  # what is run on networks of other widths and depths
KEY = ("study", "group", "net", "method", "seed", "speedup", "budget")


@dataclasses.dataclass(frozen=True)
class Nets:
    """A group of test networks: what is new about them."""

    arch: str
    width: int
    count: int
    epochs: int
    first_seed: int


@dataclasses.dataclass(frozen=True)
class Study:
    """Images, the zoo that metanetworks learn from, and the test networks."""

    name: str
    dataset: str
    size: int
    archs: tuple[str, ...]
    widths: tuple[int, ...]
    count: int
    held_out: int
    groups: dict[str, Nets]
    epochs: tuple[int, ...] = (4, 6, 8, 12)
    metanets_of: str | None = None  # whose metanetworks are used: another study's, for transfer
    objectives: tuple[str, ...] = ("repair", "group-lasso", "group-norm")
    seeds: int = 3  # metanetworks of each objective, where `SEEDS` has as many
    repair_steps: tuple[int, int] = (8, 400)  # epochs and steps of each
    validated: tuple[tuple[float, ...], int | None] = (SPEEDUPS, None)  # speed-ups and examples of repair's validation
    held_out_like: tuple[str, ...] = ("unseen",)  # groups whose kinds of networks are held out, by turns

    @property
    def images(self) -> Any:
        """8,000 training and 2,000 validation images, small."""
        from graphsparse.metanet import Images

        if self.dataset == "digits":
            return Images("digits")
        return Images(self.dataset, self.size, 8000, 2000)

    def recipes(self) -> dict[str, list[Any]]:
        """Zoo, held-out networks (validation) and test networks by group."""
        from graphsparse.metanet import Recipe

        def varied(i: int) -> Any:
            arch, width = self.archs[i % len(self.archs)], self.widths[i % len(self.widths)]
            return Recipe(arch, width, 100 + i, self.epochs[(i // len(self.archs)) % len(self.epochs)])

        def like(nets: Nets, seed: int) -> Any:
            return Recipe(nets.arch, nets.width, seed, nets.epochs)

        seen = [self.groups[name] for name in self.held_out_like]
        found = {
            "zoo": [varied(i) for i in range(self.count)],
            "held-out": [like(seen[i % len(seen)], 500 + i) for i in range(self.held_out)],
        }
        for group, nets in self.groups.items():
            found[group] = [like(nets, nets.first_seed + i) for i in range(nets.count)]
        return found


RESNETS = ("resnet8", "resnet8", "resnet8", "resnet14")
FASHION = Study(
    name="fashion",
    dataset="fashion-mnist",
    size=14,
    archs=RESNETS,
    widths=(6, 8, 10),
    count=40,
    held_out=3,
    objectives=("repair", "repair alone", "group-lasso", "group-norm"),
    groups={
        "unseen": Nets("resnet8", 8, 6, 8, 1000),
        "wider": Nets("resnet8", 14, 3, 8, 2000),
        "deeper": Nets("resnet20", 8, 3, 8, 3000),
    },
)
CIFAR = dataclasses.replace(
    FASHION,
    name="cifar",
    dataset="cifar10",
    size=16,
    objectives=("repair", "group-lasso", "group-norm"),
    repair_steps=(4, 400),
    groups={"unseen": Nets("resnet8", 8, 6, 12, 1000)},
)
VGG = dataclasses.replace(
    FASHION,
    name="fashion-vgg",
    archs=("vgg8",),
    widths=(4, 6, 8),
    objectives=("repair",),
    repair_steps=(4, 400),
    groups={"unseen": Nets("vgg8", 6, 6, 8, 1000)},
)
# One metanetwork for three kinds of networks; benchmarks/recipe.py judges it.
CNN = dataclasses.replace(
    CIFAR,
    name="cnn",
    archs=("resnet8", "mobilenet11", "vgg8", "mobilenet11"),
    widths=(4, 6, 5),
    count=12,
    held_out_like=("resnet", "vgg", "mobilenet"),
    objectives=("repair",),
    repair_steps=(2, 250),
    validated=(SPEEDUPS[:2], 2000),
    epochs=(4, 6),
    groups={
        "resnet": Nets("resnet8", 6, 4, 8, 1000),
        "vgg": Nets("vgg8", 6, 4, 8, 1000),
        "mobilenet": Nets("mobilenet11", 4, 4, 8, 1000),
    },
)
STUDIES = {
    study.name: study
    for study in (
        FASHION,
        CIFAR,
        VGG,
        CNN,
        dataclasses.replace(
            FASHION,
            name="cifar from fashion",
            dataset="cifar10",
            size=16,
            groups=CIFAR.groups,
            metanets_of="fashion",
            objectives=("repair",),
        ),
    )
}
BASELINES = {
    "group-l2": {"criterion": "group-l2"},
    "group-l2 global": {"criterion": "group-l2", "distribution": "global"},
    "least squares": {"criterion": "group-l2", "reconstruct": True},
    "taylor": {"criterion": "taylor"},
    "random": {"criterion": "random"},
    "sparse learning": {"criterion": "sparse-learning"},
}
CONTROLS = ("weight scale", "classifier refit")
REFERENCES = ("group-l2", "least squares")  # what differences are taken to
SHIPPED = {"fashion": "resnet-tiny", "cnn": "cnn-tiny"}  # the study of each metanetwork that comes with the package


def run(arguments: argparse.Namespace) -> None:
    """All stages of a study; what is there is not made again."""
    from rich.progress import Progress

    study, work = STUDIES[arguments.study], arguments.work / arguments.study
    with Progress() as progress:
        for stage, jobs in (
            ("zoo", zoo_jobs),
            ("metanetworks", metanet_jobs),
            ("rates", rate_jobs),
            ("test", test_jobs),
        ):
            if stage not in arguments.stages.split(","):
                continue
            todo = list(jobs(study, work, arguments))
            bar = progress.add_task(stage, total=len(todo))
            with closing(in_processes(do, todo, arguments.jobs)) as ends:
                for end in ends:
                    progress.console.print(end.result(), highlight=False)
                    progress.advance(bar)


Job = tuple[Any, ...]


def do(job: Job) -> str:
    """Call the function of a job; returns what there is to say."""
    function, *args = job
    said: str = function(*args)
    return said


def zoo_jobs(study: Study, work: Path, arguments: argparse.Namespace) -> Iterator[Job]:
    """One job for each network that is not there."""
    for part, recipes in study.recipes().items():
        if part == "zoo" and study.metanets_of:
            continue
        for recipe in recipes:
            if not (work / part / recipe.name / "network.json").exists():
                yield train_network, study, work / part, recipe


def train_network(study: Study, folder: Path, recipe: Any) -> str:
    """Train and save one network."""
    import torch

    from graphsparse.metanet import train_zoo

    torch.set_num_threads(1)
    (found,) = train_zoo(folder, [recipe], study.images)
    return f"{folder.name} {recipe.name}: test {found.figures['test']:.4f}"


def metanet_jobs(study: Study, work: Path, arguments: argparse.Namespace) -> Iterator[Job]:
    """One job for each objective and seed whose metanetwork is not there."""
    if study.metanets_of is None:
        for objective, seed in methods(study, arguments):
            path = metanet_path(study, work, objective, seed)
            if objective in SEEDS and not path.exists():
                yield train_metanet, study, work, objective, seed, path


def metanet_path(study: Study, work: Path, objective: str, seed: int) -> Path:
    """Where a trained metanetwork lies."""
    return work.parent / (study.metanets_of or study.name) / "metanets" / f"{objective}-{seed}.safetensors"


def networks_of(study: Study, work: Path, part: str, recipes: list[Any] | None = None) -> list[Any]:
    """The modules of a part of the study, or of some of its recipes, in their order."""
    from graphsparse.metanet.learn.zoo import load_network

    recipes = study.recipes()[part] if recipes is None else recipes
    return [load_network(work / part / recipe.name, study.images).module for recipe in recipes]


def train_metanet(study: Study, work: Path, objective: str, seed: int, path: Path) -> str:
    """Meta-train one metanetwork on the zoo; its epoch is chosen on the held-out networks."""
    import torch

    from graphsparse.metanet import OBJECTIVES, FineTune, MetaNetwork, NetworkGraph, Repair, Validation, meta_train
    from graphsparse.metanet.pruning import Selection

    torch.set_num_threads(1)
    task, zoo = study.images.task(), networks_of(study, work, "zoo")
    held_out = networks_of(study, work, "held-out")
    repair, alone = objective.startswith("repair"), objective == "repair alone"
    learns = Repair(calibration=0) if alone else OBJECTIVES[objective]()
    kinds = {recipe.arch: net for recipe, net in zip(study.recipes()["zoo"], zoo, strict=True)}
    graphs = [NetworkGraph.from_module(net, task.parts["train"][0][:1]) for net in kinds.values()]
    torch.manual_seed(seed)
    metanet = MetaNetwork.for_graph(*graphs, mode=learns.mode)
    # A change of mode "change" shows only after the fine-tuning that follows it, which costs twice the time.
    speedups, examples = study.validated if repair else (SPEEDUPS[:2], None)
    selection = Selection(reconstruct=False if alone else None)
    validation = Validation(speedups=speedups, fine_tune=FineTune(epochs=1), examples=examples, selection=selection)
    steps = {"epochs": 16, "steps": 200} if alone else dict(zip(("epochs", "steps"), study.repair_steps, strict=True))
    options = steps if repair else {"epochs": 6, "steps": 100, "lr": 1e-3}
    path.parent.mkdir(parents=True, exist_ok=True)
    result = meta_train(
        metanet,
        zoo,
        task,
        objective=learns,
        val_networks=held_out,
        validation=validation,
        seed=seed,
        checkpoint=path.with_suffix(".checkpoint"),
        **options,
    )
    plain = validation.area(None, held_out, task)
    squares = dataclasses.replace(validation, selection=Selection(reconstruct=True)).area(None, held_out, task)
    metanet.save(
        path,
        study=study.name,
        objective=objective,
        seed=seed,
        baseline_area=plain,
        least_squares_area=squares,
        area=result.val,
        epoch=result.best_epoch,
        history=result.history,
        seconds=result.seconds,
        **{k: v for k, v in provenance("metanet").items() if k in ("commit", "versions")},
    )
    areas = f"area {result.val:.4f} (plain {plain:.4f}, least squares {squares:.4f})"
    return f"{objective} {seed}: {areas}, epoch {result.best_epoch}, {result.seconds:.0f} s"


def methods(study: Study, arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Every method that this sitting runs, with its metanetwork seed (0 where there is none)."""
    for method in (*BASELINES, *CONTROLS, *study.objectives):
        if arguments.methods is None or method in arguments.methods.split(","):
            for seed in range(min(arguments.seeds, study.seeds, SEEDS.get(method, 1))):
                yield method, seed


def rate_jobs(study: Study, work: Path, arguments: argparse.Namespace) -> Iterator[Job]:
    """Rates are tuned at 4x on the held-out networks, with the first seed of a metanetwork."""
    for method, seed in methods(study, arguments):
        path = work / "rates" / f"{method}.json"
        if seed == 0 and not path.exists():
            yield choose_rates, study, work, method, path


def choose_rates(study: Study, work: Path, method: str, path: Path) -> str:
    """Write the rate with the best mean validation accuracy for each budget."""
    import torch

    torch.set_num_threads(1)
    task = study.images.task()
    scores: dict[str, dict[str, list[float]]] = {b: defaultdict(list) for b, epochs in BUDGETS.items() if epochs}
    for net in networks_of(study, work, "held-out"):
        for rate in RATES:
            for budget in scores:
                for figures in pruned(study, work, net, method, 0, 4.0, task, {budget: rate}):
                    scores[budget][str(rate)].append(figures["val"])
    means = {b: {rate: sum(v) / len(v) for rate, v in found.items()} for b, found in scores.items()}
    best = {budget: float(max(found, key=lambda rate: found[rate])) for budget, found in means.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"best": best, "validation": means})
    return f"rates of {method}: {best}"


def test_jobs(study: Study, work: Path, arguments: argparse.Namespace) -> Iterator[Job]:
    """One job for each test network and method."""
    done = {tuple(row[k] for k in KEY) for row in read_rows(arguments.out, KEY)}
    for group in study.groups:
        for number, recipe in enumerate(study.recipes()[group]):
            for method, seed in methods(study, arguments):
                base = {"study": study.name, "group": group, "net": number, "method": method, "seed": seed}
                todo = [s for s in SPEEDUPS if not all(_key(base, s, b) in done for b in BUDGETS)]
                if todo and (group == "unseen" or method in TRANSFER):
                    yield test_network, study, work, base, recipe, todo, arguments.out


def _key(base: dict[str, Any], speedup: float, budget: str) -> tuple[Any, ...]:
    row = base | {"speedup": speedup, "budget": budget}
    return tuple(row[k] for k in KEY)


def test_network(study: Study, work: Path, base: dict[str, Any], recipe: Any, speedups: list[float], out: Path) -> str:
    """Prune one test network by one method; a line for each speed-up and budget."""
    import torch

    from graphsparse.metanet.learn.zoo import load_network

    torch.set_num_threads(1)
    task = study.images.task()
    net = load_network(work / base["group"] / recipe.name, study.images).module
    rates = json.loads((work / "rates" / f"{base['method']}.json").read_text())["best"]
    commit = provenance("metanet")["commit"]
    for speedup in speedups:
        start = time.perf_counter()
        for figures in pruned(study, work, net, base["method"], base["seed"], speedup, task, {"none": 0.0, **rates}):
            dense = {"dense": task.score(net, "test")} if figures["budget"] == "none" else {}
            row = base | {"speedup": speedup} | figures | dense | {"commit": commit}
            append_row(out, row | {"seconds": time.perf_counter() - start})
    return f"{base['group']} {base['net']} {base['method']} {base['seed']}"


def pruned(
    study: Study, work: Path, net: Any, method: str, seed: int, speedup: float, task: Any, rates: dict[str, float]
) -> Iterable[dict[str, Any]]:
    """Prune a network by a method to a speed-up; figures for each budget, with its rate."""
    from graphsparse.metanet import FineTune, MetaNetwork, recalibrate
    from graphsparse.metanet.channels import Budget
    from graphsparse.metanet.channels.budget import count_flops
    from graphsparse.metanet.fine_tuning import blind as without_test
    from graphsparse.metanet.fine_tuning import example_of
    from graphsparse.metanet.pruning import Selection, carve

    blind = without_test(task)
    inputs = example_of(task)
    selection = Selection(**BASELINES.get(method, BASELINES["group-l2"]), seed=seed)
    if method == "repair alone":
        selection = dataclasses.replace(selection, reconstruct=False)
    metanet = None
    if method not in BASELINES and method != "classifier refit":
        objective = "repair" if method == "weight scale" else method
        metanet = MetaNetwork.load(metanet_path(study, work, objective, seed))
    before = method == "sparse learning" or (metanet is not None and metanet.mode == "change")

    def cut(prepare: FineTune) -> Any:
        module, _ = carve(net, metanet, blind, Budget(speedup=speedup), selection, inputs, prepare)
        if method == "weight scale":
            start = dataclasses.replace(selection, reconstruct=True)
            plain, _ = carve(net, None, blind, Budget(speedup=speedup), start, inputs, prepare)
            module = rescaled(plain, module)
        elif method == "classifier refit":
            recalibrate(module, blind)
            refit_classifier(module, blind)
        return module

    shared = None if before else cut(FineTune(epochs=0))
    for budget, rate in rates.items():
        epochs = BUDGETS[budget]
        # What trains before the cut gets half of the long budget for it, and at the short one as much again.
        prepare = FineTune(epochs=max(1, epochs // 2) if epochs else 0, lr=rate or 0.05)
        module = copy.deepcopy(shared) if shared is not None else cut(prepare)
        tune = FineTune(epochs=epochs // 2 if before and epochs > 1 else epochs, lr=rate or 0.05)
        tune.run(module, blind, seed=seed)
        yield {
            "budget": budget,
            "rate": rate,
            "val": task.score(module, "val"),
            "test": task.score(module, "test"),
            "flops": count_flops(net, inputs) / count_flops(module, inputs),
        }


def rescaled(plain: Any, repaired: Any) -> Any:
    """The control "weight scale": what repair starts from, with each weight tensor at the norm that repair gave it."""
    import torch

    with torch.no_grad():
        for ours, theirs in zip(plain.parameters(), repaired.parameters(), strict=True):
            if ours.dim() > 1:
                ours.mul_(theirs.norm() / ours.norm().clamp(min=1e-12))
    return plain


def refit_classifier(module: Any, task: Any) -> None:
    """The control "classifier refit": logistic regression on the features of the cut network, labels only."""
    import torch
    from sklearn.linear_model import LogisticRegression

    features: list[Any] = []
    handle = module.head.register_forward_pre_hook(lambda layer, args: features.append(args[0]))
    targets = torch.cat([batch.targets for batch in task.batches("train")])
    task.predict(module, "train")
    handle.remove()
    x = torch.cat(features)
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    found = LogisticRegression(max_iter=200).fit(((x - mean) / std).numpy(), targets.numpy())
    weight = torch.from_numpy(found.coef_).float() / std
    with torch.no_grad():
        module.head.weight.copy_(weight)
        module.head.bias.copy_(torch.from_numpy(found.intercept_).float() - weight @ mean)


def tabulate(arguments: argparse.Namespace) -> None:
    """Write the JSON and the Markdown tables of all runs so far, and print them."""
    from rich.console import Console
    from rich.markdown import Markdown

    summaries = summarise(read_rows(arguments.out, KEY))
    write_json(HERE / "results" / "metanet.json", {**provenance("metanet"), "summaries": summaries})
    text = pages(summaries)
    target = HERE.parent / "docs" / "metanet.md"
    head = target.read_text().split("<!-- tables -->")[0] if target.exists() else "# Metanetworks\n\n"
    target.write_text(f"{head}<!-- tables -->\n\n{text}\n")
    Console().print(Markdown(text))


def ship(arguments: argparse.Namespace) -> None:
    """Put the metanetwork with the best area on held-out networks into the package."""
    from graphsparse.metanet import MetaNetwork
    from graphsparse.metanet.metanetwork import PRETRAINED

    study = STUDIES[arguments.study]
    folder = metanet_path(study, arguments.work / study.name, "repair", 0).parent
    found = [MetaNetwork.load(path) for path in sorted(folder.glob("repair-*.safetensors"))]
    best = max(found, key=lambda metanet: metanet.notes["area"])
    best.save(PRETRAINED / f"{SHIPPED[study.name]}.safetensors", **best.notes)
    print(
        f"seed {best.notes['seed']}: area {best.notes['area']:.4f}, plain criterion {best.notes['baseline_area']:.4f}"
    )


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over test networks of each network's mean over metanetwork seeds, and paired differences from references.

    Intervals are over networks; a network's figure is its mean over seeds of metanetworks. "best baseline" is in each
    cell whichever of the criteria, sparse learning and the paper's objectives has the highest mean there, in hindsight.
    """
    from graphsparse.fit import finite_or_none, mean_ci, paired_difference

    cells: dict[tuple[Any, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in [*rows, *lent(rows)]:
        cells[tuple(row[k] for k in ("study", "group", "speedup", "budget", "method"))][row["net"]].append(row["test"])
    summaries = []
    for key, by_net in sorted(cells.items()):
        ours = {net: sum(found) / len(found) for net, found in by_net.items()}
        mean, half = mean_ci(list(ours.values()))
        entry = dict(zip(("study", "group", "speedup", "budget", "method"), key, strict=True))
        entry |= {"networks": len(ours), "seeds": min(map(len, by_net.values())), "test": mean}
        entry["test_ci95"] = finite_or_none(half)
        rivals = [name for name in (*BASELINES, "group-lasso", "group-norm") if name != "least squares"]
        others = [cells[(*key[:4], name)] for name in rivals if (*key[:4], name) in cells]
        whole = [other for other in others if set(other) >= set(ours)]
        best = max(whole, key=lambda other: sum(sum(v) / len(v) for n, v in other.items() if n in ours), default={})
        for reference in (*REFERENCES, "best baseline"):
            theirs = best if reference == "best baseline" else cells[(*key[:4], reference)]
            nets = sorted(set(ours) & set(theirs))
            if key[4] != reference and nets:
                paired = paired_difference([ours[n] for n in nets], [sum(theirs[n]) / len(theirs[n]) for n in nets])
                entry[f"minus_{reference}"] = {
                    "mean": paired.mean,
                    "ci95": finite_or_none(paired.half_width),
                    "wins": paired.wins,
                    "networks": paired.pairs,
                }
        summaries.append(entry)
    return summaries


def lent(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of plain methods, for studies of other metanetworks on the same networks."""
    for study in STUDIES.values():
        owners = [o.name for o in STUDIES.values() if (o.dataset, o.groups) == (study.dataset, study.groups)]
        if study.metanets_of:
            for row in rows:
                if row["study"] != study.name and row["study"] in owners and row["method"] in BASELINES:
                    yield row | {"study": study.name}


def pages(summaries: list[dict[str, Any]]) -> str:
    """For each study and group two tables: accuracy, and paired differences from group-l2 and from least squares."""
    from graphsparse.report import interval, markdown

    groups: dict[tuple[str, str], dict[tuple[str, float, str], dict[str, Any]]] = defaultdict(dict)
    for s in summaries:
        groups[s["study"], s["group"]][s["method"], s["speedup"], s["budget"]] = s
    columns = [(speed, budget) for budget in BUDGETS for speed in SPEEDUPS]
    parts = []
    for (study, group), cells in groups.items():
        names = list(dict.fromkeys(m for m, _, _ in cells))
        order = ["repair", "repair alone", "group-lasso", "group-norm", *BASELINES, *CONTROLS]
        names.sort(key=order.index)
        header = [f"{budget} {speed:g}x" for speed, budget in columns]

        def row(name: str, value: Callable[[dict[str, Any]], str], cells: Any = cells) -> list[str]:
            found = [cells.get((name, speed, budget)) for speed, budget in columns]
            return [name, *["-" if s is None else value(s) for s in found]]

        nets = max(s["networks"] for s in cells.values())
        if nets < 2:  # begun, and nothing to say an interval of
            continue
        accuracy = [row(n, lambda s: interval(s["test"], s["test_ci95"], scale=100, digits=1)) for n in names]
        paired = [row(n, lambda s: _signed(s.get("minus_group-l2"))) for n in names if n != "group-l2"]
        if "repair" in names:
            for reference in ("best baseline", "least squares"):
                against = row("repair", lambda s, name=reference: _signed(s.get(f"minus_{name}")))
                paired.append([f"repair - {reference}", *against[1:]])
        parts.append(f"### {study}: {group} ({nets} networks)\n\n{markdown(['test accuracy, %', *header], accuracy)}")
        parts.append(markdown(["minus group-l2, points", *header], paired))
    return "\n\n".join(parts)


def _signed(difference: dict[str, Any] | None) -> str:
    from graphsparse.report import interval

    if difference is None:
        return "-"
    sign = "+" if difference["mean"] >= 0 else ""
    return sign + interval(difference["mean"], difference["ci95"], scale=100, digits=1)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "ship"))
    parser.add_argument("--study", choices=tuple(STUDIES), default="fashion")
    parser.add_argument("--jobs", type=int, default=usable_cores())
    parser.add_argument("--methods", help="run only these in this sitting, comma separated")
    parser.add_argument("--seeds", type=int, default=3, help="metanetworks of an objective in this sitting")
    parser.add_argument("--stages", default="zoo,metanetworks,rates,test", help="of this sitting, comma separated")
    parser.add_argument("--work", type=Path, default=Path("metanet-study"), help="where zoo and metanetworks lie")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"run": run, "table": tabulate, "ship": ship}[arguments.action](arguments)


if __name__ == "__main__":
    main()
