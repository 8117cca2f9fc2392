"""Sparse training by every method: the rows and tables behind docs/sparse.md.

    python benchmarks/sparse.py run [--plan layers,default,units,nm,dst,cora,tickets] [--seeds 5] [--jobs 1]
    python benchmarks/sparse.py run --plan cifar,citeseer,reliance --seeds 3
    python benchmarks/sparse.py table    # results/sparse.json, and docs/sparse.md below its mark

A run resumes; each is one line in results/sparse/rows.jsonl, of tickets in results/sparse/tickets/rows.jsonl. The
protocol is that of `graphsparse bench sparse`: digits with an MLP 64-256-256-10, 603 steps of SGD (67 epochs, rate 0.1,
momentum 0.9, a cosine), Cora with a GCN, and CIFAR-10 (8,000 images of 16x16, 12 epochs) with a ResNet-8 of width 16;
one trial of each method. Nothing is chosen on test data.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, provenance, read_rows, write_json
from rich.console import Console

from graphsparse.compare import FEWEST, ROWS, Bench, Comparison, asked_rows, verdicts_of
from graphsparse.data import IMAGES, RawImages, load_images
from graphsparse.fit import mean_ci, paired_difference
from graphsparse.params import METHODS, DropGrow, Explore, Project, Recipe
from graphsparse.report import interval, markdown
from graphsparse.sparse.compare.comparison import SPARSE
from graphsparse.sparse.compare.plan import Experiment, with_controls
from graphsparse.tickets.compare.comparison import TICKETS
from graphsparse.tickets.compare.plan import Experiment as TicketExperiment
from graphsparse.tickets.compare.plan import by_weights

OUT = RESULTS / "sparse"
PAGE = Path(__file__).parent.parent / "docs" / "sparse.md"
MARK = "<!-- tables: python benchmarks/sparse.py table -->"
BONUSES = ("1e-4", "1e-2", "1e-1")  # of DST-EE, beside its own 1e-3
SHARES = ("random-uniform", "random-er", "set", "rigl", "dst-ee", "dsl", "magnitude", "gmp", "iht", "iss")
DEFAULT = ("random-uniform", "random-er", "set", "rigl", "gmp", "iht", "iss")
CIFAR = ("random-uniform", "set", "rigl", "gmp")
UNITS = ("gmp", "g2g", "gates", "group-lasso")  # all but gmp cut, or order, whole units
PROTOCOLS = ("inductive", "transductive")
WEIGHTS = ("l0", "random-erk", "rigl", "set", "gmp", "iss")


def _tuned(c: str) -> str:
    """DST-EE with another bonus, by name."""
    name = f"dst-ee-{c}"
    if name not in METHODS:
        rule = METHODS["dst-ee"].choose

        def choose(steps: int, pattern: Any) -> dict[str, Any]:
            axes = rule(steps, pattern)
            own: DropGrow = axes["rule"]
            return {**axes, "rule": DropGrow(Explore(float(c)), own.fraction, own.every, own.until)}

        METHODS.register(name, Recipe(f"dst-ee with c = {c}", choose, timed=True))
    return name


def _global() -> str:
    """The projection of `L0Projection`, all tensors in one pool, by name."""
    if "iht-global" not in METHODS:
        METHODS.register(
            "iht-global",
            Recipe("iht, all tensors in one pool", lambda *_: {"distribution": "global", "rule": Project()}),
        )
    return "iht-global"


def _small_cifar() -> str:
    """CIFAR-10 as the studies of metanetworks have it, by name: 16x16, 8,000 images to train, 2,000 to validate."""
    name = "cifar10-16"
    if name not in IMAGES:

        def read(root: Any) -> RawImages:
            found = load_images("cifar10", size=16, train=8000, val=2000, root=root)
            x, y = (torch.cat([part[i] for part in (found.train, found.val, found.test)]).numpy() for i in (0, 1))
            low, high = x.min(), x.max()  # load_images shifts and scales again
            is_test = np.arange(len(y)) >= len(y) - len(found.test[1])
            return RawImages((x - low) / (high - low), y, is_test, found.classes, "CIFAR-10, 16x16", white=1, val=2000)

        IMAGES.register(name, read)
    return name


def plans(seeds: int) -> dict[str, list[Any]]:
    """The experiments by name."""
    mlp: dict[str, Any] = {"epochs": 67, "optimizer": "sgd", "seeds": seeds, "trials": 1}
    shares = with_controls(SHARES)
    runs = ("nm", "nm-ste", "nm-sr-ste", "nm-fade", "nm-stages", "nm+random")
    gcn = {"hidden": 512, "levels": (10, 20), "seeds": seeds, "trials": 1}
    weights = tuple(by_weights(["teddy"], WEIGHTS))
    small: dict[str, Any] = {"dataset": _small_cifar(), "model": "resnet8", "hidden": 16}
    resnet = small | {"epochs": 12, "optimizer": "sgd", "seeds": seeds, "trials": 1}
    deep, reliant = {**gcn, "levels": (10, 15, 20)}, tuple(by_weights(["reliance"], WEIGHTS[:3]))
    return {
        "layers": [Experiment(methods=shares, keeps=("0.05", "0.02"), init="scaled", **mlp)],
        "default": [Experiment(methods=(*with_controls(DEFAULT), _global()), keeps=("0.05", "0.02"), **mlp)],
        "units": [Experiment(methods=(*with_controls(UNITS), "group-envelope"), keeps=("0.25", "0.1", "0.05"), **mlp)],
        "dst": [Experiment(methods=tuple(map(_tuned, BONUSES)), keeps=("0.02",), init="scaled", **mlp)],
        "nm": [Experiment(methods=runs, keeps=("1:16", "2:4"), **mlp)],
        "tickets": [TicketExperiment("cora", protocol=p, methods=weights, **gcn) for p in PROTOCOLS],
        "cifar": [
            Experiment(methods=with_controls(CIFAR), keeps=("0.05", "0.02"), init="scaled", **resnet),
            Experiment(methods=("random-erk", "rigl", *runs[:4]), keeps=("0.05", "0.02", "1:16"), **resnet),
        ],
        "citeseer": [TicketExperiment("citeseer", protocol=p, methods=weights, **deep) for p in PROTOCOLS],
        "pubmed": [TicketExperiment("pubmed", protocol=p, methods=weights, **gcn) for p in PROTOCOLS],
        "reliance": [TicketExperiment("cora", protocol=p, methods=(*weights, *reliant), **deep) for p in PROTOCOLS],
        "cora": [
            Experiment("cora", methods=shares, keeps=("0.1", "0.02"), init=init, seeds=seeds, trials=1)
            for init in (None, "scaled")
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--plan", default="layers,default,units,nm,tickets,dst,cora", help="plans, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "run":
        for name in arguments.plan.split(","):
            asked = plans(arguments.seeds)[name]
            Bench(asked, arguments.jobs).run(_home(asked[0].comparison), Console())
        return
    found = {kind.command: compared(kind) for kind in (SPARSE, TICKETS)}
    write_json(RESULTS / "sparse.json", {**provenance("sparse"), **found})
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(MARK)] + MARK + "\n\n" + tables(found))


def _home(kind: Comparison) -> Path:
    return OUT if kind is SPARSE else OUT / "tickets"


def compared(kind: Comparison) -> list[dict[str, Any]]:
    """What is concluded of each setting of the plans that has rows."""
    asked = [each for plan in plans(1).values() for each in plan if each.comparison is kind]
    return verdicts_of(kind, asked_rows(asked, kind.read_runs(_home(kind) / ROWS)))


# what is subtracted from what: method, other, keep, initialisation of each (None is the default one)
PAIRS = (
    ("layer ratios: ERK over uniform", "random-erk", "random-uniform", ("0.05", "0.02"), ("scaled", "scaled")),
    ("scaled initialisation over the default one", "random-erk", "random-erk", ("0.05", "0.02"), ("scaled", None)),
    ("SET over static ERK", "set", "random-erk", ("0.05", "0.02"), ("scaled", "scaled")),
    ("RigL over static ERK", "rigl", "random-erk", ("0.05", "0.02"), ("scaled", "scaled")),
    ("RigL over SET", "rigl", "set", ("0.05", "0.02"), ("scaled", "scaled")),
    ("DST-EE (c = 1e-3) over RigL", "dst-ee", "rigl", ("0.05", "0.02"), ("scaled", "scaled")),
    *((f"DST-EE (c = {c}) over RigL", f"dst-ee-{c}", "rigl", ("0.02",), ("scaled", "scaled")) for c in BONUSES),
    ("DSL over RigL", "dsl", "rigl", ("0.05", "0.02"), ("scaled", "scaled")),
    ("RigL over static ERK", "rigl", "random-erk", ("0.05", "0.02"), (None, None)),
    ("ramp (GMP) over static ERK", "gmp", "random-erk", ("0.05", "0.02"), ("scaled", "scaled")),
    ("projection a tensor over one pool", "iht", "iht-global", ("0.05", "0.02"), (None, None)),
    ("soft shrinkage (ISS) over projection a tensor", "iss", "iht", ("0.05", "0.02"), (None, None)),
    ("ramp (GMP) over soft shrinkage", "gmp", "iss", ("0.05", "0.02"), (None, None)),
    ("STE over cut once", "nm-ste", "nm", ("2:4", "1:16"), (None, None)),
    ("SR-STE over STE", "nm-sr-ste", "nm-ste", ("2:4", "1:16"), (None, None)),
    ("fading over SR-STE", "nm-fade", "nm-sr-ste", ("2:4", "1:16"), (None, None)),
    ("ensembles (G2G) over static ERK", "g2g", "random-erk", ("0.25", "0.1", "0.05"), (None, None)),
    ("ramp (GMP) over static ERK", "gmp", "random-erk", ("0.25", "0.1", "0.05"), (None, None)),
    (
        "inputs by a group lasso over single weights at random",
        "group-lasso",
        "random-erk",
        ("0.25", "0.1"),
        (None, None),
    ),
    ("group lasso over gates", "group-lasso", "gates", ("0.25", "0.1", "0.05"), (None, None)),
    ("group envelope over group lasso", "group-envelope", "group-lasso", ("0.25", "0.1", "0.05"), (None, None)),
    ("random masks: another draw over one", "random-search", "random-erk", ("0.05", "0.02"), ("scaled", "scaled")),
)


def pairs(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Paired differences by seed on one data set, of what the claims name."""
    lines = []
    for what, ours, theirs, keeps, inits in PAIRS:
        for keep in keeps:
            each = [
                {r["seed"]: r["test"] for r in rows if (r["method"], r["keep"], r["init"]) == (name, keep, init)}
                for name, init in zip((ours, theirs), inits, strict=True)
            ]
            seeds = sorted(each[0].keys() & each[1].keys())
            if len(seeds) < FEWEST:
                continue
            a, b = ([part[seed] for seed in seeds] for part in each)
            gap = paired_difference(a, b)
            wins = f"{sum(x > y for x, y in zip(a, b, strict=True))} of {len(seeds)}"
            means = [f"{100 * mean_ci(values)[0]:.1f}" for values in (a, b)]
            shown = " / ".join(str(init or "default") for init in dict.fromkeys(inits))
            lines.append([what, keep, shown, *means, interval(gap.mean, gap.half_width, scale=100, digits=1), wins])
    columns = ["claim", "keep", "init", "first, %", "second, %", "difference, points", "seeds won"]
    heading = f"### {title}: paired differences, 95 % intervals, not corrected\n\n"
    return heading + markdown(columns, lines) if lines else ""


