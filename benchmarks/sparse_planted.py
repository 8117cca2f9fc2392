"""Planted networks: whether the weights that made the data are found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from sparse_problem import Lines
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.fit import Metric, Task, cosine
from graphsparse.fit.rng import generator_for
from graphsparse.params import project_mask, recover
from graphsparse.sparse import soup

EXAMPLES = 2000


class Planted(nn.Module):
    """A ReLU layer whose neurons are added with given signs.

    Args:
        weights: ``[p, d]``.
        signs: ``[p]``, fixed.
    """

    def __init__(self, weights: Tensor, signs: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights)
        self.register_buffer("signs", signs)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs ``[n, d]`` to outputs ``[n]``."""
        return (x @ self.weight.T).relu() @ self.signs


def planted(neurons: int, inputs: int, s: int, seed: int) -> tuple[Task, Planted]:
    """Gaussian inputs with the outputs of a network of s Gaussian weights, and that network; float64."""
    draw = generator_for(f"planted {neurons} {inputs} {s}", seed)
    weights = torch.zeros(neurons * inputs, dtype=torch.float64)
    weights[torch.randperm(neurons * inputs, generator=draw)[:s]] = torch.randn(s, generator=draw, dtype=torch.float64)
    signs = torch.where(torch.arange(neurons) % 2 == 0, 1.0, -1.0).double()
    net = Planted(weights.view(neurons, inputs), signs)
    parts = []
    for _ in range(3):
        x = torch.randn(EXAMPLES, inputs, generator=draw, dtype=torch.float64)
        parts.append((x, net(x).detach()))
    error = Metric("error", lambda found, y: float((found - y).square().mean() / y.square().mean()), maximize=False)
    return Task(*parts, loss=functional.mse_loss, metric=error, batch_size=500), net


def found_again(weights: Tensor, net: Planted) -> float:
    """The share of the planted weights that are found, with the neurons of one sign in the order that suits best."""
    both = (net.weight != 0).double() @ (weights != 0).double().T
    both[net.signs[:, None] != net.signs] = -1
    return float(both[linear_sum_assignment(both.numpy(), maximize=True)].sum()) / int(net.weight.count_nonzero())


def recovery(neurons: int, inputs: int, s: int, seed: int) -> Lines:
    """What `recover` finds of a planted network, and what training finds; each has two trials."""
    task, net = planted(neurons, inputs, s, seed)
    ways: dict[str, list[Callable[[], Tensor]]] = {
        "recover": [lambda draw=draw: recovered(task, net, s, draw) for draw in (0, 1)],
        "trained, cut once, trained": [lambda lr=lr: cut(task, net, s, lr, seed, rounds=1) for lr in (0.03, 0.1)],
        "IMP": [lambda lr=lr: cut(task, net, s, lr, seed, rounds=5) for lr in (0.03, 0.1)],
    }
    return {name: _best(task, net, trials) for name, trials in ways.items()}


def _best(task: Task, net: Planted, trials: list[Callable[[], Tensor]]) -> dict[str, float]:
    """The figures of the trial of least validation error, and the time of all."""
    start = time.process_time()
    each = [Planted(trial(), net.signs) for trial in trials]
    seconds = time.process_time() - start
    best = min(each, key=lambda own: task.score(own, "val"))
    return {"found": found_again(best.weight, net), "error": task.score(best, "test"), "seconds": seconds}


def recovered(task: Task, net: Planted, s: int, draw: int) -> Tensor:
    """The weights that `recover` gives."""
    x, y = task.parts["train"]
    return recover(x, y, f"{s}/{net.weight.numel()}", neurons=len(net.signs), signs=net.signs, seed=draw).weights()


def cut(task: Task, net: Planted, s: int, lr: float, seed: int, rounds: int) -> Tensor:
    """The weights of a network that is trained, cut to the largest and trained again, in rounds from its first weights.

    After the last cut of one round it goes on from the trained weights, of several (IMP) from the first.
    """
    p, d = net.weight.shape
    draw = generator_for("student", seed)
    own = Planted(torch.randn(p, d, generator=draw, dtype=torch.float64) / d**0.5, net.signs)
    mask = {"weight": torch.ones(p, d, dtype=torch.bool)}
    start = own
    for kept in (*_counts(p * d, s, rounds), None):
        options: dict[str, Any] = {"epochs": 40, "lr": lr, "weight_decay": 0.0, "seed": seed, "members": 1}
        done = soup(start, task, mask, callbacks=[cosine(40 * 4)], progress=False, **options).module
        if kept is not None:
            held = done.weight.detach().abs() * mask["weight"]
            mask = {"weight": project_mask({"weight": held}, f"{kept}/{p * d}")["weight"]}
            start = done if rounds == 1 else own
    assert isinstance(done, Planted)
    return done.weight.detach()


def _counts(total: int, s: int, rounds: int) -> Iterator[int]:
    """What is kept after each round: the same share of what was there."""
    for number in range(1, rounds + 1):
        yield round(total * (s / total) ** (number / rounds))
