"""Time of the exact l0 projection beside torch.topk over all weights at once, and beside a training step.

    python benchmarks/params.py            # prints a table, writes results/params.json

Every figure is a median in milliseconds; the contenders take turns on the same weights in the same run. ``topk`` is the
usual recipe (join the magnitudes, torch.topk, scatter a mask, zero the rest), ``topk call`` its one call of torch.topk.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import RESULTS, provenance, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from graphsparse.data import load
from graphsparse.keep_rule import kept_count
from graphsparse.params import L0Projection, project_l0_


def project_topk_(tensors: Sequence[Tensor], keep: float) -> list[Tensor]:
    """The same projection through torch.topk, which leaves open which of several ties it keeps."""
    flat = torch.cat([tensor.abs().reshape(-1) for tensor in tensors])
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.topk(kept_count(keep, len(flat)), sorted=False).indices] = True
    masks = [part.view(t.shape) for part, t in zip(kept.split([t.numel() for t in tensors]), tensors, strict=True)]
    for tensor, mask in zip(tensors, masks, strict=True):
        tensor.masked_fill_(~mask, 0)
    return masks


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - start)


def by_size(total: int, keep: float, repeats: int, seed: int) -> dict[str, Any]:
    """Both projections of ``total`` normal weights in four tensors of unequal sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [total // 2, total // 4, total // 8, total - total // 2 - total // 4 - total // 8]
    originals = [0.03 * torch.randn(size, generator=generator) for size in sizes]
    tensors = [tensor.clone() for tensor in originals]
    flat = torch.cat([tensor.abs() for tensor in originals])
    agree = all(map(torch.equal, project_l0_(tensors, keep), project_topk_([t.clone() for t in originals], keep)))
    times: dict[str, list[float]] = {"projection": [], "topk": [], "topk_call": []}
    for _ in range(repeats):
        for name, project in (("projection", project_l0_), ("topk", project_topk_)):
            torch._foreach_copy_(tensors, originals)
            times[name].append(timed(lambda project=project: project(tensors, keep)))
        times["topk_call"].append(timed(lambda: flat.topk(kept_count(keep, total), sorted=False)))
    return summary(times) | {"weights": total, "masks_agree": agree, "repeats": repeats}


class PlainGCN(nn.Module):
    """Two layers of PyG's own GCNConv, as in the TEDDY paper."""

    def __init__(self, data: Data, hidden: int) -> None:
        super().__init__()
        self.first = GCNConv(data.num_features, hidden)
        self.second = GCNConv(hidden, int(data.y.max()) + 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = nn.functional.dropout(self.first(x, edge_index).relu(), 0.5, self.training)
        return self.second(x, edge_index)


def in_training(hidden: int, keep: float, steps: int, seed: int) -> dict[str, Any]:
    """Both projections of the same weights after each Adam step of a GCN on Cora; training goes on from ours."""
    torch.manual_seed(seed)
    data = load("cora")
    model = PlainGCN(data, hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    projection = L0Projection(model, sparsity=f"{1 - keep:.6f}")

    def step() -> None:
        optimizer.zero_grad()
        output = model(data.x, data.edge_index)
        nn.functional.cross_entropy(output[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()

    times: dict[str, list[float]] = {"step": [], "projection": [], "topk": [], "topk_call": []}
    for _ in range(steps):
        times["step"].append(timed(step))
        rivals = [parameter.detach().clone() for parameter in model.parameters()]
        flat = torch.cat([tensor.abs().view(-1) for tensor in rivals])
        times["topk_call"].append(timed(lambda flat=flat: flat.topk(kept_count(keep, len(flat)), sorted=False)))
        times["topk"].append(timed(lambda rivals=rivals: project_topk_(rivals, keep)))
        times["projection"].append(timed(projection.apply))
    warm = {name: values[min(3, steps // 2) :] for name, values in times.items()}
    result = summary(warm)
    result["projection_share_of_step"] = result["ms"]["projection"] / result["ms"]["step"]
    return result | {"hidden": hidden, "weights": projection.total, "steps": steps}


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and the factors by which the projection is faster."""
    ms = {name: median(values) for name, values in times.items()}
    spread = {name: [min(values), max(values)] for name, values in times.items()}
    faster = {f"faster_than_{name}": ms[name] / ms["projection"] for name in ("topk", "topk_call")}
    return {"ms": ms, "ms_range": spread, **faster}


def table(results: dict[str, Any]) -> Table:
    """What is printed."""
    shown = Table("weights", "projection", "topk", "topk call", "x topk", "x topk call", title="l0 projection, ms")
    training = results["training"]
    for row in [training, *results["sizes"]]:
        name = f"{row['weights']:,}" + (" (GCN)" if row is training else "")
        times = [f"{row['ms'][contender]:.3f}" for contender in ("projection", "topk", "topk_call")]
        shown.add_row(name, *times, f"{row['faster_than_topk']:.1f}", f"{row['faster_than_topk_call']:.1f}")
    share = f"{training['projection_share_of_step']:.1%} of a training step of {training['ms']['step']:.1f} ms"
    shown.caption = f"GCN: Cora, plain PyG, {training['hidden']} hidden units; the projection is {share}"
    return shown


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7, 1e8])
    parser.add_argument("--keep", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=15, help="of each size; fewer from 1e8 on")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "params.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results: dict[str, Any] = provenance("params") | {"seed": given.seed, "threads": given.threads, "keep": given.keep}
    results["training"] = in_training(given.hidden, given.keep, given.steps, given.seed)
    results["sizes"] = []
    for size in map(int, given.sizes):
        repeats = given.repeats if size < 10**8 else min(given.repeats, 5)
        results["sizes"].append(by_size(size, given.keep, repeats, given.seed))
        gc.collect()
    Console().print(table(results))
    write_json(given.out, results)


if __name__ == "__main__":
    main()