IMAGE_SETS = {"digits": "Digits", "cifar10-16": "CIFAR-10, 16x16"}
TITLES = {
    "soup": "Soups: digits, MLP, RigL at keep 2 %, three members",
    "search": "Random search: 5 % of the neurons of an MLP on digits",
    "features": "100 of Cora's 1,433 words, GCN 64",
    "ap": "Activations pruned beside magnitudes: Cora, GCN 64, 12 rounds to 6.9 % of the weights",
    "churn-1:16": "Masks of 1:16 in the second half of 603 steps: digits, MLP",
    "churn-2:4": "Masks of 2:4 in the second half of 603 steps: digits, MLP",
    "wider-16": "Wider and sparser at equal multiply-adds: digits, MLPs of two hidden layers",
    "wider-64": "Wider and sparser at equal multiply-adds: digits, MLPs of two hidden layers",
    "blocks-3": "Three of the seven blocks of a ResNet-20 that can go: digits, nothing trained after the cut",
    "planted-2x20-6": "A planted ReLU network: 2 neurons, 20 inputs, 6 of 40 weights",
    "planted-4x20-16": "A planted ReLU network: 4 neurons, 20 inputs, 16 of 80 weights",
    "planted-8x50-40": "A planted ReLU network: 8 neurons, 50 inputs, 40 of 400 weights",
    "filters": "Half of the filters of a ResNet-8: digits, 40 epochs each",
    "strengths": "Group penalties of several strengths: digits, MLP, 58 of the 576 inputs of its layers",
}
# what a claim's figures are called in its table, how they are scaled, and with how many digits they are shown
FIGURES = {
    "test": ("test accuracy, %", 100, 1),
    "changes": ("mask elements changed a step", 1, 1),
    "moved": ("changed between middle and end", 1, 0),
    "val": ("validation accuracy, %", 100, 1),
    "left": ("inputs left by the penalty", 1, 0),
    "macs": ("multiply-adds", 1, 0),
    "flops": ("FLOPs, % of the dense network", 100, 1),
    "time": ("time, of dense", 1, 2),
    "time_csr": ("time in CSR, of dense", 1, 2),
    "found": ("planted weights found, %", 100, 0),
    "error": ("test error, of the variance", 1, 4),
    "seconds": ("processor time, s", 1, 1),
}


