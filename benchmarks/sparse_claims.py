"""Claims of sparse training, one function each. Rows in results/sparse/claims.jsonl.

    python benchmarks/sparse_claims.py [--claims soup,search,features,ap,churn-1:16,wider-16,blocks-3] [--seeds 5]

A run resumes. Everything is paired by seed; the tables are made by `benchmarks/sparse.py table`.

- soup: digits, MLP 64-256-256-10, RigL at keep 2 % (603 steps of SGD); then 3 members of 20 epochs, rate 0.02, under
  its mask, beside one run of 60.
- search: 5 % of the neurons of both hidden layers: the best of 64 draws by training loss at the start, and one draw.
- features: 100 of Cora's 1,433 words for a GCN of 64 units: rotating inputs by gradient and at random, chi-squared,
  random words; a new GCN is trained on each choice.
- ap: Cora, GCN of 64 units, 12 rounds of 20 % of the weights, all edges: IMP, and with activations pruned, too.
- churn-N:M: digits, MLP; how many elements of the masks change in the second half of 603 steps under each rule.
- wider-W: digits; a dense MLP of width W, and wider ones that keep as many weights; accuracy, multiply-adds, time.
- blocks-N: digits, ResNet-20 of width 8, 30 epochs; N of its 7 blocks of one shape go within 40 more, by gates and
  distance, by gates alone, at random.
- filters: digits, ResNet-8 of width 16; half of the filters go by group penalties, and as many FLOPs by DepGraph's.
- planted-PxD-S: a ReLU layer of P neurons, D inputs and S weights makes 2,000 examples; what is found of it by
  `recover`, by training and one cut, by IMP in 5 rounds; two trials each (draws, rates), the better on validation data.
- strengths: digits, MLP, 10 % of the inputs of its layers; group penalties of several strengths.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import RESULTS, append_row, provenance, read_rows
from sparse_planted import recovery
from sparse_problem import SGD, STEPS, Lines, digits, trained
from sparse_shapes import blocks, filters, strengths, wider
from watch import Watch

import graphsparse as gs
from graphsparse.fit import NodeTask, cosine, fit
from graphsparse.fit.relus import dead_relus
from graphsparse.fit.rng import generator_for
from graphsparse.params import Sparsifier
from graphsparse.sparse import features, search, soup, train
from graphsparse.tickets import FINDERS, IMP, register

ROWS = RESULTS / "sparse" / "claims.jsonl"


def soups(seed: int) -> dict[str, float]:
    """Figures of a base, its members, both soups, and a run as long as all members."""
    task, net = digits(seed)
    shared: dict[str, Any] = {"optimizer": SGD, "weight_decay": 5e-4}
    begun = {"epochs": 67, "lr": 0.1, "seed": seed, "init": "scaled", "callbacks": [cosine(67 * STEPS)]}
    base = train(net, task, "rigl", keep=0.02, **begun, **shared)
    tune = partial(soup, base.module, task, base.masks, lr=0.02, seed=100 * seed, **shared)
    uniform = tune(members=3, epochs=20, callbacks=[cosine(20 * STEPS)])
    greedy = tune(members=3, epochs=20, how="greedy", callbacks=[cosine(20 * STEPS)])
    long = tune(members=1, epochs=60, callbacks=[cosine(60 * STEPS)])
    tests = [member["test"] for member in uniform.members]
    return {
        "base": base.metrics["test"],
        "member, mean": math.fsum(tests) / len(tests),
        "member, best on validation": tests[0],
        "soup": uniform.metrics["test"],
        "greedy soup": greedy.metrics["test"],
        "one run as long": long.metrics["test"],
    }


def searches(seed: int) -> dict[str, float]:
    """Figures of the best of 64 draws and of one."""
    task, net = digits(seed)
    options: dict[str, Any] = {"members": 1, "epochs": 67, "lr": 0.1, "seed": seed, "optimizer": SGD}
    found = {}
    for name, tries in (("search of 64", 64), ("one draw", 1)):
        chosen = search(task, net, 0.05, tries=tries, seed=seed)
        found[f"{name}, loss at the start"] = chosen.loss
        result = soup(net, task, chosen.masks, callbacks=[cosine(67 * STEPS)], **options)
        found[name] = result.metrics["test"]
    return found


def words(seed: int) -> dict[str, float]:
    """Figures of a GCN on 100 words, chosen in several ways, and on all."""
    from sklearn.feature_selection import chi2

    data = gs.data.load("cora")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 64, seed=seed)
    options: dict[str, Any] = {"keep": 100, "epochs": 200, "seed": seed, "progress": False}
    x, y = data.x[data.train_mask].numpy(), data.y[data.train_mask].numpy()
    worth = torch.from_numpy(chi2(x, y)[0]).nan_to_num(-1)
    chosen = {
        "rotating, by gradient": features(NodeTask(data), net, **options).features,
        "rotating, at random": features(NodeTask(data), net, grow="random", **options).features,
        "chi-squared": worth.argsort(descending=True, stable=True)[:100],
        "random": torch.randperm(data.num_features, generator=generator_for("words", seed))[:100],
        "all words": torch.arange(data.num_features),
    }
    found = {}
    for name, columns in chosen.items():
        part = data.clone()
        part.x = data.x[:, columns.sort().values]
        own = gs.nn.make("gcn", part.num_features, data.num_classes, 64, seed=seed)
        found[name] = fit(own, NodeTask(part), epochs=200, seed=seed, progress=False).test
    return found


def activations(seed: int) -> dict[str, float]:
    """Figures of IMP with and without AP."""
    data, found = gs.data.load("cora"), {}
    for name, also in (("imp", None), ("imp with ap", "ap")):
        named = f"claims-{name.replace(' ', '-')}"
        if named not in FINDERS:
            register(named, IMP(weight_step="0.2", also=also))
        net = gs.nn.make("gcn", data.num_features, data.num_classes, 64, seed=seed)
        keep = 0.8**12
        ticket = gs.find_ticket(net, data, method=named, edge_keep=1, weight_keep=keep, seed=seed, epochs=100)
        found[name] = ticket.metrics["test"]
        found |= {f"{name}, {key}": ticket.metrics[key] for key in ("dead_relus", "dense_dead_relus") if also}
        if not also:
            run = partial(ticket.apply_to(net).eval(), data.x, data.edge_index)
            found[f"{name}, dead_relus"] = dead_relus(run) or 0.0
    return found


def churn(keep: str, seed: int) -> Lines:
    """Changes of N:M masks in the second half of the training, under the rules for straight-through weights."""
    return {method: changes(method, keep, seed) for method in ("nm-ste", "nm-sr-ste", "nm-fade")}


def changes(method: str, keep: str, seed: int) -> dict[str, float]:
    """Accuracy; elements of the masks that change at a step, and between the middle and the end."""
    (task, net), options = digits(seed), trained(67, seed)
    half, each, middle = 67 * STEPS // 2, [], {}
    sparsifier = Sparsifier(net, method, keep=keep, steps=67 * STEPS, seed=seed)

    def look(step: int) -> None:
        if step == half:
            middle.update(sparsifier.masks)
        elif step > half:
            each.append(sparsifier.churn)

    fit(net, task, **{**options, "callbacks": [*options["callbacks"], sparsifier, Watch(look)]})
    last = sparsifier.masks
    sparsifier.finish()
    moved = sum(int((mask ^ last[name]).sum()) for name, mask in middle.items())
    return {"test": task.score(net, "test"), "changes": sum(each) / len(each), "moved": moved}


CLAIMS: dict[str, Callable[[int], dict[str, float] | Lines]] = {
    "soup": soups,
    "search": searches,
    "features": words,
    "ap": activations,
    "churn-1:16": partial(churn, "1:16"),
    "churn-2:4": partial(churn, "2:4"),
    "wider-16": partial(wider, 16),
    "wider-64": partial(wider, 64),
    "blocks-3": partial(blocks, 3),
    "planted-2x20-6": partial(recovery, 2, 20, 6),
    "planted-4x20-16": partial(recovery, 4, 20, 16),
    "planted-8x50-40": partial(recovery, 8, 50, 40),
    "strengths": strengths,
    "filters": filters,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", default=",".join(CLAIMS))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    for claim in arguments.claims.split(","):
        for seed in range(arguments.seeds):
            done = {(row["claim"], row["seed"]) for row in read_rows(ROWS, ("claim", "seed"))}
            if (claim, seed) in done:
                continue
            start = time.perf_counter()
            figures = CLAIMS[claim](seed)
            row = {"claim": claim, "seed": seed, "figures": figures, "seconds": time.perf_counter() - start}
            append_row(ROWS, {**row, **provenance("sparse_claims")})
            print(claim, seed, json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
