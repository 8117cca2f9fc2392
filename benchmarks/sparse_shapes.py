"""Claims about the shape of a network: wider and sparser, fewer filters, fewer blocks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from sparse_problem import STEPS, Lines, digits, trained
from torch import Tensor, nn
from watch import Watch

from graphsparse.fit import Task, fit
from graphsparse.fit.measure import inference_ms
from graphsparse.fit.rng import generator_for
from graphsparse.metanet import FineTune, NetworkGraph, find_units, prune, shrink
from graphsparse.metanet.channels import count_flops
from graphsparse.params import (
    Bypass,
    Coupled,
    Linear,
    Modules,
    Proximal,
    Rows,
    Sparsifier,
    find_blocks,
    prunable,
    stays,
)
from graphsparse.params.joint import Joint
from graphsparse.sparse import train
from graphsparse.tickets.make import macs

CUT = int(0.75 * 67 * STEPS)  # the step after which proximal methods cut


def strengths(seed: int) -> Lines:
    """Group penalties of several strengths: an MLP of 256 units, 10 % of the inputs of its layers stay: 58 of 576."""
    found = {}
    for penalty, rising in (("group-envelope", Linear(end=CUT)), ("group-lasso", None)):
        for strength in (1e-3, 1e-2, 1e-1):
            rule = Proximal(penalty, strength, schedule=rising)
            found[f"{penalty}, {strength:.0e}"] = shrunk(rule, seed)
    return found


def shrunk(rule: Proximal, seed: int) -> dict[str, float]:
    """Accuracy, and how many inputs of layers the penalty itself had left before the others were cut."""
    (task, net), options = digits(seed), trained(67, seed)
    axes: dict[str, Any] = {"keep": 0.1, "pattern": Rows(1), "distribution": "uniform", "rule": rule}
    sparsifier, left = Sparsifier(net, steps=67 * STEPS, seed=seed, **axes), []

    def look(step: int) -> None:
        if step == CUT - 1:
            left.extend(int((weight != 0).any(0).sum()) for weight in sparsifier.parameters.values())

    fit(net, task, **{**options, "callbacks": [*options["callbacks"], sparsifier, Watch(look)]})
    sparsifier.finish()
    return {"test": task.score(net, "test"), "val": task.score(net, "val"), "left": sum(left)}


class Compressed(nn.Module):
    """A linear layer that multiplies by its non-zero weights only.

    Args:
        layer: whose weights it takes.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.detach().to_sparse_csr(), layer.bias.detach()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Inputs ``[n, in]`` to outputs ``[n, out]``."""
        return torch.addmm(self.bias, self.weight, x.T).T


def wider(width: int, seed: int) -> Lines:
    """A dense MLP beside wider ones of as many multiply-adds; times are those of a pass over the test part."""
    task, net = digits(seed, width=width)
    x, budget = task.parts["test"][0], sum(weight.numel() for weight in prunable(net, "matrices").values())
    fit(net, task, **trained(67, seed))
    nets = {f"dense, {width} wide": net}
    for share in (Fraction(1, 2), Fraction(1, 4), Fraction(1, 10)):
        wide = next(w for w in range(width, 100 * width) if share * (w * w + 74 * w) >= budget)
        for method in ("random-erk", "rigl"):
            task, start = digits(seed, width=wide)
            keep = Fraction(budget, wide * wide + 74 * wide)
            result = train(start, task, method, keep=str(keep), init="scaled", **trained(67, seed))
            nets[f"{method}, {wide} wide, keep {float(share):g}"] = result.module
    return {name: _cost(task, own.eval(), net.eval(), x) for name, own in nets.items()}


@torch.no_grad()
def _cost(task: Task, own: nn.Module, dense: nn.Module, x: Tensor) -> dict[str, float]:
    sparse = nn.Sequential(*(Compressed(part) if isinstance(part, nn.Linear) else part for part in own))
    assert torch.allclose(own(x), sparse(x), atol=1e-4)
    first, plain, csr = inference_ms([lambda: dense(x), lambda: own(x), lambda: sparse(x)], repeats=50)
    counts = {"macs": macs(own, x) / len(x), "time": plain / first, "time_csr": csr / first}
    return {"test": task.score(own, "test"), **counts}


@dataclass(frozen=True)
class Drawn(Bypass):
    """As `Bypass`, with blocks that are drawn at random.

    Args:
        draw: the seed of the draw.
    """

    draw: int = 0

    def last(self, joint: Joint) -> None:
        """Let random numbers stand for the gates while blocks are chosen."""
        gates, drawn = (
            joint.extra["gates"],
            torch.rand(joint.choice.total, generator=generator_for("blocks", self.draw)),
        )
        learned = gates.clone()
        gates.copy_(drawn)
        super().last(joint)
        gates.copy_(learned)


def blocks(out: int, seed: int) -> Lines:
    """A trained ResNet-20 without some of its seven blocks of one shape; nothing is trained after the cut."""
    task, net = digits(seed, "resnet20", 8)
    fit(net, task, **trained(30, seed))
    names = find_blocks(net, task.parts["test"][0][:1])
    assert len(names) == 7
    options = trained(40, seed, lr=0.02)  # 90 steps in which gates choose
    axes: dict[str, Any] = {"pattern": Modules(names)}
    run = partial(train, net, task, "blocks", keep=f"{7 - out}/7", **options)
    tried = {
        strength: run(axes={**axes, "rule": Bypass(distance=strength, until=1.0)}).metrics for strength in (0.1, 1.0)
    }
    best = max(tried, key=lambda strength: tried[strength]["val"])
    rules = {
        "gates alone": Bypass(distance=0.0, until=1.0),
        "random blocks + distance": Drawn(distance=best, until=1.0, draw=seed),
        "random blocks": Drawn(distance=0.0, until=1.0, draw=seed),
    }
    found = {"gates + distance": {"test": tried[best]["test"]}}
    found |= {name: {"test": run(axes={**axes, "rule": rule}).metrics["test"]} for name, rule in rules.items()}
    return found | {"all blocks": {"test": task.score(net, "test")}}


def filters(seed: int) -> Lines:
    """Half of the filters of a ResNet-8 by group penalties from scratch, beside DepGraph's penalty at as many FLOPs.

    Every line has 40 epochs; whatever cuts does so after 30 of them.
    """
    task, net = digits(seed, "resnet8", 16)
    x = task.parts["test"][0][:1]
    units = find_units(NetworkGraph.from_module(net, x))
    channels, whole = Coupled(units.map), count_flops(net, (x,))
    found, budgets = {}, {}
    for method in ("group-lasso", "group-envelope"):
        result = train(net, task, method, keep=0.5, axes={"pattern": channels}, **trained(40, seed))
        kept = channels.bind(net).kept_units(result.masks)
        small, _ = shrink(NetworkGraph.from_module(result.module, x), stays(units.unit_of, kept), x)
        budgets[method] = count_flops(small, (x,))
        found[method] = {"test": task.score(small, "test"), "flops": budgets[method] / whole}
    dense = copy.deepcopy(net)
    fit(dense, task, **trained(40, seed))
    begun = {"lr": 0.1, "batch_size": 128}
    for method, flops in budgets.items():
        for name, criterion in (("GroupSparsity", "sparse-learning"), ("group-l2", "group-l2")):
            start = copy.deepcopy(net)
            if criterion == "group-l2":
                FineTune(30, **begun).run(start, task, seed=seed)
            result = prune(
                start,
                None,
                task,
                flops=flops,
                criterion=criterion,
                distribution="global",
                prepare=FineTune(30, **begun),
                fine_tune=FineTune(10, lr=0.05, batch_size=128),
                seed=seed,
            )
            line = {"test": result.accuracy, "flops": result.flops[1] / whole}
            found[f"{name}, FLOPs of {method}"] = line
    return found | {"dense": {"test": task.score(dense, "test"), "flops": 1.0}}