def claims(rows: Sequence[Mapping[str, Any]]) -> str:
    """What `benchmarks/sparse_claims.py` measured: means over seeds, and paired differences from the first line."""
    parts = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        own = [row["figures"] for row in rows if row["claim"] == claim]
        kind = _by_method if isinstance(next(iter(own[0].values())), Mapping) else _by_figure
        parts.append(f"### {TITLES[claim]}\n\n" + kind(own))
    return "\n\n".join(parts)


def _by_figure(own: Sequence[Mapping[str, float]]) -> str:
    """A line for each figure."""
    first, lines = next(name for name in own[0] if _is_accuracy(name)), []
    for name in own[0]:
        scale, digits = (1, 4) if "loss" in name else (100, 1)
        values = [figures[name] for figures in own]
        gap = paired_difference(values, [figures[first] for figures in own])
        beside = interval(gap.mean, gap.half_width, scale=scale, digits=digits) if _is_accuracy(name) else ""
        lines.append([name, interval(*mean_ci(values), scale=scale, digits=digits), beside if name != first else ""])
    return markdown(["test accuracy, % (of ReLUs: share at zero, %)", f"{len(own)} seeds", f"minus {first}"], lines)


def _by_method(own: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """A line for each method, with its figures, and how far each of them lies from the first method's."""
    first, lines = next(iter(own[0])), []
    for name, figures in own[0].items():
        cells = []
        for figure in own[0][first]:
            _, scale, digits = FIGURES[figure]
            if figure not in figures:
                cells += ["-"]
                continue
            values = [seed[name][figure] for seed in own]
            gap = paired_difference(values, [seed[first][figure] for seed in own])
            shown = interval(*mean_ci(values), scale=scale, digits=digits)
            beside = f" ({interval(gap.mean, gap.half_width, scale=scale, digits=digits)})" if name != first else ""
            cells.append(shown + beside)
        lines.append([name, *cells])
    note = f"{len(own)} seeds; in brackets: minus {first}, paired by seed\n\n"
    return note + markdown(["", *(FIGURES[figure][0] for figure in own[0][first])], lines)


def _is_accuracy(name: str) -> bool:
    return "loss" not in name and "relus" not in name


def tables(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown of all that the rows say."""
    rows = SPARSE.read_runs(OUT / ROWS)
    texts = [pairs(title, [row for row in rows if row["dataset"] == name]) for name, title in IMAGE_SETS.items()]
    texts += [*(kind.pages(found[kind.command]) for kind in (SPARSE, TICKETS))]
    texts.append(claims(read_rows(OUT / "claims.jsonl", ("claim", "seed"))))
    return "\n\n".join(filter(None, texts)) + "\n"


if __name__ == "__main__":
    main()
