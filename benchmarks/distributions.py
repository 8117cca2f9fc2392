"""What one pool of all weights does to a layer, and what other distributions do: an MLP on digits, a GIN on molecules.

    python benchmarks/distributions.py            # prints two tables, writes results/distributions.json

Digits: ``Sequential(Linear(64, 256), ReLU, Linear(256, 256), ReLU, Linear(256, 10))``, SGD 0.1, batches of 64 of 1000
images (300 validate, 497 test, drawn by the seed), projected after each step to a tenth of all weights. Molecules:
TEDDY on ogbg-molesol at level 20 (edges 0.95^20, weights 0.9^20), the setting of docs/tickets.md. Test figures at the
best validation epoch, a mean and a 95 % half width over seeds.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.table import Table
from torch import nn

from graphsparse.data import load
from graphsparse.fit import Task, fit, mean_ci
from graphsparse.params import L0Projection
from graphsparse.tickets import Training, train_dense
from graphsparse.tickets.compare.search import level_keeps
from graphsparse.tickets.compare.setup import problem_of
from graphsparse.tickets.make import make_ticket

DISTRIBUTIONS = ("global", "uniform", "er", "erk")


def mlp(seed: int) -> nn.Sequential:
    """The network of the issue."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def digits(sparsity: float, epochs: int, seed: int, distribution: str | None) -> dict[str, Any]:
    """Test accuracy of one run, and how many weights each layer keeps; ``None`` trains the dense network."""
    data = load("digits-knn")
    order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(seed))
    parts = [(data.x[part], data.y[part]) for part in (order[:1000], order[1000:1300], order[1300:])]
    net = mlp(seed)
    projection = None if distribution is None else L0Projection(net, sparsity, distribution=distribution)
    result = fit(
        net,
        Task(*parts, batch_size=64),
        epochs=epochs,
        lr=0.1,
        seed=seed,
        optimizer=lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr=lr),
        callbacks=[] if projection is None else [projection],
        progress=False,
    )
    masks = {} if projection is None else projection.masks
    layers = [sum(int(mask.sum()) for name, mask in masks.items() if name[0] == layer) for layer in "024"]
    return {"test": result.test, "layers": layers, "seed": seed}


def molecules(epochs: int, seed: int, distributions: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Test errors of TEDDY's tickets, and the smallest share of its weights that any matrix keeps."""
    found: dict[str, dict[str, Any]] = {}
    for distribution in distributions:
        training = Training(epochs=epochs, lr=0.001, weight_decay=0.0, distribution=distribution)
        problem = problem_of(
            load("ogbg-molesol"),
            model="gin",
            hidden=64,
            seed=seed,
            training=training,
            protocol="inductive",
            progress=False,
        )
        dense = train_dense(problem)
        ticket = make_ticket(problem, dense, "teddy", *level_keeps(20))
        least = min(float(mask.float().mean()) for mask in ticket.weight_masks.values() if mask.dim() > 1)
        outputs = float(ticket.logits.std())
        found[distribution] = {"test": ticket.metrics["test"], "least": least, "spread": outputs, "seed": seed}
        found.setdefault("dense", {"test": dense.test, "seed": seed})
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and half width of the test figure, beside the rows."""
    mean, half = mean_ci([row["test"] for row in rows])
    return {"test": mean, "ci95": half, "rows": rows}


def table(results: dict[str, Any]) -> Table:
    """What is printed."""
    shown = Table("weights", "digits accuracy %", "kept by layer (seed 0)", "ESOL test RMSE", "least share of a matrix")
    for name in ("dense", *DISTRIBUTIONS):
        one, other = results["digits"][name], results["molecules"].get(name)
        rmse = "-" if other is None else f"{other['test']:.3f} ± {other['ci95'] or 0:.3f}"
        least = "-" if other is None or name == "dense" else f"{min(row['least'] for row in other['rows']):.2%}"
        layers = "-" if name == "dense" else " / ".join(map(str, one["rows"][0]["layers"]))
        shown.add_row(name, f"{100 * one['test']:.1f} ± {100 * (one['ci95'] or 0):.1f}", layers, rmse, least)
    return shown


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--epochs", type=int, default=100, help="of digits")
    parser.add_argument("--molecule-epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "distributions.json")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "hardly anything is left")
    settings = {"sparsity": given.sparsity, "epochs": given.epochs, "molecule_epochs": given.molecule_epochs}
    results: dict[str, Any] = provenance("distributions") | settings
    results["digits"] = {
        name or "dense": summary([digits(given.sparsity, given.epochs, seed, name) for seed in range(given.seeds)])
        for name in (None, *DISTRIBUTIONS)
    }
    seeds = [molecules(given.molecule_epochs, seed, DISTRIBUTIONS) for seed in range(given.seeds)]
    results["molecules"] = {name: summary([seed[name] for seed in seeds]) for name in seeds[0]}
    Console().print(table(results))
    write_json(given.out, results)


if __name__ == "__main__":
    main()
